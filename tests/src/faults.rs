//! [`Fault`]: a row of the fault table in docs/operations.md, written by the test that has seen it.

use std::{env, fmt, fs, panic::Location, path::PathBuf};

use serde::{Deserialize, Serialize};

/// A fault and its observed effect. A test records it when its checks have passed; the binary `fault-table` makes a
/// table of all of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[must_use = "a row that is not recorded is not in the table"]
pub struct Fault {
    fault: String,
    part: Part,
    seen: String,
    test: String,
    figures: String,
}

/// The part of the cluster in which a fault is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    /// The bus, `redis.mode: streams`.
    Streams,
    /// The bus, `redis.mode: pubsub`.
    PubSub,
    /// The list of online users, in both modes.
    Presence,
    /// Kicks and revocations, in both modes.
    Kicks,
    /// Logins of Java nodes.
    Logins,
}

impl Fault {
    /// Creates a row from the observed effect of a fault; the test is the caller's file.
    ///
    /// # Panics
    /// When the text would break the table.
    #[track_caller]
    pub fn new(fault: &str, part: Part, seen: &str) -> Self {
        assert!(!fault.contains('|') && !seen.contains('|'), "`|` ends a cell");
        let file = Location::caller().file();
        let test = file.rsplit_once("tests/tests/").map_or(file, |(_, path)| path).to_owned();
        Self { fault: fault.to_owned(), part, seen: seen.to_owned(), test, figures: String::new() }
    }

    /// Adds measured figures. They may differ from run to run.
    pub fn figures(mut self, figures: impl fmt::Display) -> Self {
        self.figures = figures.to_string().replace('|', "/");
        self
    }

    /// Writes the row. To be called when everything in it has been checked.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[allow(clippy::print_stdout, reason = "a test's figures")]
    pub fn record(self) {
        println!("{self}");
        let folder = Self::folder();
        fs::create_dir_all(&folder).unwrap();
        let name = format!("{:?} {}", self.part, self.fault);
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let json = serde_json::to_string_pretty(&self).unwrap();
        fs::write(folder.join(name.to_lowercase()).with_extension("json"), json).unwrap();
    }

    /// The rows that were recorded, as they are in the table.
    ///
    /// # Panics
    /// When a file cannot be read.
    pub fn recorded() -> Vec<Self> {
        let Ok(files) = fs::read_dir(Self::folder()) else { return Vec::new() };
        let read = |path: PathBuf| serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let mut rows: Vec<Self> = files.map(|file| read(file.unwrap().path())).collect();
        rows.sort();
        rows
    }

    /// A row without its figures, as it has to be in the table.
    pub fn without_figures(line: &str) -> String {
        let cells = line.split(" | ").enumerate().filter(|(n, _)| *n != FIGURES);
        cells.map(|(_, cell)| cell).collect::<Vec<_>>().join(" | ")
    }

    /// The first two lines of the table.
    pub const HEAD: &str = "| fault | part | what is seen | measured | test |\n|---|---|---|---|---|";

    fn folder() -> PathBuf {
        let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        target.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../target").into()).join("faults")
    }
}

/// The cell of the figures.
const FIGURES: usize = 3;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, part, seen, test, figures } = self;
        write!(f, "| {fault} | {part} | {seen} | {figures} | `{test}` |")
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Streams => "`streams`",
            Self::PubSub => "`pubsub`",
            Self::Presence => "presence",
            Self::Kicks => "kicks",
            Self::Logins => "Sa-Token",
        })
    }
}

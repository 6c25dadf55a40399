//! [`Generated`]: the part of a page that a program writes.

use std::{env, fs, process::ExitCode};

/// The lines of a page between `<!-- The tests write this table: name -->` and `<!-- end of name -->`.
#[derive(Debug)]
pub struct Generated {
    path: String,
    before: String,
    after: String,
    /// The text that is there now.
    pub text: String,
}

impl Generated {
    /// Finds the part of that name in a page of `docs`.
    ///
    /// # Errors
    /// Where the page cannot be read, or has no such part.
    pub fn find(page: &str, name: &str) -> Result<Self, String> {
        let path = format!("{}/../docs/{page}", env!("CARGO_MANIFEST_DIR"));
        let content = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let begin = format!("<!-- The tests write this table: {name} -->\n");
        let end = format!("<!-- end of {name} -->");
        let (before, rest) = content.split_once(&begin).ok_or(format!("{path}: no line {begin}"))?;
        let (text, after) = rest.split_once(&end).ok_or(format!("{path}: no line {end}"))?;
        Ok(Self {
            before: format!("{before}{begin}"),
            after: format!("{end}{after}"),
            text: text.to_owned(),
            path,
        })
    }

    /// Writes the page with another text there.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn replace(&self, text: &str) -> Result<(), String> {
        let Self { path, before, after, .. } = self;
        fs::write(path, format!("{before}{text}{after}")).map_err(|error| format!("{path}: {error}"))
    }
}

/// Runs a program that writes such a part, or with `--check` only compares it.
#[allow(clippy::print_stderr, reason = "it is a program's")]
pub fn run_generator(name: &str, run: impl FnOnce(bool) -> Result<(), String>) -> ExitCode {
    match run(env::args().nth(1).is_some_and(|argument| argument == "--check")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{name}: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// The lines that only one of two texts has, each after its mark: `-` those of the page, `+` those of the tests.
pub fn difference(page: &[String], tests: &[String]) -> String {
    let only = |mark: &str, of: &[String], other: &[String]| {
        let lines = of.iter().filter(|line| !other.contains(line));
        lines.map(|line| format!("\n{mark} {line}")).collect::<String>()
    };
    only("-", page, tests) + &only("+", tests, page)
}

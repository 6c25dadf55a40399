//! [`Exposition`]: what `/metrics` answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    process::{Command, Stdio},
};

/// Answer of `/metrics`, read.
pub(super) struct Exposition {
    pub(super) text: String,
    types: BTreeMap<String, String>,
    series: Vec<Series>,
}

struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// A metric's type, and the names of its labels.
pub(super) type Metric = (String, BTreeSet<String>);

impl Exposition {
    pub(super) fn parse(text: String) -> Self {
        let (mut types, mut series) = (BTreeMap::new(), Vec::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(line) = line.strip_prefix("# TYPE ") {
                let (name, kind) = line.split_once(' ').unwrap();
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            } else if !line.starts_with('#') {
                series.push(Series::parse(line));
            }
        }
        Self { text, types, series }
    }

    /// The sum of all series of a name that have these labels.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.values(name, labels).iter().sum()
    }

    /// The values of all series of a name that have these labels.
    pub(super) fn values(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let has = |series: &&Series| {
            let has_label =
                |(name, value): &(&str, &str)| series.labels.get(*name).is_some_and(|own| own == value);
            series.name == name && labels.iter().all(has_label)
        };
        self.series.iter().filter(has).map(|series| series.value).collect()
    }

    /// Each metric, with its type and its labels.
    pub(super) fn metrics(&self) -> BTreeMap<String, Metric> {
        let mut metrics = BTreeMap::new();
        for (name, kind) in &self.types {
            let is_own = |series: &&Series| match kind.as_str() {
                "histogram" => series
                    .name
                    .strip_prefix(name.as_str())
                    .is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest)),
                _ => series.name == *name,
            };
            let own = self.series.iter().filter(is_own);
            let labels = own.flat_map(|series| series.labels.keys().cloned()).filter(|label| label != "le");
            metrics.insert(name.clone(), (kind.clone(), labels.collect()));
        }
        metrics
    }

    /// Has `promtool` check form and names.
    pub(super) fn check(&self) {
        let mut command = Command::new("promtool");
        command.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("promtool is installed (apt package prometheus)");
        child.stdin.take().unwrap().write_all(self.text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let problems = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && problems.is_empty(), "{problems}\n{}", self.text);
    }
}

impl Series {
    fn parse(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}').unwrap();
        // No value of a label here has a comma or a quote.
        let label = |label: &str| {
            let (name, value) = label.split_once('=').unwrap();
            (name.to_owned(), value.trim_matches('"').to_owned())
        };
        let labels = labels.split(',').filter(|label| !label.is_empty()).map(label).collect();
        Self { name: name.to_owned(), labels, value: value.parse().unwrap() }
    }
}

/// The metrics in the table of docs/operations.md.
pub(super) fn documented() -> BTreeMap<String, Metric> {
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md")).unwrap();
    let begin = docs.find("\n## Metrics\n").expect("a chapter about metrics");
    let chapter = &docs[begin + 1..];
    let chapter = &chapter[..chapter.find("\n## ").unwrap_or(chapter.len())];
    let rows =
        chapter.lines().filter(|line| line.starts_with("| `realtime_") || line.starts_with("| `process_"));
    let metric = |row: &str| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, name, kind, labels, meaning, _] = cells[..] else { panic!("{row}") };
        assert!(!meaning.is_empty(), "{row}");
        let words = labels.split(|c: char| !c.is_ascii_lowercase() && c != '_');
        let labels = words.filter(|word| !word.is_empty()).map(str::to_owned).collect();
        (name.trim_matches('`').to_owned(), (kind.to_owned(), labels))
    };
    let metrics: BTreeMap<_, _> = rows.map(metric).collect();
    assert!(metrics.len() > 40, "{metrics:?}");
    metrics
}

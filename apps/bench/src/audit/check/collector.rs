//! [`Collector`]: counts the violations that a check finds.

use std::collections::HashMap;

use super::archive::Archive;
use crate::audit::{counts::Counts, fault::Fault};

/// The checker's result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Verdict {
    pub(crate) rows: Vec<Row>,
    /// Descriptions of some violations.
    pub(crate) examples: Vec<String>,
}

/// Counts for one kind of fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Number of times the fault was injected.
    pub(crate) times: u32,
    pub(crate) counts: Counts,
}

/// Number of violations of one kind that are described, per fault.
const EXAMPLES: u32 = 3;

impl Verdict {
    /// Returns the sum of all rows.
    pub(crate) fn total(&self) -> Counts {
        let mut total = Counts::default();
        for row in &self.rows {
            total += row.counts;
        }
        total
    }
}

/// A kind of violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Violation {
    Lost,
    Doubled,
    Inverted,
    Late,
    Stale,
    WrongUser,
    Malformed,
    FalseGap,
    CursorBack,
    Ended,
    Kick,
    Problem,
}

/// The verdict while violations are being collected.
#[derive(Debug)]
pub(super) struct Collector<'a> {
    archive: &'a Archive,
    verdict: Verdict,
    shown: HashMap<(Violation, &'static str), u32>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(archive: &'a Archive) -> Self {
        let names = ["start"].into_iter().chain(Fault::ALL.map(Fault::name)).chain(["quiet"]);
        let rows = names.map(|name| Row {
            name,
            times: archive.faults.iter().filter(|span| span.fault.name() == name).count() as u32,
            counts: Counts::default(),
        });
        let rows = rows.filter(|row| row.times > 0 || ["start", "quiet"].contains(&row.name)).collect();
        Self { archive, verdict: Verdict { rows, examples: Vec::new() }, shown: HashMap::new() }
    }

    pub(super) fn into_verdict(self) -> Verdict {
        self.verdict
    }

    /// Returns the counts of the fault that began last before a time.
    pub(super) fn at(&mut self, at: u64) -> &mut Counts {
        let name = self.archive.row_at(at);
        let rows = &mut self.verdict.rows;
        let index = rows.iter().position(|row| row.name == name).unwrap_or(0);
        &mut rows[index].counts
    }

    /// Counts a violation, and describes the first few of each kind and fault.
    pub(super) fn find(&mut self, at: u64, finding: Violation, words: impl FnOnce() -> String) {
        let counts = self.at(at);
        *match finding {
            Violation::Lost => &mut counts.lost,
            Violation::Doubled => &mut counts.doubled,
            Violation::Inverted => &mut counts.inverted,
            Violation::Late => &mut counts.late,
            Violation::Stale => &mut counts.stale,
            Violation::WrongUser => &mut counts.wrong_user,
            Violation::Malformed => &mut counts.malformed,
            Violation::FalseGap => &mut counts.false_gaps,
            Violation::CursorBack => &mut counts.cursors_back,
            Violation::Ended => &mut counts.ended,
            Violation::Kick => &mut counts.kicks,
            Violation::Problem => &mut counts.problems,
        } += 1;
        let row = self.archive.row_at(at);
        let shown = self.shown.entry((finding, row)).or_default();
        *shown += 1;
        if *shown <= EXAMPLES {
            self.verdict.examples.push(format!(
                "{finding:?} at {:.3} s ({row}): {}",
                at as f64 / 1e6,
                words()
            ));
        }
    }
}

//! [`check`]: judges a history. A pure function: the same history, the same verdict.

mod archive;
mod chain;
mod kicks;
mod positions;

use std::collections::HashMap;

use self::{archive::Archive, chain::Chain};
use crate::audit::{
    counts::Counts,
    fault::Fault,
    history::{Event, Record},
};

/// The checker's result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Verdict {
    pub(crate) rows: Vec<Row>,
    /// Some of the findings, in words.
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

/// Violations of one kind described in words, per fault.
const EXAMPLES: u32 = 3;

impl Verdict {
    /// All rows together.
    pub(crate) fn total(&self) -> Counts {
        let mut total = Counts::default();
        for row in &self.rows {
            total += row.counts;
        }
        total
    }
}

/// Judges a history.
pub(crate) fn check(records: &[Record]) -> Verdict {
    let archive = Archive::new(records);
    let mut collector = Collector::new(&archive);
    let mut chains: HashMap<u32, Chain<'_>> = HashMap::new();
    for Record { at, event } in records {
        match event {
            Event::Acknowledged { .. } => collector.at(*at).acknowledged += 1,
            Event::Unacknowledged { .. } => collector.at(*at).unacknowledged += 1,
            Event::Problem { what } => collector.find(*at, Violation::Problem, || what.clone()),
            Event::ChainBegins { chain, user, topics, behaviour } => {
                chains.insert(*chain, Chain::new(&archive, *chain, *user, topics, *behaviour));
            }
            Event::ChainEnds { chain } => {
                if let Some(chain) = chains.remove(chain) {
                    chain.close(&mut collector);
                }
            }
            Event::Dial { chain, .. }
            | Event::Hello { chain, .. }
            | Event::Message { chain, .. }
            | Event::Beat { chain, .. }
            | Event::Gap { chain, .. }
            | Event::Malformed { chain, .. }
            | Event::Stall { chain }
            | Event::End { chain, .. } => {
                if let Some(chain) = chains.get_mut(chain) {
                    chain.see(*at, event, &mut collector);
                }
            }
            _ => {}
        }
    }
    let mut left: Vec<_> = chains.into_values().collect();
    left.sort_by_key(Chain::number);
    for chain in left {
        chain.finish(&mut collector);
    }
    positions::check(records, &mut collector);
    kicks::check(records, &archive, &mut collector);
    collector.verdict
}

/// A kind of violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Violation {
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

/// Enters findings where they belong.
#[derive(Debug)]
struct Collector<'a> {
    archive: &'a Archive,
    verdict: Verdict,
    told: HashMap<(Violation, &'static str), u32>,
}

impl<'a> Collector<'a> {
    fn new(archive: &'a Archive) -> Self {
        let names = ["start"].into_iter().chain(Fault::ALL.map(Fault::name)).chain(["quiet"]);
        let rows = names.map(|name| Row {
            name,
            times: archive.faults.iter().filter(|span| span.fault.name() == name).count() as u32,
            counts: Counts::default(),
        });
        let rows = rows.filter(|row| row.times > 0 || ["start", "quiet"].contains(&row.name)).collect();
        Self { archive, verdict: Verdict { rows, examples: Vec::new() }, told: HashMap::new() }
    }

    /// The counts of the fault that began last.
    fn at(&mut self, at: u64) -> &mut Counts {
        let name = self.archive.row_at(at);
        let rows = &mut self.verdict.rows;
        let index = rows.iter().position(|row| row.name == name).unwrap_or(0);
        &mut rows[index].counts
    }

    fn find(&mut self, at: u64, finding: Violation, words: impl FnOnce() -> String) {
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
        let told = self.told.entry((finding, row)).or_default();
        *told += 1;
        if *told <= EXAMPLES {
            self.verdict.examples.push(format!(
                "{finding:?} at {:.3} s ({row}): {}",
                at as f64 / 1e6,
                words()
            ));
        }
    }
}

#[cfg(test)]
mod tests;

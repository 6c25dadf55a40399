//! [`check`]: judges a history. A pure function: the same history, the same verdict.

mod archive;
mod chain;
mod collector;
mod kicks;
mod positions;

use std::collections::HashMap;

pub(crate) use self::collector::Verdict;
use self::{
    archive::Archive,
    chain::Chain,
    collector::{Collector, Violation},
};
use crate::audit::history::{Event, Record};

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
    let is_acknowledged = |record: &Record| matches!(record.event, Event::Acknowledged { .. });
    if let Some(quiet) = records.iter().find(|record| matches!(record.event, Event::Quiet))
        && !records.iter().any(|record| record.at < quiet.at && is_acknowledged(record))
    {
        collector.find(quiet.at, Violation::Problem, || {
            "no message was acknowledged before the quiet phase".to_owned()
        });
    }
    positions::check(records, &mut collector);
    kicks::check(records, &archive, &mut collector);
    collector.into_verdict()
}

#[cfg(test)]
mod tests;

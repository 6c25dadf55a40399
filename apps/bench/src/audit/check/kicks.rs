//! Checks that kicks are final and that messages acknowledged before a kick were delivered.

use std::collections::{HashMap, HashSet};

use super::{
    archive::{Archive, SECOND},
    collector::{Collector, Violation},
};
use crate::audit::history::{Cursor, End, Event, Record};

/// Maximum lifetime of a session after the kick was confirmed.
const PROMPT: u64 = 5 * SECOND;

/// The same, when nodes had not confirmed it: they were stopped or cut off, and have to come back first.
const OVERDUE: u64 = 25 * SECOND;

#[derive(Debug, Default)]
struct Watched {
    got: HashSet<u64>,
    /// The furthest cursor of a gap: what lies before is announced to be missing, and is judged with the gap.
    announced: Option<Cursor>,
    end: Option<(u64, End)>,
}

pub(super) fn check(records: &[Record], archive: &Archive, collector: &mut Collector<'_>) {
    let mut watched: HashMap<u32, Watched> = HashMap::new();
    for Record { event, .. } in records {
        if let Event::Kicked { chains, .. } = event {
            watched.extend(chains.iter().map(|chain| (*chain, Watched::default())));
        }
    }
    for Record { at, event } in records {
        match event {
            Event::Message { chain, n, .. } => {
                if let Some(watched) = watched.get_mut(chain) {
                    watched.got.insert(*n);
                }
            }
            Event::Gap { chain, cursor, .. } => {
                if let Some(watched) = watched.get_mut(chain) {
                    watched.announced = (*cursor).max(watched.announced);
                }
            }
            Event::End { chain, end } => {
                if let Some(watched) = watched.get_mut(chain) {
                    watched.end = Some((*at, end.clone()));
                }
            }
            _ => {}
        }
    }
    let mut kicked: HashMap<u32, (u64, &[String])> = HashMap::new();
    for Record { at, event } in records {
        match event {
            Event::Kicked { chains, user, missing, why } => {
                kicked.insert(*user, (*at, missing));
                for chain in chains {
                    judge(*chain, &watched[chain], *at, missing, *why, archive, collector);
                }
            }
            Event::TokenProbed { user, node, transport, began, let_in: true, kept } => {
                let Some((when, missing)) = kicked.get(user) else { continue };
                // Only the nodes of its sessions know the token: while one has not confirmed the kick, it may be accepted on
                // each, but has to be refused in the end.
                if (*kept || missing.is_empty()) && !archive.lost_data(*when, *at) {
                    let ago = began.saturating_sub(*when) as f64 / 1e6;
                    collector.find(*at, Violation::Kick, || {
                        let kept = if *kept { "and kept" } else { "and ended later" };
                        format!(
                            "user {user} was let in by node {node} ({transport:?}) {ago:.3} s after its kick, which \
                             {missing:?} had not confirmed, {kept}"
                        )
                    });
                }
            }
            _ => {}
        }
    }
}

fn judge(
    chain: u32,
    watched: &Watched,
    kicked: u64,
    missing: &[String],
    why: Option<u64>,
    archive: &Archive,
    collector: &mut Collector<'_>,
) {
    let limit = kicked + if missing.is_empty() { PROMPT } else { OVERDUE };
    let end = watched.end.as_ref().map_or(archive.finish, |(at, _)| *at);
    let left = !matches!(&watched.end, Some((_, end)) if *end != End::Left);
    if (end > limit || (left && archive.finish > limit)) && !archive.lost_data(kicked, end) {
        collector.find(kicked, Violation::Kick, || {
            format!("chain {chain} lived for {:.1} s after its kick", end.saturating_sub(kicked) as f64 / 1e6)
        });
    }
    // Only an end that the kick has made: a connection that broke owes nothing.
    let by_kick = matches!(watched.end, Some((_, End::Closed(4409) | End::Ended)));
    let Some(n) = why.filter(|n| by_kick && !watched.got.contains(n)) else { return };
    let message = archive.messages.get(&n);
    let acknowledged = message.and_then(|message| message.acknowledged).unwrap_or(kicked);
    let announced =
        message.is_some_and(|message| message.cursor.is_some() && message.cursor <= watched.announced);
    if !announced && !archive.lost_data(acknowledged, end) {
        collector.find(kicked, Violation::Kick, || {
            format!("chain {chain} was ended before it got message {n}, acknowledged before the kick")
        });
    }
}

//! [`Archive`]: index of a history's messages, faults and positions.

use std::collections::HashMap;

use crate::audit::{
    fault::Fault,
    history::{Cursor, Event, Record, Target},
};

/// Index of a history's messages, faults and positions.
#[derive(Debug, Default)]
pub(super) struct Archive {
    /// Milliseconds since 1970 at the start.
    epoch_ms: u64,
    window: u64,
    pub(super) late: u64,
    pub(super) faults: Vec<Span>,
    quiet: Option<u64>,
    pub(super) finish: u64,
    trims: Vec<(u64, Cursor)>,
    pub(super) messages: HashMap<u64, Published>,
    /// Acknowledged messages of each target, by position.
    lists: HashMap<Target, Vec<Due>>,
    /// Positions of all acknowledged messages, and when they were asked for.
    positions: Vec<(Cursor, u64)>,
}

/// A fault and its time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) fault: Fault,
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// A message that was asked for.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) target: Target,
    pub(super) began: u64,
    /// Time of the acknowledgement, if there was one.
    pub(super) acknowledged: Option<u64>,
    pub(super) cursor: Option<Cursor>,
}

/// An acknowledged message that its target is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) cursor: Cursor,
    pub(super) n: u64,
    pub(super) began: u64,
    pub(super) acknowledged: u64,
}

/// A second, in microseconds.
pub(super) const SECOND: u64 = 1_000_000;

/// Time after a fault's end within which a new epoch may begin; the last node may detect it late.
const GRACE: u64 = 10 * SECOND;

/// Time after a fault's end within which deliveries may still be late.
const RECOVERY: u64 = 3 * SECOND;

/// Tolerance for messages leaving the window early: nodes check once a second, and the age is measured
/// from when the entry was read.
const WINDOW_SLACK: u64 = 2 * SECOND;

impl Archive {
    pub(super) fn new(records: &[Record]) -> Self {
        let mut archive = Self { finish: records.last().map_or(0, |last| last.at), ..Self::default() };
        for Record { at, event } in records {
            match event {
                Event::Run { epoch_ms, window_ms, late_ms, .. } => {
                    archive.epoch_ms = *epoch_ms;
                    archive.window = window_ms * 1000;
                    archive.late = late_ms * 1000;
                }
                Event::FaultBegins { fault, .. } => {
                    archive.faults.push(Span { fault: *fault, begin: *at, end: u64::MAX });
                }
                Event::FaultEnds { fault } => {
                    let open = archive.faults.iter_mut().rev().find(|span| span.fault == *fault);
                    if let Some(span) = open {
                        span.end = *at;
                    }
                }
                Event::Quiet => archive.quiet = Some(*at),
                Event::Finish => archive.finish = *at,
                Event::Trimmed { upto } => archive.trims.push((*at, *upto)),
                Event::Acknowledged { n, target, began, cursor } => {
                    let message = Published {
                        target: target.clone(),
                        began: *began,
                        acknowledged: Some(*at),
                        cursor: *cursor,
                    };
                    archive.messages.insert(*n, message);
                    if let Some(cursor) = *cursor {
                        let due = Due { cursor, n: *n, began: *began, acknowledged: *at };
                        archive.lists.entry(target.clone()).or_default().push(due);
                        archive.positions.push((cursor, *began));
                    }
                }
                Event::Unacknowledged { n, target, began, .. } => {
                    let message =
                        Published { target: target.clone(), began: *began, acknowledged: None, cursor: None };
                    archive.messages.insert(*n, message);
                }
                _ => {}
            }
        }
        for list in archive.lists.values_mut() {
            list.sort_unstable();
        }
        archive.positions.sort_unstable();
        archive
    }

    /// The name of the row that something at this time belongs to.
    pub(super) fn row_at(&self, at: u64) -> &'static str {
        if self.quiet.is_some_and(|quiet| quiet <= at) {
            return "quiet";
        }
        let begun = self.faults.partition_point(|span| span.begin <= at);
        begun.checked_sub(1).map_or("start", |last| self.faults[last].fault.name())
    }

    /// Messages due to a client that starts at `start` and was accepted at `hello`: those after its cursor, and those
    /// whose publish began after it was accepted.
    pub(super) fn due(&self, targets: &[Target], start: Cursor, hello: u64) -> Vec<Due> {
        let lists = targets.iter().filter_map(|target| self.lists.get(target));
        let mut due: Vec<_> =
            lists.flatten().filter(|due| due.cursor > start || due.began > hello).copied().collect();
        due.sort_unstable();
        due
    }

    /// Returns true if a fault was active, or had just ended, in the given interval.
    pub(super) fn disturbed(&self, from: u64, to: u64) -> bool {
        self.faults.iter().any(|span| span.begin <= to && from <= span.end.saturating_add(RECOVERY))
    }

    /// Returns true if Redis lost acknowledged data in the given interval.
    pub(super) fn lost_data(&self, since: u64, at: u64) -> bool {
        self.faults.iter().any(|span| span.fault.loses_data() && span.begin <= at && since <= span.end)
    }

    /// The reason that justifies a gap from `from` to `to` at the given time; `None` if nothing can be missing.
    pub(super) fn cause(&self, from: Option<Cursor>, to: Cursor, at: u64) -> Option<&'static str> {
        let Some(from) = from else {
            // A client that was never given a cursor, beside a new history.
            let broken = |span: &Span| span.fault.breaks_the_history() && span.begin <= at;
            return self.faults.iter().any(broken).then_some("epoch");
        };
        // A new history explains what is missing up to its begin, and no more.
        let epoch = from.epoch < to.epoch && self.may_begin(to.epoch);
        let from = if epoch { Cursor { epoch: to.epoch, offset: 0 } } else { from };
        let next = self.positions.partition_point(|&(cursor, _)| cursor <= from);
        let next = self.positions.get(next);
        if epoch && next.is_none_or(|&(cursor, _)| cursor > to) {
            return Some("epoch");
        }
        if self.trims.iter().any(|&(when, upto)| when <= at && from < upto) {
            return Some("trim");
        }
        next.filter(|(_, began)| began + self.window <= at + WINDOW_SLACK).map(|_| "window")
    }

    /// Returns true if a fault justifies this epoch. An epoch is the wall-clock time at which it began.
    fn may_begin(&self, epoch: u64) -> bool {
        let wall = |at: u64| self.epoch_ms.saturating_add(at / 1000);
        self.faults.iter().any(|span| {
            let last = wall(span.end.saturating_add(GRACE));
            span.fault.breaks_the_history() && (wall(span.begin).saturating_sub(1000)..=last).contains(&epoch)
        })
    }
}

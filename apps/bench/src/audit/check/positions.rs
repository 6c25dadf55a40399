//! Checks that the acknowledged positions form one total order.

use std::collections::HashMap;

use super::collector::{Collector, Violation};
use crate::audit::history::{Cursor, Event, Record};

/// No two messages share a position, and what was asked for after another one was acknowledged stands behind it.
pub(super) fn check(records: &[Record], collector: &mut Collector<'_>) {
    let mut taken: HashMap<Cursor, u64> = HashMap::new();
    // The highest position acknowledged so far, each time that it grew; times grow with the records.
    let mut highest: Vec<(u64, Cursor)> = Vec::new();
    for Record { at, event } in records {
        let Event::Acknowledged { n, began, cursor: Some(cursor), .. } = event else { continue };
        if let Some(other) = taken.insert(*cursor, *n) {
            collector.find(*at, Violation::Problem, || {
                format!("messages {other} and {n} were acknowledged at one position, {cursor}")
            });
        }
        let before = highest.partition_point(|(at, _)| at < began);
        if let Some((_, floor)) =
            before.checked_sub(1).map(|last| highest[last]).filter(|(_, floor)| floor > cursor)
        {
            collector.find(*at, Violation::Problem, || {
                format!(
                    "message {n} was acknowledged at {cursor}, though {floor} had been before it was sent"
                )
            });
        }
        if highest.last().is_none_or(|(_, last)| last < cursor) {
            highest.push((*at, *cursor));
        }
    }
}

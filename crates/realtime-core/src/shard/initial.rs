//! The initial entries of a session: what it gets first of the topics that it is in.

use std::sync::{Arc, atomic::Ordering};

use smallvec::SmallVec;

use crate::{
    Position, Topic,
    initial::{InitialEntries, StartPoint},
    log::{Content, Entry},
    node::Node,
    session::state::SessionState,
    shard::pass_stats::PassStats,
    wire::GapReason,
};

/// The entries that a session gets first of topics that it enters at `start`, each of them named once.
pub(super) fn initial_entries<'a>(
    node: &Node,
    session: &SessionState,
    topics: impl IntoIterator<Item = &'a Topic>,
    start: StartPoint,
) -> InitialEntries {
    let mut entries = InitialEntries::new();
    for topic in topics {
        let mut of_topic = InitialEntries::new();
        node.initial.iter().for_each(|source| source.entries(topic, start, &mut of_topic));
        for entry in of_topic {
            let Content::Envelope(envelope) = &entry.content else { continue };
            if envelope.scope().covers(session.transport()) && envelope.excluded() != Some(session.id) {
                entries.push(entry);
            }
        }
    }
    entries
}

/// The entries that a session gets first which has none of them yet: those of all of its topics.
pub(super) fn newcomer_entries(node: &Node, session: &SessionState, start: StartPoint) -> InitialEntries {
    if !node.has_initial() {
        return InitialEntries::new();
    }
    initial_entries(node, session, session.topics().iter().chain([&Topic::all()]), start)
}

/// Announces that the entries of the log from `seq` to before `first` have left the window before a session has read them, and
/// sends it what a session that begins gets: what it lacked of that is not told otherwise. A session that ends before them gets
/// none of that, and no cursor behind them either, so that its client gets it at the next begin.
pub(super) fn announce_lost(
    node: &Node,
    session: &SessionState,
    seq: u64,
    first: u64,
    stats: &mut PassStats,
) {
    let start = StartPoint { seq: first, position: node.log.cursor_at(first) };
    let initial = newcomer_entries(node, session, start);
    // As at a begin: no new cursor before the initial entries.
    let cursor = start.position.filter(|_| initial.is_empty());
    stats.announce(session, GapReason::History, cursor, node.log.since(seq));
    let ends_before = session.outbox.hold().is_some_and(|end| Some(end) < start.position);
    if !initial.is_empty() && !ends_before {
        send_initial(session, &initial, stats);
        send_cursor(node, session, start.position);
    }
}

/// Sends the cursor behind initial entries, with a heartbeat.
pub(super) fn send_cursor(node: &Node, session: &SessionState, cursor: Option<Position>) {
    if let Some(cursor) = cursor {
        let down = node.bus_down();
        session.outbox.force(&session.wire().wire.heartbeat(Some(cursor), session.bus_state(down)));
        session.told_down.store(down.is_some(), Ordering::Relaxed);
    }
}

/// Sends a session its initial entries. If there are more than its outbox may hold, that is announced as a gap.
pub(super) fn send_initial(session: &SessionState, entries: &[Arc<Entry>], stats: &mut PassStats) {
    let frames = entries.iter().filter_map(|entry| entry.encode(session.wire()).cloned());
    let frames: SmallVec<[_; 1]> = frames.collect();
    let dropped = session.outbox.send_initial(&frames);
    if let Some(trace) = &stats.trace {
        trace.initial(session, frames.len() - dropped, dropped);
    }
    stats.delivered += (frames.len() - dropped) as u64;
    if dropped > 0 {
        stats.local_dropped += dropped as u64;
        stats.announce(session, GapReason::Overflow, None, None);
    }
}

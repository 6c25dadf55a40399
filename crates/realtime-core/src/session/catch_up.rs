//! Catching up: a session reads the log itself until it reaches its shard's sequence number.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::state::SessionState;
#[cfg(feature = "opentelemetry")]
use crate::write_spans::RunSpans;
use crate::{
    Position,
    log::{Content, LeftOut, Read},
    node::Node,
    shard::{
        Join, Shard,
        pass_stats::{PassStats, wall_time},
    },
    trace::{Sent, Watch},
    wire::GapReason,
};

/// Next step of a session that is catching up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CatchUp {
    /// Its outbox has frames, or it is live again.
    GoOn,
    /// It read many entries and found none for it: other tasks get a turn.
    Yield,
    /// It has reached the end of the log, and its own end waits for more.
    Wait,
}

/// Entries that a session reads before other tasks get a turn.
pub(crate) const CATCH_UP_ENTRIES: usize = 1024;

/// Advances a catching-up session from `seq`: it joins its shard's passes if it has reached them, and reads on in the
/// log otherwise.
pub(super) fn catch_up(shard: &Shard, session: &Arc<SessionState>, seq: u64) -> CatchUp {
    match shard.try_join(session, seq) {
        Join::Done => CatchUp::GoOn,
        Join::Waiting => CatchUp::Wait,
        Join::Behind { entries, until } => {
            let entries = CATCH_UP_ENTRIES.min(usize::try_from(entries).unwrap_or(usize::MAX));
            read_on(shard, session, seq, entries, until)
        }
    }
}

/// Queues a session's messages from the next `entries` of the log, as far as the outbox has room.
fn read_on(
    shard: &Shard,
    session: &Arc<SessionState>,
    seq: u64,
    entries: usize,
    until: Option<Position>,
) -> CatchUp {
    let node = &shard.node;
    let Node { log, metrics, settings, .. } = &**node;
    let read = log.read(seq, entries);
    let mut stats = PassStats::of(node);
    if read.first > seq {
        shard.skip_lost(session, seq, read.first, &mut stats);
    }
    session.outbox.begin_read();
    let topics = session.reads();
    let mut frames: Vec<(u64, Bytes)> = Vec::new();
    let mut gaps: SmallVec<[(usize, GapReason); 4]> = SmallVec::new();
    let mut left_out: Vec<(u64, LeftOut)> = Vec::new();
    let mut tally = None;
    let (mut next, mut bytes) = (read.first, 0);
    for entry in &read.entries {
        // The session's end may lie within a gap or a skipped range: it comes behind that.
        if until.is_some() && entry.position > until && matches!(entry.content, Content::Envelope(_)) {
            break;
        }
        let frame = match &entry.content {
            Content::Envelope(_) if entry.is_for(session.id, session.transport(), &topics) => {
                match entry.left_out().filter(|reason| is_in_time(*reason, &read, until)) {
                    None => entry.encode(session.wire()).cloned(),
                    Some(reason) => {
                        left_out.push((next, reason));
                        None
                    }
                }
            }
            Content::Envelope(_) | Content::Skip => None,
            Content::Gap(reason) => {
                let since = entry.since().and_then(wall_time);
                let frame = session.wire().wire.gap(*reason, entry.position, since, stats.delay());
                match &frame {
                    Some(_) => gaps.push((frames.len(), *reason)),
                    None => stats.gaps_unreported.count(*reason),
                }
                frame
            }
        };
        next += 1;
        if let Some(frame) = frame {
            bytes += frame.len();
            frames.push((next - 1, frame));
            // The outbox then ends with it.
            tally = entry.tally();
            if tally.is_some()
                || frames.len() > settings.outbox.max_messages
                || bytes > settings.outbox.max_bytes
            {
                break;
            }
        }
    }
    let taken = session.outbox.refill(&frames, read.first, next);
    if let Some(tally) = tally
        && taken == frames.len()
    {
        tally.caught_up(session.id, session.outbox.end());
    }
    #[cfg(feature = "opentelemetry")]
    if let Some(mut spans) = RunSpans::of(read.first, &read.entries) {
        spans.sent(session, frames[..taken].iter().map(|(seq, frame)| (*seq, frame.len())));
        node.write_spans.follow(spans.read());
    }
    // What follows a frame that was not taken is read again.
    let end = frames.get(taken).map_or(next, |(seq, _)| *seq);
    left_out.retain(|(seq, _)| *seq < end);
    for (_, reason) in &left_out {
        stats.leave_out(*reason, 1);
    }
    if !left_out.is_empty() {
        session.count_left_out(left_out.len());
    }
    if let Some(trace) = &stats.trace
        && trace.is_on(session)
    {
        trace_read(trace, session, &read, &frames[..taken], &left_out);
    }
    let mut told = 0;
    for (_, reason) in gaps.iter().filter(|(index, _)| *index < taken) {
        stats.gaps.count(*reason);
        told += 1;
    }
    let found = taken > 0 || stats.gaps.total() > 0 || read.entries.len() < CATCH_UP_ENTRIES;
    metrics.replayed.add((taken - told) as u64);
    stats.record(metrics);
    if found { CatchUp::GoOn } else { CatchUp::Yield }
}

/// Tells traces what a session has read.
fn trace_read(
    trace: &Watch,
    session: &Arc<SessionState>,
    read: &Read,
    frames: &[(u64, Bytes)],
    left_out: &[(u64, LeftOut)],
) {
    let entry = |seq: u64| read.entries.get(usize::try_from(seq - read.first).ok()?);
    for (seq, reason) in left_out {
        if let Some(entry) = entry(*seq) {
            trace.left_out(session, entry, *reason);
        }
    }
    let mut before_end: u64 = frames.iter().map(|(_, frame)| frame.len() as u64).sum();
    for (seq, frame) in frames {
        before_end -= frame.len() as u64;
        let Some(entry) = entry(*seq) else { continue };
        match &entry.content {
            Content::Envelope(envelope) => {
                let sent = Sent { position: entry.position, envelope, before_end, replayed: true };
                trace.sent(session, sent);
            }
            Content::Gap(reason) => trace.gap(session, *reason, true),
            Content::Skip => {}
        }
    }
}

/// Returns `false` for a message whose replacement comes behind the session's end.
fn is_in_time(reason: LeftOut, read: &Read, until: Option<Position>) -> bool {
    let (LeftOut::Collapsed(seq) | LeftOut::Dropped(seq), Some(_)) = (reason, until) else { return true };
    let index = seq.checked_sub(read.first).and_then(|index| usize::try_from(index).ok());
    index.and_then(|index| read.entries.get(index)).is_some_and(|newer| newer.position <= until)
}

//! The tail: a node's reader of the stream, on a connection of its own.
//!
//! It pulls by position. A node that was slow or disconnected continues at its last position, and detects missing entries by
//! the positions themselves.

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join;
use realtime_core::{Position, bus::BusEvent};
use redis::{RedisResult, Value, aio::MultiplexedConnection};
use tokio::{sync::mpsc::Sender, time::sleep};

use super::{
    claim::{LAST_EPOCH, claim},
    clock::RedisTime,
    entry::{Content, Entry, decode, parse_position, size, split},
    retained_reader::Large,
    shared::StreamsShared,
    start::{SAMPLE, start},
    tail_state::TailState,
};
use crate::{
    backoff::Backoff,
    large_entry::{LARGE, next_entry},
    master::open,
    millis::millis,
};

/// The most entries of one read.
const COUNT: usize = 1000;

/// Number of entries of a read while few arrive, and of the first one, before their size is known.
const FEW: usize = 64;

/// Approximate size of one read: also over a slow network it arrives in much less than `READ_TIMEOUT`.
const READ_BYTES: usize = 4 << 20;

/// Time for which a read waits for the next entry.
const BLOCK: Duration = Duration::from_millis(1000);

/// Time limit of a read: a server that hangs never answers.
const READ_TIMEOUT: Duration = Duration::from_millis(1500);

/// Reads until the receiver of the events is dropped.
pub(super) async fn run(shared: Arc<StreamsShared>, events: Sender<BusEvent>) {
    let state = TailState::new(shared.incarnation.clone(), shared.created);
    let mut tail = Tail {
        shared,
        events,
        state,
        count: FEW,
        per_sample: SAMPLE,
        retains: false,
        is_stuck: false,
        large_retained: Large::Read,
    };
    let mut backoff = Backoff::default();
    loop {
        let problem = match tail.follow(&mut backoff).await {
            Ok(Ended) => return,
            Err(problem) => problem,
        };
        let down = tail.state.failed(problem);
        if tail.events.send(down).await.is_err() {
            return;
        }
        sleep(backoff.next()).await;
    }
}

struct Tail {
    shared: Arc<StreamsShared>,
    events: Sender<BusEvent>,
    state: TailState,
    /// Number of entries that the next read asks for.
    count: usize,
    /// Number of entries of a sample while the begin of the first read is searched for.
    per_sample: usize,
    /// The hub may have retained messages.
    retains: bool,
    /// The last read asked for a single entry, which did not arrive in time.
    is_stuck: bool,
    /// The next read of the retained messages skips large ones.
    large_retained: Large,
}

/// The receiver of the events was dropped.
struct Ended;

impl Tail {
    /// Follows the stream over one connection, until it fails.
    async fn follow(&mut self, backoff: &mut Backoff) -> Result<Ended, String> {
        let shared = Arc::clone(&self.shared);
        let text = |error: redis::RedisError| error.to_string();
        shared.counters.connected();
        let server = shared.lookup.master(&shared.keys.log).await.map_err(text)?;
        let mut connection = open(server, READ_TIMEOUT).await.map_err(text)?;
        let claimed = claim(&shared, &mut connection, shared.seen()).await.map_err(text)?;
        shared.see(claimed.last.epoch);
        self.state.claimed(claimed.last, claimed.time, shared.config.max_age);
        if let Some(publishing) = shared.connection.current()
            && publishing.epoch.load(Ordering::Acquire) > claimed.last.epoch
        {
            // The log was begun anew with an earlier epoch: entries of the later one would end it again.
            shared.connection.discard(&publishing);
        }
        if let Some(gap) = self.state.take_gap() {
            shared.window.clear();
            if self.events.send(gap).await.is_err() {
                return Ok(Ended);
            }
        }
        if self.state.last().is_none() {
            let begin = start(&shared, &mut connection, claimed.last, claimed.time, self.per_sample).await;
            let begin = begin.map_err(|error| {
                if error.is_timeout() {
                    self.per_sample /= 4;
                }
                error.to_string()
            })?;
            if let Some(before) = begin {
                self.state.begin_behind(before);
            }
        }
        if self.is_stuck && self.skip_large(&mut connection).await.map_err(text)?.is_none() {
            return Ok(Ended);
        }
        let mut ahead = None;
        loop {
            let asked = self.count;
            let answer = match ahead.take() {
                Some((count, answer)) => Ok((count, answer)),
                None => {
                    let (after, block) = (self.state.last(), self.state.wait_limit(Instant::now()));
                    shared.read(&mut connection, after, asked, block).await.map(|it| (asked, it))
                }
            };
            let (count, answer) = answer.map_err(|error| self.reduce_count(asked, &error))?;
            let mut entries = entries(&answer)?;
            self.is_stuck = false;
            let is_countable =
                |position: Position| position.epoch <= LAST_EPOCH && position.offset <= LAST_EPOCH;
            let end = entries.iter().position(|(position, _)| !is_countable(*position));
            let end_of_time = end.map(|end| (entries[end].0, entries.truncate(end)).0);
            let drained = entries.len() < count;
            let bytes = entries.iter().map(|(_, fields)| size(fields)).sum();
            self.count = next_count(count, entries.len(), bytes);
            // Behind a full answer there are more entries: they are fetched while these are processed.
            let next = self.count;
            let fetch = async {
                match entries.last() {
                    Some((last, _)) if !drained && end_of_time.is_none() => {
                        shared.read(&mut connection, Some(*last), next, None).await.map(Some)
                    }
                    _ => Ok(None),
                }
            };
            let (fetched, processed) = join(fetch, self.process(&entries)).await;
            if processed.is_none() {
                return Ok(Ended);
            }
            if let Some(position) = end_of_time {
                shared.counters.skipped();
                tracing::warn!(%position, "skipped an entry of the stream at the end of time");
                let gap = self.state.pass(position);
                if self.send([Some(gap), None]).await.is_none() {
                    return Ok(Ended);
                }
                // The next claim begins the log anew, or an epoch.
                return Err("the log is at the end of time: nothing can follow".into());
            }
            ahead = fetched.map_err(|error| self.reduce_count(next, &error))?.map(|answer| (next, answer));
            let now = Instant::now();
            if let Some(began) = shared.own.read(self.state.last(), now) {
                self.state.came_back(began, now);
            }
            let settled = self.state.settle(drained, Instant::now()).map_err(|problem| {
                match shared.heartbeat_problem() {
                    Some(reason) => format!("{problem}: {reason}"),
                    None => problem,
                }
            })?;
            if settled.proved {
                // Only this proves that the connection works.
                backoff.reset();
            }
            if let Some(time) = self.state.take_missed() {
                // What is read next is newer, or is known to be older by its position.
                let retained =
                    shared.read_retained(&mut connection, time, mem::take(&mut self.large_retained));
                let retained = retained.await.map_err(|error| {
                    if error.is_timeout() {
                        self.large_retained = Large::Skip;
                    }
                    error.to_string()
                })?;
                self.retains |= !retained.is_empty();
                if self.retains && self.events.send(BusEvent::Retained(retained)).await.is_err() {
                    return Ok(Ended);
                }
            }
            if self.send(settled.events).await.is_none() {
                return Ok(Ended);
            }
        }
    }

    /// Reduces the size of the next read if this many entries did not arrive in time.
    fn reduce_count(&mut self, count: usize, error: &redis::RedisError) -> String {
        if error.is_timeout() {
            self.is_stuck = count == 1;
            self.count = (count / 8).max(1);
        }
        error.to_string()
    }

    /// Skips the next entry, which did not arrive in time, if it is a large one.
    async fn skip_large(&mut self, connection: &mut MultiplexedConnection) -> RedisResult<Option<()>> {
        self.is_stuck = false;
        let last = self.state.last().unwrap_or(Position { epoch: 0, offset: 0 });
        let after = format!("{}-{}", last.epoch, last.offset);
        let Some((id, bytes)) = next_entry(connection, &self.shared.keys.log, &after).await? else {
            return Ok(Some(()));
        };
        let Some(position) = parse_position(&id).filter(|it| bytes >= LARGE && it.epoch <= LAST_EPOCH) else {
            return Ok(Some(()));
        };
        self.shared.counters.skipped();
        tracing::warn!(%position, bytes, "skipped an entry of the stream that is too large to arrive in time");
        let entry = Entry { content: Content::Unknown("too large"), at: None };
        let events = self.state.read(position, entry, Instant::now());
        Ok(self.send(events).await)
    }

    /// Sends the events of entries to the hub, in order.
    async fn process(&mut self, entries: &[(Position, &[Value])]) -> Option<()> {
        if let Some(connection) = self.shared.connection.current() {
            let asked = Instant::now();
            self.state.set_time(RedisTime { millis: connection.clock.now(), asked });
        }
        let latest = self.state.latest(Instant::now());
        for (position, fields) in entries {
            self.shared.see(position.epoch);
            let mut entry = decode(fields);
            // Times to come would keep everything before them young.
            entry.at = entry.at.map(|at| at.min(latest));
            // The number of an epoch is a time, too.
            let at = entry.at.unwrap_or(0).max(position.epoch.min(latest));
            self.shared.window.read(*position, at, size(fields));
            match &entry.content {
                Content::Unknown(problem) => self.warn(*position, fields, problem),
                Content::Envelope(envelope) => self.retains |= envelope.is_retained(),
                Content::Heartbeat { .. } | Content::Claim => {}
            }
            let events = self.state.read(*position, entry, Instant::now());
            self.send(events).await?;
        }
        Some(())
    }

    async fn send(&self, events: [Option<BusEvent>; 2]) -> Option<()> {
        for event in events.into_iter().flatten() {
            self.events.send(event).await.ok()?;
        }
        Some(())
    }

    fn warn(&self, position: Position, fields: &[Value], problem: &str) {
        if self.shared.counters.skipped_first("an entry", problem) {
            let bytes = size(fields);
            tracing::warn!(%position, bytes, problem, "skipped an unreadable entry of the stream; logged once per problem");
        }
    }
}

impl StreamsShared {
    /// Reads the entries after a position; waits for some for up to `block`, at most [`BLOCK`].
    async fn read(
        &self,
        connection: &mut MultiplexedConnection,
        after: Option<Position>,
        count: usize,
        block: Option<Duration>,
    ) -> RedisResult<Value> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(count);
        if let Some(block) = block {
            // 0 would be unlimited.
            command.arg("BLOCK").arg(millis(block.min(BLOCK)).max(1));
        }
        let after = after.map_or_else(|| "0-0".to_owned(), |last| format!("{}-{}", last.epoch, last.offset));
        command.arg("STREAMS").arg(&self.keys.log).arg(after);
        command.query_async(connection).await
    }
}

/// Returns the entries in an answer to XREAD of one stream, each with its fields. They are borrowed from the answer:
/// converting thousands of entries to maps and strings takes longer than decoding their envelopes.
fn entries(answer: &Value) -> Result<Vec<(Position, &[Value])>, String> {
    let strange = || "unexpected answer to XREAD".to_owned();
    let entries = match answer {
        Value::Nil => return Ok(Vec::new()),
        Value::Array(streams) => match streams.as_slice() {
            [Value::Array(stream)] => stream.get(1),
            _ => None,
        },
        // Version 3 of the Redis protocol has maps.
        Value::Map(streams) => match streams.as_slice() {
            [(_, entries)] => Some(entries),
            _ => None,
        },
        _ => None,
    };
    let Some(Value::Array(entries)) = entries else { return Err(strange()) };
    entries.iter().map(|entry| split(entry).unwrap_or_else(|| Err(strange()))).collect()
}

/// Returns the number of entries of the next read, after one that asked for `asked` and got `entries` of `bytes` in all: four
/// times as many behind a full answer, otherwise twice as many as arrived, and never more than fit into [`READ_BYTES`].
fn next_count(asked: usize, entries: usize, bytes: usize) -> usize {
    let wanted = if entries >= asked { asked.saturating_mul(4) } else { (entries * 2).max(FEW) };
    // An answer without entries gives no information about their size: keep the previous limit.
    let fitting = if entries == 0 { asked.max(1) } else { READ_BYTES.saturating_mul(entries) / bytes.max(1) };
    wanted.min(fitting).clamp(1, COUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_takes_as_many_entries_as_fit() {
        assert_eq!(next_count(64, 64, 64 * 300), 256);
        assert_eq!(next_count(COUNT, COUNT, COUNT * 300), COUNT);
        assert_eq!(next_count(64, 64, 64 << 16), 64);
        assert_eq!(next_count(1000, 1000, 1000 << 20), 4);
        assert_eq!(next_count(1, 1, READ_BYTES * 3), 1);
        assert_eq!(next_count(4, 0, 0), 4, "large entries may still come");
    }

    #[test]
    fn a_read_takes_few_entries_while_few_come() {
        assert_eq!(next_count(COUNT, 3, 900), FEW);
        assert_eq!(next_count(COUNT, 100, 30_000), 200);
        assert_eq!(next_count(FEW, 0, 0), FEW);
    }
}

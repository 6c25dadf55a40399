//! The start of a starting node's first read: behind the entries that its log would not keep.
//!
//! Entries before that are treated as lost history: a cursor from there gets a gap. Within an epoch entries are numbered
//! without holes, so the start is found by sampling a few of them.

use std::time::Duration;

use realtime_core::Position;
use redis::{RedisResult, Value, aio::MultiplexedConnection};

use super::{
    clock::RedisTime,
    entry::{decode, size, split},
    shared::StreamsShared,
};
use crate::millis::millis;

/// A stream of at most this many entries is read from its beginning.
const FEW: u64 = 4096;

/// Number of entries of a sample, unless so many do not arrive in time. The time of a single entry may be that of a clock
/// which is behind.
pub(super) const SAMPLE: usize = 16;

/// Number of samples from which the size of entries is estimated.
const SIZE_SAMPLES: u64 = 8;

/// A summary of some entries in a row.
#[derive(Default)]
struct Sample {
    newest: u64,
    entries: usize,
    bytes: usize,
}

/// Returns the entry behind which a starting node begins to read a stream that ends at `last`; `None` for the beginning of
/// the stream. Each sample has up to `per_sample` entries; with 0 nothing is sampled, and only the number of entries counts.
pub(super) async fn start(
    shared: &StreamsShared,
    connection: &mut MultiplexedConnection,
    last: Position,
    now: RedisTime,
    per_sample: usize,
) -> RedisResult<Option<Position>> {
    let Position { epoch, offset: end } = last;
    if end < FEW {
        return Ok(None);
    }
    let config = &shared.config;
    let limit = now.millis.saturating_sub(millis(config.max_age));
    let count = u64::try_from(config.max_len).unwrap_or(u64::MAX);
    let mut begin = end.saturating_sub(count);
    if per_sample == 0 {
        return Ok(begin.checked_sub(1).map(|offset| Position { epoch, offset }));
    }
    // Everything before `begin` is too old or does not fit into the log; something before `young` is young enough.
    let mut young = end;
    while young - begin > FEW / 4 && config.max_age < Duration::MAX {
        let middle = begin + (young - begin) / 2;
        let sample = sample(shared, connection, Position { epoch, offset: middle }, per_sample).await?;
        if sample.entries > 0 && sample.newest < limit {
            begin = middle;
        } else {
            young = middle;
        }
    }
    let mut sizes = Sample::default();
    for n in 0..SIZE_SAMPLES {
        let offset = begin + (end - begin) / SIZE_SAMPLES * n;
        let sample = sample(shared, connection, Position { epoch, offset }, per_sample).await?;
        (sizes.entries, sizes.bytes) = (sizes.entries + sample.entries, sizes.bytes + sample.bytes);
    }
    // A quarter more than fits, since this is an estimate: the log enforces its own limit.
    let size = (sizes.bytes / sizes.entries.max(1)).max(1);
    let fitting = u64::try_from(config.max_bytes / size).unwrap_or(u64::MAX);
    begin = begin.max(end.saturating_sub(fitting.saturating_add(fitting / 4).max(1)));
    Ok(begin.checked_sub(1).map(|offset| Position { epoch, offset }))
}

/// Samples some entries from a position on.
async fn sample(
    shared: &StreamsShared,
    connection: &mut MultiplexedConnection,
    from: Position,
    count: usize,
) -> RedisResult<Sample> {
    let answer: Vec<Value> = redis::cmd("XRANGE")
        .arg(&shared.keys.log)
        .arg(format!("{}-{}", from.epoch, from.offset))
        .arg("+")
        .arg("COUNT")
        .arg(count)
        .query_async(connection)
        .await?;
    let mut sample = Sample { newest: from.epoch, ..Sample::default() };
    for (_, fields) in answer.iter().filter_map(|value| split(value)?.ok()) {
        sample.newest = sample.newest.max(decode(fields).at.unwrap_or(0));
        sample.entries += 1;
        sample.bytes += size(fields);
    }
    Ok(sample)
}

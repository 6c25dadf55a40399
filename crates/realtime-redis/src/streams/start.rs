//! Where a node that starts begins to read: behind what its log would not keep.
//!
//! What stands before is history that nobody has: a cursor from there is told of a gap. In an epoch entries are numbered
//! without holes, so what is worth reading is found by looking at a few of them.

use std::time::Duration;

use realtime_core::Position;
use redis::{RedisResult, Value, aio::MultiplexedConnection};

use super::{
    Shared,
    clock::{RedisTime, millis},
    entry::decode,
    tail::{entry, size},
};

/// So many entries are read in any case.
const FEW: u64 = 4096;

/// How many entries one look takes: the time of a single one may be that of a clock which is behind.
const LOOK: usize = 16;

/// How many looks tell how large entries are.
const SIZES: u64 = 8;

/// What a look at some entries tells.
#[derive(Default)]
struct Look {
    newest: u64,
    entries: usize,
    bytes: usize,
}

/// Behind which entry a node that starts begins to read a stream that ends at `last`; `None`: at its beginning.
pub(super) async fn start(
    shared: &Shared,
    connection: &mut MultiplexedConnection,
    last: Position,
    now: RedisTime,
) -> RedisResult<Option<Position>> {
    let Position { epoch, offset: end } = last;
    if end < FEW {
        return Ok(None);
    }
    let config = &shared.config;
    let limit = now.millis.saturating_sub(millis(config.max_age));
    let count = u64::try_from(config.max_len).unwrap_or(u64::MAX);
    let mut begin = end.saturating_sub(count);
    // Everything before `begin` is too old, or more than the log keeps; something before `young` is young.
    let mut young = end;
    while young - begin > FEW / 4 && config.max_age < Duration::MAX {
        let middle = begin + (young - begin) / 2;
        let look = look(shared, connection, Position { epoch, offset: middle }).await?;
        if look.entries > 0 && look.newest < limit {
            begin = middle;
        } else {
            young = middle;
        }
    }
    let mut sizes = Look::default();
    for n in 0..SIZES {
        let offset = begin + (end - begin) / SIZES * n;
        let look = look(shared, connection, Position { epoch, offset }).await?;
        (sizes.entries, sizes.bytes) = (sizes.entries + look.entries, sizes.bytes + look.bytes);
    }
    // A quarter more than fits, since this is an estimate: the log itself keeps no more than it may.
    let size = (sizes.bytes / sizes.entries.max(1)).max(1);
    let fitting = u64::try_from(config.max_bytes / size).unwrap_or(u64::MAX);
    begin = begin.max(end.saturating_sub(fitting.saturating_add(fitting / 4).max(1)));
    Ok(begin.checked_sub(1).map(|offset| Position { epoch, offset }))
}

/// Looks at some entries from a position on.
async fn look(shared: &Shared, connection: &mut MultiplexedConnection, from: Position) -> RedisResult<Look> {
    let answer: Vec<Value> = redis::cmd("XRANGE")
        .arg(&shared.keys.log)
        .arg(format!("{}-{}", from.epoch, from.offset))
        .arg("+")
        .arg("COUNT")
        .arg(LOOK)
        .query_async(connection)
        .await?;
    let mut look = Look { newest: from.epoch, ..Look::default() };
    for (_, fields) in answer.iter().filter_map(|value| entry(value)?.ok()) {
        look.newest = look.newest.max(decode(fields).at.unwrap_or(0));
        look.entries += 1;
        look.bytes += size(fields);
    }
    Ok(look)
}

//! Entries of a stream that are too large to arrive in time: their sizes are asked for, so that they can be skipped.

use redis::{RedisResult, aio::MultiplexedConnection};

/// Size in bytes from which an entry that has not arrived in time is skipped. Smaller ones are asked for again.
pub(crate) const LARGE: u64 = 1 << 20;

/// KEYS: stream. ARGV: the id behind which the entry is, as XRANGE takes it. Returns its id and its size.
const NEXT: &str = r"
local entry = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', 1)[1]
if not entry then return {} end
local bytes = 0
for _, field in ipairs(entry[2]) do bytes = bytes + #field end
return { entry[1], bytes }
";

/// Returns the id and the size of the entry after an id, if there is one.
pub(crate) async fn next_entry(
    connection: &mut MultiplexedConnection,
    stream: &str,
    after: &str,
) -> RedisResult<Option<(String, u64)>> {
    redis::cmd("EVAL").arg(NEXT).arg(1).arg(stream).arg(format!("({after}")).query_async(connection).await
}

//! The claim: what every connection does before it is used.
//!
//! A script makes sure that this server is a master with the history that the stored epoch stands for. If anything
//! speaks against it - another replication id after a restart or a promotion, a stream or an epoch that is gone, an
//! epoch older than one that this node has seen - a new epoch begins, with an entry of its own.

use realtime_core::Position;
use redis::{RedisResult, Script, aio::MultiplexedConnection};

use super::{Shared, count};

/// KEYS: stream, epoch. ARGV: the highest epoch that this node has seen.
///
/// It answers the server's version, the epoch, and the last offset as text: Lua's numbers end at 2^53.
const SCRIPT: &str = r"
local replication = redis.call('INFO', 'replication')
if not string.find(replication, 'role:master', 1, true) then
  return redis.error_reply('READONLY this server is not a master')
end
local version = string.match(redis.call('INFO', 'server'), 'redis_version:([%d.]+)')
local replid = string.match(replication, 'master_replid:(%w+)')
local stored = redis.call('HMGET', KEYS[2], 'epoch', 'replid')
local epoch = tonumber(stored[1] or '0')
local seen = tonumber(ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  local last
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
  end
  local last_epoch, offset = string.match(last, '(%d+)-(%d+)')
  if stored[2] == replid and epoch >= seen and epoch == tonumber(last_epoch) then
    return { version, stored[1], offset }
  end
  epoch = math.max(epoch, tonumber(last_epoch))
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local fresh = string.format('%.0f', math.max(now, epoch + 1, seen + 1))
redis.call('HSET', KEYS[2], 'epoch', fresh, 'replid', replid)
local id = redis.call('XADD', KEYS[1], fresh .. '-*', 'v', '1', 'c', '1')
return { version, fresh, string.match(id, '-(%d+)') }
";

/// The epoch that holds on this connection's server, and the last offset in it.
pub(super) async fn claim(
    shared: &Shared,
    connection: &mut MultiplexedConnection,
    seen: u64,
) -> RedisResult<Position> {
    count(&shared.metrics.claims);
    let (version, epoch, offset): (String, u64, u64) = Script::new(SCRIPT)
        .key(&shared.keys.log)
        .key(&shared.keys.epoch)
        .arg(seen)
        .invoke_async(connection)
        .await?;
    if version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major < 7) {
        let detail = format!("this server is {version}");
        return Err((redis::ErrorKind::Client, "Redis 7.0 or later is needed", detail).into());
    }
    Ok(Position { epoch, offset })
}

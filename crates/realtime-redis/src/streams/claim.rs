//! The claim: a check of every connection before it is used.
//!
//! It ensures that this server is a master whose history is the one of the stored epoch. If there is any evidence against
//! it - another replication id after a restart or a promotion, a missing stream or epoch, an epoch older than one that
//! this node has seen - a new epoch begins, with an entry of its own.
//!
//! `INFO` is sent outside the script, since several vendors refuse it inside one; before and after, so that a server whose
//! role changes in between is not claimed.

use std::{io, time::Instant};

use realtime_core::Position;
use redis::{ErrorKind, RedisError, RedisResult, Script, ServerErrorKind, aio::MultiplexedConnection};

use super::{clock::RedisTime, shared::StreamsShared};

/// KEYS: stream, epoch. ARGV: the highest epoch that this node has seen, the server's replication id, [`LAST_EPOCH`].
///
/// Keys of another type are removed, and so is a stream whose last epoch none could follow. Returns the epoch and the last
/// offset as text: Lua's numbers end at 2^53; then what was removed. Each key is written as `KEYS[n]`, as the proxies of
/// some vendors demand.
const SCRIPT: &str = r"
local seen, replid, last_number = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local function number(text)
  local number = tonumber(text or nil)
  if number and number >= 0 and number <= last_number and number == math.floor(number) then return number end
end
local removed = ''
local stored = redis.pcall('HMGET', KEYS[2], 'epoch', 'replid')
if stored.err then
  if not string.find(stored.err, 'WRONGTYPE', 1, true) then return stored end
  redis.call('DEL', KEYS[2])
  stored, removed = {}, 'the epoch, which was of another type'
end
local epoch = number(stored[1]) or 0
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info, last = redis.pcall('XINFO', 'STREAM', KEYS[1]), ''
  if info.err and not string.find(info.err, 'WRONGTYPE', 1, true) then return info end
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
  end
  local last_epoch, offset = string.match(last, '(%d+)-(%d+)')
  last_epoch = number(last_epoch)
  if not last_epoch then
    redis.call('DEL', KEYS[1])
    removed = info.err and 'the log, which was of another type' or 'the log, which was at the end of time'
  else
    if stored[2] == replid and epoch >= seen and epoch == last_epoch and number(offset) then
      return { string.format('%.0f', epoch), offset, removed }
    end
    epoch = math.max(epoch, last_epoch)
  end
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local fresh = math.max(now, epoch + 1, seen + 1)
if fresh > last_number then
  redis.call('DEL', KEYS[1])
  fresh, removed = math.max(now, seen + 1), 'the log, which was at the end of time'
end
fresh = string.format('%.0f', fresh)
redis.call('HSET', KEYS[2], 'epoch', fresh, 'replid', replid)
local id = redis.call('XADD', KEYS[1], fresh .. '-*', 'v', '1', 'c', '1', 't', string.format('%.0f', now))
return { fresh, string.match(id, '-(%d+)'), removed }
";

/// The last epoch of a log: the next one is the last number that Lua can count to. No clock comes near it, so a log that
/// has reached it was written to by somebody else.
pub(super) const LAST_EPOCH: u64 = (1 << 53) - 2;

/// The result of a claim.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claimed {
    /// The current epoch of the connection's server, and the last offset in it.
    pub(super) last: Position,
    pub(super) time: RedisTime,
}

/// Claims a connection for a node that has seen the epoch `seen`.
///
/// # Errors
/// An error, for example, if the server is not a master, or is unsuitable for the bus.
pub(super) async fn claim(
    shared: &StreamsShared,
    connection: &mut MultiplexedConnection,
    seen: u64,
) -> RedisResult<Claimed> {
    shared.claims.increment();
    let asked = Instant::now();
    let (server, replication, time): (String, String, (u64, u64)) = redis::pipe()
        .cmd("INFO")
        .arg("server")
        .cmd("INFO")
        .arg("replication")
        .cmd("TIME")
        .query_async(connection)
        .await?;
    check_version(&server)?;
    let replid = replication_id(&replication)?;
    let (epoch, offset, removed): (u64, u64, String) = Script::new(SCRIPT)
        .key(&shared.keys.log)
        .key(&shared.keys.epoch)
        .arg(seen)
        .arg(replid)
        .arg(LAST_EPOCH)
        .invoke_async(connection)
        .await?;
    if !removed.is_empty() {
        shared.counters.skipped();
        tracing::warn!(
            removed,
            epoch,
            "broken content of Redis was removed; the log is begun anew, with a gap"
        );
    }
    let after: String = redis::cmd("INFO").arg("replication").query_async(connection).await?;
    if replication_id(&after)? != replid {
        return Err(read_only("the replication id has changed during the claim"));
    }
    Ok(Claimed { last: Position { epoch, offset }, time: RedisTime::new(time, asked) })
}

/// Rejects servers without `XADD <epoch>-*`, with a clearer error than their own.
fn check_version(server: &str) -> RedisResult<()> {
    let Some(version) = field(server, "redis_version") else { return Ok(()) };
    match version.split('.').next().map(str::parse::<u32>) {
        Some(Ok(major)) if major < 7 => {
            Err(unsupported(format!("Redis 7.0 or later is needed: this server is {version}")))
        }
        _ => Ok(()),
    }
}

/// Returns the replication id of a master, which identifies its history.
fn replication_id(replication: &str) -> RedisResult<&str> {
    if field(replication, "role") != Some("master") {
        return Err(read_only("this server is not a master"));
    }
    field(replication, "master_replid").ok_or_else(|| {
        let problem = "its INFO has no master_replid, without which a loss could not be detected";
        unsupported(format!("this server is unsuitable for the bus: {problem}"))
    })
}

/// Returns a field of an answer to INFO.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Creates an error that consists of the text only: those of the client contain their kind.
fn unsupported(problem: String) -> RedisError {
    io::Error::new(io::ErrorKind::Unsupported, problem).into()
}

fn read_only(problem: &'static str) -> RedisError {
    (ErrorKind::Server(ServerErrorKind::ReadOnly), problem).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_gets_a_clear_error() {
        let error =
            check_version("# Server\r\nredis_version:6.2.14\r\nredis_mode:standalone\r\n").unwrap_err();
        assert_eq!(error.to_string(), "Redis 7.0 or later is needed: this server is 6.2.14");
        for version in
            ["redis_version:7.0.15", "redis_version:8.2.0", "redis_version:255.255.255", "no:version"]
        {
            check_version(version).unwrap();
        }
    }

    #[test]
    fn only_a_master_with_a_replication_id_is_claimed() {
        let master = "# Replication\r\nrole:master\r\nmaster_replid:08af\r\nmaster_replid2:0000\r\n";
        assert_eq!(replication_id(master).unwrap(), "08af");
        let error = replication_id("role:slave\r\nmaster_replid:08af\r\n").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly));
        let error = replication_id("role:master\r\n").unwrap_err().to_string();
        assert!(error.contains("no master_replid"), "{error}");
    }
}

//! What presence does in Redis, each in one step.
//!
//! All keys share a hash tag, so that they are in one slot of a cluster. Every script gets all of them, in this order:
//!
//! | | key | type | holds |
//! |---|---|---|---|
//! | 1 | `nodes` | sorted set | a node's incarnation -> when its lease ends |
//! | 2 | `node:<incarnation>` | hash | a user -> its sessions on that node, as JSON |
//! | 3 | `counts` | hash | an incarnation -> how many sessions it has |
//! | 4 | `refs` | hash | a user -> on how many nodes it is |
//! | 5 | `users` | sorted set, all scores 0 | the users that are online |
//! | 6 | `online` | set | the same users: a set answers about thousands faster |
//! | 7 | `leaving` | sorted set | a user without sessions -> from when on the grace counts |
//! | 8 | `since` | hash | a user that is online -> since when |
//! | 9 | `changes` | stream | who came and went: `n` its number, `u` the user, `s` the state, `t` since when |
//! | 10 | `changed` | string | the number of the last change |
//! | 11 | `swept` | string | when a node last looked for what has ended: one of them does, once a second |
//! | 12 | `expected` | hash | a user with sessions -> until when clients that a drain sent away come back |
//! | 13 | `left` | hash | a user that is leaving and expected back -> when its last session ended |
//!
//! Times are Redis' own, in milliseconds, but for when a session began.
//!
//! Each key is written as `KEYS[n]`, never in a variable and never put together: proxies in front of Redis read the
//! script, and other servers lock the keys that they were given before it runs.

/// Common to all. `leave` takes a user from one node: `at` that time, `back` until when its clients come back.
const PRELUDE: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local told, told_number
local function tell(user, state, at)
  told_number = redis.call('INCR', KEYS[10])
  told = redis.call('XADD', KEYS[9], 'MAXLEN', '~', 10000, '*', 'n', told_number, 'u', user, 's', state, 't', at)
end
local function leave(user, at, back)
  local expected = tonumber(redis.call('HGET', KEYS[12], user) or 0)
  if redis.call('HINCRBY', KEYS[4], user, -1) > 0 then
    if back > at and back > expected then redis.call('HSET', KEYS[12], user, back) end
    return
  end
  redis.call('HDEL', KEYS[4], user)
  if expected > 0 then redis.call('HDEL', KEYS[12], user) end
  back = math.max(at, back, expected)
  if back > at then redis.call('HSET', KEYS[13], user, at) end
  redis.call('ZADD', KEYS[7], back, user)
end
";

/// ARGV: incarnation, lease in ms, sessions on the node, in how many ms after a look for what has ended the next one is
/// due (empty: this node does not look), silence in ms, then of each user its name, JSON (empty: none), since when, and
/// in how many ms its clients come back.
/// Answers texts: whether the node was not known or its lease had ended, so that what it wrote before may be gone; the
/// turn in which it is to look for what has ended, or 0; the id and number of the newest change;
/// then since when each of the users has been online.
const SYNC: &str = r"
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
local newest = redis.call('XREVRANGE', KEYS[9], '+', '-', 'COUNT', 1)[1] or { '0-0', { 'n', '0' } }
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])
local turn = 0
if ARGV[4] ~= '' then
  local before = tonumber(redis.call('GET', KEYS[11]) or 0)
  if now < before or now - before >= tonumber(ARGV[4]) then
    redis.call('SET', KEYS[11], now)
    local silence = tonumber(ARGV[5])
    if before > 0 and now - before > silence then
      for _, incarnation in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
        redis.call('ZADD', KEYS[1], 'GT', now + silence, incarnation)
      end
    else
      turn = now
    end
  end
end
local since = {}
for i = 6, #ARGV, 4 do
  local user, json, began, back = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if json == '' then
    if redis.call('HDEL', KEYS[2], user) == 1 then leave(user, now, now + tonumber(back)) end
  elseif redis.call('HSET', KEYS[2], user, json) == 1 and redis.call('HINCRBY', KEYS[4], user, 1) == 1 then
    if redis.call('ZREM', KEYS[7], user) == 1 then redis.call('HDEL', KEYS[13], user) end
    if redis.call('ZADD', KEYS[5], 0, user) == 1 then
      redis.call('SADD', KEYS[6], user)
      redis.call('HSET', KEYS[8], user, began)
      tell(user, 'online', began)
    end
  end
  since[#since + 1] = redis.call('HGET', KEYS[8], user) or '0'
end
local text = function(number) return string.format('%.0f', number) end
return {
  (not lease or tonumber(lease) < now) and '1' or '0', text(turn),
  told or newest[1], told and text(told_number) or newest[2][2],
  unpack(since)
}
";

/// ARGV: grace in ms, how many users one run takes, the turn, the incarnation whose hash `KEYS[2]` is or nothing.
///
/// Who has the turn sweeps, and nobody else until it is done. Answers whether there is more to do, the turn to continue
/// with, and the incarnation of a node that died or nothing.
const SWEEP: &str = r"
if tonumber(redis.call('GET', KEYS[11]) or 0) ~= tonumber(ARGV[3]) then return { 0, 0, '' } end
redis.call('SET', KEYS[11], now)
local limit = tonumber(ARGV[2])
local ended = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[4]) or now)
if ended < now then
  for _, user in ipairs(redis.call('HRANDFIELD', KEYS[2], limit) or {}) do
    redis.call('HDEL', KEYS[2], user)
    leave(user, ended, 0)
  end
  if redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('ZREM', KEYS[1], ARGV[4])
    redis.call('HDEL', KEYS[3], ARGV[4])
  end
end
local gone = redis.call('ZRANGEBYSCORE', KEYS[7], '-inf', now - tonumber(ARGV[1]), 'WITHSCORES', 'LIMIT', 0, limit)
for i = 1, #gone, 2 do
  local user, at = gone[i], redis.call('HGET', KEYS[13], gone[i])
  if at then redis.call('HDEL', KEYS[13], user) end
  redis.call('ZREM', KEYS[7], user)
  redis.call('ZREM', KEYS[5], user)
  redis.call('SREM', KEYS[6], user)
  redis.call('HDEL', KEYS[8], user)
  tell(user, 'offline', at or gone[i + 1])
end
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now, 'LIMIT', 0, 1)[1] or ''
local more = (dead ~= '' or #gone == 2 * limit) and 1 or 0
return { more, now, dead }
";

/// ARGV: incarnation. Its lease has ended; what it leaves behind is swept away like that of a node that died.
const RETIRE: &str = r"
redis.call('ZADD', KEYS[1], 'XX', now - 1, ARGV[1])
return 0
";

/// The scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) sync: redis::Script,
    pub(super) sweep: redis::Script,
    pub(super) retire: redis::Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let script = |body: &str| redis::Script::new(&format!("{PRELUDE}{body}"));
        Self { sync: script(SYNC), sweep: script(SWEEP), retire: script(RETIRE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_one_that_was_given() {
        for script in [PRELUDE, SYNC, SWEEP, RETIRE] {
            let calls: Vec<&str> = script.split("redis.call(").skip(1).collect();
            assert_eq!(calls.len(), script.matches("redis.").count(), "{script}");
            for call in calls {
                let (command, rest) = call.split_once('\'').unwrap().1.split_once('\'').unwrap();
                if command == "TIME" {
                    continue;
                }
                let key = rest.strip_prefix(", KEYS[").and_then(|rest| rest.split_once(']'));
                let number = key.and_then(|(number, _)| number.parse::<usize>().ok());
                assert!(number.is_some_and(|number| (1..=13).contains(&number)), "{command}{rest}");
            }
            assert_eq!(script.matches("KEYS").count(), script.matches("KEYS[").count(), "{script}");
        }
    }
}

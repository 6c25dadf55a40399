//! The scripts of presence; each is one atomic step.
//!
//! All keys share a hash tag, so that they are in one slot of a cluster. Every script gets all of them, in this order:
//!
//! | | key | type | holds |
//! |---|---|---|---|
//! | 1 | `nodes` | sorted set | a node's incarnation -> when its lease ends |
//! | 2 | `node:<incarnation>` | hash | a user -> its sessions on that node, as JSON |
//! | 3 | `counts` | hash | an incarnation -> the number of its sessions |
//! | 4 | `refs` | hash | a user -> the number of its nodes |
//! | 5 | `users` | sorted set, all scores 0 | the users that are online |
//! | 6 | `online` | set | the same users: a set is faster for questions about thousands |
//! | 7 | `leaving` | sorted set | a user without sessions -> the start of its grace |
//! | 8 | `since` | hash | an online user -> since when |
//! | 9 | `changes` | stream | the changes: `n` the number, `u` the user, `s` the state, `t` since when |
//! | 10 | `changed` | string | the number of the last change |
//! | 11 | `swept` | string | the time of the last sweep: one node sweeps, once a second |
//! | 12 | `expected` | hash | a user with sessions -> until when the clients of a drain are expected back |
//! | 13 | `left` | hash | a user in its grace and expected back -> the end of its last session |
//!
//! Times are Redis' own, in milliseconds, except for the start of a session.
//!
//! Each key is written as `KEYS[n]`, never in a variable and never concatenated: proxies in front of Redis parse the
//! script, and other servers lock the declared keys before it runs.

/// The prelude of all scripts. `leave` removes a user from one node at the time `at`; its clients are expected until `back`.
///
/// What is no number counts as none, and no time is further away than a day: anything may have been written into the keys.
const PRELUDE: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function moment(text)
  local moment = tonumber(text or nil)
  if not moment or not (moment >= 0) then return 0 end
  return math.min(moment, now + 86400000)
end
local function count(user, by)
  local nodes = tonumber(redis.call('HGET', KEYS[4], user) or nil)
  if not nodes or not (nodes > 0 and nodes < 1000000) or nodes ~= math.floor(nodes) then nodes = 0 end
  nodes = math.max(nodes + by, 0)
  if by == 0 then return nodes end
  if nodes > 0 then redis.call('HSET', KEYS[4], user, nodes) else redis.call('HDEL', KEYS[4], user) end
  return nodes
end
local announced, announced_number
local function announce(user, state, at)
  local number = redis.pcall('INCR', KEYS[10])
  if type(number) ~= 'number' then
    number = 1
    redis.call('SET', KEYS[10], number)
  end
  announced_number = number
  announced = redis.call('XADD', KEYS[9], 'MAXLEN', '~', 10000, '*', 'n', announced_number, 'u', user, 's', state, 't', at)
end
local function leave(user, at, back)
  local expected = redis.call('HGET', KEYS[12], user)
  local until_then = moment(expected)
  if count(user, -1) > 0 then
    if back > at and back > until_then then redis.call('HSET', KEYS[12], user, back) end
    return
  end
  if expected then redis.call('HDEL', KEYS[12], user) end
  back = math.max(at, back, until_then)
  if back > at then redis.call('HSET', KEYS[13], user, at) end
  redis.call('ZADD', KEYS[7], back, user)
end
";

/// ARGV: incarnation, lease in ms, sessions on the node, time between two sweeps in ms (empty: this node does not sweep),
/// silence in ms; then for each user its name, JSON (empty: none), since when, and in how many ms its clients are expected
/// back.
/// Returns strings: whether the node was unknown or its lease had ended, so that its earlier writes may be lost; the turn in
/// which it sweeps, or 0; the id and number of the newest change; then since when each of the users has been online.
const SYNC: &str = r"
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
local newest = redis.call('XREVRANGE', KEYS[9], '+', '-', 'COUNT', 1)[1] or { '0-0', { 'n', '0' } }
if not lease then
  -- Redis has lost its leases. What this node had written may have been lost with them: it is written again.
  for _, user in ipairs(redis.call('HKEYS', KEYS[2])) do count(user, -1) end
  redis.call('DEL', KEYS[2])
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])
local turn = 0
if ARGV[4] ~= '' then
  local before = moment(redis.call('GET', KEYS[11]))
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
    -- No node takes a lease for so long.
    for _ = 1, 100 do
      local longest = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
      if not longest[2] or tonumber(longest[2]) <= now + 60000 then break end
      redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), longest[1])
    end
  end
end
local since = {}
for i = 6, #ARGV, 4 do
  local user, json, began, back = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if json == '' then
    if redis.call('HDEL', KEYS[2], user) == 1 then
      leave(user, now, now + tonumber(back))
    elseif tonumber(back) > 0 then
      -- It has left already, and its client was asked again, for a later time.
      local at = redis.call('ZSCORE', KEYS[7], user)
      if at and tonumber(at) < now + tonumber(back) then
        if not redis.call('HGET', KEYS[13], user) then redis.call('HSET', KEYS[13], user, at) end
        redis.call('ZADD', KEYS[7], now + tonumber(back), user)
      end
    end
  elseif (redis.call('HSET', KEYS[2], user, json) == 1 or count(user, 0) == 0) and count(user, 1) == 1 then
    if redis.call('ZREM', KEYS[7], user) == 1 then redis.call('HDEL', KEYS[13], user) end
    if redis.call('ZADD', KEYS[5], 0, user) == 1 then
      redis.call('SADD', KEYS[6], user)
      redis.call('HSET', KEYS[8], user, began)
      announce(user, 'online', began)
    end
  end
  since[#since + 1] = redis.call('HGET', KEYS[8], user) or '0'
end
local text = function(number) return string.format('%.0f', number) end
return {
  (not lease or tonumber(lease) < now) and '1' or '0', text(turn),
  announced or newest[1], announced and text(announced_number) or newest[2][2],
  unpack(since)
}
";

/// ARGV: grace in ms, users per run, the turn, the incarnation whose hash is `KEYS[2]` or empty.
///
/// Only the node with the turn sweeps, until it is done. Returns whether there is more to do, the turn to continue with, and
/// the incarnation of a node whose lease has ended, or empty.
const SWEEP: &str = r"
if tonumber(redis.call('GET', KEYS[11]) or nil) ~= tonumber(ARGV[3]) then return { 0, 0, '' } end
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
  at = at and string.format('%.0f', moment(at))
  redis.call('ZREM', KEYS[7], user)
  redis.call('ZREM', KEYS[5], user)
  redis.call('SREM', KEYS[6], user)
  redis.call('HDEL', KEYS[8], user)
  announce(user, 'offline', at or gone[i + 1])
end
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now, 'LIMIT', 0, 1)[1] or ''
local more = (dead ~= '' or #gone == 2 * limit) and 1 or 0
return { more, now, dead }
";

/// ARGV: incarnation. Ends its lease; its remaining entries are swept like those of a crashed node.
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
    fn every_key_is_a_declared_one() {
        for script in [PRELUDE, SYNC, SWEEP, RETIRE] {
            let script = &script.replace("redis.pcall(", "redis.call(");
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
            let keys = script.replace("HKEYS", "");
            assert_eq!(keys.matches("KEYS").count(), keys.matches("KEYS[").count(), "{script}");
        }
    }
}

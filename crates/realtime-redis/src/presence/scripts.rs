//! What presence does in Redis, each in one step.
//!
//! All keys share a hash tag, so that they are in one slot of a cluster:
//!
//! | key | type | holds |
//! |---|---|---|
//! | `nodes` | sorted set | a node's incarnation -> when its lease ends |
//! | `node:<incarnation>` | hash | a user -> its sessions on that node, as JSON |
//! | `counts` | hash | an incarnation -> how many sessions it has |
//! | `refs` | hash | a user -> on how many nodes it is |
//! | `users` | sorted set, all scores 0 | the users that are online |
//! | `online` | set | the same users: a set answers about thousands faster |
//! | `leaving` | sorted set | a user without sessions -> when its last one ended |
//! | `since` | hash | a user that is online -> since when |
//! | `changes` | stream | who came and went: `n` its number, `u` the user, `s` the state, `t` since when |
//! | `changed` | string | the number of the last change |
//! | `swept` | string | when a node last looked for what has ended |
//!
//! Times are Redis' own, in milliseconds, but for when a session began.

/// Common to all: KEYS are as in the table, `node:` as a prefix.
const PRELUDE: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local nodes, prefix, counts, refs, users, online, leaving, since, changes, changed, swept = unpack(KEYS)
local function tell(user, state, at)
  local n = redis.call('INCR', changed)
  redis.call('XADD', changes, 'MAXLEN', '~', 10000, '*', 'n', n, 'u', user, 's', state, 't', at)
end
local function leave(user, at)
  if redis.call('HINCRBY', refs, user, -1) <= 0 then
    redis.call('HDEL', refs, user)
    redis.call('ZADD', leaving, at, user)
  end
end
";

/// ARGV: incarnation, lease in ms, sessions on the node, then user, JSON (empty: none) and since when in turn.
/// Answers whether the node was not known or its lease had ended, so that what it wrote before may be gone, then since
/// when each of the users has been online.
const SYNC: &str = r"
local incarnation, lease = ARGV[1], tonumber(ARGV[2])
local entries = prefix .. incarnation
local old = redis.call('ZSCORE', nodes, incarnation)
local answer = { (not old or tonumber(old) < now) and 1 or 0 }
redis.call('ZADD', nodes, now + lease, incarnation)
redis.call('HSET', counts, incarnation, ARGV[3])
for i = 4, #ARGV, 3 do
  local user, json, began = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if json == '' then
    if redis.call('HDEL', entries, user) == 1 then leave(user, now) end
  elseif redis.call('HSET', entries, user, json) == 1 and redis.call('HINCRBY', refs, user, 1) == 1 then
    redis.call('ZREM', leaving, user)
    if redis.call('ZADD', users, 0, user) == 1 then
      redis.call('SADD', online, user)
      redis.call('HSET', since, user, began)
      tell(user, 'online', began)
    end
  end
  answer[#answer + 1] = redis.call('HGET', since, user) or '0'
end
return answer
";

/// ARGV: grace in ms, how many users one run takes, silence in ms. Answers whether there is more to do.
const SWEEP: &str = r"
local grace, limit, silence = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local before = tonumber(redis.call('SET', swept, now, 'GET') or now)
if now - before > silence then
  for _, incarnation in ipairs(redis.call('ZRANGE', nodes, 0, -1)) do
    redis.call('ZADD', nodes, 'GT', now + silence, incarnation)
  end
  return 0
end
local more = 0
local dead = redis.call('ZRANGEBYSCORE', nodes, '-inf', '(' .. now, 'WITHSCORES', 'LIMIT', 0, 1)
if dead[1] then
  local entries = prefix .. dead[1]
  for _, user in ipairs(redis.call('HRANDFIELD', entries, limit) or {}) do
    redis.call('HDEL', entries, user)
    leave(user, dead[2])
  end
  if redis.call('EXISTS', entries) == 0 then
    redis.call('ZREM', nodes, dead[1])
    redis.call('HDEL', counts, dead[1])
  end
  more = 1
end
local gone = redis.call('ZRANGEBYSCORE', leaving, '-inf', now - grace, 'WITHSCORES', 'LIMIT', 0, limit)
for i = 1, #gone, 2 do
  local user, at = gone[i], gone[i + 1]
  redis.call('ZREM', leaving, user)
  redis.call('ZREM', users, user)
  redis.call('SREM', online, user)
  redis.call('HDEL', since, user)
  tell(user, 'offline', at)
end
if #gone == 2 * limit then more = 1 end
return more
";

/// ARGV: incarnation. Its lease has ended; what it leaves behind is swept away like that of a node that died.
const RETIRE: &str = r"
redis.call('ZADD', nodes, 'XX', now - 1, ARGV[1])
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

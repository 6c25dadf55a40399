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
//! | `leaving` | sorted set | a user without sessions -> when it counts as gone |
//!
//! Times are Redis' own, in milliseconds.

/// Common to all: KEYS are nodes, counts, refs, users, leaving, node: (a prefix).
const PRELUDE: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local nodes, counts, refs, users, leaving, prefix = unpack(KEYS)
local function leave(user, grace)
  if redis.call('HINCRBY', refs, user, -1) <= 0 then
    redis.call('HDEL', refs, user)
    redis.call('ZADD', leaving, now + grace, user)
  end
end
";

/// ARGV: incarnation, lease in ms, grace in ms, sessions on the node, then user and JSON (empty: none) in turn.
/// Answers 1 when the node was not known: what it wrote before may be gone.
const SYNC: &str = r"
local incarnation, lease, grace = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local entries = prefix .. incarnation
local unknown = redis.call('ZADD', nodes, now + lease, incarnation)
redis.call('HSET', counts, incarnation, ARGV[4])
for i = 5, #ARGV, 2 do
  local user, json = ARGV[i], ARGV[i + 1]
  if json == '' then
    if redis.call('HDEL', entries, user) == 1 then leave(user, grace) end
  elseif redis.call('HSET', entries, user, json) == 1 and redis.call('HINCRBY', refs, user, 1) == 1 then
    redis.call('ZREM', leaving, user)
    redis.call('ZADD', users, 0, user)
  end
end
return unknown
";

/// ARGV: grace in ms, how many users one run takes. Answers 1 when there is more to do.
const SWEEP: &str = r"
local grace, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local more = 0
local dead = redis.call('ZRANGEBYSCORE', nodes, '-inf', '(' .. now, 'LIMIT', 0, 1)[1]
if dead then
  local entries = prefix .. dead
  for _, user in ipairs(redis.call('HRANDFIELD', entries, limit) or {}) do
    redis.call('HDEL', entries, user)
    leave(user, grace)
  end
  if redis.call('EXISTS', entries) == 0 then
    redis.call('ZREM', nodes, dead)
    redis.call('HDEL', counts, dead)
  end
  more = 1
end
local gone = redis.call('ZRANGEBYSCORE', leaving, '-inf', now, 'LIMIT', 0, limit)
for _, user in ipairs(gone) do
  redis.call('ZREM', leaving, user)
  redis.call('ZREM', users, user)
end
if #gone == limit then more = 1 end
return more
";

/// The two scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) sync: redis::Script,
    pub(super) sweep: redis::Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let script = |body: &str| redis::Script::new(&format!("{PRELUDE}{body}"));
        Self { sync: script(SYNC), sweep: script(SWEEP) }
    }
}

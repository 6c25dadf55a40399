//! Retained messages: the last one of each topic and collapse key, kept beside the stream for nodes that start later.
//!
//! A hash has them by topic and key, each as `<position> <envelope>`, and their total size under the empty name. Sorted sets
//! have the order in which they were published, the same for each topic, and the times at which some of them end. All are
//! written together with the message's entry, by one script.

use std::time::Duration;

use realtime_core::Envelope;
use redis::Cmd;

use crate::{
    config::RedisConfig,
    millis::millis,
    repair::{Loss, Repair},
};

/// Adds an entry, and keeps its envelope or clears the one that was kept; nothing of that if an entry with the same id was
/// added before, whose position is returned in a list then. Removes what has ended, and the oldest beyond the bounds.
///
/// KEYS: stream, hash, order, ends, topics, and the key of the id if there is one. ARGV: time in milliseconds for which the
/// id is kept, name in the hash, `1` to clear it, the end in milliseconds or nothing, Redis' time, the most messages, the
/// most bytes, the most messages of a topic, arguments of XADD, the last of which is the envelope.
///
/// The topics are a set by name: those of a topic are next to each other, and among them the oldest comes first.
///
/// Few are removed at a time: the next publish continues.
const ADD_RETAINED: &str = r"
if KEYS[6] then
  local known = redis.call('GET', KEYS[6])
  if known and string.match(known, '^%d+%-%d+$') then return { known } end
end
-- A key of another type is an error before anything is written.
redis.call('HGET', KEYS[2], '')
redis.call('ZCARD', KEYS[3])
redis.call('ZCARD', KEYS[4])
redis.call('ZCARD', KEYS[5])
local function grow(bytes)
  local sum = redis.pcall('HINCRBY', KEYS[2], '', bytes)
  if type(sum) ~= 'number' or sum < 0 then redis.call('HSET', KEYS[2], '', math.max(bytes, 0)) end
end
local added = redis.call('XADD', KEYS[1], unpack(ARGV, 9))
if not added then return added end
if KEYS[6] then redis.call('SET', KEYS[6], added, 'PX', ARGV[1]) end
-- `<topic> <number in the order>[ <key>]`
local function by_topic(name, number)
  local topic = string.match(name, '^[^ ]*')
  return topic .. string.format(' %016.0f', number) .. string.sub(name, #topic + 1)
end
local function remove(name)
  local old = redis.call('HGET', KEYS[2], name)
  if old then
    redis.call('HDEL', KEYS[2], name)
    grow(-(#old + #name + 64))
  end
  local number = redis.call('ZSCORE', KEYS[3], name)
  if number then redis.call('ZREM', KEYS[5], by_topic(name, number)) end
  redis.call('ZREM', KEYS[3], name)
  redis.call('ZREM', KEYS[4], name)
end
local name = ARGV[2]
remove(name)
if ARGV[3] ~= '1' then
  local value = added .. ' ' .. ARGV[#ARGV]
  redis.call('HSET', KEYS[2], name, value)
  grow(#value + #name + 64)
  local newest = redis.call('ZRANGE', KEYS[3], -1, -1, 'WITHSCORES')
  local number = tonumber(newest[2] or '0') + 1
  redis.call('ZADD', KEYS[3], number, name)
  redis.call('ZADD', KEYS[5], 0, by_topic(name, number))
  if ARGV[4] ~= '' then redis.call('ZADD', KEYS[4], ARGV[4], name) end
end
for _, ended in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', ARGV[5], 'LIMIT', 0, 64)) do
  remove(ended)
end
if redis.call('ZCARD', KEYS[5]) > tonumber(ARGV[8]) then
  local topic = string.match(name, '^[^ ]*')
  local first, last = '[' .. topic .. ' ', '(' .. topic .. '!'
  for _, member in ipairs(redis.call('ZRANGE', KEYS[5], last, first, 'BYLEX', 'REV', 'LIMIT', ARGV[8], 64)) do
    local old = topic .. string.sub(member, #topic + 18)
    local number = redis.call('ZSCORE', KEYS[3], old)
    if number and by_topic(old, number) == member then
      remove(old)
    else
      -- Of nodes that do not know this set.
      redis.call('ZREM', KEYS[5], member)
    end
  end
end
local counted = false
for _ = 1, 64 do
  local bytes = tonumber(redis.call('HGET', KEYS[2], '') or nil) or 0
  if bytes > 16 * (tonumber(ARGV[7]) + #ARGV[#ARGV]) and not counted then
    -- Nothing adds up to this: the sum itself is wrong.
    bytes, counted = 0, true
    for _, value in ipairs(redis.call('HVALS', KEYS[2])) do bytes = bytes + #value + 128 end
    redis.call('HSET', KEYS[2], '', bytes)
  end
  if redis.call('ZCARD', KEYS[3]) <= tonumber(ARGV[6]) and bytes <= tonumber(ARGV[7]) then break end
  local oldest = redis.call('ZRANGE', KEYS[3], 0, 0)[1]
  if not oldest then break end
  remove(oldest)
end
return added
";

/// The keys of retained messages.
#[derive(Debug)]
pub(super) struct RetainedKeys {
    pub(super) values: String,
    order: String,
    ends: String,
    topics: String,
}

impl RetainedKeys {
    pub(super) fn new(tag: &str) -> Self {
        Self {
            values: format!("{tag}:retained"),
            order: format!("{tag}:retained:order"),
            ends: format!("{tag}:retained:ends"),
            topics: format!("{tag}:retained:topics"),
        }
    }

    /// Returns what is done about broken keys.
    pub(super) fn repair(&self) -> Repair {
        Repair::default()
            .key(&self.values, "hash", Loss::Together)
            .key(&self.order, "zset", Loss::Together)
            .key(&self.ends, "zset", Loss::Together)
            .key(&self.topics, "zset", Loss::Together)
    }

    /// Begins a command that adds an entry to the stream `log` and its envelope to the retained ones. `id` is the key of the
    /// envelope's id. What [`Place::describe`] appends follows, and the arguments of XADD.
    pub(super) fn begin_add(&self, log: &str, id: Option<&str>, command: &mut Cmd) {
        command.arg("EVAL").arg(ADD_RETAINED).arg(5 + usize::from(id.is_some()));
        command.arg(log).arg(&self.values).arg(&self.order).arg(&self.ends).arg(&self.topics).arg(id);
    }
}

/// Place of a message among the retained ones.
pub(super) struct Place {
    name: String,
    clears: bool,
    /// Its end, in milliseconds of Redis' clock.
    end: Option<u64>,
}

impl Place {
    /// The place of an envelope that is published at `at`; `None` if it is not to be retained.
    pub(super) fn of(envelope: &Envelope, at: u64) -> Option<Self> {
        let topic = envelope.named_topic().filter(|_| envelope.is_retained())?;
        // Neither of them contains a space.
        let name = match envelope.collapse_key() {
            Some(key) => format!("{topic} {key}"),
            None => topic.to_string(),
        };
        let clears = envelope.message().data.as_bytes().is_empty();
        Some(Self { name, clears, end: envelope.ttl().map(|ttl| at.saturating_add(ttl_millis(ttl))) })
    }

    /// Appends to a command what its entry needs before the arguments of XADD: the end of the message, the time `at`, and
    /// the bounds of `config`. [`RetainedKeys::begin_add`] comes first.
    pub(super) fn describe(&self, window: Duration, at: u64, config: &RedisConfig, command: &mut Cmd) {
        command.arg(millis(window)).arg(&self.name).arg(u8::from(self.clears));
        command.arg(self.end.map_or_else(String::new, |end| end.to_string())).arg(at);
        command.arg(config.retained_messages).arg(config.retained_bytes).arg(config.retained_per_topic);
    }
}

/// A ttl in whole milliseconds, rounded up.
pub(super) fn ttl_millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use realtime_core::{CollapseKey, Message, Scope, Topic};

    use super::*;

    #[test]
    fn a_place_is_that_of_a_topic_and_a_key() {
        let envelope =
            |text| Envelope::to_topic(Topic::new("order:7").unwrap(), Scope::Both, Message::text(text));
        assert!(Place::of(&envelope("x"), 5).is_none());
        let place = Place::of(&envelope("x").retain(), 5).unwrap();
        assert_eq!((place.name.as_str(), place.clears, place.end), ("order:7", false, None));
        let keyed = envelope("").retain().collapse(CollapseKey::new("a:b").unwrap());
        let place = Place::of(&keyed.with_ttl(Duration::from_micros(1500)), 5).unwrap();
        assert_eq!((place.name.as_str(), place.clears, place.end), ("order:7 a:b", true, Some(7)));
        let to_all = Envelope::broadcast(Scope::Both, Message::text("x")).retain();
        assert!(Place::of(&to_all, 5).is_none());
    }
}

//! Keys and scripts of text streams.
//!
//! | key | type | contents |
//! |---|---|---|
//! | `<tag>:stream:<topic> <id>` | hash | run, writer, length, end and last position of a text stream |
//! | `<tag>:text:<topic> <id>` | string | its text |
//! | `<tag>:streams` | sorted set | the streams, by the time at which they are forgotten |
//! | `<tag>:stream-leases` | sorted set | the streams that are being written, by the end of their writer's lease |
//! | `<tag>:stream-sweep` | hash | the last search for ended leases, and the start of the searches without a pause |
//!
//! They are in the slot of the bus's stream, so that an entry is decided about in one step with adding it. Topics and ids
//! contain no white space. All times are Redis' own, in milliseconds.

use std::{sync::LazyLock, time::Duration};

use realtime_core::{
    Topic,
    bus::{StreamHead, StreamWrite, StreamWritten, WriteCondition},
    streams::{StreamEnd, StreamId, StreamKey},
};
use redis::{Cmd, Script, Value};

use crate::{
    content::Text,
    millis::millis,
    repair::{Loss, Repair},
};

/// Time to live of a writer's lease that is not renewed.
pub(super) const LEASE: Duration = Duration::from_secs(9);

/// Time for which a stream that is being written is kept without anything being appended.
const KEEP_LIVE: Duration = Duration::from_secs(24 * 3600);

/// Pause of the searches after which Redis counts as having been unavailable, so that no lease could be renewed.
const PAUSE: Duration = Duration::from_secs(3);

/// Time after such a pause in which no lease counts as ended, so that writers can renew theirs.
const RECOVER: Duration = Duration::from_secs(6);

/// Maximum number of abandoned streams of one search.
const ABANDONED: usize = 100;

/// Adds an entry if it continues its stream.
///
/// KEYS: log, stream, text, streams, leases. ARGV: member, run, writer, at, text, end or nothing, 1 if only an abandoned
/// stream may be ended, time for which it is kept after its end, lease, time for which it is kept while it is written,
/// arguments of XADD.
///
/// Returns the entry's id, or a list: `known` and the id if it had been added before, `fenced` and the current run, `lost`.
const ADD: &str = r"
local run, at, text, state = tonumber(ARGV[2]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local record = redis.call('HMGET', KEYS[2], 'run', 'writer', 'len', 'from', 'state', 'pos')
redis.call('STRLEN', KEYS[3])
redis.call('ZCARD', KEYS[4])
local lease = redis.call('ZSCORE', KEYS[5], ARGV[1])
local fresh = false
local current, len, ended = tonumber(record[1] or nil), tonumber(record[3] or nil), record[5] or ''
-- A record that is none counts as missing.
if not (current and len and current >= 0 and current < 9007199254740991) then current = nil end
if not current or run > current then
  local begins = at == 0 and state == ''
  local orphan = not current and state ~= '' and ARGV[7] == '1'
  if not begins and not orphan then return { 'lost' } end
  fresh = true
else
  if run < current or ARGV[3] ~= record[2] then return { 'fenced', string.format('%.0f', current) } end
  if ended == state and tonumber(record[4]) == at and len == at + #text then
    if state == '' then redis.call('ZADD', KEYS[5], now + tonumber(ARGV[9]), ARGV[1]) end
    return { 'known', record[6] }
  end
  if ended ~= '' then return { 'fenced', string.format('%.0f', current) } end
  if len < at then return { 'lost' } end
  if len > at then return { 'fenced', string.format('%.0f', current) } end
  if ARGV[7] == '1' then
    if lease and tonumber(lease) > now then return { 'fenced', string.format('%.0f', current) } end
  end
end
local added = redis.call('XADD', KEYS[1], unpack(ARGV, 11))
if not added then return added end
if fresh then redis.call('DEL', KEYS[3]) end
if #text > 0 then redis.call('APPEND', KEYS[3], text) end
redis.call('HSET', KEYS[2], 'run', run, 'writer', ARGV[3], 'len', at + #text, 'from', at, 'state', state, 'pos', added)
local keep = ARGV[8]
if state == '' then
  keep = ARGV[10]
  redis.call('ZADD', KEYS[5], now + tonumber(ARGV[9]), ARGV[1])
else
  redis.call('ZREM', KEYS[5], ARGV[1])
end
redis.call('PEXPIRE', KEYS[2], keep)
redis.call('PEXPIRE', KEYS[3], keep)
redis.call('ZADD', KEYS[4], now + tonumber(keep), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
return added
";

/// The hash by which servers know [`ADD`].
static ADD_HASH: LazyLock<String> = LazyLock::new(|| Script::new(ADD).get_hash().to_owned());

/// KEYS: leases. ARGV: lease, members. Returns those without a lease.
const RENEW: &str = r"
local time = redis.call('TIME')
local till = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(ARGV[1])
local lost = {}
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], till, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
";

/// KEYS: leases, sweep. ARGV: pause, time to recover after it, maximum number, lease. Shortens leases that are longer than any
/// writer takes: it may have died with a server whose clock was ahead. Returns members whose lease has ended.
const SWEEP: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local sweep = redis.call('HMGET', KEYS[2], 'last', 'since')
local last, since = tonumber(sweep[1] or nil), tonumber(sweep[2] or nil)
if not last or not since or not (now - last <= tonumber(ARGV[1])) or not (since <= now) then since = now end
redis.call('HSET', KEYS[2], 'last', now, 'since', since)
redis.call('PEXPIRE', KEYS[2], 3600000)
local lease = tonumber(ARGV[4])
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now + 2 * lease, '+inf', 'LIMIT', 0, ARGV[3])) do
  redis.call('ZADD', KEYS[1], now + lease, member)
end
if now - since < tonumber(ARGV[2]) then return {} end
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[3])
";

/// The keys of text streams.
#[derive(Debug)]
pub(super) struct TextStreamKeys {
    stream: String,
    text: String,
    pub(super) streams: String,
    leases: String,
    sweep: String,
}

/// The run that no stream reaches: Lua cannot count further.
const LAST_RUN: u64 = (1 << 53) - 1;

/// Form in which a script is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScriptForm {
    /// By its hash.
    Hash,
    /// Whole, for a server that does not know it yet.
    Text,
}

impl TextStreamKeys {
    pub(super) fn new(tag: &str) -> Self {
        let key = |name: &str| format!("{tag}:{name}");
        Self {
            stream: key("stream:"),
            text: key("text:"),
            streams: key("streams"),
            leases: key("stream-leases"),
            sweep: key("stream-sweep"),
        }
    }

    /// Begins the command that adds an entry; the arguments of XADD follow.
    pub(super) fn begin_add(&self, command: &mut Cmd, log: &str, write: &StreamWrite<'_>, form: ScriptForm) {
        let member = member(&write.entry.key);
        match form {
            ScriptForm::Hash => command.arg("EVALSHA").arg(&*ADD_HASH),
            ScriptForm::Text => command.arg("EVAL").arg(ADD),
        };
        command
            .arg(5)
            .arg(log)
            .arg(format!("{}{member}", self.stream))
            .arg(format!("{}{member}", self.text))
            .arg(&self.streams)
            .arg(&self.leases)
            .arg(&member)
            .arg(write.entry.run)
            .arg(write.writer)
            .arg(write.entry.at)
            .arg(write.entry.change.text())
            .arg(write.entry.change.end().map_or("", StreamEnd::name))
            .arg(u8::from(write.condition == WriteCondition::IfAbandoned))
            .arg(bounded_millis(write.keep))
            .arg(bounded_millis(LEASE))
            .arg(bounded_millis(KEEP_LIVE));
    }

    /// The command that renews leases.
    pub(super) fn renew(&self, keys: &[StreamKey]) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(RENEW).arg(1).arg(&self.leases).arg(bounded_millis(LEASE));
        for key in keys {
            command.arg(member(key));
        }
        command
    }

    /// The command that searches for ended leases.
    pub(super) fn sweep(&self) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(SWEEP).arg(2).arg(&self.leases).arg(&self.sweep);
        command
            .arg(bounded_millis(PAUSE))
            .arg(bounded_millis(RECOVER))
            .arg(ABANDONED)
            .arg(bounded_millis(LEASE));
        command
    }

    /// Returns what is done about broken keys: of one stream, and of all.
    pub(super) fn repair(&self, key: Option<&StreamKey>) -> Vec<Repair> {
        let all = Repair::default()
            .key(&self.streams, "zset", Loss::Alone)
            .key(&self.leases, "zset", Loss::Alone)
            .key(&self.sweep, "hash", Loss::Alone);
        let one = key.map(|key| {
            let member = member(key);
            Repair::default().key(format!("{}{member}", self.stream), "hash", Loss::Together).key(
                format!("{}{member}", self.text),
                "string",
                Loss::Together,
            )
        });
        one.into_iter().chain([all]).collect()
    }

    /// The command that removes leases.
    pub(super) fn forget(&self, members: &[Vec<u8>]) -> Cmd {
        let mut command = redis::cmd("ZREM");
        command.arg(&self.leases).arg(members);
        command
    }

    /// The command that reads a stream's record, for [`head`].
    pub(super) fn read_head(&self, member: &str) -> Cmd {
        let mut command = redis::cmd("HMGET");
        command.arg(format!("{}{member}", self.stream)).arg("run").arg("writer").arg("len").arg("state");
        command
    }

    /// The command that reads a stream's text.
    pub(super) fn read_text(&self, member: &str) -> Cmd {
        let mut command = redis::cmd("GET");
        command.arg(format!("{}{member}", self.text));
        command
    }
}

/// The name of a stream in the sorted sets.
pub(super) fn member(key: &StreamKey) -> String {
    format!("{} {}", key.topic, key.id)
}

/// Parses a [`member`].
pub(super) fn parse_member(member: &str) -> Option<StreamKey> {
    let (topic, id) = member.rsplit_once(' ')?;
    Some(StreamKey { topic: Topic::new(topic).ok()?, id: StreamId::new(id).ok()? })
}

/// A stream's record, as [`TextStreamKeys::read_head`] reads it.
pub(super) type Record = (Text, Text, Text, Text);

/// The head of a stream with this record; `None` if there is none, or if it is of another version.
pub(super) fn head(member: &str, record: Record) -> Option<StreamHead> {
    let (Text(Some(run)), Text(Some(writer)), Text(Some(len)), Text(Some(state))) = record else {
        return None;
    };
    let (run, len) = (run.parse().ok().filter(|run| *run < LAST_RUN)?, len.parse().ok()?);
    let end = match state.as_str() {
        "" => None,
        state => Some(StreamEnd::parse(state)?),
    };
    Some(StreamHead { key: parse_member(member)?, run, writer, len, end })
}

/// The answer of the script that adds an entry, unless it has added it now or before.
pub(super) fn refused(answer: &Value) -> Option<StreamWritten> {
    let Value::Array(answer) = answer else { return None };
    let text = |value: Option<&Value>| match value? {
        Value::BulkString(text) => str::from_utf8(text).ok().map(str::to_owned),
        _ => None,
    };
    match text(answer.first())?.as_str() {
        "fenced" => Some(StreamWritten::Fenced { run: text(answer.get(1))?.parse().ok()? }),
        "lost" => Some(StreamWritten::Lost),
        _ => None,
    }
}

/// A time that Redis takes: it refuses those that overflow when they are added to now.
fn bounded_millis(duration: Duration) -> u64 {
    millis(duration).clamp(1, 1 << 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_parsed_to_its_key() {
        let key =
            StreamKey { topic: Topic::new("{room}:7/ä").unwrap(), id: StreamId::new("a:{b}").unwrap() };
        assert_eq!(parse_member(&member(&key)), Some(key));
        assert_eq!(parse_member("no-space"), None);
    }
}

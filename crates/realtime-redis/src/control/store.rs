//! [`Store`]: the keys of control in Redis.
//!
//! All keys share a hash tag, so that they are in one slot of a cluster:
//!
//! | key | type | holds |
//! |---|---|---|
//! | `commands` | stream | the commands: `v` the version, `c` the command as JSON |
//! | `refused` | sorted set | a token's hash, then a space and its user where only that user is refused -> when it ends |
//! | `revoked` | sorted set | a user -> the time before which its refused tokens were issued |
//! | `nodes` | sorted set | a node's incarnation -> when its lease ends, in milliseconds |
//! | `since` | string | the time since when leases have been renewed without a pause, in milliseconds |
//! | `receipts:<id>` | hash | an incarnation -> the result of the command on that node, as JSON |
//!
//! Times are seconds unless stated otherwise, by Redis' clock.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem, slice,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use realtime_core::{
    UserId,
    auth::TokenHash,
    control::{Answer, Command, Delivery, Revocation, RevokedToken},
};
use redis::{FromRedisValue, aio::MultiplexedConnection};
use serde::{
    Deserialize, Serialize,
    de::{IntoDeserializer, value::Error as DecodeError},
};
use tokio::{task::yield_now, time::Instant};

use crate::{
    commands::{Commands, Entries},
    config::{RedisConfig, RedisConfigError},
    content::{Number, Skipped, StreamEntry, Text, texts},
    incarnation::Incarnation,
    part::Part,
    repair::{Loss, Repair},
};

/// Time to live of a lease that is not renewed.
pub(super) const LEASE: Duration = Duration::from_secs(9);
/// Time between two renewals of a lease.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(3);
/// Time within which all live nodes renew their leases in a Redis that has come back. Until then it may not know them: it
/// was emptied, or away for so long that leases have ended.
pub(super) const RETURN: Duration = RENEW_EVERY;
/// If no lease was renewed for this long, Redis was away. Less than the outage in which a lease ends.
const SILENCE: Duration = Duration::from_secs(5);
/// Time to live of receipts, in seconds.
const KEEP_RECEIPTS: u64 = 60;
/// Number of questions that one call removes at most; those beyond are trimmed as commands are.
const MAX_ANSWERED: usize = 1000;
/// Time for which a command that nobody waits for stays in the stream.
const KEEP_UNCONFIRMED: Duration = Duration::from_secs(5);
/// Number of refusals that are compared before other tasks run.
pub(super) const SLICE: usize = 10_000;
/// Approximate number of refusals that are read in one step.
const SCAN_STEP: usize = 1000;
/// Approximate number of commands that are kept for nodes that were disconnected.
pub(super) const KEEP_COMMANDS: usize = 10_000;

/// KEYS: commands, refused, revoked, nodes. ARGV: incarnation, commands to keep, time for which tokens without an end are kept,
/// 1 to add all commands or 0 to add those with new revocations, the number of commands to remove and their ids; then for each
/// command its JSON, the number of its revocations, and for each of those `token` or `user`, the member and its score, which is
/// empty for a token without an end.
/// Returns whether the node has a lease, and each command's id, empty if it was not added.
///
/// Ended entries are kept for another hour, since clocks differ.
const ADD: &str = r"
local now = tonumber(redis.call('TIME')[1])
local longest = tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. (now - 3600))
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', '(' .. (now - longest))
local answer = { redis.call('ZSCORE', KEYS[4], ARGV[1]) and '1' or '0' }
local removed = tonumber(ARGV[5])
if removed > 0 then redis.pcall('XDEL', KEYS[1], unpack(ARGV, 6, 5 + removed)) end
local i = 6 + removed
while i <= #ARGV do
  local command, last = ARGV[i], i + 1 + 3 * tonumber(ARGV[i + 1])
  local news = ARGV[4] == '1'
  for j = i + 2, last, 3 do
    local kind, member, score = ARGV[j], ARGV[j + 1], ARGV[j + 2]
    if kind == 'user' then
      if redis.call('ZADD', KEYS[3], 'GT', 'CH', score, member) == 1 then news = true end
    elseif score == '' then
      local old = redis.call('ZSCORE', KEYS[2], member)
      if not old or tonumber(old) < now + longest / 2 then news = true end
      redis.call('ZADD', KEYS[2], 'GT', now + longest, member)
    elseif redis.call('ZADD', KEYS[2], 'GT', 'CH', score, member) == 1 then
      news = true
    end
  end
  local id = ''
  if news then
    id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'v', '1', 'c', command)
  end
  answer[#answer + 1] = id
  i = last + 1
end
return answer
";

/// KEYS: nodes, since. ARGV: incarnation, lease in ms, silence in ms. Removes ended leases, and those that are longer than
/// any node takes: their nodes would be waited for in vain. Returns whether the node had a lease, the time since when leases
/// are renewed, and the nodes with one now.
const RENEW: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local lease = tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + 10 * lease, '+inf')
local newest = tonumber(redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2])
local since = tonumber(redis.call('GET', KEYS[2]))
if not (since and since >= 0 and since <= now and newest and newest >= now + lease - tonumber(ARGV[3])) then
  since = now
  redis.call('SET', KEYS[2], string.format('%.0f', since))
end
local new = redis.call('ZADD', KEYS[1], now + lease, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)
return { 1 - new, since, redis.call('ZRANGE', KEYS[1], 0, -1) }
";

/// The keys of control, and the operations on them.
#[derive(Debug)]
pub(super) struct Store {
    commands: Commands,
    incarnation: Incarnation,
    stream: String,
    refused: String,
    revoked: String,
    nodes: String,
    since: String,
    /// Prefix of the key of a command's receipts; its id follows.
    receipts: String,
    add: redis::Script,
    renew: redis::Script,
    /// The ids of questions of this node that have been answered, until they are removed.
    answered: Mutex<Vec<String>>,
    /// The ids of commands that nobody waits for, in their order, by the time at which they are removed.
    passing: Mutex<VecDeque<(Instant, String)>>,
}

/// A question that nobody has to answer once this is dropped.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    store: &'a Store,
    pub(super) added: Added,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.store.remove_later(mem::take(&mut self.added.ids));
    }
}

/// The result of adding commands.
#[derive(Debug)]
pub(super) struct Added {
    /// Set if this node has a lease.
    pub(super) has_lease: bool,
    /// The ids of those that were added.
    pub(super) ids: Vec<String>,
}

/// The record of a node that has applied a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Receipt {
    /// Number of sessions that it ended.
    pub(super) closed: usize,
    /// Number of sessions or text streams that it changed without ending them; absent from older nodes.
    #[serde(default)]
    pub(super) changed: usize,
    /// The deliveries that the command asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) delivery: Option<Delivery>,
    /// The answer to the question that the command asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<Answer>,
    /// The id of the command by which this node revoked further tokens on the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refuse: Option<String>,
}

/// The result of renewing this node's lease.
#[derive(Debug)]
pub(super) struct Renewed {
    /// The node still had a lease.
    pub(super) had_lease: bool,
    /// The time since when leases have been renewed without a pause, in milliseconds.
    pub(super) since: u64,
    /// The nodes with a lease now.
    pub(super) nodes: HashSet<String>,
}

/// What is known of commands that were added.
#[derive(Debug)]
pub(super) struct Confirmed {
    /// The nodes with a lease.
    pub(super) nodes: HashSet<String>,
    /// These are all that are alive: Redis has had the leases for [`RETURN`].
    pub(super) knows_all: bool,
    /// The receipts of each command, by incarnation.
    pub(super) receipts: Vec<HashMap<String, Receipt>>,
    /// Redis still has the commands. Otherwise it has lost its data, and nodes without a receipt never read them.
    pub(super) is_kept: bool,
}

/// Whether a command is worth nothing once it has been carried out, and does no harm when it is carried out again. It is
/// removed then.
pub(super) fn is_passing(command: &Command) -> bool {
    matches!(command, Command::Report { .. } | Command::Ask { .. } | Command::EndSessions { .. })
}

/// All revocations, as they were read.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) revocations: Vec<Revocation>,
    /// The newest command when the read began.
    pub(super) before: CommandId,
    /// The newest command when it ended.
    pub(super) last: CommandId,
    /// [`Store::reopened`] when it began.
    pub(super) reopened: u64,
}

/// A command's id.
pub(super) type CommandId = (u64, u64);

impl Store {
    /// # Panics
    /// The returned function panics outside a tokio runtime.
    pub(super) fn make(
        config: RedisConfig,
        incarnation: Incarnation,
    ) -> Result<impl FnOnce(Skipped) -> Self + Send, RedisConfigError> {
        let tag = config.tag("rt/control");
        let commands = Commands::make(config, Part::Control)?;
        Ok(move |skipped| {
            let key = |name: &str| format!("{tag}:{name}");
            let stream = key("commands");
            // Without their leases the nodes compare what they refuse, and write it again.
            let repair = Repair::default()
                .key(&stream, "stream", Loss::Alone)
                .key(key("refused"), "zset", Loss::Alone)
                .key(key("revoked"), "zset", Loss::Alone)
                .key(key("nodes"), "zset", Loss::Leases)
                .key(key("since"), "string", Loss::Leases);
            Self {
                commands: commands(stream.clone(), repair, Arc::new(skipped)),
                incarnation,
                stream,
                refused: key("refused"),
                revoked: key("revoked"),
                nodes: key("nodes"),
                since: key("since"),
                receipts: key("receipts:"),
                add: redis::Script::new(ADD),
                renew: redis::Script::new(RENEW),
                answered: Mutex::default(),
                passing: Mutex::default(),
            }
        })
    }

    pub(super) fn incarnation(&self) -> &str {
        self.incarnation.as_str()
    }

    /// Returns how many connections were replaced so far. What was read and written before may be lost.
    pub(super) fn reopened(&self) -> u64 {
        self.commands.reopened()
    }

    /// Returns how many connections for requests were opened so far.
    pub(super) fn opened(&self) -> u64 {
        self.commands.opened()
    }

    /// Adds commands and their revocations in one step: all of them, or only those with new revocations.
    pub(super) async fn add(&self, commands: &[Command], all: bool) -> Result<Added, String> {
        let mut invocation = self.add.prepare_invoke();
        for key in [&self.stream, &self.refused, &self.revoked, &self.nodes] {
            invocation.key(key);
        }
        let mut answered = mem::take(&mut *self.answered.lock().unwrap_or_else(PoisonError::into_inner));
        self.take_passed(&mut answered);
        invocation
            .arg(self.incarnation())
            .arg(KEEP_COMMANDS)
            .arg(Revocation::LONGEST.as_secs())
            .arg(u8::from(all))
            .arg(answered.len())
            .arg(answered);
        for command in commands {
            let revocations = command.revocations();
            invocation.arg(serde_json::to_string(command).expect("strings and numbers are always JSON"));
            invocation.arg(revocations.len());
            for revocation in &revocations {
                let (kind, member, score) = encode(revocation);
                let score = score.map(|score| score.to_string()).unwrap_or_default();
                invocation.arg(kind.name()).arg(member).arg(score);
            }
        }
        let add = async |connection: &mut MultiplexedConnection| {
            invocation.invoke_async::<Vec<String>>(connection).await
        };
        let mut answer = self.commands.run(add).await?.into_iter();
        let has_lease = answer.next().is_some_and(|lease| lease == "1");
        Ok(Added { has_lease, ids: answer.filter(|id| !id.is_empty()).collect() })
    }

    /// Adds a question, which the next call of [`Self::add`] removes once it has been answered. It would otherwise push commands
    /// out of the stream that a node has missed, and is worth nothing to that.
    pub(super) async fn ask(&self, question: &Command) -> Result<Asked<'_>, String> {
        Ok(Asked { store: self, added: self.add(slice::from_ref(question), true).await? })
    }

    /// Has the next call of [`Self::add`] remove commands.
    pub(super) fn remove_later(&self, ids: Vec<String>) {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        if answered.len() < MAX_ANSWERED {
            answered.extend(ids);
        }
    }

    /// Has a later call of [`Self::add`] remove commands, once live nodes have read them.
    pub(super) fn remove_when_read(&self, ids: Vec<String>) {
        let at = Instant::now() + KEEP_UNCONFIRMED;
        let mut passing = self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        passing.extend(ids.into_iter().map(|id| (at, id)));
        // The stream keeps no more.
        let beyond = passing.len().saturating_sub(KEEP_COMMANDS);
        passing.drain(..beyond);
    }

    /// Moves those whose time has come to the answered ones.
    fn take_passed(&self, answered: &mut Vec<String>) {
        let mut passing = self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        let due = passing.partition_point(|(at, _)| *at <= Instant::now());
        let room = MAX_ANSWERED.saturating_sub(answered.len());
        answered.extend(passing.drain(..due.min(room)).map(|(_, id)| id));
    }

    /// Renews the node's lease.
    pub(super) async fn renew_lease(&self) -> Result<Renewed, String> {
        let mut invocation = self.renew.prepare_invoke();
        invocation.key(&self.nodes).key(&self.since).arg(self.incarnation());
        invocation.arg(LEASE.as_secs() * 1000).arg(SILENCE.as_secs() * 1000);
        let renew = async |connection: &mut MultiplexedConnection| {
            invocation.invoke_async::<(bool, u64, Vec<Text>)>(connection).await
        };
        let (had_lease, since, nodes) = self.commands.run(renew).await?;
        Ok(Renewed { had_lease, since, nodes: self.nodes_among(nodes) })
    }

    /// Returns the names of nodes among the members of the leases.
    fn nodes_among(&self, members: Vec<Text>) -> HashSet<String> {
        texts(members, |_| self.commands.skipped().record("a lease of control whose node is no text"))
    }

    pub(super) async fn end_lease(&self) -> Result<(), String> {
        let remove = async |connection: &mut MultiplexedConnection| {
            redis::cmd("ZREM").arg(&self.nodes).arg(self.incarnation()).query_async::<()>(connection).await
        };
        self.commands.run(remove).await
    }

    /// Returns all revocations. Those that come during the read may be missing: they are in the commands up to the last.
    pub(super) async fn snapshot(&self) -> Result<Snapshot, String> {
        let before = self.newest().await?;
        let reopened = self.reopened();
        let mut revocations = self.revocations(Kind::Token, &self.refused).await?;
        revocations.append(&mut self.revocations(Kind::User, &self.revoked).await?);
        Ok(Snapshot { revocations, before, last: self.newest().await?, reopened })
    }

    /// Reads one of the sets in steps, each of which arrives in time however large the set is.
    async fn revocations(&self, kind: Kind, key: &str) -> Result<Vec<Revocation>, String> {
        let (mut found, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            let scan = async |connection: &mut MultiplexedConnection| {
                let mut scan = redis::cmd("ZSCAN");
                scan.arg(key).arg(&cursor).arg("COUNT").arg(SCAN_STEP);
                match scan.query_async::<(String, Vec<(Text, Number)>)>(connection).await {
                    Err(error) if error.code() == Some("NOPERM") => Ok(None),
                    step => step.map(Some),
                }
            };
            let (next, entries) = match self.commands.run(scan).await? {
                Some(step) => step,
                // A user that was set up for an earlier version, which read all at once.
                None => ("0".to_owned(), self.all(key).await?),
            };
            for (Text(member), Number(score)) in entries {
                match member.zip(score).and_then(|(member, score)| decode(kind, &member, score)) {
                    Some(revocation) => found.push(revocation),
                    None => self.commands.skipped().record("a refused login that is none"),
                }
            }
            if next == "0" {
                return Ok(found);
            }
            cursor = next;
        }
    }

    /// Reads one of the sets at once.
    async fn all(&self, key: &str) -> Result<Vec<(Text, Number)>, String> {
        let all = redis::cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES").clone();
        self.commands
            .run(async |connection: &mut MultiplexedConnection| all.query_async(connection).await)
            .await
    }

    /// Returns the newest command.
    pub(super) async fn newest(&self) -> Result<CommandId, String> {
        let command = self.ask_newest();
        let ask = async |connection: &mut MultiplexedConnection| command.query_async(connection).await;
        Ok(id_of(&self.commands.run::<Vec<StreamEntry>>(ask).await?))
    }

    fn ask_newest(&self) -> redis::Cmd {
        redis::cmd("XREVRANGE").arg(&self.stream).arg("+").arg("-").arg("COUNT").arg(1).clone()
    }

    /// Records a command that cannot be read.
    pub(super) fn skip_command(&self) {
        self.commands.skipped().record("a command that this version cannot read");
    }

    /// Reads the commands after one; waits for some.
    pub(super) async fn commands_after(&self, (millis, number): CommandId) -> Result<Entries, String> {
        self.commands.entries_after(&self.stream, &format!("{millis}-{number}")).await
    }

    /// Writes receipts for commands; they expire.
    pub(super) async fn write_receipts<'a>(
        &self,
        receipts: impl Iterator<Item = (&'a str, &'a Receipt)>,
    ) -> Result<(), String> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for (id, receipt) in receipts {
            let key = format!("{}{id}", self.receipts);
            let json = serde_json::to_string(receipt).expect("numbers and strings are always JSON");
            pipe.cmd("HSET").arg(&key).arg(self.incarnation()).arg(json).ignore();
            pipe.cmd("EXPIRE").arg(&key).arg(KEEP_RECEIPTS).ignore();
        }
        let write = async |connection: &mut MultiplexedConnection| pipe.query_async::<()>(connection).await;
        self.commands.run(write).await
    }

    /// Reads what is known of commands so far, all of the same moment: if the commands are still there, so are the leases.
    pub(super) async fn confirmed(&self, ids: &[String]) -> Result<Confirmed, String> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("ZRANGE").arg(&self.nodes).arg(0).arg(-1).cmd("GET").arg(&self.since).cmd("TIME");
        for id in ids {
            pipe.cmd("HGETALL").arg(format!("{}{id}", self.receipts));
            pipe.cmd("XRANGE").arg(&self.stream).arg(id).arg(id);
        }
        let ask = async |connection: &mut MultiplexedConnection| {
            let mut answers = pipe.query_async::<Vec<redis::Value>>(connection).await?.into_iter();
            let mut next = || answers.next().unwrap_or_default();
            let nodes = Vec::<Text>::from_redis_value(next())?;
            let Number(since) = Number::from_redis_value(next())?;
            let (seconds, micros) = <(f64, f64)>::from_redis_value(next())?;
            let (mut receipts, mut is_kept) = (Vec::with_capacity(ids.len()), true);
            for _ in ids {
                receipts.push(Vec::<(Text, Text)>::from_redis_value(next())?);
                is_kept &= !Vec::<StreamEntry>::from_redis_value(next())?.is_empty();
            }
            Ok((nodes, since, seconds + micros / 1e6, receipts, is_kept))
        };
        let (nodes, since, now, receipts, is_kept) = self.commands.run(ask).await?;
        let read = |(Text(node), Text(json)): (Text, Text)| Some((node?, serde_json::from_str(&json?).ok()?));
        let receipts = receipts.into_iter().map(|of_order| of_order.into_iter().filter_map(read).collect());
        Ok(Confirmed {
            nodes: self.nodes_among(nodes),
            knows_all: since.is_some_and(|since| now - since / 1e3 >= RETURN.as_secs_f64()),
            receipts: receipts.collect(),
            is_kept,
        })
    }
}

impl Snapshot {
    /// Returns commands for those revocations that are not in the snapshot. Other tasks run in between.
    pub(super) async fn missing(&self, held: Vec<Revocation>) -> Vec<Command> {
        let mut known = HashMap::with_capacity(self.revocations.len());
        for some in self.revocations.chunks(SLICE) {
            known.extend(some.iter().map(|revocation| {
                let (kind, member, score) = encode(revocation);
                ((kind, member), score)
            }));
            yield_now().await;
        }
        let mut missing = Vec::new();
        for some in held.chunks(SLICE) {
            missing.extend(some.iter().filter(|revocation| {
                let (kind, member, score) = encode(revocation);
                known.get(&(kind, member)).is_none_or(|known| *known < score)
            }));
            yield_now().await;
        }
        missing.into_iter().cloned().map(Revocation::into_command).collect()
    }
}

/// The set of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Token,
    User,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::User => "user",
        }
    }
}

/// Returns the set, member and score of a revocation; no score for a token without an end.
fn encode(revocation: &Revocation) -> (Kind, String, Option<u64>) {
    match revocation {
        Revocation::Token { user, token: RevokedToken { token, until } } => {
            let hash = serde_json::to_value(token).expect("a hash is text");
            let hash = hash.as_str().unwrap_or_default();
            let member = user.as_ref().map_or_else(|| hash.to_owned(), |user| format!("{hash} {user}"));
            // Rounded up: it must not end before the token does.
            (Kind::Token, member, until.map(|end| seconds(end + Duration::from_nanos(999_999_999))))
        }
        Revocation::IssuedBefore { user, time } => (Kind::User, user.to_string(), Some(seconds(*time))),
    }
}

/// Decodes an [`encode`]d revocation; `None` for the format of another version.
fn decode(kind: Kind, member: &str, score: f64) -> Option<Revocation> {
    let time = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(score).ok()?)?;
    match kind {
        Kind::Token => {
            let (hash, user) = match member.split_once(' ') {
                Some((hash, user)) => (hash, Some(user.parse::<UserId>().ok()?)),
                None => (member, None),
            };
            let hash = IntoDeserializer::<DecodeError>::into_deserializer(hash);
            let token = TokenHash::deserialize(hash).ok()?;
            Some(Revocation::Token { user, token: RevokedToken { token, until: Some(time) } })
        }
        Kind::User => Some(Revocation::IssuedBefore { user: member.parse().ok()?, time }),
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Returns the id of the only entry of an answer.
fn id_of(newest: &[StreamEntry]) -> CommandId {
    newest.first().and_then(|entry| command_id(&entry.id)).unwrap_or_default()
}

/// Parses the id of an entry as a command's.
pub(super) fn command_id(text: &str) -> Option<CommandId> {
    let (millis, number) = text.split_once('-')?;
    Some((millis.parse().ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(user: Option<i64>, until: Option<u64>) -> Revocation {
        let until = until.map(|end| UNIX_EPOCH + Duration::from_secs(end));
        let token = RevokedToken { token: TokenHash::of("t"), until };
        Revocation::Token { user: user.map(UserId::from), token }
    }

    fn before(time: u64) -> Revocation {
        Revocation::IssuedBefore {
            user: "u-7".parse().unwrap(),
            time: UNIX_EPOCH + Duration::from_secs(time),
        }
    }

    #[test]
    fn an_encoded_revocation_decodes_to_itself() {
        for revocation in [token(None, Some(7)), token(Some(5), Some(7)), before(7)] {
            let (kind, member, score) = encode(&revocation);
            assert_eq!(decode(kind, &member, score.unwrap() as f64), Some(revocation), "{member}");
        }
        for (member, score) in
            [("no hash", 7.0), ("00 a b", 7.0), ("", 7.0), ("00", f64::INFINITY), ("00", -1.0)]
        {
            assert_eq!(decode(Kind::Token, member, score), None, "{member}");
        }
    }

    #[tokio::test]
    async fn only_revocations_that_redis_lacks_are_missing() {
        let known = vec![token(None, Some(100)), token(Some(1), Some(100)), before(100)];
        let snapshot = Snapshot { revocations: known, before: (0, 0), last: (0, 0), reopened: 0 };
        for (revocation, is_missing) in [
            (token(None, Some(100)), false),
            (token(None, Some(101)), true),
            // A token without an end has one in the far future.
            (token(Some(1), None), false),
            (token(Some(2), Some(100)), true),
            (before(100), false),
            (before(101), true),
        ] {
            let missing = snapshot.missing(vec![revocation.clone()]).await;
            assert_eq!(!missing.is_empty(), is_missing, "{revocation:?}");
        }
    }
}

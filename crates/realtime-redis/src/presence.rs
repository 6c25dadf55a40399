//! [`RedisPresence`]: the online users of a cluster.
//!
//! Each node keeps a lease and, per user, a list of its own sessions. Each write contains the complete list of one user on
//! this node, so it can be repeated, and whenever writes may have been lost a node writes all lists again. After a crash of a
//! node, the others remove its entries when its lease has ended.

mod changes;
mod keeper;
mod member;
mod reader;
mod scripts;
mod shared;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_core::{future::BoxFuture, stream::BoxStream};
use realtime_core::{
    UserId,
    presence::{
        LocalPresence, OnlineCount, OnlineNode, OnlineSession, OnlineUser, Presence, PresenceError,
        PresenceEvent,
    },
};
use redis::{RedisResult, Value};
use tokio::task::JoinHandle;

use self::{
    changes::Changes,
    keeper::Keeper,
    shared::{Keys, PresenceShared},
};
use crate::{
    commands::Commands,
    config::{RedisConfig, RedisConfigError},
    content::{Number, Skipped, Text, texts},
    incarnation::Incarnation,
    part::Part,
    repair::is_broken_key,
    task::restarting,
};

/// The online users of a cluster, stored in Redis 7.0 or later.
///
/// After a crash of a node, its users are offline within 15 s.
#[derive(Debug)]
pub struct RedisPresence {
    shared: Arc<PresenceShared>,
    keeper: Arc<Keeper>,
    keeping: Mutex<Option<JoinHandle<()>>>,
    following: JoinHandle<()>,
}

/// A node has fewer sessions than this.
const MOST_SESSIONS: f64 = 1e9;

/// Number of users per question.
const CHUNK: usize = 1000;

impl RedisPresence {
    /// Makes the presence of a cluster, to be passed to `HubBuilder::presence`.
    ///
    /// # Errors
    /// [`RedisConfigError`] for an invalid URL.
    ///
    /// # Panics
    /// The returned function panics outside a tokio runtime.
    pub fn make(
        config: RedisConfig,
        incarnation: Incarnation,
    ) -> Result<impl FnOnce(LocalPresence) -> Self + Send, RedisConfigError> {
        let tag = config.tag("rt/presence");
        let commands = Commands::make(config, Part::Presence)?;
        Ok(move |local: LocalPresence| {
            let keys = Keys::new(&tag);
            let counted = local.clone();
            let skipped = Arc::new(Skipped::new(move || counted.count_unreadable()));
            let commands = commands(keys.nodes.clone(), keys.repair(), skipped);
            let shared = Arc::new(PresenceShared { commands, keys, changes: Changes::default() });
            let keeper = Arc::new(Keeper::new(local, Arc::clone(&shared), incarnation));
            let kept = Arc::clone(&keeper);
            let keep = restarting("presence", move || keeper::keep(Arc::clone(&kept)));
            let keeping = Mutex::new(Some(tokio::spawn(keep)));
            let followed = Arc::clone(&shared);
            let follow = restarting("changes of presence", move || reader::follow(Arc::clone(&followed)));
            let following = tokio::spawn(follow);
            Self { shared, keeper, keeping, following }
        })
    }
}

impl Drop for RedisPresence {
    fn drop(&mut self) {
        if let Some(keeping) = self.keeping.get_mut().unwrap_or_else(PoisonError::into_inner) {
            keeping.abort();
        }
        self.following.abort();
    }
}

impl Presence for RedisPresence {
    fn changed(&self, user: &UserId) {
        self.keeper.changed(user);
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(keeping) = keeping {
                keeping.abort();
                // Another write of the task after ours would renew the lease.
                keeping.await.ok();
                self.keeper.retire().await;
            }
        })
    }

    fn changes(&self) -> BoxStream<'static, PresenceEvent> {
        self.shared.changes.listen()
    }

    fn is_online<'a>(&'a self, users: &'a [UserId]) -> BoxFuture<'a, Result<Vec<bool>, PresenceError>> {
        Box::pin(async move {
            if users.is_empty() {
                return Ok(Vec::new());
            }
            let shared = &self.shared;
            let answer = shared.ask(async |connection| {
                // In chunks, so that Redis works on one while the answer to another is read.
                let mut pipe = redis::pipe();
                for chunk in users.chunks(CHUNK) {
                    let command = pipe.cmd("SMISMEMBER").arg(&shared.keys.online);
                    for user in chunk {
                        command.arg(member::encode(user));
                    }
                }
                pipe.query_async::<Vec<Vec<Value>>>(connection).await
            });
            Ok(answer.await?.iter().flatten().map(|is_member| *is_member != Value::Int(0)).collect())
        })
    }

    fn count(&self) -> BoxFuture<'_, Result<OnlineCount, PresenceError>> {
        Box::pin(async move {
            let shared = &self.shared;
            let (users, sessions) = shared
                .ask(async |connection| {
                    redis::pipe()
                        .cmd("ZCARD")
                        .arg(&shared.keys.users)
                        .cmd("HVALS")
                        .arg(&shared.keys.counts)
                        .query_async::<(usize, Vec<Number>)>(connection)
                        .await
                })
                .await?;
            let sessions = sessions.into_iter().map(|Number(count)| match count {
                Some(count) if (0.0..MOST_SESSIONS).contains(&count) => count as usize,
                _ => {
                    shared.commands.skipped().record("a number of sessions that is none");
                    0
                }
            });
            Ok(OnlineCount { users, sessions: sessions.sum() })
        })
    }

    fn users(&self, skip: usize, take: usize) -> BoxFuture<'_, Result<Vec<OnlineUser>, PresenceError>> {
        Box::pin(async move {
            // Redis counts in signed numbers.
            let (Some(take), Ok(skip)) = (take.checked_sub(1), i64::try_from(skip)) else {
                return Ok(Vec::new());
            };
            let shared = &self.shared;
            let last = skip.saturating_add(i64::try_from(take).unwrap_or(i64::MAX));
            let (members, nodes): (Vec<Text>, Vec<Text>) = shared
                .ask(async |connection| {
                    redis::pipe()
                        .cmd("ZRANGE")
                        .arg(&shared.keys.users)
                        .arg(skip)
                        .arg(last)
                        .cmd("ZRANGE")
                        .arg(&shared.keys.nodes)
                        .arg(0)
                        .arg(-1)
                        .query_async(connection)
                        .await
                })
                .await?;
            let skip = |_| shared.commands.skipped().record("an online user that is none");
            let mut members: Vec<String> = texts(members, skip);
            members.retain(|member| {
                let is_user = member::decode(member).is_some();
                if !is_user {
                    skip(1);
                }
                is_user
            });
            let nodes = shared.nodes_among(nodes);
            let lists = shared.lists(&nodes, &members).await?;
            let users = members.iter().enumerate().filter_map(|(index, member)| {
                let sessions = lists.iter().map(|node| node[index].len()).sum();
                Some(OnlineUser { user_id: member::decode(member)?, sessions })
            });
            Ok(users.collect())
        })
    }

    fn sessions<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Vec<OnlineSession>, PresenceError>> {
        Box::pin(async move {
            let shared = &self.shared;
            let nodes = shared
                .ask(async |connection| {
                    redis::cmd("ZRANGE")
                        .arg(&shared.keys.nodes)
                        .arg(0)
                        .arg(-1)
                        .query_async::<Vec<Text>>(connection)
                        .await
                })
                .await?;
            let nodes = shared.nodes_among(nodes);
            let lists = shared.lists(&nodes, &[member::encode(user)]).await?;
            let mut sessions: Vec<_> = lists.into_iter().flatten().flatten().collect();
            sessions.sort_by_key(|session: &OnlineSession| session.since);
            Ok(sessions)
        })
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<OnlineNode>, PresenceError>> {
        Box::pin(async move {
            let shared = &self.shared;
            let (time, leases, counts): (Vec<Number>, Numbers, Numbers) = shared
                .ask(async |connection| {
                    redis::pipe()
                        .cmd("TIME")
                        .cmd("ZRANGE")
                        .arg(&shared.keys.nodes)
                        .arg(0)
                        .arg(-1)
                        .arg("WITHSCORES")
                        .cmd("HGETALL")
                        .arg(&shared.keys.counts)
                        .query_async(connection)
                        .await
                })
                .await?;
            let parts: Vec<f64> = time.iter().filter_map(|Number(part)| *part).collect();
            let &[seconds, micros] = parts.as_slice() else {
                return Err(PresenceError("Redis tells no time".into()));
            };
            Ok(nodes(seconds + micros / 1e6, leases, counts))
        })
    }
}

/// Members of a sorted set or fields of a hash, with their numbers.
type Numbers = Vec<(Text, Number)>;

/// Describes the nodes that have a lease, at a time of Redis in seconds. A number that is none counts as 0.
fn nodes(now: f64, leases: Numbers, counts: Numbers) -> Vec<OnlineNode> {
    let number = |Number(number): Number| number.filter(|number| number.is_finite());
    let counts: HashMap<_, _> = counts
        .into_iter()
        .filter_map(|(Text(incarnation), count)| Some((incarnation?, number(count)?)))
        .collect();
    let mut nodes: Vec<_> = leases
        .into_iter()
        .filter_map(|(Text(incarnation), end)| {
            let (incarnation, end) = (incarnation?, number(end)?);
            let sessions =
                counts.get(&incarnation).copied().filter(|count| (0.0..MOST_SESSIONS).contains(count));
            let silence = now + keeper::LEASE.as_secs_f64() - end / 1e3;
            Some(OnlineNode {
                node: Incarnation::node(&incarnation).to_owned(),
                sessions: sessions.map_or(0, |count| count as usize),
                silence: Duration::try_from_secs_f64(silence).unwrap_or_default(),
            })
        })
        .collect();
    nodes.sort_by(|one, other| (&one.node, one.silence).cmp(&(&other.node, other.silence)));
    nodes
}

impl PresenceShared {
    /// Returns the names of nodes among the members of the leases.
    fn nodes_among(&self, members: Vec<Text>) -> Vec<String> {
        texts(members, |_| self.commands.skipped().record("a lease of presence whose node is no text"))
    }

    /// Returns the sessions of each user, per node.
    async fn lists(
        &self,
        nodes: &[String],
        members: &[String],
    ) -> Result<Vec<Vec<Vec<OnlineSession>>>, PresenceError> {
        if nodes.is_empty() || members.is_empty() {
            return Ok(Vec::new());
        }
        let lists = self.ask(async |connection| {
            let mut pipe = redis::pipe();
            for node in nodes {
                pipe.cmd("HMGET").arg(self.keys.node(node)).arg(members);
            }
            pipe.ignore_errors();
            pipe.query_async::<Vec<RedisResult<Vec<Value>>>>(connection).await
        });
        let skipped = self.commands.skipped();
        let read = |json: Value| match json {
            Value::Nil => Vec::new(),
            // A list in the format of another version is skipped.
            Value::BulkString(json) => serde_json::from_slice(&json).unwrap_or_else(|_| {
                skipped.record("a user's sessions that this version cannot read");
                Vec::new()
            }),
            _ => Vec::new(),
        };
        let mut found = Vec::with_capacity(nodes.len());
        for list in lists.await? {
            match list {
                Ok(list) => found.push(list.into_iter().map(read).collect()),
                Err(error) if is_broken_key(&error) => {
                    // The node itself begins it anew.
                    skipped.record("a node's sessions of another type");
                    found.push(vec![Vec::new(); members.len()]);
                }
                Err(error) => return Err(PresenceError(error.to_string())),
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_names_sessions_and_silence_and_what_is_none_costs_only_itself() {
        let text = |text: &str| Text(Some(text.to_owned()));
        let number = |number: f64| Number(Some(number));
        let leases = vec![
            (text("b~2"), number(109_000.0)),
            (text("a~1"), number(107_500.0)),
            (Text(None), number(109_000.0)),
            (text("c~3"), Number(None)),
            // By another clock it was heard of in the future.
            (text("d~4"), number(120_000.0)),
        ];
        let counts = vec![
            (text("a~1"), number(3.0)),
            (text("b~2"), number(-1.0)),
            (text("d~4"), number(f64::INFINITY)),
            (text("gone~9"), number(7.0)),
        ];
        let nodes: Vec<_> = nodes(100.0, leases, counts)
            .into_iter()
            .map(|OnlineNode { node, sessions, silence }| (node, sessions, silence.as_millis()))
            .collect();
        let expected = [("a", 3, 1500), ("b", 0, 0), ("d", 0, 0)];
        assert_eq!(nodes, expected.map(|(node, sessions, silence)| (node.to_owned(), sessions, silence)));
    }
}

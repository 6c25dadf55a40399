//! [`RedisPresence`]: who is online in the cluster.
//!
//! Each node keeps a lease and, per user, a list of its own sessions. What it writes is always the whole truth about
//! one user on this node, so writing it again does no harm, and after any doubt a node writes all of it again. A node
//! that dies is swept away by the others when its lease has ended.

mod scripts;

use std::{
    collections::HashSet,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_core::future::BoxFuture;
use realtime_core::{LocalPresence, OnlineCount, OnlineSession, OnlineUser, Presence, PresenceError, UserId};
use redis::{Value, aio::MultiplexedConnection};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use crate::{
    commands::Commands,
    config::{RedisConfig, RedisConfigError},
    incarnation::Incarnation,
    master::Servers,
    presence::scripts::Scripts,
};

/// Who is online in the cluster, kept in Redis 7.0 or later.
///
/// A user comes online with its first session anywhere, and goes offline two seconds after its last one has ended,
/// so that a reload makes no flicker. The users of a node that died are offline within 15 s.
#[derive(Debug)]
pub struct RedisPresence {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    local: LocalPresence,
    commands: Commands,
    keys: Keys,
    scripts: Scripts,
    incarnation: Incarnation,
    /// The users about whom Redis has to be told.
    dirty: Mutex<HashSet<UserId>>,
    wake: Notify,
}

#[derive(Debug)]
struct Keys {
    nodes: String,
    counts: String,
    refs: String,
    users: String,
    leaving: String,
    node: String,
}

/// How long a node is believed to live without a word.
const LEASE: Duration = Duration::from_secs(9);
/// How long a user counts as online after its last session has ended.
const GRACE: Duration = Duration::from_secs(2);
/// How often a node renews its lease.
const RENEW: Duration = Duration::from_secs(3);
/// How often each node looks for what has ended.
const SWEEP: Duration = Duration::from_secs(1);
/// How many users one script takes: a script holds up everything else in Redis.
const BATCH: usize = 500;
/// How long changes are collected before they are written.
const COLLECT: Duration = Duration::from_millis(20);

impl RedisPresence {
    /// The presence of a cluster; give it to `HubBuilder::presence`.
    ///
    /// # Errors
    /// [`RedisConfigError`] when a URL is none.
    ///
    /// # Panics
    /// The function it returns, outside a tokio runtime.
    pub fn make(
        config: RedisConfig,
        incarnation: Incarnation,
    ) -> Result<impl FnOnce(LocalPresence) -> Self + Send, RedisConfigError> {
        let servers = Servers::new(&config)?;
        Ok(move |local| Self::start(local, servers, config, incarnation))
    }

    fn start(local: LocalPresence, servers: Servers, config: RedisConfig, incarnation: Incarnation) -> Self {
        let tag = config.name("rt");
        let key = |name: &str| format!("{{{tag}}}:presence:{name}");
        let keys = Keys {
            nodes: key("nodes"),
            counts: key("counts"),
            refs: key("refs"),
            users: key("users"),
            leaving: key("leaving"),
            node: key("node:"),
        };
        let shared = Arc::new(Shared {
            local,
            commands: Commands::new(servers, config, keys.nodes.clone()),
            keys,
            scripts: Scripts::new(),
            incarnation,
            dirty: Mutex::default(),
            wake: Notify::new(),
        });
        let task = tokio::spawn(keep(Arc::clone(&shared)));
        Self { shared, task }
    }
}

impl Drop for RedisPresence {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Presence for RedisPresence {
    fn changed(&self, user: &UserId) {
        self.shared.dirty.lock().unwrap_or_else(PoisonError::into_inner).insert(user.clone());
        self.shared.wake.notify_one();
    }

    fn is_online<'a>(&'a self, users: &'a [UserId]) -> BoxFuture<'a, Result<Vec<bool>, PresenceError>> {
        Box::pin(async move {
            if users.is_empty() {
                return Ok(Vec::new());
            }
            let shared = &self.shared;
            let answer = shared.ask(async |connection| {
                let mut command = redis::cmd("ZMSCORE");
                command.arg(&shared.keys.users);
                for user in users {
                    command.arg(member(user));
                }
                command.query_async::<Vec<Value>>(connection).await
            });
            // Only whether there is a score matters: thousands of them are not worth reading as numbers.
            Ok(answer.await?.iter().map(|score| *score != Value::Nil).collect())
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
                        .query_async::<(usize, Vec<usize>)>(connection)
                        .await
                })
                .await?;
            Ok(OnlineCount { users, sessions: sessions.iter().sum() })
        })
    }

    fn users(&self, skip: usize, take: usize) -> BoxFuture<'_, Result<Vec<OnlineUser>, PresenceError>> {
        Box::pin(async move {
            if take == 0 {
                return Ok(Vec::new());
            }
            let shared = &self.shared;
            let last = skip.saturating_add(take - 1);
            let (members, nodes) = shared
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
                        .query_async::<(Vec<String>, Vec<String>)>(connection)
                        .await
                })
                .await?;
            let lists = shared.lists(&nodes, &members).await?;
            let users = members.iter().enumerate().filter_map(|(index, member)| {
                let sessions = lists.iter().map(|node| node[index].len()).sum();
                Some(OnlineUser { user_id: user(member)?, sessions })
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
                        .query_async::<Vec<String>>(connection)
                        .await
                })
                .await?;
            let lists = shared.lists(&nodes, &[member(user)]).await?;
            let mut sessions: Vec<_> = lists.into_iter().flatten().flatten().collect();
            sessions.sort_by_key(|session: &OnlineSession| session.since);
            Ok(sessions)
        })
    }
}

impl Shared {
    async fn ask<T>(
        &self,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> redis::RedisResult<T>,
    ) -> Result<T, PresenceError> {
        self.commands.run(work).await.map_err(PresenceError)
    }

    /// The sessions of each of the users on each of the nodes.
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
                pipe.cmd("HMGET").arg(format!("{}{node}", self.keys.node)).arg(members);
            }
            pipe.query_async::<Vec<Vec<Option<String>>>>(connection).await
        });
        let read = |json: Option<String>| {
            // Another version's list is no list of ours: the sessions are not shown, and nothing breaks.
            json.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default()
        };
        Ok(lists.await?.into_iter().map(|node| node.into_iter().map(read).collect()).collect())
    }

    fn script<'a>(&'a self, script: &'a redis::Script) -> redis::ScriptInvocation<'a> {
        let Keys { nodes, counts, refs, users, leaving, node } = &self.keys;
        let mut invocation = script.prepare_invoke();
        for key in [nodes, counts, refs, users, leaving, node] {
            invocation.key(key);
        }
        invocation
    }

    /// Writes what is dirty and renews the lease. Returns whether there is more.
    async fn sync(&self) -> Result<bool, String> {
        let batch: Vec<UserId> = {
            let dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
            dirty.iter().take(BATCH).cloned().collect()
        };
        {
            // Taken out before it is read: a change after this makes it dirty again.
            let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
            for user in &batch {
                dirty.remove(user);
            }
        }
        let mut invocation = self.script(&self.scripts.sync);
        invocation
            .arg(self.incarnation.as_str())
            .arg(millis(LEASE))
            .arg(millis(GRACE))
            .arg(self.local.local_count());
        for user in &batch {
            let sessions = self.local.local_sessions(user);
            let json = if sessions.is_empty() {
                String::new()
            } else {
                serde_json::to_string(&sessions).expect("strings and numbers are always JSON")
            };
            invocation.arg(member(user)).arg(json);
        }
        let answer =
            self.commands.run(async |connection| invocation.invoke_async::<bool>(connection).await).await;
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(false) => {}
            // The first word of this node, or Redis has forgotten it: everything has to be written.
            Ok(true) => dirty.extend(self.local.local_users()),
            Err(error) => {
                dirty.extend(batch);
                return Err(error);
            }
        }
        Ok(!dirty.is_empty())
    }

    async fn sweep(&self) -> Result<bool, String> {
        let mut invocation = self.script(&self.scripts.sweep);
        invocation.arg(millis(GRACE)).arg(BATCH);
        self.commands.run(async |connection| invocation.invoke_async::<bool>(connection).await).await
    }
}

/// Keeps this node's part of the truth in Redis, and sweeps away what others left behind.
async fn keep(shared: Arc<Shared>) {
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewed: Option<Instant> = None;
    let mut healthy = true;
    loop {
        let changed = tokio::select! {
            () = shared.wake.notified() => true,
            _ = sweep.tick() => false,
        };
        let work = async {
            if changed {
                sleep(COLLECT).await;
            }
            if changed || renewed.is_none_or(|renewed| renewed.elapsed() >= RENEW) {
                while shared.sync().await? {}
                renewed = Some(Instant::now());
            }
            if !changed {
                while shared.sweep().await? {}
            }
            Ok::<(), String>(())
        };
        match work.await {
            Ok(()) => {
                if !mem::replace(&mut healthy, true) {
                    tracing::info!("presence is written again");
                }
            }
            Err(error) => {
                if mem::replace(&mut healthy, false) {
                    tracing::warn!(%error, "presence cannot be written");
                }
                // What could not be written stays dirty; the next tick tries again.
                renewed = None;
            }
        }
    }
}

/// A user as a member of a sorted set, so that the order of bytes is the order of users.
fn member(user: &UserId) -> String {
    match user.as_number() {
        Some(number) => format!("n{:020}", number.cast_unsigned() ^ SIGN),
        None => format!("t{user}"),
    }
}

/// Turned around, the sign makes negative numbers come before the others.
const SIGN: u64 = 1 << 63;

fn user(member: &str) -> Option<UserId> {
    match member.split_at_checked(1)? {
        ("n", digits) => {
            let number: u64 = digits.parse().ok()?;
            Some((number ^ SIGN).cast_signed().into())
        }
        ("t", text) => text.parse().ok(),
        _ => None,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_in_the_order_of_users_and_come_back() {
        let mut users: Vec<UserId> = vec![
            "b".parse().unwrap(),
            10.into(),
            (-3).into(),
            9.into(),
            i64::MAX.into(),
            i64::MIN.into(),
            "007".parse().unwrap(),
            "a".parse().unwrap(),
        ];
        users.sort();
        let mut members: Vec<String> = users.iter().map(member).collect();
        assert_eq!(members.iter().map(|text| user(text).unwrap()).collect::<Vec<_>>(), users);
        let sorted = members.clone();
        members.sort();
        assert_eq!(members, sorted);
    }
}

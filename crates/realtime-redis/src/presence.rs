//! [`RedisPresence`]: who is online in the cluster.
//!
//! Each node keeps a lease and, per user, a list of its own sessions. What it writes is always the whole truth about
//! one user on this node, so writing it again does no harm, and after any doubt a node writes all of it again. A node
//! that dies is swept away by the others when its lease has ended.

mod changes;
mod keeper;
mod scripts;

use std::sync::{Arc, Mutex, PoisonError};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::future::join;
use realtime_core::{
    LocalPresence, OnlineCount, OnlineSession, OnlineUser, Presence, PresenceError, PresenceEvent, UserId,
};
use redis::{Value, aio::MultiplexedConnection};
use tokio::task::JoinHandle;

use crate::{
    commands::Commands,
    config::{RedisConfig, RedisConfigError},
    incarnation::Incarnation,
    presence::{changes::Changes, keeper::Keeper},
    task::restarting,
};

/// Who is online in the cluster, kept in Redis 7.0 or later.
///
/// The users of a node that died are offline within 15 s.
#[derive(Debug)]
pub struct RedisPresence {
    shared: Arc<Shared>,
    keeper: Arc<Keeper>,
    keeping: Mutex<Option<JoinHandle<()>>>,
    following: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    commands: Commands,
    keys: Keys,
    changes: Changes,
}

/// What each of them holds is told in [`scripts`].
#[derive(Debug)]
struct Keys {
    nodes: String,
    node_prefix: String,
    counts: String,
    refs: String,
    users: String,
    online: String,
    leaving: String,
    since: String,
    changes: String,
    changed: String,
    swept: String,
    expected: String,
    left: String,
}

impl Keys {
    /// The hash of an incarnation.
    fn node(&self, incarnation: &str) -> String {
        format!("{}{incarnation}", self.node_prefix)
    }
}

/// How many users are asked about at once.
const PIECE: usize = 1000;

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
        let tag = config.tag("rt/presence");
        let commands = Commands::make(config)?;
        Ok(move |local| {
            let key = |name: &str| format!("{tag}:{name}");
            let keys = Keys {
                nodes: key("nodes"),
                node_prefix: key("node:"),
                counts: key("counts"),
                refs: key("refs"),
                users: key("users"),
                online: key("online"),
                leaving: key("leaving"),
                since: key("since"),
                changes: key("changes"),
                changed: key("changed"),
                swept: key("swept"),
                expected: key("expected"),
                left: key("left"),
            };
            let commands = commands(keys.nodes.clone());
            let shared = Arc::new(Shared { commands, keys, changes: Changes::default() });
            let keeper = Arc::new(Keeper::new(local, Arc::clone(&shared), incarnation));
            let kept = Arc::clone(&keeper);
            let keep = restarting("presence", move || keeper::keep(Arc::clone(&kept)));
            let keeping = Mutex::new(Some(tokio::spawn(keep)));
            let followed = Arc::clone(&shared);
            let follow = restarting("changes of presence", move || changes::follow(Arc::clone(&followed)));
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
                // One more word of it after ours would renew the lease.
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
                // In pieces, so that Redis looks up one while the answer to another is read.
                let mut pipe = redis::pipe();
                for piece in users.chunks(PIECE) {
                    let command = pipe.cmd("SMISMEMBER").arg(&shared.keys.online);
                    for user in piece {
                        command.arg(member(user));
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
        if self.changes.is_read() {
            return self.commands.run(work).await.map_err(PresenceError);
        }
        // What is answered here is no news to a listener that comes later. It is asked first, so that nothing gets lost
        // between the two.
        let (newest, answer) = self
            .commands
            .run(async |connection| {
                let mut beside = connection.clone();
                let (newest, answer) = join(self.newest_change(&mut beside), work(connection)).await;
                Ok((newest?, answer?))
            })
            .await
            .map_err(PresenceError)?;
        self.changes.learn(newest);
        Ok(answer)
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
                pipe.cmd("HMGET").arg(self.keys.node(node)).arg(members);
            }
            pipe.query_async::<Vec<Vec<Option<String>>>>(connection).await
        });
        let read = |json: Option<String>| {
            // Another version's list is no list of ours: the sessions are not shown, and nothing breaks.
            json.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default()
        };
        Ok(lists.await?.into_iter().map(|node| node.into_iter().map(read).collect()).collect())
    }
}

/// A user as a member of a sorted set, so that the order of bytes is the order of users. Ten thousand of them in
/// decimal digits take Redis and us a fifth longer.
fn member(user: &UserId) -> String {
    let Some(number) = user.as_number() else { return format!("t{user}") };
    let number = number.cast_unsigned() ^ SIGN;
    let mut member = String::with_capacity(1 + DIGITS);
    member.push('n');
    for place in (0..DIGITS).rev() {
        let digit = usize::try_from(number >> (6 * place) & 63).expect("six bits fit");
        member.push(char::from(ALPHABET[digit]));
    }
    member
}

/// Digits of 64, in the order of their bytes.
const ALPHABET: &[u8; 64] = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";
/// How many of them 64 bits take.
const DIGITS: usize = 11;

/// Turned around, the sign makes negative numbers come before the others.
const SIGN: u64 = 1 << 63;

fn user(member: &str) -> Option<UserId> {
    match member.split_at_checked(1)? {
        ("n", digits) if digits.len() == DIGITS => {
            let digit = |byte| ALPHABET.iter().position(|digit| *digit == byte);
            let number = digits
                .bytes()
                .try_fold(0_u64, |sum, byte| Some(sum << 6 | u64::try_from(digit(byte)?).ok()?))?;
            Some((number ^ SIGN).cast_signed().into())
        }
        ("t", text) => text.parse().ok(),
        _ => None,
    }
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
        for nobody in ["", "n", "n123", "n-----------!", "x"] {
            assert_eq!(user(nobody), None, "{nobody}");
        }
    }
}

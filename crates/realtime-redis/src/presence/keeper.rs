//! [`Keeper`]: keeps this node's part of the truth in Redis, and sweeps away what others left behind.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use realtime_core::{LocalPresence, OnlineSession, UserId};
use redis::aio::MultiplexedConnection;
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{Keys, Shared, member, scripts::Scripts, user};
use crate::incarnation::Incarnation;

#[derive(Debug)]
pub(super) struct Keeper {
    local: LocalPresence,
    shared: Arc<Shared>,
    scripts: Scripts,
    incarnation: Incarnation,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The users about whom Redis has to be told.
    dirty: HashSet<UserId>,
    /// Since when the users with sessions on this node have been online, in milliseconds: should Redis forget it, it
    /// is told.
    since: HashMap<UserId, u64>,
}

/// How long a node is believed to live without a word.
const LEASE: Duration = Duration::from_secs(9);
/// How often a node renews its lease, which shows whether Redis was emptied, and looks for what has ended.
const TICK: Duration = Duration::from_secs(1);
/// Where nobody has swept for so long, Redis was away: no lease could be renewed, and none ends sooner than this.
const SILENCE: Duration = Duration::from_secs(3);
/// Time after a run of one node's sweep in which the others have nothing to do.
const PAUSE: Duration = Duration::from_millis(500);
/// How many users one script takes: a script holds up everything else in Redis.
const BATCH: usize = 500;
/// Longest time between a new connection and the comparison of what Redis holds with what this node has: the nodes of
/// a cluster have lost theirs together.
const SPREAD: Duration = Duration::from_secs(2);
/// How long changes are collected before they are written.
const COLLECT: Duration = Duration::from_millis(20);

impl Keeper {
    pub(super) fn new(local: LocalPresence, shared: Arc<Shared>, incarnation: Incarnation) -> Self {
        let scripts = Scripts::new();
        Self { local, shared, scripts, incarnation, state: Mutex::default(), wake: Notify::new() }
    }

    /// A session of the user was opened or ended.
    pub(super) fn changed(&self, user: &UserId) {
        self.state().dirty.insert(user.clone());
        self.wake.notify_one();
    }

    /// Writes what is left to be written and gives up the lease. Whoever keeps it has to have stopped.
    pub(super) async fn retire(&self) {
        let last_words = async {
            // What the sweep would find, it would take for a node's that died: nobody's clients would be waited for.
            self.compare().await?;
            while self.sync().await? {}
            let mut invocation = self.script(&self.scripts.retire, self.incarnation.as_str());
            invocation.arg(self.incarnation.as_str());
            let commands = &self.shared.commands;
            commands.run(async |link| invocation.invoke_async::<()>(link).await).await
        };
        if let Err(error) = last_words.await {
            tracing::warn!(%error, "the lease of presence runs out by itself");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call of a script, with the hash of a node among its keys.
    fn script<'a>(&self, script: &'a redis::Script, node: &str) -> redis::ScriptInvocation<'a> {
        let keys = &self.shared.keys;
        let mut invocation = script.prepare_invoke();
        invocation.key(&keys.nodes).key(keys.node(node));
        let Keys {
            counts, refs, users, online, leaving, since, changes, changed, swept, expected, left, ..
        } = keys;
        for key in [counts, refs, users, online, leaving, since, changes, changed, swept, expected, left] {
            invocation.key(key);
        }
        invocation
    }

    /// Writes what is dirty and renews the lease. Returns whether there is more.
    async fn sync(&self) -> Result<bool, String> {
        let batch: Vec<UserId> = {
            // Taken out before it is read: a change after this makes it dirty again.
            let dirty = &mut self.state().dirty;
            let batch: Vec<UserId> = dirty.iter().take(BATCH).cloned().collect();
            for user in &batch {
                dirty.remove(user);
            }
            batch
        };
        let mut invocation = self.script(&self.scripts.sync, self.incarnation.as_str());
        invocation.arg(self.incarnation.as_str()).arg(millis(LEASE)).arg(self.local.local_count());
        let mut here = Vec::with_capacity(batch.len());
        for user in &batch {
            let sessions = self.local.local_sessions(user);
            let since = match sessions.first() {
                Some(first) => *self.state().since.entry(user.clone()).or_insert_with(|| began(first)),
                None => {
                    // Should it come back it is online since then, unless Redis has waited for it.
                    self.state().since.remove(user);
                    0
                }
            };
            let back = millis(self.local.expected_within(user));
            invocation.arg(member(user)).arg(json(&sessions)).arg(since).arg(back);
            here.push(!sessions.is_empty());
        }
        let commands = &self.shared.commands;
        let answer = commands.run(async |link| invocation.invoke_async::<Vec<u64>>(link).await).await;
        let mut state = self.state();
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                state.dirty.extend(batch);
                return Err(error);
            }
        };
        let (unknown, since) = answer.split_first().ok_or("a script has answered nothing")?;
        for ((user, since), here) in batch.into_iter().zip(since).zip(here) {
            if here && *since > 0 {
                state.since.insert(user, *since);
            }
        }
        if *unknown == 1 {
            // The first word of this node, or Redis has forgotten it, or others may have swept some of it away:
            // everything has to be written.
            state.dirty.extend(self.local.local_users());
        }
        Ok(!state.dirty.is_empty())
    }

    /// Makes dirty what Redis holds otherwise than this node: what went over another connection may be lost.
    async fn compare(&self) -> Result<(), String> {
        let entries = self.shared.keys.node(self.incarnation.as_str());
        let mut missing: HashSet<UserId> = self.local.local_users().into_iter().collect();
        let mut cursor = "0".to_owned();
        loop {
            let scan = async |link: &mut MultiplexedConnection| {
                let mut scan = redis::cmd("HSCAN");
                scan.arg(&entries).arg(&cursor).arg("COUNT").arg(BATCH);
                scan.query_async::<(String, Vec<(String, String)>)>(link).await
            };
            let (next, written) = self.shared.commands.run(scan).await?;
            for (member, written) in written {
                let Some(user) = user(&member) else { continue };
                if json(&self.local.local_sessions(&user)) == written {
                    missing.remove(&user);
                } else {
                    missing.insert(user);
                }
            }
            if next == "0" {
                break;
            }
            cursor = next;
        }
        self.state().dirty.extend(missing);
        Ok(())
    }

    /// Sweeps away what has ended, as long as there is something, no other node is at it, and this node's own lease is
    /// far from its end.
    async fn sweep(&self) -> Result<(), String> {
        let (mut turn, mut dead) = (0_u64, String::new());
        let renew = Instant::now() + LEASE / 3;
        loop {
            let mut invocation = self.script(&self.scripts.sweep, &dead);
            invocation.arg(millis(self.local.grace())).arg(BATCH).arg(millis(SILENCE)).arg(millis(PAUSE));
            invocation.arg(turn).arg(&dead);
            let commands = &self.shared.commands;
            let more;
            (more, turn, dead) =
                commands.run(async |link| invocation.invoke_async::<(bool, u64, String)>(link).await).await?;
            if !more || Instant::now() >= renew {
                return Ok(());
            }
        }
    }
}

pub(super) async fn keep(keeper: Arc<Keeper>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut healthy, mut opened, mut compare_at) = (true, 0, None);
    loop {
        let changed = tokio::select! {
            () = keeper.wake.notified() => true,
            _ = tick.tick() => false,
        };
        let work = async {
            if changed {
                sleep(COLLECT).await;
            }
            while keeper.sync().await? {}
            let now = keeper.shared.commands.opened();
            if opened != now {
                opened = now;
                compare_at = Some(Instant::now() + SPREAD.mul_f64(rand::random::<f64>()));
            }
            if compare_at.is_some_and(|at| at <= Instant::now()) {
                keeper.compare().await?;
                while keeper.sync().await? {}
                compare_at = None;
            }
            if !changed {
                keeper.sweep().await?;
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
            }
        }
    }
}

/// A user's sessions as Redis holds them.
fn json(sessions: &[OnlineSession]) -> String {
    if sessions.is_empty() {
        return String::new();
    }
    serde_json::to_string(sessions).expect("strings and numbers are always JSON")
}

/// When a session began, in milliseconds.
fn began(session: &OnlineSession) -> u64 {
    millis(session.since.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

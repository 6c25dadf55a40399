//! [`Keeper`]: keeps this node's part of the truth in Redis, and sweeps away what others left behind.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use realtime_core::{LocalPresence, OnlineSession, UserId};
use redis::aio::MultiplexedConnection;
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{Keys, Shared, changes::Place, member, scripts::Scripts, user};
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
    /// The users about whom Redis has to be told at once.
    dirty: HashSet<UserId>,
    /// Those about whom it holds something else than this node, found by a comparison; told little by little.
    differing: VecDeque<UserId>,
    /// When the next batch of those is due, and the time between two.
    next_batch: Option<Instant>,
    pause: Duration,
    /// The turn in which this node is to look for what has ended.
    turn: Option<u64>,
    /// When this node compares what Redis holds with what it has.
    compare_at: Option<Instant>,
    /// Since when the users with sessions on this node have been online, in milliseconds: should Redis forget it, it
    /// is told.
    since: HashMap<UserId, u64>,
}

/// How long a node is believed to live without a word.
const LEASE: Duration = Duration::from_secs(9);
/// How often a node renews its lease, which shows whether Redis was emptied.
const TICK: Duration = Duration::from_secs(1);
/// Time after which one of the nodes looks again for what has ended: a little less than a tick, so that a node alone does
/// in each.
const SWEEP_EVERY: Duration = Duration::from_millis(900);
/// Where nobody has swept for so long, Redis was away: no lease could be renewed, and none ends sooner than this.
const SILENCE: Duration = Duration::from_secs(3);
/// How many users one script takes: a script holds up everything else in Redis.
const BATCH: usize = 500;
/// Longest time between a new connection and the comparison of what Redis holds with what this node has: the nodes of a
/// cluster have lost their connections together.
const COMPARE_WITHIN: Duration = Duration::from_secs(2);
/// About how long it takes at most to write what differs then.
const SPREAD: Duration = Duration::from_secs(3);
/// Longest pause between two batches of what differs.
const PAUSE: Duration = Duration::from_millis(250);
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
            while self.sync(Scope::Everything).await? {}
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

    /// Writes what is due, up to a batch, and renews the lease. Returns whether there is more.
    async fn sync(&self, scope: Scope) -> Result<bool, String> {
        let batch = self.state().take_batch(scope);
        let mut invocation = self.script(&self.scripts.sync, self.incarnation.as_str());
        invocation.arg(self.incarnation.as_str()).arg(millis(LEASE)).arg(self.local.local_count());
        match scope {
            Scope::Due => invocation.arg(millis(SWEEP_EVERY)),
            Scope::Everything => invocation.arg(""),
        };
        invocation.arg(millis(SILENCE));
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
        let answer = commands.run(async |link| invocation.invoke_async::<Vec<String>>(link).await).await;
        let mut state = self.state();
        let answer = match answer.and_then(|answer| Synced::read(&answer)) {
            Ok(answer) => answer,
            Err(error) => {
                state.dirty.extend(batch);
                return Err(error);
            }
        };
        self.shared.changes.learn(answer.newest);
        for ((user, since), here) in batch.into_iter().zip(answer.since).zip(here) {
            if here && since > 0 {
                state.since.insert(user, since);
            }
        }
        if answer.is_new {
            // The first word of this node, or Redis has forgotten it, or others may have swept some of it away.
            state.compare_at = Some(Instant::now());
        }
        if answer.turn > 0 {
            state.turn = Some(answer.turn);
        }
        Ok(state.has_due(scope))
    }

    /// Finds what Redis holds otherwise than this node: what went over another connection may be lost.
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
        self.state().differs(missing);
        Ok(())
    }

    /// Sweeps away what has ended if this node has the turn, as long as there is something and its own lease is far from
    /// its end.
    async fn sweep(&self) -> Result<(), String> {
        let Some(mut turn) = self.state().turn.take() else { return Ok(()) };
        let mut dead = String::new();
        let renew = Instant::now() + LEASE / 3;
        loop {
            let mut invocation = self.script(&self.scripts.sweep, &dead);
            invocation.arg(millis(self.local.grace())).arg(BATCH).arg(turn).arg(&dead);
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

/// What one write takes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// What has changed, and of what differs the batch that is due. The node takes its turn at the sweep.
    Due,
    /// All of it, without a pause: the node ends.
    Everything,
}

impl State {
    /// The users that are written next. They are taken out before their sessions are read: a change after this makes them
    /// dirty again.
    fn take_batch(&mut self, scope: Scope) -> Vec<UserId> {
        let mut batch: Vec<UserId> = self.dirty.iter().take(BATCH).cloned().collect();
        for user in &batch {
            self.dirty.remove(user);
        }
        let now = Instant::now();
        if scope == Scope::Everything || self.next_batch.is_some_and(|at| at <= now) {
            while batch.len() < BATCH
                && let Some(user) = self.differing.pop_front()
            {
                batch.push(user);
            }
            self.next_batch = (!self.differing.is_empty()).then(|| now + self.pause);
        }
        batch
    }

    fn has_due(&self, scope: Scope) -> bool {
        !self.dirty.is_empty() || (scope == Scope::Everything && !self.differing.is_empty())
    }

    /// Redis holds something else about these users than this node, as of now.
    fn differs(&mut self, users: HashSet<UserId>) {
        self.differing = users.into_iter().collect();
        let batches = u32::try_from(self.differing.len().div_ceil(BATCH)).unwrap_or(u32::MAX).max(1);
        self.pause = (SPREAD / batches).min(PAUSE);
        self.next_batch = (!self.differing.is_empty()).then(Instant::now);
    }
}

/// What the script that writes has answered.
struct Synced {
    is_new: bool,
    turn: u64,
    newest: Place,
    since: Vec<u64>,
}

impl Synced {
    fn read(answer: &[String]) -> Result<Self, String> {
        let strange = || "the answer of a script is none".to_owned();
        let number = |text: &String| text.parse::<u64>().map_err(|_| strange());
        let [is_new, turn, newest, number_of_newest, since @ ..] = answer else {
            return Err(strange());
        };
        Ok(Self {
            is_new: is_new == "1",
            turn: number(turn)?,
            newest: Place { id: newest.clone(), number: Some(number(number_of_newest)?) },
            since: since.iter().map(number).collect::<Result<_, _>>()?,
        })
    }
}

pub(super) async fn keep(keeper: Arc<Keeper>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut healthy, mut opened) = (true, 0);
    loop {
        let next_batch = keeper.state().next_batch;
        let changed = tokio::select! {
            () = keeper.wake.notified() => true,
            () = sleep_until(next_batch.unwrap_or_else(Instant::now)), if next_batch.is_some() => false,
            _ = tick.tick() => false,
        };
        let work = async {
            if changed {
                sleep(COLLECT).await;
            }
            while keeper.sync(Scope::Due).await? {}
            let now = keeper.shared.commands.opened();
            if opened != now {
                opened = now;
                let at = Instant::now() + COMPARE_WITHIN.mul_f64(rand::random::<f64>());
                keeper.state().compare_at.get_or_insert(at);
            }
            if keeper.state().compare_at.take_if(|at| *at <= Instant::now()).is_some() {
                if let Err(error) = keeper.compare().await {
                    keeper.state().compare_at = Some(Instant::now());
                    return Err(error);
                }
                while keeper.sync(Scope::Due).await? {}
            }
            keeper.sweep().await
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

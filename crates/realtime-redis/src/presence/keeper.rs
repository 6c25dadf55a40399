//! [`Keeper`]: writes this node's sessions to Redis, and sweeps the entries of nodes and users that have ended.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use realtime_core::{
    UserId,
    presence::{LocalPresence, OnlineSession},
};
use redis::aio::MultiplexedConnection;
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{
    changes::ChangeId,
    member,
    scripts::Scripts,
    shared::{Keys, PresenceShared},
};
use crate::{commands::LAST_ID, content::Text, incarnation::Incarnation, millis::millis};

/// The writer of this node's sessions, which also renews its lease.
#[derive(Debug)]
pub(super) struct Keeper {
    local: LocalPresence,
    shared: Arc<PresenceShared>,
    scripts: Scripts,
    incarnation: Incarnation,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Users whose sessions have changed, written at once.
    dirty: HashSet<UserId>,
    /// Users whose entry in Redis differs, as found by a comparison; written in paced batches.
    differing: VecDeque<UserId>,
    /// The time of the next batch of those, and the pause between two.
    next_batch: Option<Instant>,
    pause: Duration,
    /// The turn in which this node sweeps, if it has been given one.
    turn: Option<u64>,
    /// The time at which this node compares its sessions with those in Redis.
    compare_at: Option<Instant>,
    /// The time since when each user with sessions on this node has been online, in milliseconds: it is written again if
    /// Redis has lost its data.
    since: HashMap<UserId, u64>,
}

/// Time to live of a lease that is not renewed.
pub(super) const LEASE: Duration = Duration::from_secs(9);
/// Time between two renewals of the lease, which also show whether Redis has lost its data.
const TICK: Duration = Duration::from_secs(1);
/// Time after which one of the nodes sweeps again: a little less than a tick, so that a single node sweeps in each.
const SWEEP_EVERY: Duration = Duration::from_millis(900);
/// If no node has swept for this long, Redis was unavailable and no lease could be renewed: none ends sooner than this.
const SILENCE: Duration = Duration::from_secs(3);
/// Number of users per script: a script blocks everything else in Redis.
const BATCH: usize = 500;
/// Maximum delay between a new connection and the comparison with Redis: the nodes of a cluster lose their connections
/// together.
const COMPARE_WITHIN: Duration = Duration::from_secs(2);
/// Approximate maximum time over which the differences are written.
const SPREAD: Duration = Duration::from_secs(3);
/// Maximum pause between two batches of differences.
const PAUSE: Duration = Duration::from_millis(250);
/// Time after which a node that writes changes does its other work.
const SYNC_FOR: Duration = Duration::from_millis(500);
/// Time for which changes are collected before they are written.
const COLLECT: Duration = Duration::from_millis(20);

impl Keeper {
    pub(super) fn new(local: LocalPresence, shared: Arc<PresenceShared>, incarnation: Incarnation) -> Self {
        let scripts = Scripts::new();
        Self { local, shared, scripts, incarnation, state: Mutex::default(), wake: Notify::new() }
    }

    /// Marks a user whose session was opened or has ended.
    pub(super) fn changed(&self, user: &UserId) {
        self.state().dirty.insert(user.clone());
        self.wake.notify_one();
    }

    /// Writes all remaining changes and ends the lease. [`keep`] must have stopped.
    pub(super) async fn retire(&self) {
        let final_sync = async {
            // The sweep would treat what is left as the entries of a crashed node, and not wait for its clients.
            self.compare().await?;
            while self.sync(Scope::Everything).await? {}
            let mut invocation = self.script(&self.scripts.retire, self.incarnation.as_str());
            invocation.arg(self.incarnation.as_str());
            let commands = &self.shared.commands;
            commands.run(async |connection| invocation.invoke_async::<()>(connection).await).await
        };
        if let Err(error) = final_sync.await {
            tracing::warn!(%error, "failed to end the lease of presence; it expires");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares a call of a script, with the hash of a node among its keys.
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

    /// Writes a batch of what is due, and renews the lease. Returns whether there is more.
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
                    // A user that comes back is online since then, unless Redis has waited for it.
                    self.state().since.remove(user);
                    0
                }
            };
            let back = millis(self.local.expected_within(user));
            invocation.arg(member::encode(user)).arg(json(&sessions)).arg(since).arg(back);
            here.push(!sessions.is_empty());
        }
        let commands = &self.shared.commands;
        let own = self.shared.keys.repair_node(self.incarnation.as_str());
        let sync = async |connection: &mut MultiplexedConnection| {
            invocation.invoke_async::<Vec<Text>>(connection).await
        };
        let answer = commands.run_with(own, sync).await;
        let mut state = self.state();
        let answer = match answer.and_then(|answer| SyncAnswer::parse(&answer)) {
            Ok(answer) => answer,
            Err(error) => {
                state.dirty.extend(batch);
                return Err(error);
            }
        };
        self.shared.changes.set_known(answer.newest);
        for ((user, since), here) in batch.into_iter().zip(answer.since).zip(here) {
            if let Some(since) = since
                && here
                && since > 0
            {
                state.since.insert(user, since);
            }
        }
        if answer.is_new {
            // The first write of this incarnation, or Redis has lost its data, or other nodes may have swept entries.
            state.compare_at = Some(Instant::now());
        }
        if answer.turn > 0 {
            state.turn = Some(answer.turn);
        }
        Ok(state.has_due(scope))
    }

    /// Writes what is due, and goes on while more is. Users who come and go without a pause delay neither the comparison nor
    /// the sweep: what is left is written after those.
    async fn sync_due(&self) -> Result<(), String> {
        let until = Instant::now() + SYNC_FOR;
        while self.sync(Scope::Due).await? {
            if self.state().turn.is_some() || Instant::now() >= until {
                self.wake.notify_one();
                break;
            }
        }
        Ok(())
    }

    /// Finds the differences between this node and Redis: writes over an earlier connection may be lost.
    async fn compare(&self) -> Result<(), String> {
        let entries = self.shared.keys.node(self.incarnation.as_str());
        let mut missing: HashSet<UserId> = self.local.local_users().into_iter().collect();
        let mut cursor = "0".to_owned();
        loop {
            let scan = async |connection: &mut MultiplexedConnection| {
                let mut scan = redis::cmd("HSCAN");
                scan.arg(&entries).arg(&cursor).arg("COUNT").arg(BATCH);
                scan.query_async::<(String, Vec<(Text, Text)>)>(connection).await
            };
            let own = self.shared.keys.repair_node(self.incarnation.as_str());
            let (next, written) = self.shared.commands.run_with(own, scan).await?;
            for (Text(member), Text(written)) in written {
                let Some(user) = member.as_deref().and_then(member::decode) else {
                    self.shared.commands.skipped().record("an entry of presence that is no user");
                    continue;
                };
                if written.is_some_and(|written| written == json(&self.local.local_sessions(&user))) {
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
        self.state().set_differing(missing);
        Ok(())
    }

    /// Sweeps if this node has the turn, until nothing is left or its own lease has to be renewed.
    async fn sweep(&self) -> Result<(), String> {
        let Some(mut turn) = self.state().turn.take() else { return Ok(()) };
        let mut dead = String::new();
        let renew = Instant::now() + LEASE / 3;
        loop {
            let mut invocation = self.script(&self.scripts.sweep, &dead);
            invocation.arg(millis(self.local.grace())).arg(BATCH).arg(turn).arg(&dead);
            let commands = &self.shared.commands;
            let more;
            let sweep = async |connection: &mut MultiplexedConnection| {
                invocation.invoke_async::<(bool, u64, String)>(connection).await
            };
            (more, turn, dead) = commands.run_with(self.shared.keys.repair_node(&dead), sweep).await?;
            if !more || Instant::now() >= renew {
                return Ok(());
            }
        }
    }
}

/// The extent of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// All changes, and the batch of differences that is due. The node takes its turn at the sweep.
    Due,
    /// All changes and differences without a pause: the node stops.
    Everything,
}

impl State {
    /// Takes the users of the next batch. They are removed before their sessions are read: a change after this marks them
    /// again.
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

    /// Sets the users whose entries in Redis differ, and paces their batches. Those with changes that have yet to be written are
    /// none of them.
    fn set_differing(&mut self, users: HashSet<UserId>) {
        self.differing = users.into_iter().filter(|user| !self.dirty.contains(user)).collect();
        let batches = u32::try_from(self.differing.len().div_ceil(BATCH)).unwrap_or(u32::MAX).max(1);
        self.pause = (SPREAD / batches).min(PAUSE);
        self.next_batch = (!self.differing.is_empty()).then(Instant::now);
    }
}

/// The answer of the script that writes.
struct SyncAnswer {
    is_new: bool,
    turn: u64,
    newest: ChangeId,
    /// Nothing for a user about whom Redis has no number.
    since: Vec<Option<u64>>,
}

impl SyncAnswer {
    fn parse(answer: &[Text]) -> Result<Self, String> {
        let number = |text: &Text| text.0.as_deref().and_then(|text| text.parse::<u64>().ok());
        let [is_new, turn, newest, number_of_newest, since @ ..] = answer else {
            return Err("unexpected answer of a script".to_owned());
        };
        Ok(Self {
            is_new: is_new.0.as_deref() == Some("1"),
            turn: number(turn).unwrap_or(0),
            newest: match &newest.0 {
                Some(id) if id != LAST_ID => ChangeId { id: id.clone(), number: number(number_of_newest) },
                _ => ChangeId { number: None, ..ChangeId::before_all() },
            },
            since: since.iter().map(number).collect(),
        })
    }
}

/// Writes and sweeps at each tick, and soon after each change. Never returns.
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
            keeper.sync_due().await?;
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
                keeper.sync_due().await?;
            }
            keeper.sweep().await
        };
        match work.await {
            Ok(()) => {
                if !mem::replace(&mut healthy, true) {
                    tracing::info!("presence is being written again");
                }
            }
            Err(error) => {
                if mem::replace(&mut healthy, false) {
                    tracing::warn!(%error, "failed to write presence");
                }
                // The changes are kept; the next tick tries again.
            }
        }
    }
}

/// Encodes a user's sessions as they are stored in Redis.
fn json(sessions: &[OnlineSession]) -> String {
    if sessions.is_empty() {
        return String::new();
    }
    serde_json::to_string(sessions).expect("strings and numbers are always JSON")
}

/// Returns the start of a session, in milliseconds.
fn began(session: &OnlineSession) -> u64 {
    millis(session.since.duration_since(UNIX_EPOCH).unwrap_or_default())
}

//! [`Publisher`]: one multiplexed connection for all publishes of a node, opened and reopened by ourselves.
//!
//! What many callers publish at once goes as one batch; a pool would split the batches up.

use std::{
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant as StdInstant},
};

use realtime_core::{BusError, Envelope, Position};
use redis::{Cmd, ConnectionAddr, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use super::{
    Shared,
    claim::{Claimed, claim},
    clock::{RedisClock, RedisTime},
    count,
    entry::{Beat, Fields, VERSION, VERSION_FIELD},
    position,
};
use crate::{
    batcher::Batcher,
    line::{Line, bus_error, is_refusal},
    master::is_master,
};

/// How often a node proves to itself that what it publishes comes back.
pub(super) const BEAT: Duration = Duration::from_secs(1);

/// How long looking up the master may hold up a heartbeat.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(super) struct Publisher {
    line: Line<Link>,
    /// The highest epoch that any part of this bus has seen.
    seen: AtomicU64,
    /// Why the last heartbeat could not be written.
    problem: StdMutex<Option<BusError>>,
}

/// A claimed connection.
struct Link {
    connection: Batcher,
    addr: ConnectionAddr,
    epoch: AtomicU64,
    clock: RedisClock,
    /// When the last look-up began that has confirmed it: microseconds on this node's own clock.
    confirmed: AtomicU64,
    /// Held by whoever claims again; the others wait for what comes of it.
    claiming: Mutex<()>,
    /// How the master was looked up last; held by whoever looks.
    looked: Arc<Mutex<Looked>>,
}

struct Looked {
    at: Instant,
    /// The highest epoch that the bus had seen then.
    seen: u64,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("addr", &self.addr).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// What an attempt to add an entry came to.
enum Outcome {
    Added(Position),
    /// The stream is gone or has a newer epoch; nothing was added.
    Stale,
    /// This server does not take it, and nothing was added.
    Elsewhere(RedisError),
    /// Nobody is let add anything for now, and nothing was added.
    Refused(RedisError),
    /// Nobody knows whether it was added.
    Unknown(RedisError),
}

impl Shared {
    /// Adds an envelope to the stream, within the time that a command may take.
    pub(super) async fn publish(self: &Arc<Self>, envelope: &Envelope) -> Result<Position, BusError> {
        let (position, began) = self.add(envelope).await?;
        self.own.sent(position, began, StdInstant::now());
        Ok(position)
    }

    /// Adds a heartbeat, within the time that a command may take twice. Where the master can change it is looked up
    /// first, so that a node that is left alone with an old master does not mistake its own echo for the cluster's.
    ///
    /// Everything that was acknowledged on any node before this was called comes before the entry.
    pub(super) async fn heartbeat(self: &Arc<Self>) -> Result<Position, BusError> {
        let began = self.micros();
        self.look_up().await;
        let (position, _) = self.add(&Beat { incarnation: &self.incarnation, began }).await?;
        Ok(position)
    }

    /// Whether a message proves what a heartbeat would: the master is looked up, and a message that was published after
    /// that comes back.
    async fn is_proved_by_messages(self: &Arc<Self>) -> bool {
        let now = StdInstant::now();
        if !self.own.came_back_within(BEAT / 2, now) {
            return false;
        }
        self.look_up().await;
        timeout(BEAT / 2, self.own.proves(now)).await.is_ok()
    }

    /// Looks the master up where it can change, and leaves a connection that does not lead there any more.
    async fn look_up(self: &Arc<Self>) {
        if let Some(link) = self.publisher.line.current().filter(|_| self.servers.can_change()) {
            let mut looked = link.looked.lock().await;
            self.leads(&link, &mut looked).await;
        }
    }

    /// Microseconds on this node's own clock.
    fn micros(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Adds an entry. Answers where it stands, and the time for which it stands: all that was acknowledged on any node
    /// before is before it. Where the master can change that is when the look-up began that has confirmed it.
    async fn add(self: &Arc<Self>, fields: &impl Fields) -> Result<(Position, StdInstant), BusError> {
        let limit = self.config.command_timeout;
        let mut asked = None;
        match timeout(limit, self.try_add(fields, &mut asked)).await {
            Ok(result) => result,
            Err(_) => {
                let problem = format!("no answer from Redis within {limit:?}");
                if let Some(link) = asked {
                    self.publisher.line.give_up(&link, &problem);
                }
                Err(BusError::Unavailable(problem))
            }
        }
    }

    /// Goes on until there is an answer that says something; `asked` is whom it waits for.
    async fn try_add(
        self: &Arc<Self>,
        fields: &impl Fields,
        asked: &mut Option<Arc<Link>>,
    ) -> Result<(Position, StdInstant), BusError> {
        loop {
            let link = self.link().await?;
            let link = asked.insert(link);
            let epoch = link.epoch.load(Ordering::Acquire);
            let began = match self.servers.can_change() {
                true => self.created + Duration::from_micros(link.confirmed.load(Ordering::Acquire)),
                false => StdInstant::now(),
            };
            match outcome(self.xadd(link, epoch, fields).await) {
                Outcome::Added(position) => {
                    self.publisher.line.worked();
                    return Ok((position, began));
                }
                // Boxed: it is rare, and a part of every publish otherwise.
                Outcome::Stale => Box::pin(self.reclaim(link, epoch)).await?,
                Outcome::Elsewhere(error) => {
                    tracing::debug!(%error, "this server does not take entries any more");
                    self.publisher.line.give_up(link, &error);
                }
                Outcome::Refused(error) => return Err(bus_error(&error)),
                Outcome::Unknown(error) => {
                    self.publisher.line.give_up(link, &error);
                    return Err(bus_error(&error));
                }
            }
        }
    }

    async fn xadd(&self, link: &Link, epoch: u64, fields: &impl Fields) -> RedisResult<Value> {
        // Room for a short message, so that most buffers never grow.
        let mut command = Cmd::with_capacity(11, self.keys.log.len() + 448);
        command.arg("XADD").arg(&self.keys.log).arg("NOMKSTREAM");
        // One entry can trim in one way only.
        let trims = self.trim.load(Ordering::Relaxed) && self.trim.swap(false, Ordering::Relaxed);
        match trims.then(|| self.window.begin(link.clock.now())).flatten() {
            Some(begin) => {
                command.arg("MINID").arg("~").arg(format!("{}-{}", begin.epoch, begin.offset));
            }
            None => {
                command.arg("MAXLEN").arg("~").arg(self.config.max_len);
            }
        }
        command.arg(format!("{epoch}-*")).arg(VERSION_FIELD).arg(VERSION);
        fields.write(&mut command, link.clock.now());
        link.connection.run(command).await
    }

    /// Why no heartbeat can be written, if that is known.
    pub(super) fn beat_problem(&self) -> Option<BusError> {
        self.publisher.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The highest epoch that this bus has seen.
    pub(super) fn seen(&self) -> u64 {
        self.publisher.seen.load(Ordering::Acquire)
    }

    /// Remembers an epoch.
    pub(super) fn see(&self, epoch: u64) {
        self.publisher.seen.fetch_max(epoch, Ordering::AcqRel);
    }

    /// A connection to the master, as far as that is known.
    async fn link(self: &Arc<Self>) -> Result<Arc<Link>, BusError> {
        let link = self.publisher.line.link(|| self.open()).await?;
        if !self.servers.can_change() || self.may_lead(&link).await {
            return Ok(link);
        }
        self.publisher.line.link(|| self.open()).await
    }

    /// Whether a connection may still lead to the master. That is looked up beside the publishes, which go on meanwhile;
    /// only when another part of this bus has met a newer epoch all of them wait for one look-up.
    async fn may_lead(self: &Arc<Self>, link: &Arc<Link>) -> bool {
        let seen = self.seen();
        if link.epoch.load(Ordering::Acquire) < seen {
            let mut looked = link.looked.lock().await;
            return looked.seen >= seen || self.leads(link, &mut looked).await;
        }
        // With a subscription the heartbeat looks often enough.
        let due = link.looked.try_lock().is_ok_and(|looked| looked.at.elapsed() > BEAT * 3 / 2);
        if due && let Ok(mut looked) = Arc::clone(&link.looked).try_lock_owned() {
            let (shared, link) = (Arc::clone(self), Arc::clone(link));
            // It ends by itself, within `LOOK`.
            tokio::spawn(async move { shared.leads(&link, &mut looked).await });
        }
        true
    }

    /// Whether a connection still leads to the master, which is looked up. One that does not is left: a master that was
    /// cut off goes on taking entries that no node will read.
    async fn leads(&self, link: &Arc<Link>, looked: &mut Looked) -> bool {
        looked.seen = self.seen();
        let began = self.micros();
        // Without an answer it goes on: that nobody can be asked is no fault of the master.
        let master = Box::pin(timeout(LOOK, self.servers.master(&self.keys.log))).await;
        looked.at = Instant::now();
        let leads = !matches!(master, Ok(Ok(master)) if *master.addr() != link.addr);
        if leads {
            link.confirmed.fetch_max(began, Ordering::AcqRel);
        } else {
            tracing::warn!("the master has changed");
            self.publisher.line.leave(link);
        }
        leads
    }

    async fn open(&self) -> RedisResult<Link> {
        count(&self.metrics.connects);
        let confirmed = AtomicU64::new(self.micros());
        let server = self.servers.master(&self.keys.log).await?;
        let addr = server.addr().clone();
        // Each publish has a time limit of its own; a second one would only cost a timer.
        let mut connection = self.servers.open(server, None).await?;
        let Claimed { last: Position { epoch, .. }, time } =
            claim(self, &mut connection, self.seen()).await?;
        self.see(epoch);
        Ok(Link {
            connection: Batcher::new(connection, self.config.command_timeout),
            addr,
            epoch: AtomicU64::new(epoch),
            clock: RedisClock::new(time),
            confirmed,
            claiming: Mutex::default(),
            looked: Arc::new(Mutex::new(Looked { at: Instant::now(), seen: epoch })),
        })
    }

    /// Asks for the epoch again, unless somebody just did.
    async fn reclaim(&self, link: &Arc<Link>, stale: u64) -> Result<(), BusError> {
        let _claiming = link.claiming.lock().await;
        if link.epoch.load(Ordering::Acquire) != stale {
            return Ok(());
        }
        // A master that was replaced and has lost its data would be given a newer epoch than the one that replaced it.
        if self.servers.can_change() && !self.leads(link, &mut *link.looked.lock().await).await {
            return Ok(());
        }
        match claim(self, &mut link.connection.connection(), self.seen()).await {
            Ok(Claimed { last: Position { epoch, .. }, time }) => {
                self.see(epoch);
                link.clock.set(time);
                link.epoch.store(epoch, Ordering::Release);
                Ok(())
            }
            Err(error) => {
                // A claim that is refused, too: it is not tried again with each publish.
                self.publisher.line.give_up(link, &error);
                Err(bus_error(&error))
            }
        }
    }
}

/// Writes heartbeats for ever, unless messages of this node have come back instead, and keeps Redis' clock.
pub(super) async fn beat(shared: Arc<Shared>) {
    loop {
        shared.trim.store(true, Ordering::Relaxed);
        // A failure shows at the tail: the heartbeat does not come back.
        let problem =
            if shared.is_proved_by_messages().await { None } else { shared.heartbeat().await.err() };
        if let Some(error) = &problem {
            tracing::debug!(%error, "no heartbeat was written");
        }
        *shared.publisher.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
        let mut pause = BEAT;
        if let Some(link) = shared.publisher.line.current() {
            match link.look().await {
                Ok(true) => {}
                Ok(false) => shared.publisher.line.leave(&link),
                Err(error) => tracing::debug!(%error, "Redis told neither its role nor its time"),
            }
            pause = until_next_beat(link.clock.now());
        }
        sleep(pause).await;
    }
}

/// Time until the next full second of Redis' clock. All nodes write their heartbeats then: every tail is woken by all of
/// them, and takes what comes together in few reads.
fn until_next_beat(now: u64) -> Duration {
    let beat = u64::try_from(BEAT.as_millis()).unwrap_or(u64::MAX);
    let left = beat - now % beat;
    // A clock that was put back a little makes no second one.
    Duration::from_millis(if left < beat / 10 { left + beat } else { left })
}

impl Link {
    /// Asks Redis for its role, which may change behind an address that does not, and for the time. Returns whether it
    /// is a master.
    async fn look(&self) -> RedisResult<bool> {
        let (mut connection, asked) = (self.connection.connection(), StdInstant::now());
        let mut look = redis::pipe();
        look.cmd("ROLE").cmd("TIME");
        let answer = timeout(LOOK, look.query_async::<(Value, (u64, u64))>(&mut connection)).await;
        let late = |_| RedisError::from((redis::ErrorKind::Io, "no answer in time"));
        let (role, time) = answer.map_err(late)??;
        self.clock.set(RedisTime::new(time, asked));
        Ok(is_master(&role))
    }
}

fn outcome(answer: RedisResult<Value>) -> Outcome {
    match answer {
        // NOMKSTREAM: there is no stream.
        Ok(Value::Nil) => Outcome::Stale,
        Ok(answer) => match added(&answer) {
            Some(position) => Outcome::Added(position),
            None => Outcome::Unknown(
                (redis::ErrorKind::UnexpectedReturnType, "an entry's id is none of ours").into(),
            ),
        },
        Err(error) => match error.kind() {
            redis::ErrorKind::Server(ServerErrorKind::ResponseError)
                if error
                    .detail()
                    .is_some_and(|detail| detail.contains("smaller than the target stream top item")) =>
            {
                Outcome::Stale
            }
            redis::ErrorKind::Server(
                ServerErrorKind::ReadOnly
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::TryAgain
                | ServerErrorKind::BusyLoading,
            ) => Outcome::Elsewhere(error),
            _ if is_refusal(&error) => Outcome::Refused(error),
            _ => Outcome::Unknown(error),
        },
    }
}

/// The id in an answer to XADD.
fn added(answer: &Value) -> Option<Position> {
    let Value::BulkString(id) = answer else { return None };
    position(std::str::from_utf8(id).ok()?)
}

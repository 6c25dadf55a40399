//! [`Publisher`]: one multiplexed connection for all publishes of a node, opened and reopened by ourselves.
//!
//! What many callers publish at once goes as one batch; a pool would split the batches up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant as StdInstant},
};

use realtime_core::{BusError, Envelope, Position};
use redis::{Cmd, ConnectionAddr, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::{
    sync::Mutex,
    time::{Instant, MissedTickBehavior, interval, timeout},
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
    line::{Line, unavailable},
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
}

/// A claimed connection.
struct Link {
    connection: Batcher,
    addr: ConnectionAddr,
    epoch: AtomicU64,
    clock: RedisClock,
    /// Held by whoever claims again; the others wait for what comes of it.
    claiming: Mutex<()>,
    /// When the master was looked up last; held by whoever looks.
    looked: Mutex<Instant>,
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
    /// Nobody knows whether it was added.
    Unknown(RedisError),
}

impl Shared {
    /// Adds an envelope to the stream, within the time that a command may take.
    pub(super) async fn publish(&self, envelope: &Envelope) -> Result<Position, BusError> {
        self.add(envelope).await
    }

    /// Adds a heartbeat, within the time that a command may take twice. Where the master can change it is looked up
    /// first, so that a node that is left alone with an old master does not mistake its own echo for the cluster's.
    ///
    /// Everything that was acknowledged on any node before this was called comes before the entry.
    pub(super) async fn heartbeat(&self) -> Result<Position, BusError> {
        let began = u64::try_from(self.created.elapsed().as_micros()).unwrap_or(u64::MAX);
        if let Some(link) = self.publisher.line.current() {
            self.leads(&link, Duration::ZERO).await;
        }
        self.add(&Beat { incarnation: &self.incarnation, began }).await
    }

    async fn add(&self, fields: &impl Fields) -> Result<Position, BusError> {
        let limit = self.config.command_timeout;
        let mut asked = None;
        match timeout(limit, self.try_add(fields, &mut asked)).await {
            Ok(result) => result,
            Err(_) => {
                if let Some(link) = asked {
                    self.publisher.line.give_up(&link);
                }
                Err(BusError::Unavailable(format!("no answer from Redis within {limit:?}")))
            }
        }
    }

    /// Goes on until there is an answer that says something; `asked` is whom it waits for.
    async fn try_add(
        &self,
        fields: &impl Fields,
        asked: &mut Option<Arc<Link>>,
    ) -> Result<Position, BusError> {
        loop {
            let link = self.link().await?;
            let link = asked.insert(link);
            let epoch = link.epoch.load(Ordering::Acquire);
            match outcome(self.xadd(link, epoch, fields).await) {
                Outcome::Added(position) => return Ok(position),
                // Boxed: it is rare, and a part of every publish otherwise.
                Outcome::Stale => Box::pin(self.reclaim(link, epoch)).await?,
                Outcome::Elsewhere(error) => {
                    tracing::debug!(%error, "this server does not take entries any more");
                    self.publisher.line.give_up(link);
                }
                Outcome::Unknown(error) => {
                    self.publisher.line.give_up(link);
                    return Err(unavailable(&error));
                }
            }
        }
    }

    async fn xadd(&self, link: &Link, epoch: u64, fields: &impl Fields) -> RedisResult<Value> {
        // Room for a short message, so that most buffers never grow.
        let mut command = Cmd::with_capacity(11, self.keys.log.len() + 448);
        command
            .arg("XADD")
            .arg(&self.keys.log)
            .arg("NOMKSTREAM")
            .arg("MAXLEN")
            .arg("~")
            .arg(self.config.max_len)
            .arg(format!("{epoch}-*"))
            .arg(VERSION_FIELD)
            .arg(VERSION);
        fields.write(&mut command, link.clock.now());
        link.connection.run(command).await
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
    async fn link(&self) -> Result<Arc<Link>, BusError> {
        let link = self.publisher.line.link(|| self.open()).await?;
        // With a subscription the heartbeat looks often enough.
        let age =
            if link.epoch.load(Ordering::Acquire) < self.seen() { Duration::ZERO } else { BEAT * 3 / 2 };
        if self.leads(&link, age).await {
            return Ok(link);
        }
        self.publisher.line.link(|| self.open()).await
    }

    /// Whether a connection still leads to the master, which is looked up unless somebody did within `age`. One that
    /// does not is given up: a master that was cut off goes on taking entries that no node will read.
    async fn leads(&self, link: &Arc<Link>, age: Duration) -> bool {
        if !self.servers.can_change() {
            return true;
        }
        let mut looked = link.looked.lock().await;
        if looked.elapsed() < age {
            return true;
        }
        // Without an answer it goes on: that nobody can be asked is no fault of the master.
        let master = Box::pin(timeout(LOOK, self.servers.master(&self.keys.log))).await;
        *looked = Instant::now();
        let leads = !matches!(master, Ok(Ok(master)) if *master.addr() != link.addr);
        if !leads {
            tracing::warn!("the master has changed");
            self.publisher.line.give_up(link);
        }
        leads
    }

    async fn open(&self) -> RedisResult<Link> {
        count(&self.metrics.connects);
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
            claiming: Mutex::default(),
            looked: Mutex::new(Instant::now()),
        })
    }

    /// Asks for the epoch again, unless somebody just did.
    async fn reclaim(&self, link: &Arc<Link>, stale: u64) -> Result<(), BusError> {
        let _claiming = link.claiming.lock().await;
        if link.epoch.load(Ordering::Acquire) != stale {
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
                self.publisher.line.give_up(link);
                Err(unavailable(&error))
            }
        }
    }
}

/// Writes heartbeats for ever, and keeps Redis' clock.
pub(super) async fn beat(shared: Arc<Shared>) {
    let mut timer = interval(BEAT);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        // A failure shows at the tail: the heartbeat does not come back.
        if let Err(error) = shared.heartbeat().await {
            tracing::debug!(%error, "no heartbeat was written");
        }
        if let Some(link) = shared.publisher.line.current()
            && let Err(error) = link.set_clock().await
        {
            tracing::debug!(%error, "Redis did not tell its time");
        }
    }
}

impl Link {
    /// Asks Redis for the time.
    async fn set_clock(&self) -> RedisResult<()> {
        let (mut connection, asked) = (self.connection.connection(), StdInstant::now());
        let time = redis::cmd("TIME");
        let time = timeout(LOOK, time.query_async(&mut connection)).await;
        let late = |_| RedisError::from((redis::ErrorKind::Io, "no answer in time"));
        self.clock.set(RedisTime::new(time.map_err(late)??, asked));
        Ok(())
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
            _ => Outcome::Unknown(error),
        },
    }
}

/// The id in an answer to XADD.
fn added(answer: &Value) -> Option<Position> {
    let Value::BulkString(id) = answer else { return None };
    position(std::str::from_utf8(id).ok()?)
}

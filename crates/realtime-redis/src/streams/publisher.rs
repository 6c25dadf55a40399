//! Publishing: one multiplexed connection for all publishes of a node.
//!
//! Concurrent publishes are sent as one batch; a pool of connections would split the batches.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant as StdInstant},
};

use realtime_core::{
    Envelope, Position,
    bus::{BusError, StreamWritten},
};
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value, aio::MultiplexedConnection};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{
    claim::{Claimed, claim},
    clock::{HEARTBEAT_INTERVAL, RedisClock},
    connection::{LOOKUP_TIMEOUT, LastLookup, PublishConnection},
    entry::{Fields, StreamFields, VERSION, VERSION_FIELD, parse_position},
    shared::StreamsShared,
    text_scripts::{ScriptForm, refused},
};
use crate::{
    batcher::Batcher,
    error::{bus_error, is_refusal, publish_error},
    liveness::Liveness,
    master::open,
    part::Part,
    repair::{Loss, Repair, is_broken_key},
};

/// The result of an attempt to add an entry.
enum AddOutcome {
    Added(Position),
    /// It does not continue its text stream; nothing was added.
    Discontinuous(StreamWritten),
    /// An entry with the same id had been added before.
    Known(Position),
    /// The stream is gone or has a newer epoch; nothing was added.
    Stale,
    /// This server does not accept entries, and nothing was added.
    WrongServer(RedisError),
    /// One of the keys is broken, and nothing was added.
    BrokenKey(RedisError),
    /// Redis refuses entries from all clients for now, and nothing was added.
    Refused(RedisError),
    /// The entry may or may not have been added, or Redis gave an unexpected error.
    Unknown(RedisError),
}

/// An entry of the stream.
pub(super) struct Added {
    pub(super) position: Position,
    /// A time before which everything that was acknowledged on any node precedes the entry. Where the master can change,
    /// that is the start of the lookup that confirmed it. `None` for an entry that was added before.
    began: Option<StdInstant>,
}

/// The final answer to an entry.
enum Answer {
    Added(Added),
    /// It does not continue its text stream.
    Discontinuous(StreamWritten),
}

/// Adds an entry unless one with the same id was added before, whose position is returned in a list then.
///
/// KEYS: stream, id. ARGV: time in milliseconds for which the id is kept, arguments of XADD. Entry and id are replicated
/// together, so a replica that takes over has both or none.
const ADD_ONCE: &str = r"
local known = redis.call('GET', KEYS[2])
if known and string.match(known, '^%d+%-%d+$') then return { known } end
local added = redis.call('XADD', KEYS[1], unpack(ARGV, 2))
if added then redis.call('SET', KEYS[2], added, 'PX', ARGV[1]) end
return added
";

/// Time for which the id of an envelope is kept: much longer than any caller retries.
const ID_WINDOW: Duration = Duration::from_secs(300);

/// Progress of an attempt to add an entry.
#[derive(Default)]
struct Attempt {
    /// The connection in use.
    connection: Option<Arc<PublishConnection>>,
    /// The command may have been sent, and its answer has not come.
    sent: bool,
    /// Broken keys were begun anew.
    repaired: bool,
    /// It was repeated after the connection broke.
    repeated: bool,
}

impl StreamsShared {
    /// Adds an envelope to the stream, within the time limit of a command.
    pub(super) async fn publish(self: &Arc<Self>, envelope: &Envelope) -> Result<Position, BusError> {
        let Added { position, began } = self.add(envelope).await?;
        if let Some(began) = began {
            self.own.sent(position, began, StdInstant::now());
        }
        Ok(position)
    }

    /// Adds an entry of a text stream, if it continues the stream.
    pub(super) async fn publish_stream(
        self: &Arc<Self>,
        fields: &StreamFields<'_>,
    ) -> Result<StreamWritten, BusError> {
        match self.add_within_limit(fields).await? {
            Answer::Added(Added { position, began }) => {
                if let Some(began) = began {
                    self.own.sent(position, began, StdInstant::now());
                }
                Ok(StreamWritten::Added(position))
            }
            Answer::Discontinuous(answer) => Ok(answer),
        }
    }

    /// Looks the master up where it can change, and discards a connection that leads elsewhere.
    pub(super) async fn look_up_master(self: &Arc<Self>) {
        if let Some(connection) = self.connection.current().filter(|_| self.lookup.can_change()) {
            self.confirm_unless(&connection, |_| false).await;
        }
    }

    /// Adds an entry, unless one with the same id was added before.
    pub(super) async fn add(self: &Arc<Self>, fields: &impl Fields) -> Result<Added, BusError> {
        match self.add_within_limit(fields).await? {
            Answer::Added(added) => Ok(added),
            Answer::Discontinuous(_) => {
                Err(BusError::OutcomeUnknown("Redis takes the entry for one of a text stream".into()))
            }
        }
    }

    async fn add_within_limit(self: &Arc<Self>, fields: &impl Fields) -> Result<Answer, BusError> {
        let limit = self.config.command_timeout;
        let mut attempt = Attempt::default();
        let request = Part::Bus.request();
        let answer = timeout(limit, self.try_add(fields, &mut attempt)).await;
        request.end(matches!(answer, Ok(Ok(_))));
        match answer {
            Ok(result) => result,
            Err(_) => {
                let problem = format!("no answer from Redis within {limit:?}");
                if let Some(connection) = attempt.connection {
                    self.connection.discard_failed(&connection, &problem);
                }
                Err(if attempt.sent {
                    BusError::OutcomeUnknown(problem)
                } else {
                    BusError::Unavailable(problem)
                })
            }
        }
    }

    /// Repeats the attempt until its result is final.
    async fn try_add(
        self: &Arc<Self>,
        fields: &impl Fields,
        attempt: &mut Attempt,
    ) -> Result<Answer, BusError> {
        loop {
            let connection = self.master_connection().await?;
            let connection = attempt.connection.insert(connection);
            let epoch = connection.epoch.load(Ordering::Acquire);
            let began = match self.lookup.can_change() {
                true => self.created + Duration::from_micros(connection.confirmed.load(Ordering::Acquire)),
                false => StdInstant::now(),
            };
            attempt.sent = true;
            let outcome = outcome(self.xadd(connection, epoch, fields).await);
            // What follows an answer is another attempt.
            attempt.sent = false;
            match outcome {
                AddOutcome::Added(position) => {
                    self.connection.record_success();
                    return Ok(Answer::Added(Added { position, began: Some(began) }));
                }
                AddOutcome::Known(position) => {
                    self.connection.record_success();
                    return Ok(Answer::Added(Added { position, began: None }));
                }
                AddOutcome::Discontinuous(answer) => {
                    self.connection.record_success();
                    return Ok(Answer::Discontinuous(answer));
                }
                // Boxed: it is rare, and would otherwise enlarge the future of every publish.
                AddOutcome::Stale => Box::pin(self.reclaim(connection, epoch)).await?,
                AddOutcome::WrongServer(error) => {
                    tracing::debug!(%error, "this server does not accept entries any more");
                    self.connection.discard_failed(connection, &error);
                }
                AddOutcome::BrokenKey(error) => {
                    if attempt.repaired {
                        return Err(bus_error(&error));
                    }
                    attempt.repaired = true;
                    let mut requests = connection.batcher.connection();
                    Box::pin(self.repair(fields, &mut requests)).await.map_err(|error| bus_error(&error))?;
                    Box::pin(self.reclaim(connection, epoch)).await?;
                }
                AddOutcome::Refused(error) => return Err(bus_error(&error)),
                AddOutcome::Unknown(error) => {
                    // A second attempt is recognized. The connection may have been closed a moment ago.
                    let is_recognized = fields.id().is_some() || fields.stream().is_some();
                    if is_recognized && error.is_connection_dropped() && !attempt.repeated {
                        attempt.repeated = true;
                        self.connection.discard(connection);
                        continue;
                    }
                    self.connection.discard_failed(connection, &error);
                    return Err(publish_error(&error, 1));
                }
            }
        }
    }

    /// Begins the keys anew that an entry needs, if they are broken. The log itself is begun anew by the next claim.
    async fn repair(&self, fields: &impl Fields, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let alone = |repair: Repair, key: &str, kind| repair.key(key, kind, Loss::Alone);
        let mut repairs =
            vec![alone(Repair::default(), &self.keys.log, "stream"), self.keys.retained.repair()];
        if let Some(id) = fields.id() {
            repairs.push(alone(Repair::default(), &self.keys.id(id), "string"));
        }
        if let Some(write) = fields.stream() {
            repairs.extend(self.keys.text_streams.repair(Some(&write.entry.key)));
        }
        for repair in repairs {
            self.remove_broken(&repair, connection).await?;
        }
        Ok(())
    }

    /// Removes broken keys.
    pub(super) async fn remove_broken(
        &self,
        repair: &Repair,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<()> {
        for key in repair.run(connection).await? {
            self.counters.skipped();
            tracing::warn!(
                key,
                "removed a key of Redis that held something else than it should; it is begun anew"
            );
        }
        Ok(())
    }

    async fn xadd(
        &self,
        connection: &PublishConnection,
        epoch: u64,
        fields: &impl Fields,
    ) -> RedisResult<Value> {
        let answer =
            connection.batcher.run(self.xadd_command(connection, epoch, fields, ScriptForm::Hash)).await;
        match answer {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                connection.batcher.run(self.xadd_command(connection, epoch, fields, ScriptForm::Text)).await
            }
            answer => answer,
        }
    }

    fn xadd_command(
        &self,
        connection: &PublishConnection,
        epoch: u64,
        fields: &impl Fields,
        form: ScriptForm,
    ) -> Cmd {
        // Capacity for a short message, so that most buffers never grow.
        let mut command = Cmd::with_capacity(11, self.keys.log.len() + 448);
        let now = connection.clock.now();
        match (fields.stream(), fields.id().map(|id| self.keys.id(id)), fields.place(now)) {
            (Some(write), ..) => {
                self.keys.text_streams.begin_add(&mut command, &self.keys.log, write, form);
            }
            (None, None, None) => {
                command.arg("XADD").arg(&self.keys.log);
            }
            (None, Some(id), None) => {
                let window = ID_WINDOW.as_millis().to_string();
                command.arg("EVAL").arg(ADD_ONCE).arg(2).arg(&self.keys.log).arg(id).arg(window);
            }
            (None, id, Some(place)) => {
                self.keys.retained.begin_add(&self.keys.log, id.as_deref(), &mut command);
                place.describe(ID_WINDOW, now, &self.config, &mut command);
            }
        }
        command.arg("NOMKSTREAM");
        // One entry can trim in one way only.
        let by_window =
            self.trim_by_window.load(Ordering::Relaxed) && self.trim_by_window.swap(false, Ordering::Relaxed);
        match (by_window && self.config.trims).then(|| self.window.begin(now)).flatten() {
            Some(begin) => {
                command.arg("MINID").arg("~").arg(format!("{}-{}", begin.epoch, begin.offset));
            }
            None if self.config.trims => {
                command.arg("MAXLEN").arg("~").arg(self.config.max_len);
            }
            None => {}
        }
        command.arg(format!("{epoch}-*")).arg(VERSION_FIELD).arg(VERSION);
        fields.write(&mut command, now);
        command
    }

    /// Returns a connection that leads to the master as far as is known.
    pub(super) async fn master_connection(self: &Arc<Self>) -> Result<Arc<PublishConnection>, BusError> {
        let open = || {
            let shared = Arc::clone(self);
            async move { shared.open().await }
        };
        let connection = self.connection.get(open).await?;
        if !self.lookup.can_change() || self.may_lead_to_master(&connection).await {
            return Ok(connection);
        }
        self.connection.get(open).await
    }

    /// Returns whether a connection may still lead to the master. The lookup runs beside the publishes, which continue; only
    /// when another part of this bus has met a newer epoch do all of them wait for one lookup.
    async fn may_lead_to_master(self: &Arc<Self>, connection: &Arc<PublishConnection>) -> bool {
        let seen = self.seen();
        if connection.epoch.load(Ordering::Acquire) < seen {
            return self.confirm_unless(connection, move |last| last.seen >= seen).await;
        }
        // With a subscription the heartbeats look it up often enough.
        let is_due = connection
            .last_lookup
            .try_lock()
            .is_ok_and(|last| last.at.elapsed() > HEARTBEAT_INTERVAL * 3 / 2);
        if is_due && let Ok(mut last_lookup) = Arc::clone(&connection.last_lookup).try_lock_owned() {
            let (shared, connection) = (Arc::clone(self), Arc::clone(connection));
            // Ends within `LOOKUP_TIMEOUT`.
            let confirm = async move { shared.confirm_master(&connection, &mut last_lookup).await };
            self.connection.runtime().spawn(confirm);
        }
        true
    }

    /// Does the same as [`Self::confirm_master`] in a task, since others wait for the lookup; only returns true if the last
    /// lookup is enough.
    async fn confirm_unless(
        self: &Arc<Self>,
        connection: &Arc<PublishConnection>,
        is_enough: impl Fn(&LastLookup) -> bool + Copy + Send + Sync + 'static,
    ) -> bool {
        let confirm = || {
            let (shared, connection) = (Arc::clone(self), Arc::clone(connection));
            async move {
                let mut last_lookup = connection.last_lookup.lock().await;
                is_enough(&last_lookup) || shared.confirm_master(&connection, &mut last_lookup).await
            }
        };
        Box::pin(self.connection.runtime().run(confirm)).await
    }

    /// Looks the master up and returns whether a connection still leads to it. If not, the connection is discarded: a master
    /// that was cut off continues to accept entries that no node will read.
    async fn confirm_master(
        &self,
        connection: &Arc<PublishConnection>,
        last_lookup: &mut LastLookup,
    ) -> bool {
        last_lookup.seen = self.seen();
        let began = self.micros();
        // Without an answer the connection is kept: unreachable sentinels are no fault of the master.
        let master = Box::pin(timeout(LOOKUP_TIMEOUT, self.lookup.master(&self.keys.log))).await;
        last_lookup.at = Instant::now();
        let is_confirmed = !matches!(master, Ok(Ok(master)) if *master.addr() != connection.addr);
        if is_confirmed {
            connection.confirmed.fetch_max(began, Ordering::AcqRel);
        } else {
            tracing::warn!("the master has changed");
            self.connection.discard(connection);
        }
        is_confirmed
    }

    async fn open(&self) -> RedisResult<PublishConnection> {
        self.counters.connected();
        let confirmed = AtomicU64::new(self.micros());
        let server = self.lookup.master(&self.keys.log).await?;
        let addr = server.addr().clone();
        // Each publish has a time limit of its own; a second one would only cost a timer.
        let mut connection = open(server, None).await?;
        let Claimed { last: Position { epoch, .. }, time } =
            claim(self, &mut connection, self.seen()).await?;
        self.see(epoch);
        Ok(PublishConnection {
            batcher: Batcher::new(connection, self.config.command_timeout),
            liveness: Liveness::new(),
            addr,
            epoch: AtomicU64::new(epoch),
            clock: RedisClock::new(time),
            confirmed,
            claiming: Mutex::default(),
            last_lookup: Arc::new(Mutex::new(LastLookup { at: Instant::now(), seen: epoch })),
        })
    }

    /// Claims the connection again, unless another caller just did; in a task, since others wait for the claim.
    async fn reclaim(
        self: &Arc<Self>,
        connection: &Arc<PublishConnection>,
        stale: u64,
    ) -> Result<(), BusError> {
        let limit = self.config.command_timeout;
        let claim = || {
            let (shared, connection) = (Arc::clone(self), Arc::clone(connection));
            async move { timeout(limit, shared.claim_again(&connection, stale)).await }
        };
        self.connection.runtime().run(claim).await.unwrap_or_else(|_| {
            let problem = format!("no answer from Redis within {limit:?}");
            self.connection.discard_failed(connection, &problem);
            Err(BusError::Unavailable(problem))
        })
    }

    async fn claim_again(&self, connection: &Arc<PublishConnection>, stale: u64) -> Result<(), BusError> {
        let _claiming = connection.claiming.lock().await;
        if connection.epoch.load(Ordering::Acquire) != stale {
            return Ok(());
        }
        // A master that was replaced and has lost its data would be given a newer epoch than its successor.
        if self.lookup.can_change()
            && !self.confirm_master(connection, &mut *connection.last_lookup.lock().await).await
        {
            return Ok(());
        }
        match claim(self, &mut connection.batcher.connection(), self.seen()).await {
            Ok(Claimed { last: Position { epoch, .. }, time }) => {
                self.see(epoch);
                connection.clock.set(time);
                connection.epoch.store(epoch, Ordering::Release);
                Ok(())
            }
            Err(error) => {
                // Also after a refused claim: it must not be repeated with each publish.
                self.connection.discard_failed(connection, &error);
                Err(bus_error(&error))
            }
        }
    }
}

fn outcome(answer: RedisResult<Value>) -> AddOutcome {
    match answer {
        // NOMKSTREAM: there is no stream.
        Ok(Value::Nil) => AddOutcome::Stale,
        Ok(answer) => match (added(&answer), known(&answer), refused(&answer)) {
            (Some(position), ..) => AddOutcome::Added(position),
            (None, Some(position), _) => AddOutcome::Known(position),
            (None, None, Some(answer)) => AddOutcome::Discontinuous(answer),
            (None, None, None) => AddOutcome::Unknown(
                (ErrorKind::UnexpectedReturnType, "the id of an added entry is not a position").into(),
            ),
        },
        Err(error) => match error.kind() {
            ErrorKind::Server(ServerErrorKind::ResponseError)
                if error
                    .detail()
                    .is_some_and(|detail| detail.contains("smaller than the target stream top item")) =>
            {
                AddOutcome::Stale
            }
            ErrorKind::Server(
                ServerErrorKind::ReadOnly
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::TryAgain
                | ServerErrorKind::BusyLoading,
            ) => AddOutcome::WrongServer(error),
            ErrorKind::Server(ServerErrorKind::ResponseError)
                if error.detail().is_some_and(|detail| detail.contains("exhausted the last possible ID")) =>
            {
                AddOutcome::Stale
            }
            // Said of the last offset, too.
            ErrorKind::Server(ServerErrorKind::ResponseError)
                if error.detail().is_some_and(|detail| detail.contains("too large to be stored")) =>
            {
                AddOutcome::BrokenKey(error)
            }
            _ if is_broken_key(&error) => AddOutcome::BrokenKey(error),
            _ if is_refusal(&error) => AddOutcome::Refused(error),
            _ => AddOutcome::Unknown(error),
        },
    }
}

/// Returns the id in an answer to XADD.
fn added(answer: &Value) -> Option<Position> {
    let Value::BulkString(id) = answer else { return None };
    parse_position(std::str::from_utf8(id).ok()?)
}

/// Returns the id of an entry that had been added before.
fn known(answer: &Value) -> Option<Position> {
    match answer {
        // The last element: the script for text streams says so before it.
        Value::Array(answer) => added(answer.last()?),
        _ => None,
    }
}

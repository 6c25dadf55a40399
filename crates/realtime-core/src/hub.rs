//! [`Hub`]: the facade over log, shards, bus and presence of one node.

mod admissions;
mod announcer;
pub(crate) mod builder;
mod cluster_limit;
pub(crate) mod confirmations;
mod departures;
mod explain;
pub(crate) mod kicks;
mod limits;
mod measures;
mod outage;
pub(crate) mod pump;
pub(crate) mod readiness;
#[cfg(feature = "metrics")]
mod recorded;
mod renewals;
mod streams;
mod tasks;
mod tickets;
mod topics;
mod traces;

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};

#[cfg(feature = "opentelemetry")]
use crate::write_spans::in_current_trace;
use crate::{
    CloseReason, Envelope, Message, Position, Principal, Scope, Session, SessionHandle, SessionId, Settings,
    SlowPolicy, Topic, Transport, UserId,
    auth::{TicketRate, TicketStore, TokenHash, TopicPolicy},
    bus::{Bus, Published, StreamStore},
    control::{Control, LocalControl},
    error::{ConnectError, NotRetainable, NotText, PublishError, SendError, TooLarge},
    log::{Content, Entry},
    metrics::stopwatch::{self, Stopwatch},
    node::Node,
    presence::Presence,
    registry::Registry,
    revocation_list::RevocationList,
    settings::Limits,
    streams::keeper,
    wire::{Admission, ConnectTopics, Shard, WireFormat},
};

use cluster_limit::ClusterLimit;
use departures::Departures;
use outage::Outage;
use pump::Health;

/// One node of the push framework: publishes envelopes, accepts connections and lists its sessions.
///
/// Cloning it gives the same hub. The last clone ends its tasks.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    registry: Arc<Registry>,
    bus: Arc<dyn Bus>,
    /// The bus's account of text streams.
    streams: Option<Arc<dyn StreamStore>>,
    /// The tasks that publish text streams, which are aborted with the hub.
    writing: Mutex<JoinSet<()>>,
    presence: Arc<dyn Presence>,
    cluster_limit: Arc<ClusterLimit>,
    revoked: Arc<RevocationList>,
    control: Arc<dyn Control>,
    /// What this node does itself of the control.
    local: LocalControl,
    topic_policy: Option<Arc<dyn TopicPolicy>>,
    tickets: Arc<dyn TicketStore>,
    ticket_rate: TicketRate,
    draining: AtomicBool,
    outage: Arc<Outage>,
    health: Arc<Health>,
    name: Arc<str>,
    /// The pump and other background tasks, which are aborted with the hub.
    _tasks: JoinSet<()>,
}

/// Time for the last closing frames of a drain, and for their answers.
const LAST_FRAMES: Duration = Duration::from_millis(1500);

/// Time within which a client comes back that this node has refused because it drains.
const REFUSED_RETRY: Duration = Duration::from_secs(5);

/// Time for connections to end that are broken off.
const BROKEN_OFF: Duration = Duration::from_millis(200);

impl Hub {
    /// Publishes an envelope to every node of the cluster, this one included.
    ///
    /// Returns when the bus has accepted the envelope, not when clients have received it.
    ///
    /// With the feature `opentelemetry` an envelope without a [trace context](Envelope::with_trace_context) gets that of the
    /// current span of OpenTelemetry, if its trace is recorded. `tracing-opentelemetry` makes the spans of `tracing` current.
    ///
    /// A failed publish is not retried. If its outcome is unknown, an envelope with an
    /// [id](crate::EnvelopeId) can be published again without being delivered twice:
    ///
    /// ```
    /// # use realtime_core::{Envelope, EnvelopeId, Hub, error::PublishError, bus::{BusError, Published}};
    /// async fn publish(hub: &Hub, envelope: Envelope) -> Result<Published, PublishError> {
    ///     let envelope = envelope.with_id(EnvelopeId::random());
    ///     match hub.publish(envelope.clone()).await {
    ///         Err(PublishError::Bus { source: BusError::OutcomeUnknown(_), .. }) => hub.publish(envelope).await,
    ///         answer => answer,
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`PublishError`] if the message is too large, is of bytes for a transport that carries texts only, or cannot be
    /// retained, or if the bus did not accept it, or may not have
    /// ([`BusError::OutcomeUnknown`](crate::bus::BusError::OutcomeUnknown)).
    pub async fn publish(&self, envelope: Envelope) -> Result<Published, PublishError> {
        Self::check_scope(&envelope)?;
        self.check_size(&envelope)?;
        self.check_footprint(&envelope)?;
        if envelope.is_retained() && envelope.named_topic().is_none() {
            return Err(NotRetainable.into());
        }
        #[cfg(feature = "opentelemetry")]
        let envelope = in_current_trace(envelope);
        let envelope = Arc::new(envelope);
        let node = &self.0.registry.node;
        let watch = Stopwatch::start();
        #[cfg(feature = "metrics")]
        let probe = node.probe.begin();
        let answer = self.0.bus.publish(&envelope).await;
        watch.record_publish(answer.is_ok());
        match answer {
            Ok(published) => {
                node.acknowledge(published.position);
                node.metrics.published.add(1);
                #[cfg(feature = "metrics")]
                if let Some((probe, position)) = probe.zip(published.position) {
                    probe.acknowledged(position, &node.log);
                }
                Ok(published)
            }
            Err(source) => {
                node.metrics.publish_failures.count(&source);
                let topics = envelope.topics();
                let target = match topics.len() {
                    1 => format!("`{}`", topics[0]),
                    n => format!("`{}` and {} more", topics[0], n - 1),
                };
                Err(PublishError::Bus { target, source })
            }
        }
    }

    /// Publishes a message to a user, over both transports.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn publish_to_user(
        &self,
        user: impl Into<UserId>,
        message: impl Into<Message>,
    ) -> Result<Published, PublishError> {
        self.publish(Envelope::to_topic(Topic::user(&user.into()), Scope::Both, message.into())).await
    }

    /// Publishes a message to a named topic, over both transports.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let hub = realtime_core::Hub::builder().start()?;
    /// hub.publish_to_topic("order:7", "shipped").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`PublishError::Topic`] if the topic's name is invalid; else as [`Self::publish`].
    pub async fn publish_to_topic(
        &self,
        topic: &str,
        message: impl Into<Message>,
    ) -> Result<Published, PublishError> {
        self.publish(Envelope::to_topic(Topic::new(topic)?, Scope::Both, message.into())).await
    }

    /// Publishes a message to all users, over both transports.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn publish_all(&self, message: impl Into<Message>) -> Result<Published, PublishError> {
        self.publish(Envelope::broadcast(Scope::Both, message.into())).await
    }

    /// Sends an envelope to this node's sessions only: at most once, without a position, never replayed, and in no
    /// defined order relative to published messages.
    ///
    /// A session with a full outbox misses it, and gets a gap notice if its wire format has one.
    ///
    /// # Errors
    /// [`SendError::TooLarge`], [`SendError::NotText`] for a message of bytes unless its scope is a transport that carries
    /// them, [`SendError::Unsupported`] for an envelope that is to be retained, has a collapse key or another slow policy, or
    /// [`SendError::Overloaded`] if a worker's queue is full; the sessions of other workers may have received it then.
    pub fn send_local(&self, envelope: Envelope) -> Result<(), SendError> {
        Self::check_scope(&envelope)?;
        self.check_size(&envelope)?;
        if envelope.is_retained() {
            return Err(SendError::Unsupported("retain"));
        }
        match envelope.slow_policy() {
            SlowPolicy::Disconnect => {}
            SlowPolicy::Collapse(_) => return Err(SendError::Unsupported("collapse key")),
            SlowPolicy::DropOldest { .. } => return Err(SendError::Unsupported("slow policy")),
        }
        let end = envelope.end(Duration::ZERO);
        let entry = Entry::new(None, Content::Envelope(Arc::new(envelope))).with_end(end);
        let entry = Arc::new(entry);
        let mut result = Ok(());
        for shard in self.0.registry.shards() {
            if shard.send_local(Arc::clone(&entry)) == Err(SendError::Overloaded) {
                result = Err(SendError::Overloaded);
            }
        }
        result
    }

    /// A cursor for state that is loaded after this call: a client that applies the state and then subscribes from the
    /// cursor on misses nothing.
    ///
    /// Every envelope at or before it was given to the bus before this call, by any node, and every envelope whose
    /// publishing begins later lies behind it. So take the cursor first, then query, and let writers commit first, then
    /// publish: what is not in the state lies behind the cursor. An envelope may be both, since a writer may have
    /// committed before the query and not published yet, or this node may lag; the client recognizes it by a version in
    /// state and message.
    ///
    /// `None` on a bus without positions, and before this node has heard from its bus. A client then connects first and
    /// loads its state afterwards. It never waits.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use realtime_core::Hub;
    /// # struct Database;
    /// # impl Database { async fn orders(&self) -> Vec<u64> { vec![] } }
    /// # let (hub, database) = (Hub::builder().start()?, Database);
    /// let cursor = hub.cursor();
    /// let orders = database.orders().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn cursor(&self) -> Option<Position> {
        self.0.registry.node.cursor()
    }

    /// Accepts a connection on the calling worker's shard.
    ///
    /// `cursor` is the cursor that a reconnecting client sent; its session resumes there.
    ///
    /// # Errors
    /// [`ConnectError`] if the node has not started or is draining, the login was kicked or a limit is reached.
    ///
    /// # Panics
    /// Outside a tokio runtime, as [`Self::connect_to`] and [`Self::connect_admitted`] do.
    pub fn connect(
        &self,
        principal: Principal,
        transport: Transport,
        wire: &Arc<dyn WireFormat>,
        cursor: Option<&str>,
    ) -> Result<Session, ConnectError> {
        self.connect_to(principal, transport, wire, cursor, &ConnectTopics::default())
    }

    /// Accepts a connection as [`Self::connect`] does, with topics that its client asked for: its session is in them from
    /// its begin, so that a replay includes their messages.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_to(
        &self,
        principal: Principal,
        transport: Transport,
        wire: &Arc<dyn WireFormat>,
        cursor: Option<&str>,
        topics: &ConnectTopics<'_>,
    ) -> Result<Session, ConnectError> {
        self.connect_admitted(Admission::default(), principal, transport, wire, cursor, topics)
    }

    /// Accepts a connection as [`Self::connect_to`] does, with its [admission](Self::admit), which the session holds until
    /// it ends.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_admitted(
        &self,
        admission: Admission,
        principal: Principal,
        transport: Transport,
        wire: &Arc<dyn WireFormat>,
        cursor: Option<&str>,
        topics: &ConnectTopics<'_>,
    ) -> Result<Session, ConnectError> {
        let user = principal.user.clone();
        let session = self.register(principal, transport, wire, cursor, topics, admission.elsewhere);
        let session = session.inspect_err(|error| {
            self.count_refusal(error);
            self.record_refusal(Some(&user), Some(transport), admission.client, error);
            if matches!(error, ConnectError::Draining | ConnectError::BusDown) {
                // A load balancer that has yet to notice has sent a drained client back.
                self.0.registry.node.expect_back(&user, REFUSED_RETRY);
            }
            tracing::debug!(%user, %transport, %error, "connection refused");
        })?;
        if let Some(watch) = admission.watch {
            watch.record_with(stopwatch::HANDSHAKE, "transport", transport.as_str());
        }
        let session = session.admitted(admission);
        if self.0.registry.node.limits.load().max_connections_per_user_in_cluster > 0 {
            self.0.cluster_limit.opened(&user);
        }
        let handle = session.handle();
        // Check again: a concurrent kick or drain may have run before the session was registered.
        match self.check_admission(&handle.principal()) {
            Ok(()) => {}
            Err(ConnectError::Draining | ConnectError::BusDown) => handle.close(departures::reason()),
            Err(_) => {
                let reason = self.0.revoked.reason(&handle.principal());
                handle.close(reason.unwrap_or(CloseReason::Kicked));
            }
        }
        Ok(session)
    }

    fn register(
        &self,
        principal: Principal,
        transport: Transport,
        wire: &Arc<dyn WireFormat>,
        cursor: Option<&str>,
        topics: &ConnectTopics<'_>,
        elsewhere: usize,
    ) -> Result<Session, ConnectError> {
        self.check_admission(&principal)?;
        let wire = self.0.registry.node.wire(wire)?;
        let shard = self.0.registry.shard();
        shard
            .register_in(principal, transport, wire, cursor.map(str::parse), topics, elsewhere)
            .map(Session::new)
    }

    /// The calling worker's shard, created on first use. It exists while a reference to it is held.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn shard(&self) -> Arc<Shard> {
        self.0.registry.shard()
    }

    /// Returns `true` if the user has a session of the transport on this node.
    pub fn has_session(&self, user: &UserId, transport: Transport) -> bool {
        self.0.registry.node.directory.any(user, |session| session.transport() == transport)
    }

    /// The sessions of a user on this node, over all transports, oldest first.
    pub fn sessions(&self, user: &UserId) -> Vec<SessionHandle> {
        self.0.registry.node.directory.of(user).into_iter().map(SessionHandle).collect()
    }

    /// All sessions on this node, grouped by user.
    pub fn all_sessions(&self) -> Vec<SessionHandle> {
        self.0.registry.node.directory.all().into_iter().map(SessionHandle).collect()
    }

    /// The session of this node with that id. Searches all sessions.
    pub fn session(&self, id: SessionId) -> Option<SessionHandle> {
        self.0.registry.node.directory.filter(|session| session.id == id).pop().map(SessionHandle)
    }

    /// Number of sessions on this node that are in a topic: a named one, a user's, or `all`.
    pub fn subscribers(&self, topic: &Topic) -> usize {
        self.0.registry.shards().iter().map(|shard| shard.subscribers(topic)).sum()
    }

    /// The users that have a session of a transport on this node, ascending.
    pub fn users(&self, transport: Transport) -> Vec<UserId> {
        self.0.registry.node.directory.users_of(transport)
    }

    /// Presence: the users that are online in the cluster.
    pub fn presence(&self) -> &dyn Presence {
        &*self.0.presence
    }

    /// Ends a user's sessions of one transport and token that are older than `spare`. Returns their number.
    ///
    /// Logins without a token cannot be told apart: none of their sessions is ended.
    pub fn disconnect(
        &self,
        user: &UserId,
        token: TokenHash,
        transport: Transport,
        spare: Duration,
    ) -> usize {
        if token.is_of_nothing() {
            return 0;
        }
        let mut sessions = self.sessions(user);
        sessions.retain(|session| {
            session.transport() == transport
                && session.token() == token
                && session.closing().is_none()
                && session.0.opened.elapsed() >= spare
        });
        for session in &sessions {
            session.close(CloseReason::Disconnected);
        }
        sessions.len()
    }

    /// Stops accepting connections and closes all sessions, one after the other and evenly over `drain.window`: each
    /// behind the messages that had been published by then, and with a random time after which its client should
    /// reconnect. Those that are still open have everything that is published meanwhile. A node of few sessions closes
    /// 20 in a second, and is done sooner.
    ///
    /// Connections that are open 1.5 s after the last close are broken off, and their sessions end even if that takes
    /// longer. Then ends the text streams that are still written on this node as interrupted, and leaves the cluster.
    /// Returns the number of connections that were broken off.
    pub async fn drain(&self) -> usize {
        let Node { directory, settings, .. } = &*self.0.registry.node;
        self.0.draining.store(true, Ordering::SeqCst);
        let mut departures = Departures::new(directory.all(), settings.drain.window);
        while let Some(at) = departures.next_at() {
            sleep_until(at).await;
            while let Some(session) = departures.next_due() {
                session.close_in_order(departures::reason());
            }
        }
        let ended = async || {
            while directory.connections() > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LAST_FRAMES, ended()).await.ok();
        let left = directory.connections();
        if left > 0 {
            directory.all().iter().for_each(|session| session.outbox.abort(departures::reason()));
            timeout(BROKEN_OFF, ended()).await.ok();
            // Where bytes wait for a client that takes none, a connection may not notice for seconds, and over HTTP/2 never.
            for session in directory.all() {
                if let Some(host) = session.host() {
                    host.evict(&session);
                }
            }
        }
        keeper::leave(&self.0.registry.node).await;
        if directory.count().1 == 0 {
            self.0.presence.leave().await;
            self.0.control.leave().await;
            self.0.bus.leave().await;
        }
        left
    }

    /// Resolves when the node knows the logins that the cluster refuses. Until then [`Self::connect`] refuses
    /// connections. It resolves at once without a control for the cluster, and not before the cluster can be reached.
    pub async fn started(&self) {
        if !self.0.control.is_started() {
            self.0.control.started().await;
        }
    }

    /// Waits until the hub can no longer work because one of its essential tasks has ended, and returns the reason. The
    /// application should exit then, so that its supervisor restarts it. [`Self::ready`] reports the failure too.
    pub fn failed(&self) -> impl Future<Output = String> + Send + use<> {
        let health = Arc::clone(&self.0.health);
        async move { health.failed().await }
    }

    /// The settings that the hub was started with. The limits that are in force are [`Self::limits`].
    pub fn settings(&self) -> &Settings {
        &self.0.registry.node.settings
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.0.name
    }

    fn check_admission(&self, principal: &Principal) -> Result<(), ConnectError> {
        if self.0.draining.load(Ordering::SeqCst) {
            Err(ConnectError::Draining)
        } else if !self.0.control.is_started() {
            Err(ConnectError::Starting)
        } else if self.0.outage.is_draining() {
            Err(ConnectError::BusDown)
        } else if self.0.revoked.is_revoked(principal) {
            Err(ConnectError::Kicked)
        } else {
            Ok(())
        }
    }

    fn check_scope(envelope: &Envelope) -> Result<(), NotText> {
        let carries_bytes = matches!(envelope.scope(), Scope::Only(transport) if !transport.is_text_only());
        if carries_bytes || envelope.message().data.as_text().is_some() { Ok(()) } else { Err(NotText) }
    }

    fn check_size(&self, envelope: &Envelope) -> Result<(), TooLarge> {
        let limits = self.0.registry.node.limits.load();
        let (count, limit) = (envelope.topics().len(), limits.max_targets);
        let checked = TooLarge::check(&envelope.message().data, limits.max_message_bytes).and_then(|()| {
            if Limits::exceeds(count, limit) { Err(TooLarge::Targets { count, limit }) } else { Ok(()) }
        });
        self.0.registry.node.metrics.publishes_refused.add(u64::from(checked.is_err()));
        checked
    }

    /// Checks that an envelope fits into the window.
    fn check_footprint(&self, envelope: &Envelope) -> Result<(), TooLarge> {
        let node = &self.0.registry.node;
        // Settings allow a message an eighth, and nothing else of it is encoded for each wire format.
        let (size, limit) = (envelope.footprint(), node.settings.history.max_bytes / 4);
        let checked = if size > limit { Err(TooLarge::Envelope { size, limit }) } else { Ok(()) };
        node.metrics.publishes_refused.add(u64::from(checked.is_err()));
        checked
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("node", &self.0.name).finish_non_exhaustive()
    }
}

//! [`Node`]: the state that all parts of one node share.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use futures_core::stream::BoxStream;
use futures_util::stream::{StreamExt, pending};
use once_cell::sync::OnceCell;

#[cfg(feature = "metrics")]
use crate::metrics::probe::Probe;
#[cfg(feature = "opentelemetry")]
use crate::write_spans::WriteSpans;
use crate::{
    Position, Settings, Topic, UserId,
    admission::Admissions,
    directory::Directory,
    error::ConnectError,
    initial::InitialSource,
    interest::Interest,
    log::Log,
    metrics::Metrics,
    presence::{Presence, PresenceEvent, watch::PresenceWatch},
    recent::Recent,
    session::hooks::Hooks,
    settings::Limits,
    streams::local::NodeStreams,
    trace::Traces,
    wire::{MAX_WIRES, WireFormat, WireFormatId},
};

/// State that the hub, the shards and the sessions of one node share.
pub(crate) struct Node {
    /// The settings at the start.
    pub(crate) settings: Settings,
    /// The limits in force, which may be others than at the start.
    pub(crate) limits: ArcSwap<Limits>,
    pub(crate) log: Log,
    pub(crate) directory: Directory,
    /// Connections by address, and the rates at which they may begin.
    pub(crate) admissions: Arc<Admissions>,
    pub(crate) metrics: Metrics,
    /// The publish whose delivery is timed.
    #[cfg(feature = "metrics")]
    pub(crate) probe: Probe,
    /// Writes of messages whose trace is recorded.
    #[cfg(feature = "opentelemetry")]
    pub(crate) write_spans: WriteSpans,
    /// The last ends and refusals.
    pub(crate) recent: Recent,
    /// The traces that are on.
    pub(crate) traces: Arc<Traces>,
    /// Presence, which is notified of opened and ended sessions; set once, when the hub starts.
    pub(crate) presence: OnceCell<Weak<dyn Presence>>,
    /// Reporter of this node's topics, for a bus that wants them; set once, when the hub starts.
    pub(crate) interest: OnceCell<Interest>,
    /// The text streams that the node knows.
    pub(crate) streams: Arc<NodeStreams>,
    /// Reader of presence changes, while a session is in the topic `presence`.
    pub(crate) watch: PresenceWatch,
    /// Time at which the bus became unavailable after it was up.
    bus_down: Mutex<Option<SystemTime>>,
    /// The newest position that the bus has acknowledged to this node.
    acknowledged: Mutex<Option<Position>>,
    wires: RwLock<Vec<WireFormatId>>,
    /// Held while a session's login is replaced.
    pub(crate) renewals: Mutex<()>,
    /// Functions of the application that run when sessions open and end.
    pub(crate) hooks: Hooks,
    /// Sources of what sessions get first of a topic; added before the hub starts.
    pub(crate) initial: Vec<Arc<dyn InitialSource>>,
}

impl Node {
    pub(crate) fn new(settings: Settings) -> Self {
        let log = Log::new(settings.history.clone(), settings.retained.clone());
        Self {
            initial: vec![Arc::clone(log.retained()) as Arc<dyn InitialSource>],
            log,
            streams: Arc::new(NodeStreams::new(settings.streams.clone())),
            admissions: Arc::new(Admissions::new(&settings.limits)),
            limits: ArcSwap::from_pointee(settings.limits.clone()),
            settings,
            directory: Directory::default(),
            metrics: Metrics::default(),
            #[cfg(feature = "metrics")]
            probe: Probe::default(),
            #[cfg(feature = "opentelemetry")]
            write_spans: WriteSpans::default(),
            recent: Recent::default(),
            traces: Arc::default(),
            presence: OnceCell::new(),
            interest: OnceCell::new(),
            watch: PresenceWatch::default(),
            bus_down: Mutex::default(),
            acknowledged: Mutex::default(),
            wires: RwLock::default(),
            renewals: Mutex::default(),
            hooks: Hooks::default(),
        }
    }

    /// Notifies presence that a session of the user was opened or ended.
    pub(crate) fn changed(&self, user: &UserId) {
        if let Some(presence) = self.presence.get().and_then(Weak::upgrade) {
            presence.changed(user);
        }
    }

    /// Notes that a client of a user who is online here is on its way to another node, for a time.
    pub(crate) fn expect_back(&self, user: &UserId, within: Duration) {
        if self.directory.expect_back(user, within) {
            self.changed(user);
        }
    }

    /// Notes that a session has entered topics. It must be in their index already, and no lock of a shard may be held.
    pub(crate) fn entered<'a>(&self, topics: impl IntoIterator<Item = &'a Topic>) {
        if topics.into_iter().any(|topic| topic.as_str() == Topic::PRESENCE) {
            self.watch.begin(|| self.presence_changes());
        }
    }

    /// Presence changes from now on.
    pub(crate) fn presence_changes(&self) -> BoxStream<'static, PresenceEvent> {
        match self.presence.get().and_then(Weak::upgrade) {
            Some(presence) => presence.changes(),
            None => pending().boxed(),
        }
    }

    /// Start of the outage of the bus; `None` while the bus is available.
    pub(crate) fn bus_down(&self) -> Option<SystemTime> {
        *self.bus_down.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the bus is unavailable, or available again.
    pub(crate) fn set_bus_down(&self, down: bool) {
        let mut since = self.bus_down.lock().unwrap_or_else(PoisonError::into_inner);
        *since = down.then(|| since.unwrap_or_else(SystemTime::now));
    }

    /// The newest position that the bus has acknowledged to this node.
    pub(crate) fn acknowledged(&self) -> Option<Position> {
        *self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a position that the bus has acknowledged to this node.
    pub(crate) fn acknowledge(&self, position: Option<Position>) {
        let mut newest = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = position.max(*newest);
    }

    /// Notes that a worker has served its sessions up to a sequence number of the log.
    pub(crate) fn passed(&self, seq: u64) {
        #[cfg(feature = "metrics")]
        self.probe.passed(seq, &self.log);
        #[cfg(not(feature = "metrics"))]
        let _ = seq;
    }

    /// Returns `true` if sessions may have to get initial entries of their topics.
    pub(crate) fn has_initial(&self) -> bool {
        self.initial.iter().any(|source| !source.is_empty())
    }

    /// A position at or after everything that this node has read or has had acknowledged, and before every envelope
    /// whose publishing has yet to begin.
    pub(crate) fn cursor(&self) -> Option<Position> {
        let read = self.log.cursor()?;
        // After a change of the epoch an acknowledged position may belong to a history that no node continues.
        let own = self.acknowledged().filter(|own| own.epoch == read.epoch);
        own.max(Some(read))
    }

    /// The cell of a wire format in the log's entries.
    pub(crate) fn wire(&self, wire: &Arc<dyn WireFormat>) -> Result<WireFormatId, ConnectError> {
        let find =
            |slots: &[WireFormatId]| slots.iter().find(|slot| slot.wire.name() == wire.name()).cloned();
        if let Some(slot) = find(&self.wires.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(slot);
        }
        let mut slots = self.wires.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = find(&slots) {
            return Ok(slot);
        }
        if slots.len() == MAX_WIRES {
            return Err(ConnectError::TooManyWires(wire.name()));
        }
        let slot = WireFormatId { wire: Arc::clone(wire), index: slots.len() };
        slots.push(slot.clone());
        Ok(slot)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("settings", &self.settings).finish_non_exhaustive()
    }
}

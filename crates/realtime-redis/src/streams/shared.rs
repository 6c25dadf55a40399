//! [`StreamsShared`]: the state that the parts of one bus share.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use realtime_core::{EnvelopeId, bus::BusError};

use super::{
    connection::PublishConnection, own::OwnEntry, retained::RetainedKeys, text_scripts::TextStreamKeys,
    window::Window,
};
use crate::{
    bus_counters::BusCounters,
    config::{RedisConfig, RedisConfigError},
    counter::Counter,
    master::MasterLookup,
    part::Part,
    shared_connection::SharedConnection,
};

/// The state that the publisher, the heartbeats and the tail of one bus share.
#[derive(Debug)]
pub(super) struct StreamsShared {
    pub(super) config: RedisConfig,
    pub(super) lookup: Arc<MasterLookup>,
    pub(super) keys: Keys,
    /// Distinguishes this node's heartbeats from those of other nodes.
    pub(super) incarnation: String,
    /// The origin of the times in this node's heartbeats.
    pub(super) created: Instant,
    /// Number of requests for the stream's epoch.
    pub(super) claims: Counter,
    pub(super) counters: BusCounters,
    /// The connection for all publishes.
    pub(super) connection: SharedConnection<PublishConnection>,
    /// The highest epoch that any part of this bus has seen.
    seen: AtomicU64,
    /// The reason why the last heartbeat could not be written.
    heartbeat_problem: Mutex<Option<BusError>>,
    pub(super) own: OwnEntry,
    pub(super) window: Window,
    /// Set when the next entry trims the stream by age and bytes instead of by number.
    pub(super) trim_by_window: AtomicBool,
}

/// Milliseconds since 1970 that no clock shows.
const NO_CLOCK: u64 = 1 << 52;

/// The keys of the bus, in one slot of a cluster.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) log: String,
    pub(super) epoch: String,
    pub(super) retained: RetainedKeys,
    ids: String,
    pub(super) text_streams: TextStreamKeys,
}

impl Keys {
    /// Returns the key of an envelope's id.
    pub(super) fn id(&self, id: &EnvelopeId) -> String {
        format!("{}{id}", self.ids)
    }
}

impl StreamsShared {
    pub(super) fn new(config: RedisConfig) -> Result<Self, RedisConfigError> {
        Part::Bus.describe();
        let tag = config.tag("rt");
        Ok(Self {
            lookup: MasterLookup::shared(&config)?,
            keys: Keys {
                log: format!("{tag}:log"),
                epoch: format!("{tag}:epoch"),
                retained: RetainedKeys::new(&tag),
                ids: format!("{tag}:id:"),
                text_streams: TextStreamKeys::new(&tag),
            },
            incarnation: format!("{:032x}", rand::random::<u128>()),
            created: Instant::now(),
            claims: Counter::default(),
            counters: BusCounters::default(),
            connection: SharedConnection::new(config.command_timeout),
            seen: AtomicU64::default(),
            heartbeat_problem: Mutex::default(),
            own: OwnEntry::default(),
            window: Window::new(config.max_age, config.max_bytes),
            trim_by_window: AtomicBool::default(),
            config,
        })
    }

    /// Returns the highest epoch that this bus has seen.
    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Records an epoch. One that no clock can have given says nothing about later ones.
    pub(super) fn see(&self, epoch: u64) {
        if epoch < NO_CLOCK {
            self.seen.fetch_max(epoch, Ordering::AcqRel);
        }
    }

    /// Returns the time in microseconds on this node's own clock.
    pub(super) fn micros(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Returns the reason why the last heartbeat could not be written, if it could not.
    pub(super) fn heartbeat_problem(&self) -> Option<BusError> {
        self.heartbeat_problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_heartbeat_problem(&self, problem: Option<BusError>) {
        *self.heartbeat_problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

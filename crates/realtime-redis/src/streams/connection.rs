//! [`PublishConnection`]: the claimed connection over which a node publishes.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant as StdInstant},
};

use redis::{ConnectionAddr, ErrorKind, RedisError, RedisResult, Value};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::clock::{RedisClock, RedisTime};
use crate::{
    batcher::Batcher,
    liveness::{Link, Liveness},
    master::is_master,
};

/// Time limit for looking up the master, and for asking a server for its role: both delay a heartbeat.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_millis(500);

/// A claimed connection.
pub(super) struct PublishConnection {
    pub(super) batcher: Batcher,
    pub(super) liveness: Liveness,
    pub(super) addr: ConnectionAddr,
    pub(super) epoch: AtomicU64,
    pub(super) clock: RedisClock,
    /// The start of the last lookup that named no other server as the master, or had no answer: microseconds on this node's own
    /// clock.
    pub(super) confirmed: AtomicU64,
    /// Held during another claim; other callers wait for its result.
    pub(super) claiming: Mutex<()>,
    /// The last lookup of the master; held during a lookup.
    pub(super) last_lookup: Arc<Mutex<LastLookup>>,
}

/// The last lookup of the master for a connection.
pub(super) struct LastLookup {
    pub(super) at: Instant,
    /// The highest epoch that the bus had seen then.
    pub(super) seen: u64,
}

impl PublishConnection {
    /// Asks Redis for its role, which may change behind the same address, and for the time. Returns whether it is a master.
    pub(super) async fn check_role(&self) -> RedisResult<bool> {
        let (mut connection, asked) = (self.batcher.connection(), StdInstant::now());
        let mut question = redis::pipe();
        question.cmd("ROLE").cmd("TIME");
        let answer =
            timeout(LOOKUP_TIMEOUT, question.query_async::<(Value, (u64, u64))>(&mut connection)).await;
        let late = |_| RedisError::from((ErrorKind::Io, "no answer in time"));
        let (role, time) = answer.map_err(late)??;
        self.clock.set(RedisTime::new(time, asked));
        Ok(is_master(&role))
    }
}

impl Link for PublishConnection {
    fn is_closed(&self) -> bool {
        self.liveness.is_closed(self.batcher.link())
    }
}

impl fmt::Debug for PublishConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishConnection")
            .field("addr", &self.addr)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

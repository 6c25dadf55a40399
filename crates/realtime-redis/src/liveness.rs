//! [`Liveness`]: the check that a connection was not closed while nobody used it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use redis::{Value, aio::MultiplexedConnection};
use tokio::task::unconstrained;

use crate::millis::millis;

/// A connection that can tell whether its server has closed it.
pub(crate) trait Link {
    /// Returns whether it is known to be closed: nothing that is sent over it would arrive.
    fn is_closed(&self) -> bool {
        false
    }
}

/// The time at which a connection was used last.
#[derive(Debug)]
pub(crate) struct Liveness {
    created: Instant,
    /// Milliseconds after `created`.
    used: AtomicU64,
}

/// Time without use after which a connection is checked: servers close what is idle.
const IDLE: Duration = Duration::from_millis(3);

impl Liveness {
    pub(crate) fn new() -> Self {
        Self { created: Instant::now(), used: AtomicU64::new(0) }
    }

    /// Records a use of the connection. Returns whether it was closed before.
    ///
    /// Over a connection whose driver has ended, a command fails before it is sent. So a PING is offered to the driver and
    /// withdrawn at once; an open connection discards it, or sends it to no harm.
    pub(crate) fn is_closed(&self, connection: &MultiplexedConnection) -> bool {
        let now = millis(self.created.elapsed());
        let idle = now.saturating_sub(self.used.swap(now, Ordering::Relaxed));
        if Duration::from_millis(idle) < IDLE {
            return false;
        }
        let mut connection = connection.clone();
        let ping = redis::cmd("PING");
        let answer = unconstrained(ping.query_async::<Value>(&mut connection)).now_or_never();
        matches!(answer, Some(Err(error)) if error.is_io_error())
    }
}

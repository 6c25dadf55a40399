//! [`Refusals`]: a bound of the audit's lines about refusals.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use realtime_core::wire::LineLimit;

use crate::{client::Client, throttle::Throttle};

/// Bound of the lines about refusals, which strangers cause: for each client, so that none hides those of another, and in
/// all. The others are counted.
pub(crate) struct Refusals {
    of_client: Throttle<Client>,
    all: LineLimit,
    /// Those beyond a client's own bound.
    unlogged: AtomicU64,
}

/// Lines of a client at once, and each minute.
const OF_CLIENT: NonZeroU32 = NonZeroU32::new(20).expect("it is not 0");
/// Lines of all clients in 10 s.
const OF_ALL: u32 = 200;

impl Default for Refusals {
    fn default() -> Self {
        Self {
            of_client: Throttle::per_minute(OF_CLIENT),
            all: LineLimit::new(OF_ALL, Duration::from_secs(10)),
            unlogged: AtomicU64::new(0),
        }
    }
}

impl Refusals {
    /// `Some` if a refusal is to be logged: with the number of those before it that were not.
    pub(crate) fn next(&self, client: &Client) -> Option<u64> {
        if self.of_client.failed(client).is_some() {
            self.unlogged.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.all.next()? + self.unlogged.swap(0, Ordering::Relaxed))
    }
}

//! Tools for an application's own tests: a hub in memory, and sessions without sockets (feature `testkit`).
//!
//! ```
//! use realtime_core::{Envelope, Message, Scope, testkit::{self, TestSession}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = testkit::hub().await;
//! let mut alice = TestSession::connect(&hub, "alice".parse()?).await;
//! let mut bob = TestSession::connect(&hub, "bob".parse()?).await;
//!
//! let paid = Envelope::to_users([alice.handle().user()], Scope::Both, Message::text("paid"))?;
//! hub.publish(paid).await?;
//!
//! assert_eq!(alice.text().await, "paid");
//! assert_eq!(bob.received().await, [], "it was for alice alone");
//! # Ok(())
//! # }
//! ```
//!
//! # Time
//!
//! Nothing here waits for real time to pass, so tests can run under tokio's paused clock
//! (`#[tokio::test(start_paused = true)]`). There `tokio::time::sleep` lets time pass at once, and heartbeats,
//! `presence.grace`, drains and slow consumers come at their times. (`tokio::time::advance` jumps: what recurs comes once
//! for the whole jump.) Two times are read elsewhere and pass as they do in production: the end of a token
//! (`Principal::expires_at`), which is a time of the calendar, and `history.maxAge`.
//!
//! A session is its own client: while a test does not read it, its outbox fills up, it reads the log later, and in the end
//! it is a slow consumer, as a socket that takes nothing is.

mod session;
#[cfg(test)]
mod tests;
mod wire;

use std::time::Duration;

use tokio::time::{sleep, timeout};

pub use self::session::{TestEvent, TestMessage, TestSession};
#[cfg(all(test, not(feature = "shuttle")))]
pub(crate) use self::wire::TestWire;
use crate::Hub;

/// Time that a test waits for what has to come.
const LIMIT: Duration = Duration::from_secs(10);

/// A hub with defaults over a bus in memory, once it is ready.
///
/// # Panics
/// Outside a tokio runtime.
pub async fn hub() -> Hub {
    let hub = Hub::builder().start().expect("the defaults do not contradict each other");
    ready(&hub).await;
    hub
}

/// Waits until a hub is [ready](Hub::ready).
///
/// # Panics
/// With what is wrong, when it is not ready within 10 s.
pub async fn ready(hub: &Hub) {
    let ready = async {
        while hub.ready().is_err() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    if timeout(LIMIT, ready).await.is_err() {
        panic!("the hub is not ready within {LIMIT:?}: {}", hub.ready().err().unwrap_or_default());
    }
}

/// Waits for a future.
///
/// # Panics
/// When it takes longer than 10 s.
pub(crate) async fn within<F: Future>(what: impl FnOnce() -> String, future: F) -> F::Output {
    match timeout(LIMIT, future).await {
        Ok(output) => output,
        Err(_) => panic!("{} did not come within {LIMIT:?}", what()),
    }
}

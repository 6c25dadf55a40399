//! Suites that test the contracts of this crate's traits (feature `conformance`).
//!
//! One suite for each trait, for every implementation of it: [`bus_conforms`], with [`streams_conform`] for a bus that carries
//! text streams, [`presence_conforms`], [`control_conforms`] with [`late_node_conforms`], [`authenticator_conforms`],
//! [`tickets_conform`]. Each is an asynchronous function that panics
//! with the clause that is broken, under any test framework. They need a tokio runtime with time, and take seconds:
//! some clauses are that something does not happen.
//!
//! ```
//! use realtime_core::{MemoryBus, conformance::{BusTerms, bus_conforms}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // Each call gives another node's handle of the same bus.
//! let bus = MemoryBus::new();
//! bus_conforms(|| bus.clone(), &BusTerms::full().with_ids()).await;
//! # }
//! ```
//!
//! What a suite cannot do is break the server behind an implementation. Stop it, kill it, cut the network and let a replica
//! take over in tests of your own, with a [`Subscriber`] that sees the events of a node.

mod authenticator;
mod bus;
mod control;
mod presence;
mod streams;
mod subscriber;
#[cfg(test)]
mod tests;
mod tickets;

use std::{fmt, time::Duration};

use tokio::time::timeout;

pub use self::{
    authenticator::{Logins, authenticator_conforms},
    bus::{BusTerms, bus_conforms},
    control::{control_conforms, late_node_conforms},
    presence::presence_conforms,
    streams::streams_conform,
    subscriber::Subscriber,
    tickets::tickets_conform,
};

/// Time that a suite waits for what has to happen.
const LIMIT: Duration = Duration::from_secs(30);

/// Ends the suite: a clause does not hold.
#[track_caller]
fn broken(clause: &str, what: impl fmt::Display) -> ! {
    panic!("the clause \"{clause}\" is broken: {what}")
}

/// Ends the suite unless the condition holds.
#[track_caller]
fn check(clause: &str, holds: bool, what: impl FnOnce() -> String) {
    if !holds {
        broken(clause, what());
    }
}

/// Waits for a future; one that takes too long breaks the clause.
async fn within<F: Future>(clause: &str, what: &str, future: F) -> F::Output {
    match timeout(LIMIT, future).await {
        Ok(output) => output,
        Err(_) => broken(clause, format_args!("{what} has not come within {LIMIT:?}")),
    }
}

/// Waits until a condition holds; one that never does breaks the clause.
async fn until(clause: &str, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(clause, what, holds).await;
}

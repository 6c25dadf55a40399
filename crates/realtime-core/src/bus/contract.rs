//! [`Bus`]: what carries envelopes between nodes.

use std::{sync::Arc, time::Instant};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::future::ready;

use crate::{Envelope, Position};

/// Carries envelopes to every node, the publisher's own included.
///
/// Guarantees: all subscribers see the envelopes of one bus in the same order; an envelope that `publish`
/// acknowledged is seen by every subscriber that is up, or a gap is; nothing is seen twice.
pub trait Bus: Send + Sync + 'static {
    /// Publishes an envelope. Returns when the bus has taken it, within a bounded time.
    ///
    /// # Errors
    /// [`BusError`]; the envelope was then not taken, or its fate is unknown.
    fn publish<'a>(&'a self, envelope: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>>;

    /// Events of the bus from now on. The stream ends with the bus.
    ///
    /// Events before the first [`BusEvent::Up`] are history: they can be replayed, and are not sent to anybody as new.
    fn subscribe(&self) -> BoxStream<'static, BusEvent>;

    /// A position behind everything that the bus had acknowledged, to whatever node, when this was called. `None` on a
    /// bus without positions.
    ///
    /// # Errors
    /// As [`Self::publish`].
    fn fence(&self) -> BoxFuture<'_, Result<Option<Position>, BusError>> {
        Box::pin(ready(Ok(None)))
    }
}

/// A bus has taken an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Its position, on a bus that has positions.
    pub position: Option<Position>,
}

/// Event of a bus.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BusEvent {
    /// The bus is there. What follows comes after this position, on a bus that has positions.
    Up(Option<Position>),
    /// An envelope, with its position on a bus that has positions.
    Message(Option<Position>, Arc<Envelope>),
    /// A position that the bus uses for itself, so that the next one is no gap.
    Marker(Position),
    /// Envelopes may be missing here.
    Gap,
    /// Everything that the bus had acknowledged, to whatever node, before this instant has been emitted. A bus with
    /// positions says so every few seconds while it is up: a cursor that is still unknown then is none of its history.
    CaughtUp(Instant),
    /// The bus is unavailable, for this reason.
    Down(String),
}

/// Error of [`Bus::publish`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The bus cannot be reached, or did not answer in time.
    #[error("the bus is unavailable: {0}")]
    Unavailable(String),
    /// The bus is there, and takes nothing for now: it is full, lacks replicas, or does not let this node write.
    #[error("the bus refused it: {0}")]
    Refused(String),
    /// This kind of bus cannot carry such an envelope.
    #[error("this bus cannot carry {0}")]
    Unsupported(String),
}

impl BusError {
    /// Status of the HTTP response to a request that failed for this.
    pub fn status(&self) -> u16 {
        match self {
            // A retry would not help.
            Self::Unsupported(_) => 422,
            Self::Unavailable(_) | Self::Refused(_) => 503,
        }
    }
}

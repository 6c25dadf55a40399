//! [`Bus`]: what carries envelopes between nodes.

use std::{sync::Arc, time::Instant};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::future::ready;

use crate::{Envelope, Position, Topic};

/// Carries envelopes to every node of a cluster, the publisher's own included.
///
/// Each node has one handle of the bus and one subscription of it. Clauses that start with *Positions* are for buses that
/// have them, where [`Published::position`] and that of every message is `Some`; whether a bus has positions never
/// changes. The suite in `realtime_core::conformance` (feature `conformance`) tests each clause.
///
/// **Order.** All subscribers see the messages of one bus in the same order, none twice. What one publisher was answered
/// before it published the next comes before that.
///
/// **Delivery.** An envelope that [`publish`](Self::publish) has acknowledged is emitted to every subscription that is up,
/// as it was published, or a [`Gap`](BusEvent::Gap) is emitted at its place. One of which the outcome is unknown may be
/// emitted or not. A loss that is not announced is the one fault that a bus must not have.
///
/// **Up and down.** A subscription emits [`Up`](BusEvent::Up) before the first envelope that is news. Whatever comes before
/// the first `Up` is history: clients that come back are replayed it, and nobody is sent it as new. `Down` says that
/// nothing comes for now, and `Up` follows when all that was missed has been emitted, or a gap instead. A node is ready
/// between `Up` and `Down`, so `Up` means that this node's own publishes come back.
///
/// **Positions.** They are equal on all nodes, ascend, and the position in `Published` is that of the message. Each message
/// or [`Skip`](BusEvent::Skip) begins at the position after the last one of its epoch; where one does not, the hub
/// announces a gap there by itself. `Up` holds the position of the last thing before it: what was acknowledged before
/// [`subscribe`](Self::subscribe) was called lies at or before the first one's position, or is emitted behind it. A new
/// epoch begins whenever a loss cannot be ruled out, and is a gap.
///
/// **Bounded.** No method waits for ever: a bus that is away is an error, not a wait. A subscriber that takes events slowly
/// slows publishers down, or misses some and is told of a gap; it is no reason for a queue without a bound.
pub trait Bus: Send + Sync + 'static {
    /// Publishes an envelope. Returns when the bus has taken it, within a bounded time. It is not tried again after its
    /// outcome became unknown.
    ///
    /// An envelope with an [id](Envelope::id) may be published again, here or on another node. A bus that recognizes ids
    /// emits it once within a time that it documents, and answers with the first one's position. Others ignore the id.
    ///
    /// A future that is dropped has published the envelope or not.
    ///
    /// # Errors
    /// [`BusError`]: the envelope was not taken, but for [`BusError::OutcomeUnknown`].
    fn publish<'a>(&'a self, envelope: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>>;

    /// Events of the bus from now on. The stream ends with the bus, or never; its drop ends the subscription.
    ///
    /// A bus that was away at first emits `Down`, with the reason, and goes on trying.
    fn subscribe(&self) -> BoxStream<'static, BusEvent>;

    /// A position at or behind everything that the bus had acknowledged, to whatever node, when this was called, and
    /// before everything that is published after it has returned. `None` on a bus without positions.
    ///
    /// # Errors
    /// [`BusError`], within a bounded time.
    fn fence(&self) -> BoxFuture<'_, Result<Option<Position>, BusError>> {
        Box::pin(ready(Ok(None)))
    }

    /// Whether [`Self::interest`] is to be called. Asked once, when the hub starts.
    fn wants_interest(&self) -> bool {
        false
    }

    /// The first session of this node is in a topic, or the last one has left it: for a bus that subscribes for each topic.
    /// Called for a topic in order, `true` first, and in turns; only if [`Self::wants_interest`]. Never called for
    /// [`Topic::all`], which every node is interested in.
    ///
    /// A bus without positions may leave out envelopes of which no topic is of interest here. It documents how soon
    /// interest takes effect; an envelope that comes before is no loss. A bus with positions leaves out nothing: clients
    /// are replayed from this node's log what was sent while they were elsewhere.
    ///
    /// It must not block, nor call the hub: a lock of the hub is held.
    fn interest(&self, topic: &Topic, interested: bool) {
        let _ = (topic, interested);
    }

    /// This node stops and has no sessions any more. Called by [`Hub::drain`](crate::Hub::drain), at most once for each
    /// drain that has ended all connections; a hub that is dropped without it drops the subscription alone. Afterwards
    /// publishing may fail with [`BusError::Unavailable`], and the subscription may end.
    ///
    /// It returns within a bounded time, and changes nothing for other nodes.
    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }
}

/// A bus that is chosen at run time: `Arc<dyn Bus>`.
impl<B: Bus + ?Sized> Bus for Arc<B> {
    fn publish<'a>(&'a self, envelope: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>> {
        (**self).publish(envelope)
    }

    fn subscribe(&self) -> BoxStream<'static, BusEvent> {
        (**self).subscribe()
    }

    fn fence(&self) -> BoxFuture<'_, Result<Option<Position>, BusError>> {
        (**self).fence()
    }

    fn wants_interest(&self) -> bool {
        (**self).wants_interest()
    }

    fn interest(&self, topic: &Topic, interested: bool) {
        (**self).interest(topic, interested);
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        (**self).leave()
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
    /// The bus is there, and everything up to this position has been emitted or is history that nobody keeps; on a bus that
    /// has positions. What follows is news.
    Up(Option<Position>),
    /// An envelope, with its position on a bus that has positions.
    Message(Option<Position>, Arc<Envelope>),
    /// Positions that are no messages and never will be, in one epoch: what the bus uses for itself, has compacted or
    /// filtered. `from` follows the position before, or there is a gap.
    Skip {
        /// The first of them.
        from: Position,
        /// The last of them.
        through: Position,
    },
    /// Envelopes may be missing here, that is between what came before and what comes next.
    ///
    /// A bus with positions leaves out the positions of what is lost, which the hub finds by itself. Where something is lost
    /// at a position that it knows, such as an entry that cannot be read, it emits a [`Skip`](Self::Skip) of that position
    /// and then this, so that a client with a cursor before it is told, too.
    Gap,
    /// Everything that the bus had acknowledged, to whatever node, before this instant has been emitted. A bus with
    /// positions says so every few seconds while it is up: a cursor that is still unknown then is none of its history.
    CaughtUp(Instant),
    /// The bus is unavailable, for this reason: nothing comes, and what is acknowledged to others is not here yet. It may
    /// be said again with another reason.
    Down(String),
}

impl BusEvent {
    /// The skip of a single position.
    pub fn skip(position: Position) -> Self {
        Self::Skip { from: position, through: position }
    }
}

/// Error of a [`Bus`], with its reason in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The bus cannot be reached, or did not answer before the envelope was given to it. It was not taken; a retry may
    /// succeed.
    #[error("the bus is unavailable: {0}")]
    Unavailable(String),
    /// The bus is there, and takes nothing for now: it is full, lacks replicas, or does not let this node write. The
    /// envelope was not taken; a retry may succeed once somebody has seen to it.
    #[error("the bus refused it: {0}")]
    Refused(String),
    /// More is published than the bus takes. The envelope was not taken; a retry may succeed after a pause.
    #[error("the bus takes no more for now: {0}")]
    Throttled(String),
    /// The envelope is above a limit of the bus. It was not taken, and never will be.
    #[error("the envelope is too large for the bus: {0}")]
    TooLarge(String),
    /// This kind of bus cannot carry such an envelope. It was not taken, and never will be.
    #[error("this bus cannot carry {0}")]
    Unsupported(String),
    /// The envelope was given to the bus, which did not answer: it may have been taken or not. After a retry it may be
    /// delivered twice, unless it has an [id](crate::EnvelopeId) and the bus recognizes those.
    #[error("the bus may or may not have taken it: {0}")]
    OutcomeUnknown(String),
}

impl BusError {
    /// The reason alone, without the kind.
    pub fn detail(&self) -> &str {
        match self {
            Self::Unavailable(detail)
            | Self::Refused(detail)
            | Self::Throttled(detail)
            | Self::TooLarge(detail)
            | Self::Unsupported(detail)
            | Self::OutcomeUnknown(detail) => detail,
        }
    }

    /// The HTTP status that goes with it: 413, 422, 429 or 503.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge(_) => 413,
            Self::Unsupported(_) => 422,
            Self::Throttled(_) => 429,
            Self::Unavailable(_) | Self::Refused(_) | Self::OutcomeUnknown(_) => 503,
        }
    }
}

//! [`Bus`]: what carries envelopes between nodes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::future::ready;

use super::{error::BusError, stream_store::StreamStore};
use crate::{Envelope, Position, Topic};

/// Carries envelopes to every node of a cluster, the publisher's own included.
///
/// Each node has one handle of the bus and one subscription to it. The clause *Positions* applies to buses that have
/// positions: [`Published::position`] and the position of every message are `Some`. A bus always has positions or never.
/// The suite in `realtime_core::conformance` (feature `conformance`) tests each clause.
///
/// **Order.** All subscribers see the messages of one bus in the same order, and none twice. If a publisher received the
/// answer to one envelope before it published the next, the two are in that order.
///
/// **Delivery.** An envelope that [`publish`](Self::publish) has acknowledged is emitted to every subscription that is up,
/// unchanged, or a [`Gap`](BusEvent::Gap) is emitted in its place. An envelope whose outcome is unknown may or may not be
/// emitted. A bus must never lose an acknowledged envelope without a gap.
///
/// **Options.** What it cannot carry of an envelope ([ttl](Envelope::ttl), [collapse key](Envelope::collapse_key),
/// [retain](Envelope::is_retained), [excluded session](Envelope::excluded)) it refuses as [`BusError::Unsupported`]; a
/// [trace context](Envelope::trace_context) it leaves out. A ttl begins when the bus accepts the envelope; a bus that delays
/// messages, or replays them, says when it ends ([`BusEvent::message`]).
///
/// **Up and down.** A subscription emits [`Up`](BusEvent::Up) before the first new envelope. Envelopes before the first
/// `Up` are history: they are replayed to clients that reconnect, and are not sent to anybody as new. `Down` means that
/// nothing arrives for now. `Up` follows once everything missed has been emitted, or a gap in its place. A node is ready
/// between `Up` and `Down`, so after `Up` a node receives its own publishes.
///
/// **Positions.** Positions are equal on all nodes and ascend. The position in `Published` is that of the message. Each
/// message or [`Skip`](BusEvent::Skip) begins at the position after the previous one of its epoch; otherwise the hub
/// announces a gap there. `Up` holds the position of the last event before it: envelopes that were acknowledged before
/// [`subscribe`](Self::subscribe) was called are at or before the position of the first `Up`, or are emitted after it. A
/// new epoch begins whenever a loss cannot be ruled out, and is a gap.
///
/// **Bounded.** Every method returns within a bounded time: if the bus is unavailable, it returns an error. A subscriber
/// that takes events slowly slows publishers down, or misses events and receives a gap. Queues are bounded.
pub trait Bus: Send + Sync + 'static {
    /// Publishes an envelope. Returns when the bus has accepted it, within a bounded time. A publish whose outcome is
    /// unknown is not retried.
    ///
    /// An envelope with an [id](Envelope::id) may be published again, on this node or another one. A bus that recognizes
    /// ids emits it once within a time that it documents, and returns the position of the first one. Other buses ignore
    /// the id, or refuse it.
    ///
    /// If the future is dropped, the envelope may or may not have been published.
    ///
    /// # Errors
    /// [`BusError`] if the envelope was not accepted, or may not have been ([`BusError::OutcomeUnknown`]).
    fn publish<'a>(&'a self, envelope: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>>;

    /// Events of the bus from now on. The stream ends with the bus, or never. Dropping it ends the subscription.
    ///
    /// A bus that is unavailable at first emits `Down` with the reason, and keeps trying.
    fn subscribe(&self) -> BoxStream<'static, BusEvent>;

    /// A position at or after everything that the bus had acknowledged to any node when this was called, and before
    /// everything that is published after it has returned. `None` on a bus without positions.
    ///
    /// # Errors
    /// [`BusError`], within a bounded time.
    fn fence(&self) -> BoxFuture<'_, Result<Option<Position>, BusError>> {
        Box::pin(ready(Ok(None)))
    }

    /// Returns `true` if [`Self::interest`] is to be called. Called once, when the hub starts.
    fn wants_interest(&self) -> bool {
        false
    }

    /// Called when the first session of this node enters a topic (`true`), and when the last one has left it (`false`):
    /// for a bus that subscribes topic by topic. The calls for one topic alternate, `true` first. It is called only if
    /// [`Self::wants_interest`] returns `true`, and never for [`Topic::all`], which interests every node.
    ///
    /// A bus without positions may omit envelopes none of whose topics interests this node. It documents how soon interest
    /// takes effect; an envelope before that is not a loss. It refuses what is to be [retained](Envelope::retain), which a node
    /// without sessions in the topic would not have. A bus with positions omits nothing: this node's log replays to
    /// clients what was sent while they were connected to other nodes.
    ///
    /// The implementation must not block and must not call the hub, since a lock of the hub is held.
    fn interest(&self, topic: &Topic, interested: bool) {
        let _ = (topic, interested);
    }

    /// The bus's account of text streams, for [`Hub::stream`](crate::Hub::stream). `None` on a bus that carries none.
    fn streams(&self) -> Option<Arc<dyn StreamStore>> {
        None
    }

    /// Called when this node stops and has no more sessions: by [`Hub::drain`](crate::Hub::drain), at most once for each
    /// drain that has ended all connections. A hub that is dropped without a drain only drops the subscription. After this
    /// call, publishing may fail with [`BusError::Unavailable`], and the subscription may end.
    ///
    /// Returns within a bounded time, and changes nothing for other nodes.
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

    fn streams(&self) -> Option<Arc<dyn StreamStore>> {
        (**self).streams()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        (**self).leave()
    }
}

/// Answer of a bus that has accepted an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Its position, on a bus that has positions.
    pub position: Option<Position>,
}

/// Event of a bus.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BusEvent {
    /// The bus is available. On a bus with positions, everything up to this position has been emitted, or is no longer
    /// kept. What follows is new.
    Up(Option<Position>),
    /// An envelope. See [`Self::message`].
    Message {
        /// The position, on a bus that has positions.
        position: Option<Position>,
        /// The envelope.
        envelope: Arc<Envelope>,
        /// The time at which its [ttl](Envelope::ttl) is over, on this node's clock; it may be over already. No session is
        /// sent it from then on. Without an end, the time of an envelope with a ttl begins on arrival.
        end: Option<Instant>,
    },
    /// The messages that the bus [retains](Envelope::retain): all of them, as they were at some time after the previous
    /// event. They replace what the hub had retained before, and are sent to nobody as new.
    ///
    /// A bus that keeps them emits this before the first `Up`, and again where it may have missed some.
    Retained(Vec<RetainedMessage>),
    /// Positions of one epoch that are not messages and never will be: those that the bus uses itself, or has compacted or
    /// filtered. If `from` is not the position after the previous event, there is a gap.
    Skip {
        /// The first of them.
        from: Position,
        /// The last of them.
        through: Position,
    },
    /// Envelopes may be missing here, between the previous event and the next.
    ///
    /// A bus with positions omits the positions of lost envelopes, and the hub detects the hole. If something is lost at a
    /// known position, such as an entry that cannot be read, the bus emits a [`Skip`](Self::Skip) of that position and then
    /// `Gap`, so that a client with an earlier cursor receives the gap, too.
    Gap,
    /// Everything that the bus had acknowledged to any node before this instant has been emitted. A bus with positions
    /// emits this every few seconds while it is up: a cursor that is still unknown then is not part of its history.
    CaughtUp(Instant),
    /// The bus is unavailable, for this reason: nothing arrives, and envelopes that are acknowledged to other nodes are
    /// not here yet. It may be emitted again with another reason.
    Down(String),
}

/// A message that the bus retains for the sessions that enter its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedMessage {
    /// The position at which it was published.
    pub position: Option<Position>,
    /// The envelope.
    pub envelope: Arc<Envelope>,
    /// The end of its [ttl](Envelope::ttl), if it has one.
    pub end: Option<Instant>,
}

impl BusEvent {
    /// An envelope that the bus accepted `age` ago.
    pub fn message(position: Option<Position>, envelope: Arc<Envelope>, age: Duration) -> Self {
        let end = envelope.end(age);
        Self::Message { position, envelope, end }
    }

    /// The skip of a single position.
    pub fn skip(position: Position) -> Self {
        Self::Skip { from: position, through: position }
    }
}

impl RetainedMessage {
    /// A message that the bus accepted `age` ago.
    pub fn new(position: Option<Position>, envelope: Arc<Envelope>, age: Duration) -> Self {
        let end = envelope.end(age);
        Self { position, envelope, end }
    }
}

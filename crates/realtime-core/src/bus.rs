//! [`Bus`]: what carries envelopes between nodes, and [`MemoryBus`], the bus of a single process.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{future::ready, stream};
use tokio::sync::mpsc;

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

    /// What happens on the bus from now on. The stream ends with the bus.
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
    /// Where it stands, on a bus that has positions.
    pub position: Option<Position>,
}

/// What a subscriber of a bus sees.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The bus is away, for this reason.
    Down(String),
}

/// Why a bus did not take an envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The bus cannot be reached, or did not answer in time.
    #[error("the bus is unavailable: {0}")]
    Unavailable(String),
    /// This kind of bus cannot carry such an envelope.
    #[error("this bus cannot carry {0}")]
    Unsupported(String),
}

/// The bus of a single process: a cluster of one, with the semantics of a larger one.
///
/// A slow subscriber slows publishers down; nothing is dropped. Cloning it gives the same bus.
#[derive(Debug, Clone)]
pub struct MemoryBus(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    last: Position,
    subscribers: Vec<mpsc::Sender<BusEvent>>,
}

/// How many envelopes wait for a subscriber before publishers wait too.
const QUEUE: usize = 1024;

impl MemoryBus {
    /// A bus with a history of its own.
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        Self(Arc::new(Mutex::new(State { last: Position { epoch, offset: 0 }, subscribers: Vec::new() })))
    }
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new()
    }
}

impl Bus for MemoryBus {
    fn publish<'a>(&'a self, envelope: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>> {
        Box::pin(async move {
            loop {
                let full = {
                    let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                    state.subscribers.retain(|subscriber| !subscriber.is_closed());
                    match state.subscribers.iter().find(|subscriber| subscriber.capacity() == 0) {
                        Some(full) => full.clone(),
                        None => {
                            let position = state.last.next();
                            state.last = position;
                            for subscriber in &state.subscribers {
                                // Only this code sends, under the lock, so the room that was found is still there.
                                let event = BusEvent::Message(Some(position), Arc::clone(envelope));
                                subscriber.try_send(event).ok();
                            }
                            return Ok(Published { position: Some(position) });
                        }
                    }
                };
                // Wait for room without holding it: the next turn looks at all subscribers again.
                full.reserve().await.ok();
            }
        })
    }

    fn subscribe(&self) -> BoxStream<'static, BusEvent> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sender.try_send(BusEvent::Up(Some(state.last))).expect("a new channel has room");
        state.subscribers.push(sender);
        drop(state);
        Box::pin(stream::unfold(receiver, |mut receiver| async move {
            let event = receiver.recv().await?;
            Some((event, receiver))
        }))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;
    use crate::{Message, Scope};

    fn envelope(text: &str) -> Arc<Envelope> {
        Arc::new(Envelope::broadcast(Scope::Both, Message::text(text)))
    }

    #[tokio::test]
    async fn every_subscriber_sees_the_same_order_and_dense_positions() {
        let bus = MemoryBus::new();
        let mut first = bus.subscribe();
        assert!(matches!(first.next().await, Some(BusEvent::Up(Some(Position { offset: 0, .. })))));
        let sent = bus.publish(&envelope("a")).await.unwrap().position.unwrap();
        let mut second = bus.subscribe();
        assert_eq!(second.next().await, Some(BusEvent::Up(Some(sent))));
        let next = bus.publish(&envelope("b")).await.unwrap().position;
        assert_eq!(next, Some(sent.next()));
        assert_eq!(first.next().await, Some(BusEvent::Message(Some(sent), envelope("a"))));
        assert_eq!(first.next().await, Some(BusEvent::Message(next, envelope("b"))));
        assert_eq!(second.next().await, Some(BusEvent::Message(next, envelope("b"))));
    }

    #[tokio::test]
    async fn a_slow_subscriber_makes_publishers_wait_and_loses_nothing() {
        let bus = MemoryBus::new();
        let mut events = bus.subscribe();
        let total = QUEUE * 3;
        let publisher = tokio::spawn({
            let bus = bus.clone();
            async move {
                for n in 0..total {
                    bus.publish(&envelope(&n.to_string())).await.unwrap();
                }
            }
        });
        tokio::task::yield_now().await;
        assert!(!publisher.is_finished());
        events.next().await;
        for n in 0..total {
            let Some(BusEvent::Message(Some(position), got)) = events.next().await else {
                panic!("no message")
            };
            assert_eq!((position.offset, &*got.message().data), (n as u64 + 1, n.to_string().as_str()));
        }
        publisher.await.unwrap();
    }

    #[tokio::test]
    async fn a_subscriber_that_left_holds_nobody_up() {
        let bus = MemoryBus::new();
        drop(bus.subscribe());
        for _ in 0..QUEUE * 2 {
            bus.publish(&envelope("x")).await.unwrap();
        }
    }
}

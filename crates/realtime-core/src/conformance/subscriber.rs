//! [`Subscriber`]: the events of a bus, read one by one.

use std::{fmt, time::Duration};

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::{
    Position,
    bus::{Bus, BusEvent},
};

/// Time that a test waits for an event.
const LIMIT: Duration = Duration::from_secs(30);

/// The events of a bus as one node sees them, for tests of faults.
pub struct Subscriber(BoxStream<'static, BusEvent>);

impl Subscriber {
    /// Subscribes.
    pub fn start(bus: &(impl Bus + ?Sized)) -> Self {
        Self(bus.subscribe())
    }

    /// Subscribes and waits until the bus is up.
    ///
    /// # Panics
    /// When it is not up within 30 s.
    pub async fn up(bus: &(impl Bus + ?Sized)) -> Self {
        let mut subscriber = Self::start(bus);
        subscriber.until(|event| matches!(event, BusEvent::Up(_))).await;
        subscriber
    }

    /// The next event.
    ///
    /// # Panics
    /// When none comes within 30 s, or the stream ends.
    pub async fn next(&mut self) -> BusEvent {
        let event = timeout(LIMIT, self.event()).await;
        event.expect("an event of the bus comes in time").expect("the subscription goes on")
    }

    /// The next event, however late; `None` at the end.
    pub(super) async fn event(&mut self) -> Option<BusEvent> {
        self.0.next().await
    }

    /// The first event that satisfies the condition.
    ///
    /// # Panics
    /// As [`Self::next`].
    pub async fn until(&mut self, condition: impl Fn(&BusEvent) -> bool) -> BusEvent {
        loop {
            let event = self.next().await;
            if condition(&event) {
                return event;
            }
        }
    }

    /// The next message's position and text. What a bus says of itself is passed over.
    ///
    /// # Panics
    /// When a gap, `Up` or `Down` comes instead, and as [`Self::next`].
    pub async fn message(&mut self) -> (Option<Position>, String) {
        loop {
            match self.next().await {
                BusEvent::Message { position, envelope, .. } => {
                    return (position, envelope.message().data.to_string());
                }
                BusEvent::Skip { .. } | BusEvent::CaughtUp(_) | BusEvent::Retained(_) => {}
                other => panic!("no envelope but {other:?}"),
            }
        }
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscriber")
    }
}

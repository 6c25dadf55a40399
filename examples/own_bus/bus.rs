//! [`ChannelBus`]: a bus of one's own, here over a channel of tokio.

use std::{sync::Arc, time::Duration};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use realtime_core::{
    BoxFuture, Envelope,
    bus::{Bus, BusError, BusEvent, Published},
};
use tokio::sync::broadcast::{self, error::RecvError};

/// Carries envelopes between the hubs of one process. Clones are the same bus.
///
/// It has no positions, so that clients cannot be replayed what they missed. Over a broker it would have those of the
/// broker's log.
#[derive(Debug, Clone)]
pub(crate) struct ChannelBus(broadcast::Sender<Arc<Envelope>>);

impl ChannelBus {
    /// A bus that keeps so many envelopes for a hub that lags behind.
    pub(crate) fn new(capacity: usize) -> Self {
        Self(broadcast::Sender::new(capacity))
    }
}

impl Bus for ChannelBus {
    fn publish<'a>(&'a self, envelope: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>> {
        Box::pin(async move {
            // An error would mean that no hub is subscribed, which is no fault of the publisher.
            self.0.send(Arc::clone(envelope)).ok();
            Ok(Published { position: None })
        })
    }

    fn subscribe(&self) -> BoxStream<'static, BusEvent> {
        // Subscribed before `Up` is emitted: what is published from then on arrives.
        let receiver = self.0.subscribe();
        let messages = stream::unfold(receiver, |mut receiver| async move {
            let event = match receiver.recv().await {
                Ok(envelope) => BusEvent::message(None, envelope, Duration::ZERO),
                // What was lost is announced, so that clients reload their state.
                Err(RecvError::Lagged(_)) => BusEvent::Gap,
                Err(RecvError::Closed) => return None,
            };
            Some((event, receiver))
        });
        stream::iter([BusEvent::Up(None)]).chain(messages).boxed()
    }
}

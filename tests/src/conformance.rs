//! What every [`Bus`] promises, in one suite for all of them.

use std::sync::Arc;

use futures_util::{StreamExt, stream::BoxStream};
use realtime_core::{Bus, BusEvent, Envelope, Message, Position, Scope};

use crate::within;

/// The envelopes of a subscriber, once it is up.
pub struct Subscriber(BoxStream<'static, BusEvent>);

impl std::fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subscriber")
    }
}

impl Subscriber {
    /// Subscribes and waits until the bus is up.
    pub async fn up(bus: &impl Bus) -> Self {
        let mut subscriber = Self(bus.subscribe());
        subscriber.until(|event| matches!(event, BusEvent::Up(_))).await;
        subscriber
    }

    /// The next event.
    pub async fn next(&mut self) -> BusEvent {
        within("an event of the bus", self.0.next()).await.expect("the bus goes on")
    }

    /// The first event that satisfies the condition.
    pub async fn until(&mut self, condition: impl Fn(&BusEvent) -> bool) -> BusEvent {
        loop {
            let event = self.next().await;
            if condition(&event) {
                return event;
            }
        }
    }

    /// The next envelope's position and text; markers are passed over, anything else is a failure.
    pub async fn message(&mut self) -> (Option<Position>, String) {
        loop {
            match self.next().await {
                BusEvent::Message(position, envelope) => {
                    return (position, envelope.message().data.to_string());
                }
                BusEvent::Marker(_) => {}
                other => panic!("no envelope but {other:?}"),
            }
        }
    }
}

/// A broadcast with a text.
pub fn envelope(text: impl std::fmt::Display) -> Arc<Envelope> {
    Arc::new(Envelope::broadcast(Scope::Both, Message::text(format!("{text}"))))
}

/// Runs the suite; `make` gives another node's view of the same bus each time.
pub async fn bus_conforms<B: Bus>(make: impl Fn() -> B) {
    let (a, b) = (make(), make());
    let (mut on_a, mut on_b) = (Subscriber::up(&a).await, Subscriber::up(&b).await);

    // Every node sees everything, its own publishes included, in one order and once.
    for n in 0..50 {
        let bus = if n % 2 == 0 { &a } else { &b };
        bus.publish(&envelope(n)).await.unwrap();
    }
    let mut last = None;
    for n in 0..50 {
        let (first, second) = (on_a.message().await, on_b.message().await);
        assert_eq!(first, second, "both nodes see the same");
        assert_eq!(first.1, n.to_string());
        assert!(first.0 > last || first.0.is_none(), "positions grow");
        last = first.0;
    }

    // The position that publish answers is the one that subscribers see.
    let published = a.publish(&envelope("x")).await.unwrap();
    assert_eq!(on_b.message().await, (published.position, "x".to_owned()));
    assert_eq!(on_a.message().await.0, published.position);

    // What many publish at once keeps each publisher's own order.
    let publishers = [&a, &b].map(|bus| async move {
        for n in 0..200 {
            bus.publish(&envelope(n)).await.unwrap();
        }
    });
    let reader = async {
        let mut texts = Vec::new();
        for _ in 0..400 {
            texts.push(on_a.message().await.1.parse::<u32>().unwrap());
        }
        texts
    };
    let [first, second] = publishers;
    let ((), (), mut texts) = tokio::join!(first, second, reader);
    texts.sort_unstable();
    assert_eq!(texts, (0..200).flat_map(|n| [n, n]).collect::<Vec<_>>());

    // An envelope arrives as it left.
    let users = [5.into(), "u-7".parse().unwrap(), 1_925_000_000_000_000_001.into()];
    let text = "\"quoted\"\n\u{1} 你好 😀";
    let scope = Scope::Only(realtime_core::Transport::new("sse"));
    let full = Arc::new(Envelope::to_users(&users, scope, Message::text(text)).unwrap());
    for _ in 0..400 {
        on_b.message().await;
    }
    a.publish(&full).await.unwrap();
    match on_b.until(|event| matches!(event, BusEvent::Message(..))).await {
        BusEvent::Message(_, read) => assert_eq!(read, full),
        _ => unreachable!(),
    }
}

//! What every [`Bus`] promises, in one suite for all of them.

use std::{sync::Arc, time::Instant};

use futures_util::{StreamExt, stream::BoxStream};
use realtime_core::{
    Envelope, Message, Position, Scope, Transport, UserId,
    bus::{Bus, BusEvent},
};

use crate::within;

/// The envelopes of a subscriber, once it is up.
pub struct Subscriber(BoxStream<'static, BusEvent>);

impl std::fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subscriber")
    }
}

impl Subscriber {
    /// Subscribes.
    pub fn start(bus: &impl Bus) -> Self {
        Self(bus.subscribe())
    }

    /// Subscribes and waits until the bus is up.
    pub async fn up(bus: &impl Bus) -> Self {
        let mut subscriber = Self::start(bus);
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

    /// The next envelope's position and text; what a bus says of itself is passed over, anything else is a failure.
    pub async fn message(&mut self) -> (Option<Position>, String) {
        loop {
            match self.next().await {
                BusEvent::Message(position, envelope) => {
                    return (position, envelope.message().data.to_string());
                }
                BusEvent::Marker(_) | BusEvent::CaughtUp(_) => {}
                other => panic!("no envelope but {other:?}"),
            }
        }
    }
}

/// A broadcast with a text.
pub fn envelope(text: impl std::fmt::Display) -> Arc<Envelope> {
    Arc::new(Envelope::broadcast(Scope::Both, Message::text(format!("{text}"))))
}

/// What differs between one bus and another.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Whether every envelope has a position.
    pub positions: bool,
    /// Whether it says how far it has caught up, and gives a fence.
    pub catches_up: bool,
    /// The scope of all but the last envelope. With `Both` a bus must carry an envelope as one message.
    pub scope: Scope,
    /// Users that it can carry.
    pub users: Vec<UserId>,
}

impl Terms {
    /// A bus that can do everything.
    pub fn full() -> Self {
        let users = vec![5.into(), "u-7".parse().unwrap(), 1_925_000_000_000_000_001.into()];
        Self { positions: true, catches_up: true, scope: Scope::Both, users }
    }

    /// A bus in RuoYi's bytes: without positions, a message for each transport, and users who are numbers.
    pub fn ruoyi(transport: &str) -> Self {
        let scope = Scope::Only(Transport::parse(transport).unwrap());
        let users = vec![5.into(), 1_925_000_000_000_000_001.into()];
        Self { positions: false, catches_up: false, scope, users }
    }
}

/// Runs the suite; `make` gives another node's view of the same bus each time.
pub async fn bus_conforms<B: Bus>(make: impl Fn() -> B, terms: &Terms) {
    let envelope = |text: &dyn std::fmt::Display| {
        Arc::new(Envelope::broadcast(terms.scope, Message::text(text.to_string())))
    };
    let (a, b) = (make(), make());
    let (mut on_a, mut on_b) = (Subscriber::up(&a).await, Subscriber::up(&b).await);

    // Every node sees everything, its own publishes included, in one order and once.
    for n in 0..50 {
        let bus = if n % 2 == 0 { &a } else { &b };
        bus.publish(&envelope(&n)).await.unwrap();
    }
    let mut last = None;
    for n in 0..50 {
        let (first, second) = (on_a.message().await, on_b.message().await);
        assert_eq!(first, second, "both nodes see the same");
        assert_eq!(first.1, n.to_string());
        assert_eq!(first.0.is_some(), terms.positions);
        assert!(first.0 > last || !terms.positions, "positions grow");
        last = first.0;
    }

    // The position that publish answers is the one that subscribers see.
    let published = a.publish(&envelope(&"x")).await.unwrap();
    assert_eq!(on_b.message().await, (published.position, "x".to_owned()));
    assert_eq!(on_a.message().await.0, published.position);

    // What many publish at once keeps each publisher's own order.
    let publishers = [&a, &b].map(async |bus| {
        for n in 0..200 {
            bus.publish(&envelope(&n)).await.unwrap();
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
    let text = "\"quoted\"\n\u{1} 你好 😀";
    let scope = Scope::Only(Transport::new("sse"));
    let full = Arc::new(Envelope::to_users(&terms.users, scope, Message::text(text)).unwrap());
    for _ in 0..400 {
        on_b.message().await;
    }
    a.publish(&full).await.unwrap();
    match on_b.until(|event| matches!(event, BusEvent::Message(..))).await {
        BusEvent::Message(_, read) => assert_eq!(read, full),
        _ => unreachable!(),
    }

    if terms.catches_up {
        bus_catches_up(&a, &b, &mut on_a, &mut on_b, &envelope).await;
    } else {
        assert_eq!(a.fence().await, Ok(None));
    }
}

/// What a bus promises that says how far it has caught up.
async fn bus_catches_up<B: Bus>(
    a: &B,
    b: &B,
    on_a: &mut Subscriber,
    on_b: &mut Subscriber,
    envelope: &impl Fn(&dyn std::fmt::Display) -> Arc<Envelope>,
) {
    // What any node acknowledged before an instant has come before the bus says that it has caught up with that.
    for n in 0..3 {
        let mut published = Vec::new();
        for bus in [a, b] {
            published.push(bus.publish(&envelope(&n)).await.unwrap().position);
        }
        let acknowledged = Instant::now();
        for subscriber in [&mut *on_a, &mut *on_b] {
            let mut seen = Vec::new();
            loop {
                match subscriber.next().await {
                    BusEvent::CaughtUp(instant) if instant >= acknowledged => break,
                    BusEvent::Message(position, _) => seen.push(position),
                    BusEvent::Marker(_) | BusEvent::CaughtUp(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            assert!(published.iter().all(|position| seen.contains(position)), "{published:?} in {seen:?}");
        }
    }

    // A fence lies behind what was acknowledged before it and before what comes after, on every node.
    for (bus, other) in [(a, b), (b, a)] {
        let before = other.publish(&envelope(&"before")).await.unwrap().position;
        let fence = bus.fence().await.unwrap();
        let after = other.publish(&envelope(&"after")).await.unwrap().position;
        assert!(before <= fence && fence < after, "{before:?}, {fence:?}, {after:?}");
        for subscriber in [&mut *on_a, &mut *on_b] {
            assert_eq!(subscriber.message().await.0, before);
            assert_eq!(subscriber.message().await.0, after);
        }
    }
}

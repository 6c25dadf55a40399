//! The bus of the example keeps the contract of every bus.
#![allow(clippy::unwrap_used, reason = "tests may")]

#[path = "../own_bus/bus.rs"]
mod bus;

use std::sync::Arc;

use bus::ChannelBus;
use realtime_core::{
    Envelope, Message, Scope,
    bus::{Bus, BusEvent},
    conformance::{BusTerms, Subscriber, bus_conforms},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_conforms() {
    let bus = ChannelBus::new(4096);
    bus_conforms(|| bus.clone(), &BusTerms::without_positions()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_slow_node_has_lost_is_announced() {
    let bus = ChannelBus::new(2);
    let mut slow = Subscriber::up(&bus).await;
    for n in 0..10 {
        let envelope = Envelope::broadcast(Scope::Both, Message::text(n.to_string()));
        bus.publish(&Arc::new(envelope)).await.unwrap();
    }
    assert_eq!(slow.next().await, BusEvent::Gap);
    assert_eq!(slow.message().await, (None, "8".to_owned()));
}

use std::time::Duration;

use futures_util::{
    FutureExt, StreamExt,
    future::{join, join_all},
};
use tokio::time::timeout;

use super::*;
use crate::{Message, Scope};

fn envelope(text: &str) -> Arc<Envelope> {
    Arc::new(Envelope::broadcast(Scope::Both, Message::text(text)))
}

/// The next event that is not a heartbeat.
async fn next(events: &mut BoxStream<'static, BusEvent>) -> BusEvent {
    loop {
        match events.next().await.expect("the bus goes on") {
            BusEvent::CaughtUp(_) => {}
            event => return event,
        }
    }
}

#[tokio::test]
async fn every_subscriber_sees_the_same_order_and_dense_positions() {
    let bus = MemoryBus::new();
    let mut first = bus.subscribe();
    assert!(matches!(next(&mut first).await, BusEvent::Up(Some(Position { offset: 0, .. }))));
    let sent = bus.publish(&envelope("a")).await.unwrap().position.unwrap();
    let mut second = bus.subscribe();
    assert_eq!(next(&mut second).await, BusEvent::Up(Some(sent)));
    let later = bus.publish(&envelope("b")).await.unwrap().position;
    assert_eq!(later, Some(sent.next()));
    assert_eq!(next(&mut first).await, BusEvent::message(Some(sent), envelope("a"), Duration::ZERO));
    assert_eq!(next(&mut first).await, BusEvent::message(later, envelope("b"), Duration::ZERO));
    assert_eq!(next(&mut second).await, BusEvent::message(later, envelope("b"), Duration::ZERO));
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
    next(&mut events).await;
    for n in 0..total {
        let BusEvent::Message { position: Some(position), envelope: got, .. } = next(&mut events).await
        else {
            panic!("no message")
        };
        assert_eq!((position.offset, got.message().data.to_string()), (n as u64 + 1, n.to_string()));
    }
    publisher.await.unwrap();
}

#[tokio::test]
async fn more_waiting_publishers_than_the_queue_has_places_all_get_through() {
    let bus = MemoryBus::new();
    let mut events = bus.subscribe();
    next(&mut events).await;
    let total = QUEUE * 3;
    let texts = vec![envelope("x"); total];
    // All of them are waiting, or through, before the first is read.
    let mut publishers = join_all(texts.iter().map(|text| bus.publish(text)));
    assert!((&mut publishers).now_or_never().is_none());
    let read = async {
        for n in 1..=total as u64 {
            let event = next(&mut events).await;
            assert!(
                matches!(event, BusEvent::Message { position: Some(position), .. } if position.offset == n),
                "{event:?}"
            );
        }
    };
    let both = join(publishers, read);
    let (results, ()) = timeout(Duration::from_secs(4), both).await.expect("everything is published");
    assert!(results.iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn what_threads_publish_at_once_at_a_full_queue_is_all_seen() {
    const EACH: u64 = 20_000;
    let bus = MemoryBus::new();
    let mut events = bus.subscribe();
    next(&mut events).await;
    for _ in 0..8 {
        let bus = bus.clone();
        tokio::spawn(async move {
            for _ in 0..EACH {
                bus.publish(&envelope("x")).await.unwrap();
            }
        });
    }
    for n in 1..=8 * EACH {
        let event = timeout(Duration::from_secs(10), next(&mut events)).await.expect("an event");
        assert!(
            matches!(event, BusEvent::Message { position: Some(position), .. } if position.offset == n),
            "{n}: {event:?}"
        );
    }
}

#[tokio::test]
async fn a_subscriber_that_left_holds_nobody_up() {
    let bus = MemoryBus::new();
    drop(bus.subscribe());
    for _ in 0..QUEUE * 2 {
        bus.publish(&envelope("x")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_takes_nothing_fails_publishes_after_a_time_and_nothing_of_them_is_seen() {
    let bus = MemoryBus::new();
    let mut events = bus.subscribe();
    next(&mut events).await;
    for _ in 0..QUEUE {
        bus.publish(&envelope("taken")).await.unwrap();
    }
    let refused = envelope("refused");
    let both = timeout(PUBLISH_TIMEOUT * 2, join(bus.publish(&refused), bus.publish(&refused)));
    let (first, second) = both.await.expect("a publish ends");
    assert!(matches!(first, Err(BusError::Throttled(_))), "{first:?}");
    assert!(matches!(second, Err(BusError::Throttled(_))), "{second:?}");
    for n in 1..=QUEUE as u64 {
        let event = next(&mut events).await;
        assert!(
            matches!(event, BusEvent::Message { position: Some(position), .. } if position.offset == n),
            "{event:?}"
        );
    }
    let sent = bus.publish(&envelope("later")).await.unwrap().position;
    assert_eq!(next(&mut events).await, BusEvent::message(sent, envelope("later"), Duration::ZERO));
}

#[tokio::test]
async fn a_publisher_that_gave_up_waiting_holds_nobody_up() {
    let bus = MemoryBus::new();
    let mut events = bus.subscribe();
    next(&mut events).await;
    for _ in 0..QUEUE {
        bus.publish(&envelope("x")).await.unwrap();
    }
    let texts = [envelope("given up"), envelope("too"), envelope("patient")];
    let mut waiting = texts.each_ref().map(|text| bus.publish(text));
    assert!(waiting.iter_mut().all(|publish| publish.now_or_never().is_none()));
    let [first, second, third] = waiting;
    // The first of them waits for room, and is woken; the second waits for its turn.
    next(&mut events).await;
    drop((first, second));
    let sent = timeout(Duration::from_secs(5), third).await.expect("its turn comes").unwrap().position;
    assert_eq!(sent.unwrap().offset, QUEUE as u64 + 1);
}

#[tokio::test]
async fn a_full_queue_that_goes_away_lets_publishers_through() {
    let bus = MemoryBus::new();
    let events = bus.subscribe();
    let total = QUEUE + 1;
    let texts = vec![envelope("x"); total];
    let mut publishers = join_all(texts.iter().map(|text| bus.publish(text)));
    assert!((&mut publishers).now_or_never().is_none());
    drop(events);
    let results = timeout(Duration::from_secs(4), publishers).await.expect("everything is published");
    assert!(results.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn an_idle_bus_says_every_second_that_it_has_caught_up() {
    let bus = MemoryBus::new();
    let mut events = bus.subscribe();
    next(&mut events).await;
    let begun = tokio::time::Instant::now();
    for n in 1..=3 {
        let before = Instant::now();
        let event = events.next().await;
        assert!(matches!(event, Some(BusEvent::CaughtUp(at)) if at >= before), "{event:?}");
        assert_eq!(begun.elapsed().as_secs(), n);
    }
}

#[tokio::test(start_paused = true)]
async fn with_traffic_it_says_so_behind_everything_that_was_acknowledged() {
    let bus = MemoryBus::new();
    let mut events = bus.subscribe();
    next(&mut events).await;
    bus.publish(&envelope("x")).await.unwrap();
    bus.publish(&envelope("x")).await.unwrap();
    tokio::time::advance(CAUGHT_UP_INTERVAL).await;
    let acknowledged = Instant::now();
    assert!(matches!(events.next().await, Some(BusEvent::Message { .. })));
    // What comes after the mark was set may come after it.
    let after = bus.publish(&envelope("y")).await.unwrap().position;
    assert!(matches!(events.next().await, Some(BusEvent::Message { .. })));
    assert!(matches!(events.next().await, Some(BusEvent::CaughtUp(at)) if at >= acknowledged));
    assert_eq!(events.next().await, Some(BusEvent::message(after, envelope("y"), Duration::ZERO)));
}

#[tokio::test]
async fn the_fence_is_behind_everything_acknowledged() {
    let bus = MemoryBus::new();
    let sent = bus.publish(&envelope("x")).await.unwrap().position;
    assert_eq!(bus.clone().fence().await, Ok(sent));
}

#[tokio::test]
async fn the_stream_ends_with_the_bus_and_after_what_was_acknowledged() {
    let bus = MemoryBus::new();
    let mut events = bus.subscribe();
    next(&mut events).await;
    let sent = bus.publish(&envelope("x")).await.unwrap().position;
    drop(bus);
    assert_eq!(next(&mut events).await, BusEvent::message(sent, envelope("x"), Duration::ZERO));
    assert_eq!(events.next().await, None);
}

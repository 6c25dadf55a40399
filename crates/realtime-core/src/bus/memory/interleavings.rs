//! Promises of the bus in every order that `shuttle` tries.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{FutureExt, StreamExt};
use shuttle::{check_random, future::block_on, thread};

use super::*;
use crate::{Message, Scope};

/// Number of tried orders.
const ITERATIONS: usize = 2_000;

fn envelope() -> Arc<Envelope> {
    Arc::new(Envelope::broadcast(Scope::Both, Message::text("x")))
}

/// A bus whose subscriber's queue has room for this many events, and the offset that was published last.
fn nearly_full(room: usize) -> (MemoryBus, BoxStream<'static, BusEvent>, u64) {
    let bus = MemoryBus::new();
    let mut events = bus.subscribe();
    assert!(matches!(block_on(events.next()), Some(BusEvent::CaughtUp(_) | BusEvent::Up(_))));
    while bus.0.0.state().queues.iter().all(|(_, queue)| queue.events.len() + room < QUEUE) {
        block_on(bus.publish(&envelope())).expect("there is room");
    }
    let last = bus.0.0.state().last.offset;
    (bus, events, last)
}

#[test]
fn everything_acknowledged_is_seen_once_and_in_order_and_before_the_bus_has_caught_up() {
    check_random(
        || {
            let (bus, mut events, before) = nearly_full(1);
            let acknowledged: Arc<Mutex<Vec<(u64, Instant)>>> = Arc::default();
            let publishers: Vec<_> = (0..3)
                .map(|_| {
                    let (bus, acknowledged) = (bus.clone(), Arc::clone(&acknowledged));
                    thread::spawn(move || {
                        for _ in 0..2 {
                            let sent = block_on(bus.publish(&envelope())).unwrap().position.unwrap();
                            lock(&acknowledged).push((sent.offset, Instant::now()));
                        }
                    })
                })
                .collect();
            // The bus does not end, so nothing but an envelope wakes the subscriber.
            let mut last = 0;
            while last < before + 6 {
                match block_on(events.next()).unwrap() {
                    BusEvent::Message { position: Some(position), .. } => {
                        assert_eq!(position.offset, last + 1);
                        last = position.offset;
                    }
                    BusEvent::CaughtUp(at) => {
                        let missed =
                            |(offset, acknowledged): &(u64, Instant)| *acknowledged < at && *offset > last;
                        assert!(!lock(&acknowledged).iter().any(missed));
                    }
                    BusEvent::Up(_) => {}
                    event => panic!("{event:?}"),
                }
            }
            for publisher in publishers {
                publisher.join().unwrap();
            }
            assert_eq!(lock(&acknowledged).len(), 6);
        },
        ITERATIONS,
    );
}

#[test]
fn publishers_that_give_up_hold_nobody_up() {
    check_random(
        || {
            let (bus, mut events, full) = nearly_full(0);
            let given_up = Arc::new(AtomicU64::new(0));
            let impatient = {
                let (bus, given_up) = (bus.clone(), Arc::clone(&given_up));
                thread::spawn(move || {
                    for _ in 0..3 {
                        let taken = bus.publish(&envelope()).now_or_never();
                        given_up.fetch_add(u64::from(taken.is_none()), Ordering::Relaxed);
                        thread::yield_now();
                    }
                })
            };
            let patient: Vec<_> = (0..2)
                .map(|_| {
                    let bus = bus.clone();
                    thread::spawn(move || block_on(bus.publish(&envelope())).unwrap())
                })
                .collect();
            drop(bus);
            let mut last = 0;
            while let Some(event) = block_on(events.next()) {
                if let BusEvent::Message { position: Some(position), .. } = event {
                    last = position.offset;
                }
            }
            impatient.join().unwrap();
            for publisher in patient {
                publisher.join().unwrap();
            }
            assert_eq!(last, full + 5 - given_up.load(Ordering::Relaxed));
        },
        ITERATIONS,
    );
}

#[test]
fn a_subscriber_that_leaves_holds_nobody_up() {
    check_random(
        || {
            let (bus, events, _) = nearly_full(0);
            let publishers: Vec<_> = (0..3)
                .map(|_| {
                    let bus = bus.clone();
                    thread::spawn(move || block_on(bus.publish(&envelope())).unwrap())
                })
                .collect();
            drop(events);
            for publisher in publishers {
                publisher.join().unwrap();
            }
        },
        ITERATIONS,
    );
}

#[test]
fn one_free_place_lets_one_publisher_through() {
    check_random(
        || {
            let (bus, mut events, _) = nearly_full(0);
            for _ in 0..3 {
                let publisher = {
                    let bus = bus.clone();
                    thread::spawn(move || block_on(bus.publish(&envelope())).unwrap())
                };
                while !matches!(block_on(events.next()), Some(BusEvent::Message { .. })) {}
                publisher.join().unwrap();
            }
        },
        ITERATIONS,
    );
}

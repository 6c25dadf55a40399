//! In streams mode all nodes see one order, and each of many concurrent callers gets the position of its own message.

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::future::poll_immediate;
use realtime_core::{
    Envelope, MemoryBus,
    bus::{Bus, BusEvent},
};
use realtime_redis::RedisStreamsBus;
use realtime_tests::{
    Fault, Part, Redis,
    conformance::{Subscriber, Terms, bus_conforms, envelope},
    within,
};
use tokio::time::{sleep, timeout};
use tracing_subscriber::util::SubscriberInitExt;

use super::{bus, insist};

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_bus_conforms() {
    let memory = MemoryBus::new();
    bus_conforms(|| memory.clone(), &Terms::full().with_ids()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_streams_bus_conforms() {
    let redis = Redis::start().await;
    bus_conforms(|| bus(&redis), &Terms::full().with_ids()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_get_their_own_answers_when_others_cancel() {
    let redis = Redis::start().await;
    // Few mostly go alone, many in batches.
    for (callers, each) in [(3, 1000), (30, 200), (300, 40)] {
        many_callers(&bus(&redis), callers, each).await;
    }
}

async fn many_callers(bus: &RedisStreamsBus, count: u64, each: u64) {
    let mut events = Subscriber::up(bus).await;
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..count {
        let bus = bus.clone();
        callers.spawn(async move {
            let mut acknowledged = Vec::new();
            for n in 0..each {
                let text = format!("{caller}:{n}");
                let envelope = envelope(&text);
                let publish = bus.publish(&envelope);
                // Every third caller drops its publishes sooner or later: before they are sent, or on their way.
                let answer = if caller % 3 == 0 {
                    let patience = Duration::from_micros(rand::random_range(0..2000));
                    timeout(patience, publish).await.ok()
                } else {
                    Some(publish.await)
                };
                if let Some(answer) = answer {
                    acknowledged.push((text, answer.unwrap().position.unwrap()));
                }
            }
            acknowledged
        });
    }
    let acknowledged = within("the callers", callers.join_all()).await.concat();
    let end = insist(bus, &envelope("the end")).await;
    let mut seen = std::collections::HashMap::new();
    loop {
        match events.next().await {
            BusEvent::Message { position: Some(position), .. } if position == end => break,
            BusEvent::Message { position: Some(position), envelope, .. } => {
                let double = seen.insert(envelope.message().data.to_string(), position);
                assert_eq!(double, None, "nothing comes twice");
            }
            BusEvent::Skip { .. } | BusEvent::CaughtUp(_) => {}
            other => panic!("{other:?}"),
        }
    }
    for (text, position) in &acknowledged {
        assert_eq!(seen.get(text), Some(position), "{text}");
    }
    let (patient, all) = (count / 3 * 2 * each, count * each);
    assert!((patient..all).contains(&(acknowledged.len() as u64)), "{} of {all}", acknowledged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_is_not_polled_delays_no_other() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    insist(&bus, &envelope("warm")).await;
    let (first, second) = (envelope("first"), envelope("second"));
    let mut held = bus.publish(&first);
    // An answer may come as early as that.
    while let Some(answer) = poll_immediate(&mut held).await {
        answer.unwrap();
        held = bus.publish(&first);
    }
    for _ in 0..3 {
        // Less than the time limit of a command.
        let publish = timeout(Duration::from_secs(1), bus.publish(&second));
        publish.await.expect("it waits for no other caller").unwrap();
    }
    held.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_is_not_polled_while_it_connects_delays_no_other() {
    let redis = Redis::start().await;
    let (first, second) = (envelope("first"), envelope("second"));
    // The first one also creates the stream.
    for _ in 0..2 {
        let bus = bus(&redis);
        let mut held = bus.publish(&first);
        assert!(poll_immediate(&mut held).await.is_none());
        // Less than the time limit of a command.
        let publish = timeout(Duration::from_secs(1), bus.publish(&second));
        publish.await.expect("it waits for no other caller").unwrap();
        held.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_whose_thread_is_busy_delays_no_other() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let _events = Subscriber::up(&bus).await;
    insist(&bus, &envelope("warm")).await;
    redis.cli(&["client", "kill", "type", "normal"]);
    let (connected, has_connected) = tokio::sync::oneshot::channel();
    let (publisher, message) = (bus.clone(), envelope("first"));
    let busy = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(insist(&publisher, &message));
        connected.send(()).unwrap();
        std::thread::sleep(Duration::from_secs(3));
    });
    has_connected.await.unwrap();
    let message = envelope("second");
    let publish = timeout(Duration::from_secs(1), bus.publish(&message));
    publish.await.expect("its connection is driven elsewhere").unwrap();
    busy.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_cannot_be_read_is_counted_and_a_gap() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let mut events = Subscriber::up(&bus).await;
    let sent = insist(&bus, &envelope("before")).await;
    events.message().await;
    let id = format!("{}-*", sent.epoch);
    for _ in 0..3 {
        redis.cli(&["xadd", "{rt}:log", &id, "v", "7", "e", "secret"]);
    }
    insist(&bus, &envelope("after")).await;
    let mut gaps = 0;
    loop {
        match events.next().await {
            BusEvent::Gap => gaps += 1,
            BusEvent::Message { envelope, .. } => {
                assert_eq!(envelope.message().data.as_text(), Some("after"));
                break;
            }
            _ => {}
        }
    }
    assert_eq!((gaps, bus.metrics().undecodable), (3, 3));
    let seen = "Counted, and a gap.";
    Fault::new("Message: cannot be read", Part::Streams, seen).record();
}

/// The log, line by line.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn unreadable_retained_messages_are_one_line_in_the_log() {
    let redis = Redis::start().await;
    let fill = "for i = 1, 50 do redis.call('HSET', KEYS[1], 'name-' .. i, '1-1 {}') end return 1";
    assert_eq!(redis.cli(&["eval", fill, "1", "{rt}:retained"]), "1");
    let log = Log::default();
    let writer = log.clone();
    let _log = tracing_subscriber::fmt().with_writer(move || writer.clone()).set_default();
    let bus = bus(&redis);
    let _events = Subscriber::up(&bus).await;
    within("the retained messages", async {
        while bus.metrics().undecodable < 50 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("retained")).collect();
    assert!(lines.len() == 1 && lines[0].contains("WARN"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_users_are_one_command() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    insist(&bus, &envelope("warm")).await;
    let users: Vec<_> = (0..1000).map(realtime_core::UserId::from).collect();
    let message = realtime_core::Message::text("x");
    let many = Arc::new(Envelope::to_users(&users, realtime_core::Scope::Both, message).unwrap());
    let calls = || {
        let stats = redis.cli(&["info", "commandstats"]);
        let line =
            stats.lines().find(|line| line.starts_with("cmdstat_xadd:")).unwrap_or_default().to_owned();
        line.split("calls=")
            .nth(1)
            .and_then(|rest| rest.split(',').next())
            .map_or(0, |n| n.parse::<u64>().unwrap())
    };
    let before = calls();
    bus.publish(&many).await.unwrap();
    assert_eq!(calls(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_publishes_comes_back_instead_of_heartbeats() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let mut events = Subscriber::up(&bus).await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let publisher = bus.clone();
    let publishing = tokio::spawn(async move {
        while stopped.try_recv().is_err() {
            publisher.publish(&envelope("x")).await.unwrap();
            sleep(Duration::from_millis(5)).await;
        }
    });
    // From the first message on, each proof is one of a message.
    events.message().await;
    let (began, mut proofs, mut heartbeats) = (Instant::now(), 0, 0);
    while began.elapsed() < Duration::from_secs(4) || proofs < 4 {
        match events.next().await {
            BusEvent::CaughtUp(_) => proofs += 1,
            BusEvent::Skip { .. } => heartbeats += 1,
            BusEvent::Message { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    stop.send(()).unwrap();
    publishing.await.unwrap();
    assert!(heartbeats <= 1, "{heartbeats} heartbeats beside {proofs} proofs");
    // A node that falls silent writes heartbeats again.
    while !matches!(events.next().await, BusEvent::Skip { .. }) {}
    while !matches!(events.next().await, BusEvent::CaughtUp(_)) {}
}

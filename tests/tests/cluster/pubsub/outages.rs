//! In pubsub mode a fault after which messages may be missing is followed by a gap, and delivery then resumes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use realtime_core::{
    Envelope,
    bus::{Bus, BusError, BusEvent},
    ruoyi::SSE_TOPIC,
};
use realtime_redis::{RedisConfig, RedisPubSubBus};
use realtime_tests::{
    Fault, Part, Redis,
    conformance::{Subscriber, envelope},
    free_port, within,
};
use tokio::time::{sleep, sleep_until};

use super::{bus, to_sse};

/// Publishes until Redis takes it.
async fn insist(bus: &impl Bus, envelope: &Arc<Envelope>) {
    within("Redis to take an envelope", async {
        while let Err(error) = bus.publish(envelope).await {
            assert!(matches!(error, BusError::Unavailable(_) | BusError::OutcomeUnknown(_)), "{error}");
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Waits until the bus is unavailable, and returns the reason.
async fn down(events: &mut Subscriber) -> String {
    match events.until(|event| matches!(event, BusEvent::Down(_))).await {
        BusEvent::Down(problem) => problem,
        _ => unreachable!(),
    }
}

/// Then follow a gap and `Up`.
async fn gap_and_up(events: &mut Subscriber) {
    let back = events.until(|event| !matches!(event, BusEvent::Down(_))).await;
    assert_eq!(back, BusEvent::Gap);
    assert_eq!(events.next().await, BusEvent::Up(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_publishing_is_an_error_at_once() {
    let port = free_port();
    let bus = RedisPubSubBus::new(RedisConfig::single(format!("redis://127.0.0.1:{port}/"))).unwrap();
    let asked = Instant::now();
    assert!(matches!(bus.publish(&envelope("x")).await, Err(BusError::Unavailable(_))));
    let refused = asked.elapsed();
    assert!(refused < Duration::from_secs(2));
    let mut events = bus.subscribe();
    use futures_util::StreamExt;
    assert!(matches!(within("an event", events.next()).await, Some(BusEvent::Down(_))));
    let seen = "Publishing fails in less than 2 s.";
    Fault::new("Redis: cannot be reached", Part::PubSub, seen)
        .figures(format_args!("{refused:.1?}"))
        .record();
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_restarted_20_times_is_a_gap_each_time_and_delivery_resumes() {
    let mut redis = Redis::start().await;
    let (node, other) = (bus(&redis), bus(&redis));
    let mut events = Subscriber::up(&node).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        redis.kill();
        let killed = Instant::now();
        down(&mut events).await;
        assert!(killed.elapsed() < Duration::from_secs(1), "took {:?}", killed.elapsed());
        let lost = other.publish(&to_sse("lost")).await;
        assert!(matches!(lost, Err(BusError::Unavailable(_) | BusError::OutcomeUnknown(_))), "{lost:?}");
        redis.restart().await;
        let back = Instant::now();
        gap_and_up(&mut events).await;
        insist(&other, &to_sse("after")).await;
        assert_eq!(events.message().await.1, "after");
        assert!(back.elapsed() < Duration::from_secs(2), "took {:?}", back.elapsed());
        slowest = slowest.max(back.elapsed());
    }
    let seen = "A gap each time; delivery goes on within 2 s.";
    Fault::new("Redis: killed and restarted, empty, 20 times under a publisher", Part::PubSub, seen)
        .figures(format_args!("at most {slowest:.1?}"))
        .record();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_redis_changes_nothing() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let mut events = Subscriber::up(&bus).await;
    redis.cli(&["flushall"]);
    bus.publish(&to_sse("after")).await.unwrap();
    assert_eq!(events.message().await.1, "after", "no gap comes before it");
    Fault::new("Redis: emptied (FLUSHALL)", Part::PubSub, "Nothing: channels hold nothing.").record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_is_noticed_within_three_seconds() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let mut events = Subscriber::up(&bus).await;
    redis.pause();
    let hung = tokio::time::Instant::now();
    let publish = bus.publish(&to_sse("meanwhile")).await;
    assert!(matches!(publish, Err(BusError::OutcomeUnknown(_))), "{publish:?}");
    assert!(hung.elapsed() < Duration::from_millis(2500), "took {:?}", hung.elapsed());
    down(&mut events).await;
    let noticed = hung.elapsed();
    assert!(noticed < Duration::from_secs(3), "took {noticed:?}");
    sleep_until(hung + Duration::from_secs(10)).await;
    redis.resume();
    let back = Instant::now();
    gap_and_up(&mut events).await;
    insist(&bus, &to_sse("after")).await;
    // Redis may have found the one that it did not answer in its buffer.
    let is_after =
        |event: &BusEvent| matches!(event, BusEvent::Message { envelope: it, .. } if *it == to_sse("after"));
    events.until(is_after).await;
    let back = back.elapsed();
    assert!(back < Duration::from_secs(2), "took {back:?}");
    let seen = "Publishing fails within 2.5 s, the bus is down within 3 s. When Redis goes on: a gap, and delivery \
                within 2 s. What failed may arrive all the same.";
    Fault::new("Redis: hangs for 10 s (SIGSTOP)", Part::PubSub, seen)
        .figures(format_args!("down after {noticed:.1?}, delivery {back:.1?} after it goes on"))
        .record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_cut_is_noticed_at_once() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let mut events = Subscriber::up(&bus).await;
    let mut slowest = Duration::ZERO;
    for round in 0..3 {
        assert_eq!(redis.cli(&["client", "kill", "type", "pubsub"]), "1");
        let cut = Instant::now();
        down(&mut events).await;
        assert!(cut.elapsed() < Duration::from_secs(1), "took {:?}", cut.elapsed());
        gap_and_up(&mut events).await;
        let text = round.to_string();
        bus.publish(&to_sse(&text)).await.unwrap();
        assert_eq!(events.message().await.1, text);
        assert!(cut.elapsed() < Duration::from_secs(2), "took {:?}", cut.elapsed());
        slowest = slowest.max(cut.elapsed());
    }
    let seen = "Noticed at once: a gap, delivery within 2 s.";
    Fault::new("Redis: subscriptions are cut (CLIENT KILL TYPE pubsub)", Part::PubSub, seen)
        .figures(format_args!("at most {slowest:.1?}"))
        .record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_is_cut_leaves_the_subscription_alone() {
    let redis = Redis::start().await;
    let (node, other) = (bus(&redis), bus(&redis));
    let mut events = Subscriber::up(&node).await;
    for round in 0..3 {
        redis.cli(&["client", "kill", "type", "normal", "skipme", "yes"]);
        let text = round.to_string();
        insist(&other, &to_sse(&text)).await;
        assert_eq!(events.message().await.1, text);
    }
    let seen = "Subscriptions stay: no gap.";
    Fault::new("Redis: connections are cut (CLIENT KILL TYPE normal)", Part::PubSub, seen).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_subscription_that_receives_nothing_is_down() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let mut events = Subscriber::up(&bus).await;
    // The connections stay as they are, but publishing is forbidden to all clients.
    redis.cli(&["acl", "setuser", "default", "-publish"]);
    let muted = Instant::now();
    let problem = down(&mut events).await;
    assert!(problem.contains("heartbeat"), "{problem}");
    assert!(muted.elapsed() < Duration::from_secs(3), "took {:?}", muted.elapsed());
    let refused = bus.publish(&to_sse("x")).await;
    assert!(matches!(refused, Err(BusError::Refused(_))), "never Ok when Redis did not take it");
    redis.cli(&["acl", "setuser", "default", "+publish"]);
    gap_and_up(&mut events).await;
    let seen = "Noticed within 3 s; publishing never says yes to what Redis refused. Then a gap.";
    Fault::new("Redis: connections live, but nothing comes through", Part::PubSub, seen).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_takes_nothing_gets_a_gap_and_holds_no_memory() {
    let redis = Redis::start().await;
    let (slow, fast) = (bus(&redis), bus(&redis));
    let mut events = Subscriber::up(&slow).await;
    let subscriptions = || redis.cli(&["pubsub", "numsub", SSE_TOPIC]);
    // More than waits for a subscriber who takes nothing.
    for n in 0..5000 {
        fast.publish(&to_sse(&n.to_string())).await.unwrap();
    }
    within("the connection to be given up", async {
        while subscriptions() != format!("{SSE_TOPIC}\n0") {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let mut heard = 0;
    loop {
        match events.next().await {
            BusEvent::Message { position: None, envelope, .. } => {
                assert_eq!(envelope.message().data.to_string(), heard.to_string());
                heard += 1;
            }
            BusEvent::Down(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!((1000..5000).contains(&heard), "{heard}");
    gap_and_up(&mut events).await;
    fast.publish(&to_sse("after")).await.unwrap();
    assert_eq!(events.message().await.1, "after");
    let seen = "What waits for it stays bounded; then a gap, and what is published then.";
    Fault::new("Node: reads more slowly than others publish", Part::PubSub, seen).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_ends_with_its_stream() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let events = Subscriber::up(&bus).await;
    assert_eq!(redis.cli(&["pubsub", "numsub", SSE_TOPIC]), format!("{SSE_TOPIC}\n1"));
    drop(events);
    within("the connection to be closed", async {
        while redis.cli(&["pubsub", "numsub", SSE_TOPIC]) != format!("{SSE_TOPIC}\n0") {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

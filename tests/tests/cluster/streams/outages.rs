//! In streams mode no acknowledged message is missing without a gap when Redis hangs, restarts or loses its data.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use realtime_core::{
    Envelope, EnvelopeId, Message, Position, Scope,
    bus::{Bus, BusError, BusEvent},
};
use realtime_redis::{RedisConfig, RedisStreamsBus};
use realtime_tests::{
    Fault, Part, Redis,
    conformance::{Subscriber, envelope},
    free_port, within,
};
use tokio::time::{sleep, sleep_until};

use super::{bus, insist, is_hole};

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_publishing_is_an_error_at_once_and_works_when_it_is_there() {
    let port = free_port();
    let bus = RedisStreamsBus::new(RedisConfig::single(format!("redis://127.0.0.1:{port}/"))).unwrap();
    let mut events = bus.subscribe();
    let asked = Instant::now();
    assert!(matches!(bus.publish(&envelope("x")).await, Err(BusError::Unavailable(_))));
    assert!(matches!(bus.fence().await, Err(BusError::Unavailable(_))));
    assert!(asked.elapsed() < Duration::from_secs(2));
    use futures_util::StreamExt;
    assert!(matches!(within("an event", events.next()).await, Some(BusEvent::Down(_))));
    let seen = "Publishing fails in less than 2 s.";
    Fault::new("Redis: cannot be reached", Part::Streams, seen)
        .figures(format_args!("{:.1?}", asked.elapsed()))
        .record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_is_noticed_within_three_seconds_and_loses_nothing() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let mut events = Subscriber::up(&bus).await;
    bus.publish(&envelope("before")).await.unwrap();
    let (before, _) = events.message().await;
    redis.pause();
    let hung = tokio::time::Instant::now();
    let publish = bus.publish(&envelope("meanwhile")).await;
    assert!(matches!(publish, Err(BusError::OutcomeUnknown(_))), "{publish:?}");
    assert!(hung.elapsed() < Duration::from_millis(2500), "took {:?}", hung.elapsed());
    let mut last = before;
    loop {
        match events.next().await {
            // A heartbeat that came just before.
            BusEvent::Skip { through: position, .. } => last = Some(position),
            BusEvent::CaughtUp(_) => {}
            BusEvent::Down(_) => break,
            other => panic!("{other:?}"),
        }
    }
    let noticed = hung.elapsed();
    assert!(noticed < Duration::from_secs(3), "took {noticed:?}");
    sleep_until(hung + Duration::from_secs(10)).await;
    redis.resume();
    let back = Instant::now();
    let after = insist(&bus, &envelope("after")).await;
    assert_eq!(after.epoch, before.unwrap().epoch, "nothing was lost, so the history goes on");
    loop {
        match events.next().await {
            BusEvent::Message { position: Some(position), .. } | BusEvent::Skip { through: position, .. } => {
                assert!(!is_hole(last, position), "{last:?} {position}");
                last = Some(position);
                if position == after {
                    break;
                }
            }
            BusEvent::Up(_) | BusEvent::CaughtUp(_) | BusEvent::Down(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let back = back.elapsed();
    assert!(back < Duration::from_secs(2), "took {back:?}");
    let seen = "Publishing fails within 2.5 s, the bus is down within 3 s. When Redis goes on, delivery does within 2 s: \
                no gap, nothing is lost.";
    Fault::new("Redis: hangs for 10 s (SIGSTOP)", Part::Streams, seen)
        .figures(format_args!("down after {noticed:.1?}, delivery {back:.1?} after it goes on"))
        .record();
}

/// Counts of a run in which Redis was killed again and again.
struct Restarts {
    acknowledged: usize,
    seen: usize,
    gaps: usize,
    lost: usize,
}

/// Kills Redis and starts it again, empty, while some callers of one node publish; asserts that each acknowledged
/// message has arrived or lies in an announced gap.
async fn restarts(times: usize, callers: u64) -> Restarts {
    let mut redis = Redis::start().await;
    let node = bus(&redis);
    let mut events = Subscriber::up(&node).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let publisher = bus(&redis);
    let mut publishing = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let (bus, stopped) = (publisher.clone(), stopped.clone());
        publishing.spawn(async move {
            let mut acknowledged = Vec::new();
            let mut n = 0_u64;
            while !*stopped.borrow() {
                let text = format!("{caller}:{n}");
                if let Ok(published) = bus.publish(&envelope(&text)).await {
                    acknowledged.push((published.position.unwrap(), text));
                }
                n += 1;
                tokio::task::yield_now().await;
            }
            acknowledged
        });
    }
    let publishing = async move {
        let acknowledged = publishing.join_all().await.concat();
        // The last one proves that everything before it has come.
        insist(&publisher, &envelope("the end")).await;
        acknowledged
    };
    let reader = tokio::spawn(async move {
        let (mut seen, mut gaps, mut last) = (HashSet::new(), 0, None);
        // Each run of dense positions, as first and last.
        let mut runs: Vec<(Position, Position)> = Vec::new();
        loop {
            let (position, text) = match events.next().await {
                BusEvent::Message { position: Some(position), envelope, .. } => {
                    (position, Some(envelope.message().data.to_string()))
                }
                BusEvent::Skip { through: position, .. } => (position, None),
                BusEvent::Up(_) | BusEvent::CaughtUp(_) | BusEvent::Down(_) => continue,
                other => panic!("{other:?}"),
            };
            assert!(Some(position) > last, "{position} after {last:?}");
            if is_hole(last, position) {
                gaps += 1;
            }
            match runs.last_mut() {
                Some(run) if !is_hole(last, position) => run.1 = position,
                _ => runs.push((position, position)),
            }
            last = Some(position);
            if let Some(text) = text {
                let end = text == "the end";
                assert!(seen.insert((position, text)), "nothing comes twice");
                if end {
                    return (seen, gaps, runs);
                }
            }
        }
    });
    for _ in 0..times {
        sleep(Duration::from_millis(150)).await;
        redis.kill();
        sleep(Duration::from_millis(30)).await;
        redis.restart().await;
    }
    sleep(Duration::from_millis(1000)).await;
    stop.send(true).unwrap();
    let acknowledged = within("the publishers", publishing).await;
    let (seen, gaps, runs) = within("the reader", reader).await.unwrap();
    assert!(gaps <= times && gaps > 0, "{gaps} gaps for {times} restarts");
    // Every acknowledged message inside a run without holes has been seen.
    let inside = |position: Position| runs.iter().any(|(first, last)| (*first..=*last).contains(&position));
    let silent: Vec<_> = acknowledged.iter().filter(|one| inside(one.0) && !seen.contains(*one)).collect();
    assert!(silent.is_empty(), "{} lost in silence: {:?}", silent.len(), silent.first());
    assert!(acknowledged.len() > 100, "only {} were acknowledged", acknowledged.len());
    let lost = acknowledged.iter().filter(|one| !seen.contains(*one)).count();
    Restarts { acknowledged: acknowledged.len(), seen: seen.len(), gaps, lost }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_restarts_under_a_publisher_lose_nothing_in_silence() {
    let Restarts { acknowledged, seen, gaps, lost } = restarts(20, 1).await;
    let words =
        "Whatever was acknowledged has arrived or lies in an announced gap, of which there are 20 at most.";
    Fault::new("Redis: killed and restarted, empty, 20 times under a publisher", Part::Streams, words)
        .figures(format_args!(
            "{acknowledged} acknowledged, {seen} seen, {gaps} gaps, {lost} lost and announced"
        ))
        .record();
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_under_many_callers_lose_nothing_in_silence() {
    restarts(5, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_lose_nothing() {
    let redis = Redis::start().await;
    let (a, b) = (bus(&redis), bus(&redis));
    let mut events = Subscriber::up(&a).await;
    let mut last = None;
    for round in 0..5 {
        redis.cli(&["client", "kill", "type", "normal", "skipme", "yes"]);
        let sent = insist(&b, &envelope(round)).await;
        loop {
            match events.next().await {
                BusEvent::Message { position: Some(position), .. }
                | BusEvent::Skip { through: position, .. } => {
                    assert!(!is_hole(last, position));
                    last = Some(position);
                    if position == sent {
                        break;
                    }
                }
                BusEvent::Up(_) | BusEvent::CaughtUp(_) | BusEvent::Down(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    let seen = "Nothing is lost, no gap.";
    Fault::new("Redis: connections are cut (CLIENT KILL TYPE normal)", Part::Streams, seen).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_redis_is_a_new_history_that_all_nodes_notice() {
    let redis = Redis::start().await;
    let (a, b) = (bus(&redis), bus(&redis));
    let mut events = Subscriber::up(&a).await;
    let before = insist(&b, &envelope("before")).await;
    assert_eq!(events.message().await.0, Some(before));
    redis.cli(&["flushall"]);
    let after = insist(&b, &envelope("after")).await;
    assert!(after.epoch > before.epoch);
    let mut last = Some(before);
    let mut holes = 0;
    loop {
        match events.next().await {
            BusEvent::Message { position: Some(position), .. } | BusEvent::Skip { through: position, .. } => {
                holes += u32::from(is_hole(last, position));
                last = Some(position);
                if position == after {
                    break;
                }
            }
            BusEvent::Up(_) | BusEvent::CaughtUp(_) | BusEvent::Down(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(holes, 1);
    let seen = "A new history: one gap, then what follows.";
    Fault::new("Redis: emptied (FLUSHALL)", Part::Streams, seen).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_with_the_same_id_after_an_unknown_outcome_is_delivered_once() {
    let redis = Redis::start().await;
    let (bus, other) = (bus(&redis), bus(&redis));
    let mut events = Subscriber::up(&bus).await;
    bus.publish(&envelope("before")).await.unwrap();
    other.publish(&envelope("before")).await.unwrap();
    let named = Envelope::broadcast(Scope::Both, Message::text("named"));
    let named = Arc::new(named.with_id(EnvelopeId::new("order-7").unwrap()));
    redis.pause();
    let unknown = bus.publish(&named).await;
    assert!(matches!(unknown, Err(BusError::OutcomeUnknown(_))), "{unknown:?}");
    redis.resume();
    let position = insist(&bus, &named).await;
    assert_eq!(insist(&other, &named).await, position, "on another node, too");
    insist(&other, &envelope("after")).await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(_, text)| text != "after") {
        if let BusEvent::Message { position, envelope, .. } = events.next().await {
            seen.push((position.unwrap(), envelope.message().data.to_string()));
        }
    }
    let named: Vec<_> = seen.iter().filter(|(_, text)| text == "named").collect();
    assert_eq!(named, [&(position, "named".to_owned())], "in {seen:?}");
    let ttl = redis.cli(&["pttl", "{rt}:id:order-7"]).parse::<u64>().unwrap();
    assert!((1..=300_000).contains(&ttl), "it is kept for {ttl} ms");
}

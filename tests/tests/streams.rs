//! The Redis Streams bus over a real redis-server, in good days and bad ones.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use realtime_core::{
    Envelope, MemoryBus, Position,
    bus::{Bus, BusError, BusEvent},
};
use realtime_redis::{RedisConfig, RedisStreamsBus};
use realtime_tests::{
    Fault, Part, Redis,
    conformance::{Subscriber, Terms, bus_conforms, envelope},
    free_port, within,
};
use tokio::time::{sleep, sleep_until};

fn bus(redis: &Redis) -> RedisStreamsBus {
    RedisStreamsBus::new(RedisConfig::single(redis.url())).unwrap()
}

/// Publishes until Redis takes it.
async fn insist(bus: &impl Bus, envelope: &Arc<Envelope>) -> Position {
    within("Redis to take an envelope", async {
        loop {
            match bus.publish(envelope).await {
                Ok(published) => return published.position.unwrap(),
                Err(BusError::Unavailable(_)) => sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

/// Whether the events from one position to another tell a reader that something may be missing between them.
fn is_hole(last: Option<Position>, next: Position) -> bool {
    last.is_some_and(|last| last.next() != next)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_bus_conforms() {
    let memory = MemoryBus::new();
    bus_conforms(|| memory.clone(), &Terms::full()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_streams_bus_conforms() {
    let redis = Redis::start().await;
    bus_conforms(|| bus(&redis), &Terms::full()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_reads_the_window() {
    let redis = Redis::start().await;
    let first = bus(&redis);
    for n in 0..2500 {
        first.publish(&envelope(n)).await.unwrap();
    }
    let mut late = bus(&redis).subscribe();
    let mut texts = Vec::new();
    within("the window", async {
        use futures_util::StreamExt;
        loop {
            match late.next().await.unwrap() {
                BusEvent::Message(_, envelope) => texts.push(envelope.message().data.to_string()),
                BusEvent::Up(position) => {
                    assert!(position.is_some());
                    break;
                }
                BusEvent::Marker(_) => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    assert_eq!(texts, (0..2500).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_publishing_is_an_error_at_once_and_goes_on_when_it_is_there() {
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
    assert!(matches!(publish, Err(BusError::Unavailable(_))), "{publish:?}");
    assert!(hung.elapsed() < Duration::from_millis(2500), "took {:?}", hung.elapsed());
    let mut last = before;
    loop {
        match events.next().await {
            // A heartbeat that came just before.
            BusEvent::Marker(position) => last = Some(position),
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
            BusEvent::Message(Some(position), _) | BusEvent::Marker(position) => {
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

/// What came of publishing while Redis was killed again and again.
struct Restarts {
    acknowledged: usize,
    seen: usize,
    gaps: usize,
    lost: usize,
}

/// Kills Redis and starts it again, empty, while some callers of one node publish; makes sure that whatever was
/// acknowledged has arrived or lies in an announced gap.
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
                BusEvent::Message(Some(position), envelope) => {
                    (position, Some(envelope.message().data.to_string()))
                }
                BusEvent::Marker(position) => (position, None),
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
    // Whatever was acknowledged and is inside of a run without holes has been seen.
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
async fn many_callers_get_their_own_answers_whoever_gives_up() {
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
                    tokio::time::timeout(patience, publish).await.ok()
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
            BusEvent::Message(Some(position), _) if position == end => break,
            BusEvent::Message(Some(position), envelope) => {
                let double = seen.insert(envelope.message().data.to_string(), position);
                assert_eq!(double, None, "nothing comes twice");
            }
            BusEvent::Marker(_) | BusEvent::CaughtUp(_) => {}
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
                BusEvent::Message(Some(position), _) | BusEvent::Marker(position) => {
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
async fn an_emptied_redis_is_a_new_history_that_everybody_notices() {
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
            BusEvent::Message(Some(position), _) | BusEvent::Marker(position) => {
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
async fn a_reader_that_was_overrun_sees_a_hole_and_then_the_rest() {
    let redis = Redis::start().await;
    let mut config = RedisConfig::single(redis.url());
    config.max_len = 100;
    let (slow, fast) = (RedisStreamsBus::new(config.clone()).unwrap(), RedisStreamsBus::new(config).unwrap());
    // Nobody takes events from this subscription, so its tail stops reading.
    let mut events = Subscriber::up(&slow).await;
    let mut end = None;
    for n in 0..8000 {
        end = fast.publish(&envelope(n)).await.unwrap().position;
    }
    let (mut last, mut holes): (Option<Position>, _) = (None, 0);
    while last != end {
        match events.next().await {
            BusEvent::Message(Some(position), _) | BusEvent::Marker(position) => {
                holes += u32::from(is_hole(last, position));
                last = Some(position);
            }
            BusEvent::Up(_) | BusEvent::CaughtUp(_) | BusEvent::Down(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(holes >= 1, "what was trimmed away under the reader shows");
    let seen = "What was trimmed away under it is a gap, then the rest.";
    Fault::new("Node: reads more slowly than others publish", Part::Streams, seen).record();
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
            BusEvent::Message(_, envelope) => {
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
            BusEvent::Marker(_) => heartbeats += 1,
            BusEvent::Message(..) => {}
            other => panic!("{other:?}"),
        }
    }
    stop.send(()).unwrap();
    publishing.await.unwrap();
    assert!(heartbeats <= 1, "{heartbeats} heartbeats beside {proofs} proofs");
    // A node that falls silent writes heartbeats again.
    while !matches!(events.next().await, BusEvent::Marker(_)) {}
    while !matches!(events.next().await, BusEvent::CaughtUp(_)) {}
}

/// A node that reads, and publishes until the stream is as short as it should be; how long it is then.
async fn shrinks(redis: &Redis, config: RedisConfig, entries: usize, text: &str, below: usize) {
    let bus = RedisStreamsBus::new(config).unwrap();
    let mut events = bus.subscribe();
    let reading = tokio::spawn(async move {
        use futures_util::StreamExt;
        while events.next().await.is_some() {}
    });
    for _ in 0..entries {
        bus.publish(&envelope(text)).await.unwrap();
    }
    within("the stream to be trimmed", async {
        loop {
            bus.publish(&envelope("one more")).await.unwrap();
            let length: usize = redis.cli(&["xlen", "{rt}:log"]).parse().unwrap();
            if length < below {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    reading.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_keeps_no_entries_that_are_older_than_the_window() {
    let redis = Redis::start().await;
    let config = RedisConfig::single(redis.url()).max_age(Duration::from_secs(1));
    shrinks(&redis, config, 3000, "old", 500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_keeps_no_more_bytes_than_the_window() {
    let redis = Redis::start().await;
    let config = RedisConfig::single(redis.url()).max_bytes(256 << 10);
    shrinks(&redis, config, 3000, &"x".repeat(1024), 600).await;
}

/// What a node that starts has got when it is up, and how many bytes Redis has sent for that.
async fn started(redis: &Redis, config: RedisConfig) -> (Vec<(Position, String)>, u64) {
    let sent = || {
        let stats = redis.cli(&["info", "stats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
        line.unwrap().parse::<u64>().unwrap()
    };
    let before = sent();
    let mut node = Subscriber::start(&RedisStreamsBus::new(config).unwrap());
    let mut messages = Vec::new();
    loop {
        match node.next().await {
            BusEvent::Message(position, envelope) => {
                messages.push((position.unwrap(), envelope.message().data.to_string()));
            }
            BusEvent::Up(_) => return (messages, sent() - before),
            BusEvent::Marker(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_reads_only_what_its_log_keeps() {
    const OLD: usize = 20_000;
    let redis = Redis::start().await;
    let config = RedisConfig::single(redis.url());
    // It only publishes, so that nothing is trimmed.
    let publisher = RedisStreamsBus::new(config.clone()).unwrap();
    let text = "x".repeat(200);
    for _ in 0..OLD / 50 {
        let old = envelope(&text);
        let batch: Vec<_> = (0..50).map(|_| publisher.publish(&old)).collect();
        for published in futures_util::future::join_all(batch).await {
            published.unwrap();
        }
    }
    let (all, bytes_of_all) = started(&redis, config.clone()).await;
    assert_eq!(all.len(), OLD);
    let end = all.last().unwrap().0;

    let few = config.clone().max_len(5000);
    let (messages, bytes) = started(&redis, few).await;
    assert!((4900..=5001).contains(&messages.len()), "{} messages of 5000", messages.len());
    assert_eq!(messages.last().unwrap().0, end);
    assert!(bytes < bytes_of_all / 2, "{bytes} bytes, {bytes_of_all} for all");

    let small = config.clone().max_bytes(1 << 20);
    let (messages, bytes) = started(&redis, small).await;
    let (kept, last) =
        (messages.iter().map(|(_, text)| text.len()).sum::<usize>(), messages.last().unwrap().0);
    assert!(((1 << 19)..(3 << 19)).contains(&kept), "{kept} bytes of a MiB");
    assert_eq!(last, end);
    assert!(bytes < bytes_of_all / 2, "{bytes} bytes, {bytes_of_all} for all");

    // All of it grows old.
    let max_age = Duration::from_secs(1);
    sleep(max_age * 2).await;
    for n in 0..10 {
        publisher.publish(&envelope(n)).await.unwrap();
    }
    let (messages, bytes) = started(&redis, config.max_age(max_age)).await;
    let texts: Vec<_> = messages.into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(bytes < bytes_of_all / 5, "{bytes} bytes, {bytes_of_all} for all");
}

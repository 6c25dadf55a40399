//! The stream keeps the configured window, and a node that starts reads no more of it than its log keeps.

use std::time::Duration;

use realtime_core::{
    Position,
    bus::{Bus, BusEvent},
};
use realtime_redis::{RedisConfig, RedisStreamsBus};
use realtime_tests::{
    Fault, Part, Redis,
    conformance::{Subscriber, envelope},
    within,
};
use tokio::time::sleep;

use super::{bus, is_hole};

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
                BusEvent::Message { envelope, .. } => texts.push(envelope.message().data.to_string()),
                BusEvent::Up(position) => {
                    assert!(position.is_some());
                    break;
                }
                BusEvent::Skip { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    assert_eq!(texts, (0..2500).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_was_overrun_sees_a_hole_and_then_the_rest() {
    let redis = Redis::start().await;
    let mut config = RedisConfig::single(redis.url());
    config.max_len = 100;
    let (slow, fast) = (RedisStreamsBus::new(config.clone()).unwrap(), RedisStreamsBus::new(config).unwrap());
    // No events are taken from this subscription, so its tail stops reading.
    let mut events = Subscriber::up(&slow).await;
    let mut end = None;
    for n in 0..8000 {
        end = fast.publish(&envelope(n)).await.unwrap().position;
    }
    let (mut last, mut holes): (Option<Position>, _) = (None, 0);
    while last != end {
        match events.next().await {
            BusEvent::Message { position: Some(position), .. } | BusEvent::Skip { through: position, .. } => {
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

/// Runs a node that reads and publishes until the stream is shorter than `below`.
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

/// Messages that a starting node has read when it is up, and the bytes that Redis has sent for them.
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
            BusEvent::Message { position, envelope, .. } => {
                messages.push((position.unwrap(), envelope.message().data.to_string()));
            }
            BusEvent::Up(_) => return (messages, sent() - before),
            BusEvent::Skip { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_reads_only_what_its_log_keeps() {
    const OLD: usize = 20_000;
    let redis = Redis::start().await;
    let config = RedisConfig::single(redis.url());
    // This node only publishes, so that nothing is trimmed.
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

    // All of it passes the maximum age.
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

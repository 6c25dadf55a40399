//! Looking up the master delays no publish and no delivery, and opens few connections to the sentinels.

use std::time::{Duration, Instant};

use realtime_core::{
    Hub,
    bus::{Bus, BusEvent},
};
use realtime_redis::{Incarnation, RedisConfig, RedisControl, RedisPresence, RedisStreamsBus};
use realtime_tests::{
    RedisSentinel,
    conformance::{Subscriber, envelope},
    within,
};
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn two_sentinels_that_hang_cost_nothing_but_a_moment() {
    let redis = RedisSentinel::start().await;
    let mut config = RedisConfig::new(redis.topology());
    config.command_timeout = Duration::from_millis(800);
    redis.sentinel(0).pause();
    redis.sentinel(1).pause();
    // A starting node finds the master, and a running one is not affected by look-ups that fail.
    let node = RedisStreamsBus::new(config).unwrap();
    let mut events = Subscriber::up(&node).await;
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(4) {
        node.publish(&envelope("x")).await.unwrap();
        let event = events.next().await;
        assert!(!matches!(event, BusEvent::Down(_)), "{event:?} after {:?}", since.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_up_the_master_delays_nothing_and_keeps_its_connections() {
    let redis = RedisSentinel::start().await;
    let node = RedisStreamsBus::new(RedisConfig::new(redis.topology())).unwrap();
    node.publish(&envelope("warm")).await.unwrap();
    redis.sentinel(0).pause();
    redis.sentinel(1).pause();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..200 {
        let node = node.clone();
        callers.spawn(async move {
            let mut took = Vec::new();
            for _ in 0..40 {
                sleep(Duration::from_millis(100)).await;
                let asked = Instant::now();
                node.publish(&envelope(caller)).await.unwrap();
                took.push(asked.elapsed());
            }
            took
        });
    }
    let mut took = within("the callers", callers.join_all()).await.concat();
    took.sort_unstable();
    let p95 = took[took.len() * 95 / 100];
    assert!(p95 < Duration::from_millis(50), "p95 {p95:?}");

    redis.sentinel(0).resume();
    redis.sentinel(1).resume();
    let mut events = Subscriber::up(&node).await;
    let before = opened(&redis);
    for _ in 0..5 {
        events.until(|event| matches!(event, BusEvent::CaughtUp(_))).await;
    }
    // One of the connections is this query's own.
    let opened = opened(&redis) - before - 1;
    assert!(opened <= 2, "{opened} connections to a sentinel in five heartbeats");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_a_node_share_one_look_up() {
    let redis = RedisSentinel::start().await;
    let before = opened(&redis);
    let (config, life) = (RedisConfig::new(redis.topology()), Incarnation::new("node"));
    let hub = Hub::builder()
        .bus(RedisStreamsBus::new(config.clone()).unwrap())
        .presence(RedisPresence::make(config.clone(), life.clone()).unwrap())
        .control(RedisControl::make(config.clone(), life).unwrap())
        .start()
        .unwrap();
    within("the node to be ready", async {
        while hub.ready().is_err() || hub.presence().count().await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // Another bus of the same process: its heartbeats are looked up together with the others'.
    let mut events = Subscriber::up(&RedisStreamsBus::new(config).unwrap()).await;
    for _ in 0..3 {
        events.until(|event| matches!(event, BusEvent::CaughtUp(_))).await;
    }
    // One of the connections is this query's own.
    let opened = opened(&redis) - before - 1;
    assert!(opened <= 2, "{opened} connections to a sentinel");
}

/// Number of connections that a sentinel has accepted.
fn opened(redis: &RedisSentinel) -> u64 {
    let stats = redis.sentinel(2).cli(&["info", "stats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    line.unwrap().parse::<u64>().unwrap()
}

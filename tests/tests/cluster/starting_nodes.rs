//! A node that starts takes the window over from the stream; a client with an older cursor gets a gap.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use realtime_core::{
    Hub,
    bus::{Bus, BusEvent},
};
use realtime_redis::{RedisConfig, RedisStreamsBus};
use realtime_tests::{
    Embedded, EventStream, Proxy, Redis,
    conformance::{Subscriber, envelope},
    token, within,
};
use tokio::time::sleep;

fn config(redis: &Redis, max_age: Duration) -> RedisConfig {
    RedisConfig::single(redis.url()).max_age(max_age)
}

async fn until_ready(hub: &Hub) {
    within("the node to be ready", async {
        while hub.ready().is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[actix_web::test]
async fn entries_too_old_for_a_starting_node_are_a_gap_for_older_cursors() {
    let redis = Redis::start().await;
    let max_age = Duration::from_secs(1);
    let publisher = RedisStreamsBus::new(config(&redis, max_age)).unwrap();
    let seen = publisher.publish(&envelope("seen")).await.unwrap().position.unwrap();
    let missed = publisher.publish(&envelope("missed")).await.unwrap().position.unwrap();
    // It has to pass the maximum age.
    sleep(max_age * 2).await;
    let node = RedisStreamsBus::new(config(&redis, max_age)).unwrap();
    let node = Embedded::start(Hub::builder().bus(node).start().unwrap());
    until_ready(&node.hub).await;
    let mut back = EventStream::open(&node, &token(1), Some(&seen.to_string())).await.unwrap();
    let first = back.next().await.unwrap();
    assert_eq!((first.event.as_str(), first.data.contains("history")), ("gap", true), "{first:?}");
    // A client that has received all of it misses nothing.
    let mut back = EventStream::open(&node, &token(1), Some(&missed.to_string())).await.unwrap();
    publisher.publish(&envelope("new")).await.unwrap();
    assert_eq!(back.data().await, "new");
}

#[actix_web::test]
async fn a_publisher_whose_clock_is_behind_loses_nothing_on_a_node_that_starts() {
    let redis = Redis::start().await;
    let max_age = Duration::from_secs(300);
    let bus = RedisStreamsBus::new(config(&redis, max_age)).unwrap();
    let first = bus.publish(&envelope("first")).await.unwrap().position.unwrap();
    // An entry as a node of an older version writes it, with the time of its own clock.
    let behind = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - Duration::from_secs(600);
    let json = format!(r#"{{"topics":["all"],"data":"late","at":{}}}"#, behind.as_millis());
    redis.cli(&["xadd", "{rt}:log", &format!("{}-*", first.epoch), "v", "1", "e", &json]);
    let mut node = Subscriber::start(&RedisStreamsBus::new(config(&redis, max_age)).unwrap());
    let mut texts = Vec::new();
    loop {
        match node.next().await {
            BusEvent::Message { envelope, .. } => texts.push(envelope.message().data.to_string()),
            BusEvent::Up(_) => break,
            BusEvent::Skip { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(texts, ["first", "late"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_behind_a_slow_link_catches_up_with_large_messages() {
    let redis = Redis::start().await;
    let publisher = RedisStreamsBus::new(RedisConfig::single(redis.url())).unwrap();
    let large = envelope("x".repeat(64 << 10));
    let mut last = None;
    for _ in 0..1500 {
        last = publisher.publish(&large).await.unwrap().position;
    }
    let proxy = Proxy::start_at(redis.port(), 20_000_000).await;
    let url = format!("redis://127.0.0.1:{}/", proxy.port());
    let mut node = Subscriber::start(&RedisStreamsBus::new(RedisConfig::single(url)).unwrap());
    let mut seen = None;
    within("the node to have caught up", async {
        loop {
            match node.next().await {
                BusEvent::Message { position, .. } => seen = position,
                BusEvent::Up(_) => return,
                BusEvent::Skip { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    assert_eq!(seen, last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_behind_a_slow_link_starts_in_a_log_with_a_run_of_large_messages() {
    let redis = Redis::start().await;
    let publisher = RedisStreamsBus::new(RedisConfig::single(redis.url())).unwrap();
    let first = publisher.publish(&envelope("first")).await.unwrap().position.unwrap();
    // Large ones are where a starting node looks first: in the middle.
    let fill = r#"local large = string.rep('x', 65536)
                  for i = 1, 4200 do
                    local text = i > 2094 and i < 2118 and large or 'x'
                    redis.call('XADD', KEYS[1], ARGV[1] .. '-*', 'v', '1', 'e', '{"topics":["all"],"data":"' .. text .. '"}')
                  end
                  return 1"#;
    assert_eq!(redis.cli(&["eval", fill, "1", "{rt}:log", &first.epoch.to_string()]), "1");
    let proxy = Proxy::start_at(redis.port(), 400_000).await;
    let url = format!("redis://127.0.0.1:{}/", proxy.port());
    // So few that what it takes over begins behind them.
    let config = RedisConfig::single(url).max_bytes(8 << 20);
    let mut node = Subscriber::start(&RedisStreamsBus::new(config).unwrap());
    within("the node to have caught up", async { while !matches!(node.next().await, BusEvent::Up(_)) {} })
        .await;
}

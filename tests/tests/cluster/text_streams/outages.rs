//! A stream outlives a Redis that hangs or loses its data, and a node that has missed a part of it.

use realtime_core::{Hub, Topic, testkit};
use realtime_redis::{RedisCluster, RedisConfig, RedisStreamsBus};
use realtime_tests::{Proxy, Redis, conformance::streams_conform};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_store_in_redis_conforms() {
    let redis = Redis::start().await;
    streams_conform(|| RedisStreamsBus::new(RedisConfig::single(redis.url())).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_costs_a_stream_nothing() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis).await, node(&redis).await);
    let mut reader = Reader::connect(&b, Transport::WebSocket, "answer").await;
    ask(&a, "answer").await;
    reader.until_bytes(60).await;
    redis.pause();
    // Longer than a command's time limit, and shorter than a lease.
    sleep(Duration::from_secs(4)).await;
    redis.resume();
    assert_eq!(reader.until_end().await, "done");
    assert!(reader.text.contains(PROMPT) && reader.text.ends_with("else has to change."));
    assert_eq!(reader.runs, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_everything_gets_the_stream_anew() {
    let mut redis = Redis::start().await;
    let (a, b) = (node(&redis).await, node(&redis).await);
    let mut readers = [
        Reader::connect(&b, Transport::WebSocket, "answer").await,
        Reader::connect(&a, Transport::Sse, "answer").await,
    ];
    ask(&a, "answer").await;
    readers[0].until_bytes(60).await;
    redis.kill();
    redis.restart().await;
    for reader in &mut readers {
        assert_eq!(reader.until_end().await, "done");
        assert!(reader.text.contains(PROMPT) && reader.text.ends_with("else has to change."));
    }
    assert_eq!(readers[0].text, readers[1].text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_overrun_gives_its_clients_the_text() {
    let redis = Redis::start().await;
    let small = [("REALTIME__HISTORY__MAXMESSAGES", "10")];
    let (a, b) = (node_with(&redis, &small).await, node_with(&redis, &small).await);
    let mut witness = Reader::connect(&a, Transport::WebSocket, "answer").await;
    let mut readers = [
        Reader::connect(&b, Transport::WebSocket, "answer").await,
        Reader::connect(&b, Transport::Sse, "answer").await,
    ];
    ask(&a, "answer").await;
    readers[0].until_bytes(30).await;
    readers[1].until_bytes(30).await;
    b.pause();
    let length = witness.text.len();
    witness.until_bytes(length + 40).await;
    for n in 0..400 {
        a.publish_to(2, &n.to_string()).await;
    }
    b.resume();
    assert_eq!(witness.until_end().await, "done");
    for reader in &mut readers {
        assert_eq!(reader.until_end().await, "done");
        assert_eq!(reader.text, witness.text);
        assert!(reader.prefixes > 0, "nothing was missing");
    }
}

async fn hub(url: String, name: &str) -> Hub {
    let cluster = RedisCluster::streams(RedisConfig::single(url), name).unwrap();
    let hub = Hub::builder().cluster(cluster).start().unwrap();
    testkit::ready(&hub).await;
    hub
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_of_a_killed_node_end_in_time() {
    const STREAMS: usize = 600;
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.port()).await;
    let a = hub(format!("redis://127.0.0.1:{}/", proxy.port()), "a").await;
    let b = hub(redis.url(), "b").await;
    let topic = Topic::new("x").unwrap();
    let mut writers = Vec::new();
    for n in 0..STREAMS {
        writers.push(a.stream(&topic, &format!("answer-{n}")).await.unwrap());
    }
    let ended = b.metrics().published as usize;
    drop(proxy);
    let killed = tokio::time::Instant::now();
    while (b.metrics().published as usize) < ended + STREAMS {
        let took = killed.elapsed();
        let count = b.metrics().published as usize - ended;
        assert!(took < Duration::from_secs(12), "{count} of {STREAMS} have ended after {took:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_lost_its_lease_gets_one_while_its_last_text_is_empty() {
    let redis = Redis::start().await;
    let a = hub(redis.url(), "a").await;
    let _writer = a.stream(&Topic::new("x").unwrap(), "answer").await.unwrap();
    let leases = redis.cli(&["--scan", "--pattern", "*:stream-leases"]);
    assert_eq!(redis.cli(&["zrem", &leases, "x answer"]), "1");
    within("a lease", async {
        while redis.cli(&["zcard", &leases]) != "1" {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

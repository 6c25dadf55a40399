//! A stream outlives a Redis that hangs or loses its data, and a node that has missed a part of it.

use realtime_redis::{RedisConfig, RedisStreamsBus};
use realtime_tests::{Redis, conformance::streams_conform};

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

//! A stream ends on every node, in the same way and with the same text, however its writer ends; nothing follows the end.

use std::{env, time::Instant};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use realtime_tests::Redis;

use super::*;

/// Time within which the end of a stream whose writer's node has died reaches every reader.
const END_LIMIT: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_writer_is_ended_by_the_others_with_one_text_for_all() {
    // Outside of the suite: REALTIME_STREAM_KILLS=20.
    let kills = env::var("REALTIME_STREAM_KILLS").map_or(2, |kills| kills.parse().unwrap());
    let redis = Redis::start().await;
    let (b, c) = (node(&redis).await, node(&redis).await);
    let mut random = StdRng::seed_from_u64(rand::random());
    let mut times = Vec::new();
    for kill in 0..kills {
        let id = format!("answer-{kill}");
        let a = node(&redis).await;
        let mut readers = [
            Reader::connect(&b, Transport::WebSocket, &id).await,
            Reader::connect(&c, Transport::Sse, &id).await,
        ];
        ask(&a, &id).await;
        let bytes = random.random_range(0..300);
        readers[0].until_bytes(bytes).await;
        drop(a);
        let killed = Instant::now();
        let [first, second] = &mut readers;
        tokio::join!(first.until_end(), second.until_end());
        let took = killed.elapsed();
        assert!(took < END_LIMIT, "the end came after {took:?}");
        for reader in [&*first, &*second] {
            assert_eq!(reader.end.as_deref(), Some("interrupted"));
            assert_eq!(reader.text, first.text);
        }
        // A reader that comes now gets the same.
        let mut late = Reader::connect(&c, Transport::WebSocket, &id).await;
        assert_eq!(late.until_end().await, "interrupted");
        assert_eq!(late.text, first.text);
        println!("killed at byte {bytes}: ended with {} bytes after {took:.1?}", late.text.len());
        times.push(took);
    }
    times.sort();
    println!("{kills} kills: median {:.1?}, longest {:.1?}", times[times.len() / 2], times[times.len() - 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_hung_is_fenced_and_no_text_follows_the_end() {
    let redis = Redis::start().await;
    let (a, b, c) = (node(&redis).await, node(&redis).await, node(&redis).await);
    let mut readers = [
        Reader::connect(&b, Transport::WebSocket, "answer").await,
        Reader::connect(&c, Transport::Sse, "answer").await,
    ];
    ask(&a, "answer").await;
    readers[0].until_bytes(60).await;
    a.pause();
    let paused = Instant::now();
    let [first, second] = &mut readers;
    tokio::join!(first.until_end(), second.until_end());
    assert!(paused.elapsed() < END_LIMIT, "the end came after {:?}", paused.elapsed());
    assert_eq!((first.end.as_deref(), second.end.as_deref()), (Some("interrupted"), Some("interrupted")));
    // The time that the writer hangs is what is tested.
    sleep(Duration::from_secs(15).saturating_sub(paused.elapsed())).await;
    a.resume();
    ready(&a).await;
    within("the writer's node to know the end", async {
        while answer(&a, "answer").await.is_none_or(|answer| answer["state"] != "interrupted") {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // The writer had two seconds of tokens left; a new answer takes longer.
    ask(&a, "another").await;
    let mut another = Reader::connect(&b, Transport::Sse, "another").await;
    assert_eq!(another.until_end().await, "done");
    a.publish_to(USER, "the last message").await;
    for reader in [&mut *first, second] {
        let text = reader.text.clone();
        // A text behind the end would panic on the way.
        reader.until_message("the last message").await;
        assert_eq!(reader.text, text);
    }
    assert_eq!(first.text, second.text);
    let entries = redis.cli(&["xrange", "{rt}:log", "-", "+"]);
    let of_stream = |line: &&str| line.contains(r#"{\"stream\":\"answer\""#);
    let last = entries.lines().rfind(of_stream).unwrap();
    assert!(last.contains(r#"\"state\":\"interrupted\""#), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_from_another_node_reaches_the_writer_at_once() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis).await, node(&redis).await);
    let mut reader = Reader::connect(&b, Transport::Sse, "answer").await;
    ask(&a, "answer").await;
    reader.until_bytes(30).await;
    let asked = Instant::now();
    let stop = post(&b, "/demo/ai/answer/stop", json!({}));
    let ((status, stopped), took) = tokio::join!(stop, async {
        reader.until_end().await;
        asked.elapsed()
    });
    assert_eq!((status, &stopped), (200, &json!({ "stopped": 1 })));
    assert_eq!(reader.end.as_deref(), Some("stopped"));
    // 500 ms are promised; a busy machine gets more.
    assert!(took < Duration::from_secs(3), "took {took:?}");
    println!("stopped from another node after {took:.0?}");
    assert_eq!(answer(&a, "answer").await.unwrap()["text"], reader.text);
    assert_eq!(post(&b, "/demo/ai/answer/stop", json!({})).await.1, json!({ "stopped": 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_pubsub_mode_a_stream_is_refused_by_name() {
    let redis = Redis::start().await;
    let a = node_with(&redis, &[("REALTIME__REDIS__MODE", "pubsub")]).await;
    let (status, answer) = post(&a, "/demo/ai", json!({ "prompt": "?" })).await;
    assert_eq!(
        (status, &answer["msg"]),
        (422, &json!("this bus carries no text streams: it has no positions"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_in_order_ends_its_streams_at_once() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis).await, node(&redis).await);
    let mut reader = Reader::connect(&b, Transport::Sse, "answer").await;
    ask(&a, "answer").await;
    reader.until_bytes(30).await;
    let asked = Instant::now();
    a.terminate();
    assert_eq!(reader.until_end().await, "interrupted");
    // Sooner than a lease ends.
    assert!(asked.elapsed() < Duration::from_secs(5), "took {:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_answer_of_the_same_id_replaces_the_first_on_another_node() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis).await, node(&redis).await);
    let mut reader = Reader::connect(&b, Transport::WebSocket, "answer").await;
    ask(&a, "answer").await;
    reader.until_bytes(30).await;
    ask(&b, "answer").await;
    while reader.runs < 2 {
        reader.read().await;
    }
    assert_eq!(reader.until_end().await, "done");
    assert!(reader.text.contains(PROMPT) && reader.text.ends_with("else has to change."));
    assert_eq!(answer(&a, "answer").await.unwrap()["run"], reader.run);
}

//! A client that comes late gets a stream's text so far, also where the window no longer has its beginning.

use realtime_tests::Redis;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_late_serves_the_text_so_far() {
    let redis = Redis::start().await;
    let a = node(&redis).await;
    let mut witness = Reader::connect(&a, Transport::WebSocket, "answer").await;
    ask(&a, "answer").await;
    witness.until_bytes(40).await;
    let b = node(&redis).await;
    for transport in [Transport::WebSocket, Transport::Sse] {
        let mut late = Reader::connect(&b, transport, "answer").await;
        late.read().await;
        late.until_bytes(40).await;
        assert_eq!(late.prefixes, 1);
        assert_eq!(late.until_end().await, "done");
        witness.until_end().await;
        assert_eq!(late.text, witness.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_has_moved_on_costs_a_late_node_nothing() {
    let redis = Redis::start().await;
    let small = [("REALTIME__HISTORY__MAXMESSAGES", "10")];
    let a = node_with(&redis, &small).await;
    let mut witness = Reader::connect(&a, Transport::WebSocket, "answer").await;
    ask(&a, "answer").await;
    witness.until_bytes(40).await;
    for n in 0..400 {
        a.publish_to(2, &n.to_string()).await;
    }
    // The stream goes on meanwhile, so that any entry of the window may be one of it, but not its first.
    let window = redis.cli(&["xrange", "{rt}:log", "-", "+"]);
    assert!(!window.contains(r#"\"at\":0,"#), "the stream's beginning is still there: {window}");
    let b = node_with(&redis, &small).await;
    let mut late = Reader::connect(&b, Transport::Sse, "answer").await;
    assert_eq!(late.until_end().await, "done");
    assert_eq!(witness.until_end().await, "done");
    assert_eq!((&late.text, late.prefixes), (&witness.text, 1));
    // Long after it.
    let c = node_with(&redis, &small).await;
    let known = answer(&c, "answer").await.unwrap();
    assert_eq!((&known["text"], &known["state"]), (&json!(witness.text), &json!("done")));
    assert!(answer(&c, "another").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_kept_in_redis_for_their_time() {
    let redis = Redis::start().await;
    let a = node_with(&redis, &[("REALTIME__STREAMS__KEEP", "1s")]).await;
    let mut reader = Reader::connect(&a, Transport::WebSocket, "answer").await;
    ask(&a, "answer").await;
    reader.until_bytes(20).await;
    let key = format!("{{rt}}:text:user:{USER} answer");
    let live: u64 = redis.cli(&["pttl", &key]).parse().unwrap();
    assert!(live > 3_600_000, "{live}");
    assert!(reader.text.starts_with(&redis.cli(&["getrange", &key, "0", "5"])));
    reader.until_end().await;
    within("everything of the stream to be forgotten", async {
        while !redis.cli(&["--scan", "--pattern", "{rt}:[st]*answer"]).is_empty()
            || answer(&a, "answer").await.is_some()
        {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    // The sets forget it with the next stream.
    ask(&a, "another").await;
    assert_eq!(redis.cli(&["zrange", "{rt}:streams", "0", "-1"]), format!("user:{USER} another"));
    assert_eq!(redis.cli(&["zrange", "{rt}:stream-leases", "0", "-1"]), format!("user:{USER} another"));
}

//! An event stream delivers each message whole and at once, through caches and proxies, until it is closed.

use std::time::{Duration, Instant};

use realtime_tests::{Demo, EventStream, Server, token, within};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const CLOSED: &str = r#"{"code":200,"msg":"操作成功","data":null}"#;

#[tokio::test(flavor = "multi_thread")]
async fn events_come_with_name_id_and_every_line() {
    let demo = Demo::start().await;
    let mut stream = demo.stream(1).await;
    let first =
        demo.publish(json!({ "userIds": [1], "message": "a\nb\r\n\r\nid:evil", "event": "order" })).await;
    let event = stream.next().await.unwrap();
    assert_eq!((event.event.as_str(), &event.id), ("order", &first));
    assert_eq!(event.data, "a\nb\n\nid:evil");
    demo.publish(json!({ "broadcast": true, "message": "all", "transport": "sse" })).await;
    demo.publish(json!({ "broadcast": true, "message": "not for streams", "transport": "websocket" })).await;
    demo.publish_to(1, "").await;
    assert_eq!(stream.data().await, "all");
    assert_eq!(stream.data().await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_neither_cached_nor_compressed_nor_held_back() {
    let demo = Demo::start().await;
    let url = demo.url(&format!("/resource/sse?Authorization={}", token(1)));
    let request = reqwest::Client::new().get(url).header("Accept-Encoding", "gzip");
    let response = request.send().await.unwrap();
    let headers = response.headers();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-store, no-transform");
    assert_eq!(headers["x-accel-buffering"], "no");
    assert_eq!(headers["content-encoding"], "identity");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stream_gets_heartbeats_that_keep_its_cursor_fresh() {
    let demo = Demo::start_with(&[("REALTIME__HEARTBEAT__INTERVAL", "200ms")]).await;
    let mut tcp = TcpStream::connect(("127.0.0.1", demo.port())).await.unwrap();
    let request = format!("GET /resource/sse?Authorization={} HTTP/1.1\r\nHost: a\r\n\r\n", token(1));
    tcp.write_all(request.as_bytes()).await.unwrap();
    demo.until_sessions(1, 1).await;
    let cursor = demo.publish_to(2, "for another user").await;
    let heartbeat = format!(":heartbeat\nid:{cursor}\n\n");
    within("a heartbeat", async {
        let mut seen = String::new();
        let mut buffer = [0; 1024];
        while !seen.contains(&heartbeat) {
            let len = tcp.read(&mut buffer).await.unwrap();
            assert!(len > 0, "the stream ended: {seen}");
            seen.push_str(std::str::from_utf8(&buffer[..len]).unwrap());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_close_endpoint_ends_the_tokens_streams_but_spares_new_ones() {
    let demo = Demo::start().await;
    let (own, other) = (token(1), token(1));
    let mut old = EventStream::open(&demo, &own, None).await.unwrap();
    let mut stranger = EventStream::open(&demo, &other, None).await.unwrap();
    // Streams younger than two seconds are not closed, so this has to wait.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let mut young = EventStream::open(&demo, &own, None).await.unwrap();
    let close = format!("/resource/sse/close?Authorization=Bearer%20{own}");
    for path in ["/resource/sse/close", "/resource/sse/close?Authorization=nonsense"] {
        assert_eq!(demo.get(path).await, (200, CLOSED.to_owned()));
    }
    demo.until_sessions(1, 3).await;
    let posted = reqwest::Client::new().post(demo.url(&close)).body("").send().await.unwrap();
    assert_eq!((posted.status().as_u16(), posted.text().await.unwrap()), (200, CLOSED.to_owned()));
    assert!(old.next().await.is_none(), "the old stream has ended");
    assert_eq!(demo.get(&close).await, (200, CLOSED.to_owned()), "closing again is no error");
    demo.publish_to(1, "still here").await;
    assert_eq!(young.data().await, "still here");
    assert_eq!(stranger.data().await, "still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaver_is_noticed_within_a_second() {
    let demo = Demo::start().await;
    let stream = demo.stream(1).await;
    demo.until_sessions(1, 1).await;
    drop(stream);
    let left = Instant::now();
    demo.until_sessions(1, 0).await;
    assert!(left.elapsed() < Duration::from_secs(1), "took {:?}", left.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ai_answer_is_a_stream_of_its_own() {
    let demo = Demo::start().await;
    let url = demo.url(&format!("/demo/ai?prompt=why%3F&Authorization=Bearer%20{}", token(1)));
    let text = within("the answer", async { reqwest::get(url).await.unwrap().text().await.unwrap() }).await;
    assert!(text.starts_with("event: token\ndata: {\"type\":\"token\""), "{text}");
    assert!(text.contains("event: done\n"));
}

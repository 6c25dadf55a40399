//! Server-Sent Events: streams, replay, close endpoint and ends, over real sockets.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::time::{Duration, Instant};

use realtime_tests::{Demo, EventStream, Server, sign, token, within};
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
async fn a_last_event_id_replays_what_was_missed() {
    let demo = Demo::start().await;
    let token = token(1);
    let mut stream = EventStream::open(&demo, &token, None).await.unwrap();
    demo.publish_to(1, "a").await;
    assert_eq!(stream.data().await, "a");
    let cursor = stream.last_id.clone();
    drop(stream);
    for text in ["b", "c"] {
        demo.publish_to(1, text).await;
        demo.publish_to(2, "not mine").await;
    }
    let mut back = EventStream::open(&demo, &token, Some(&cursor)).await.unwrap();
    assert_eq!(back.last_id, cursor, "the first block has the cursor");
    assert_eq!(back.data().await, "b");
    assert_eq!(back.data().await, "c");
    demo.publish_to(1, "d").await;
    assert_eq!(back.data().await, "d");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_cursor_serves_both_transports() {
    let demo = Demo::start().await;
    let token = token(1);
    let cursor = demo.publish_to(1, "a").await;
    demo.publish_to(1, "b").await;
    let mut stream = EventStream::open(&demo, &token, Some(&cursor)).await.unwrap();
    assert_eq!(stream.data().await, "b");
    let mut socket =
        realtime_tests::Socket::open(&demo, &token, &["realtime.v1"], Some(&cursor)).await.unwrap();
    assert_eq!(socket.json().await["recovered"], json!(true));
    assert_eq!(socket.json().await["data"], "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_left_the_window_is_announced_by_an_event_of_its_own() {
    let demo = Demo::start_with(&[("REALTIME__HISTORY__MAXMESSAGES", "2")]).await;
    let first = demo.publish_to(1, "0").await;
    for n in 1..=4 {
        demo.publish_to(1, &n.to_string()).await;
    }
    let mut stream = EventStream::open(&demo, &token(1), Some(&first)).await.unwrap();
    let gap = stream.next().await.unwrap();
    let notice: serde_json::Value = serde_json::from_str(&gap.data).unwrap();
    assert_eq!((gap.event.as_str(), &notice["reason"]), ("gap", &serde_json::json!("history")));
    assert!(notice["spread"].as_u64().is_some_and(|spread| spread <= 5000), "{notice}");
    assert_eq!(stream.data().await, "3");
    assert_eq!(stream.data().await, "4");
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
async fn refused_logins_are_answered_in_ruoyis_form() {
    let demo = Demo::start().await;
    let expired = sign(&json!({ "userId": 1, "exp": 1 }));
    let wrong_client = format!("?Authorization={}&clientid=app", token(1));
    for (query, msg) in [
        (String::new(), "Authorization is missing"),
        ("?Authorization=x".to_owned(), "token is malformed"),
        (format!("?Authorization={expired}"), "token has expired"),
        (wrong_client, "clientid does not match the token"),
    ] {
        let (status, body) = demo.get(&format!("/resource/sse{query}")).await;
        assert_eq!(status, 401);
        assert_eq!(body, format!(r#"{{"code":401,"msg":"{msg}","data":null}}"#));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_close_endpoint_ends_the_tokens_streams_but_spares_new_ones() {
    let demo = Demo::start().await;
    let (own, other) = (token(1), token(1));
    let mut old = EventStream::open(&demo, &own, None).await.unwrap();
    let mut stranger = EventStream::open(&demo, &other, None).await.unwrap();
    // Streams younger than two seconds are spared, so this has to wait.
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

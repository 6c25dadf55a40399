//! A node that stops closes its connections one after the other, and serves those that are left.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use realtime_tests::{Demo, EventStream, RawClient, Socket, token, within};
use serde_json::json;
use tokio::time::sleep;

/// Connections of each transport; one is closed each 50 ms.
const EACH: i64 = 15;
const WINDOW: Duration = Duration::from_millis(1500);

/// What a connection got before its end.
#[derive(Debug)]
struct Left {
    texts: Vec<String>,
    retry: u64,
    at: Instant,
}

async fn websocket(demo: &Demo, user: i64) -> impl Future<Output = Left> + use<> {
    let mut socket = demo.socket_v1(user).await;
    assert_eq!(socket.json().await["type"], "hello");
    async move {
        let mut texts = Vec::new();
        let retry = loop {
            let frame = socket.json().await;
            match frame["type"].as_str() {
                Some("message") => texts.push(frame["data"].as_str().unwrap().to_owned()),
                Some("bye") => break frame["retry"].as_u64().expect("a time to come back"),
                _ => {}
            }
        };
        assert_eq!(socket.close_code().await, 1012);
        Left { texts, retry, at: Instant::now() }
    }
}

async fn stream(demo: &Demo, user: i64) -> impl Future<Output = Left> + use<> {
    let mut client = RawClient::connect(demo).await;
    client.write(RawClient::event_stream(user)).await;
    client.head().await;
    client.until(":connected\n").await;
    async move {
        let bytes = client.until(":disconnected\nretry:").await;
        let texts = bytes.split("data:").skip(1).map(|text| text.split('\n').next().unwrap().to_owned());
        let texts = texts.collect();
        let retry = client.until("\n").await.trim().parse().expect("a time to come back");
        Left { texts, retry, at: Instant::now() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_closes_one_connection_after_the_other() {
    let window = format!("{}ms", WINDOW.as_millis());
    let mut demo = Demo::start_with(&[("REALTIME__DRAIN__WINDOW", &window)]).await;
    let mut clients: Vec<futures_util::future::BoxFuture<'_, Left>> = Vec::new();
    for user in 0..EACH {
        clients.push(Box::pin(websocket(&demo, user).await));
        clients.push(Box::pin(stream(&demo, EACH + user).await));
    }
    let begun = Instant::now();
    demo.terminate();
    let while_draining = async {
        within("the drain to begin", async {
            while demo.get("/health/ready").await.0 == 200 {
                sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        // Who comes now is sent elsewhere.
        assert_eq!(Socket::open(&demo, &token(99), &[], None).await.unwrap_err(), 503);
        assert_eq!(EventStream::open(&demo, &token(99), None).await.unwrap_err(), 200);
        let mut published = Vec::new();
        for number in 0..5 {
            let text = format!("number {number}");
            let began = Instant::now();
            demo.publish(json!({ "broadcast": true, "message": text })).await;
            published.push((text, began));
            sleep(Duration::from_millis(100)).await;
        }
        published
    };
    let (left, published) = tokio::join!(join_all(clients), while_draining);
    for client in &left {
        let due = published.iter().filter(|(_, began)| client.at > *began + Duration::from_millis(300));
        let due: Vec<_> = due.map(|(text, _)| text.clone()).collect();
        assert!(client.texts.starts_with(&due), "{client:?} lacks some of {due:?}");
        assert!((1..2_000).contains(&client.retry), "{client:?}");
    }
    // What was published behind the first closes reached the others.
    let last = &published.last().unwrap().0;
    let served = left.iter().filter(|client| client.texts.contains(last)).count();
    assert!((1..left.len()).contains(&served), "{served} of {} got the last message", left.len());
    let status = within("the process to end", demo.child().wait()).await.unwrap();
    println!("ended after {:?}", begun.elapsed());
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_broken_off_when_the_node_stops() {
    let settings = [("REALTIME__DRAIN__WINDOW", "0s"), ("REALTIME__OUTBOX__MAXSTALL", "1h")];
    let mut demo = Demo::start_with(&settings).await;
    let mut stalled = RawClient::open(&demo, 1, "").await;
    stalled.head().await;
    let text = "x".repeat(60_000);
    for _ in 0..200 {
        demo.publish_to(1, &text).await;
    }
    let mut other = demo.socket(2).await;
    demo.terminate();
    assert_eq!(other.close_code().await, 1012);
    let begun = Instant::now();
    let status = within("the process to end", demo.child().wait()).await.unwrap();
    println!("ended after {:?}", begun.elapsed());
    assert!(status.success(), "{status}");
    stalled.end().await;
}

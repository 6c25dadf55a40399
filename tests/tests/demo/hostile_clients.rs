//! Clients that send half a request, close half a connection or read nothing cost a bounded memory and hold up no stop.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use realtime_tests::{API_KEY, Demo, RawClient, Redis, ServerKind, within};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

/// The head of a publish with a body of that size.
fn publish(length: usize, more: &str) -> String {
    format!(
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{more}\r\n"
    )
}

/// A client whose publish the server has begun to read, and that sends no more of it.
async fn unfinished_publish(demo: &Demo) -> RawClient {
    let mut client = RawClient::connect(demo).await;
    client.write(publish(100, "Expect: 100-continue\r\n")).await;
    let answer = client.head().await;
    assert!(answer.starts_with("HTTP/1.1 100 "), "{answer}");
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_bodies_and_readers_that_stall_do_not_hold_up_a_stop() {
    let settings = [("REALTIME__DRAIN__WINDOW", "2s"), ("REALTIME__OUTBOX__MAXSTALL", "365d")];
    let mut demo = Demo::start_with(&settings).await;
    let mut unfinished = unfinished_publish(&demo).await;
    unfinished.write("{").await;
    let mut stalled = Vec::new();
    for user in 1..=5 {
        let mut client = RawClient::connect(&demo).await;
        client.write(RawClient::event_stream(user)).await;
        client.head().await;
        stalled.push(client);
    }
    // More than the sockets take.
    let text = "x".repeat(60_000);
    for _ in 0..200 {
        demo.publish(json!({ "broadcast": true, "message": text })).await;
    }
    let begin = Instant::now();
    demo.terminate();
    let status = within("the process to end", demo.child().wait()).await.unwrap();
    println!("ended after {:?}", begin.elapsed());
    assert!(status.success(), "{status}");
    // actix-server's own limit would be 30 s.
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_process_whatever_is_open() {
    let mut demo = Demo::start_with(&[("REALTIME__DRAIN__WINDOW", "1h")]).await;
    let _unfinished = unfinished_publish(&demo).await;
    demo.terminate();
    within("the drain to begin", async {
        while TcpStream::connect(demo.url("").trim_start_matches("http://")).await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    demo.terminate();
    let status = within("the process to end", demo.child().wait()).await.unwrap();
    assert_eq!(status.code(), Some(143));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_unfinished_bodies_take_a_bounded_memory() {
    let demo = Demo::start().await;
    demo.publish_to(1, "the first").await;
    let before = demo.memory();
    let part = vec![b' '; 1_900_000];
    let clients = join_all((0..200).map(|_| async {
        let mut client = RawClient::connect(&demo).await;
        client.write(publish(2_000_000, "")).await;
        // Some are refused on the way.
        tokio::time::timeout(Duration::from_secs(10), client.tcp.write_all(&part)).await.ok();
        client
    }))
    .await;
    let grown = demo.peak_memory() - before;
    println!("{grown} KiB for {} unfinished bodies", clients.len());
    assert!(grown < 192 << 10, "{grown} KiB");
    // Others are served.
    assert_eq!(demo.get("/health/live").await.0, 200);
    drop(clients);
    within("room for another body", async {
        while demo.try_publish(&json!({ "broadcast": true, "message": "x" }).to_string()).await.0 != 200 {}
    })
    .await;
    // Nobody who has no login can send more than a few KiB.
    let login =
        reqwest::Client::new().post(demo.url("/auth/login")).body(vec![b' '; 5000]).send().await.unwrap();
    assert_eq!(login.status(), 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_close_their_side_are_answered_and_their_messages_delivered() {
    if ServerKind::of_run() == ServerKind::Actix {
        // There a client that closes its side has left: docs/security.md.
        return;
    }
    let redis = Redis::start().await;
    let demo = Demo::start_with(&[("REALTIME__REDIS__URL", &*redis.url())]).await;
    let mut stream = demo.stream(1).await;
    for number in 0..50 {
        let body = json!({ "userIds": [1], "message": number.to_string() }).to_string();
        let mut client = RawClient::connect(&demo).await;
        client.write(publish(body.len(), "") + &body).await;
        client.tcp.shutdown().await.unwrap();
        assert!(client.end().await, "a reset instead of the answer to {number}");
        let answer = String::from_utf8(client.bytes).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{number}: {answer}");
        assert_eq!(stream.data().await, number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_answered_where_get_is() {
    let demo = Demo::start().await;
    let http = reqwest::Client::new();
    for path in ["/", "/assets/app.js", "/health/live", "/health/ready"] {
        let answer = http.request(Method::HEAD, demo.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let length = answer.headers()["content-length"].to_str().unwrap().to_owned();
        let body = demo.get(path).await.1;
        assert_eq!(length, body.len().to_string(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_of_http_2_and_a_stream_for_http_1_0_end_as_they_say() {
    let demo = Demo::start().await;
    let body = json!({ "broadcast": true, "message": "x" }).to_string();
    let mut client = RawClient::connect(&demo).await;
    let offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n";
    client.write(publish(body.len(), offer) + &body).await;
    client.end().await;
    let answer = String::from_utf8(client.bytes).unwrap().to_lowercase();
    assert!(answer.starts_with("http/1.1 200 ") && answer.contains("connection: close\r\n"), "{answer}");

    let mut client = RawClient::connect(&demo).await;
    client.write(RawClient::event_stream(1).replace("HTTP/1.1", "HTTP/1.0")).await;
    let head = client.head().await.to_lowercase();
    assert!(head.starts_with("http/1.0 200 ") && !head.contains("chunked"), "{head}");
    demo.until_sessions(1, 1).await;
    demo.publish_to(1, "unchunked").await;
    client.until("data:unchunked\n\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_arrives_behind_an_upload_on_each_server() {
    let limit = ("REALTIME__LIMITS__MAXMESSAGEBYTES", "1024");
    let servers = [
        ("the server of the run", Demo::start_with(&[limit]).await),
        ("actix-web's", Demo::start_with(&[limit, ("REALTIME__SERVER__KIND", "actix")]).await),
        ("server.internal", Demo::start_with(&[limit, ("REALTIME__SERVER__INTERNAL", "127.0.0.1:0")]).await),
    ];
    let body = vec![b' '; 6 << 20];
    let publish = publish(body.len(), "");
    let heads = [
        (publish.replace(API_KEY, "wrong"), 401),
        (publish.replace("/api/publish", "/api/nothing"), 404),
        (publish, 413),
    ];
    for (name, demo) in &servers {
        let address = demo.api_url("").trim_start_matches("http://").to_owned();
        let upload = async |(head, status): &(String, u16)| {
            let mut tcp = TcpStream::connect(&address).await.unwrap();
            tcp.write_all(head.as_bytes()).await.unwrap();
            // All of it, slowly, before anything is read.
            for piece in body.chunks(400 << 10) {
                let taken = within("the body to be taken", tcp.write_all(piece)).await;
                assert!(taken.is_ok(), "{name}, {status}: {taken:?}");
                sleep(Duration::from_millis(50)).await;
            }
            let mut answer = [0; 12];
            let read = within("the answer", tcp.read_exact(&mut answer)).await;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(
                read.is_ok() && answer == format!("HTTP/1.1 {status}"),
                "{name}, {status}: {read:?} {answer}"
            );
        };
        join_all(heads.iter().flat_map(|head| [head; 10]).map(upload)).await;
    }
}

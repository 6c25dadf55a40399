//! A node that stops closes its connections one after the other, and serves those that are left.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use realtime_tests::{API_KEY, Demo, EventStream, RawClient, Socket, token, within};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UdpSocket,
    process::Command,
    time::sleep,
};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_though_a_client_that_does_not_read_is_broken_off() {
    let settings = [("REALTIME__DRAIN__WINDOW", "10s"), ("REALTIME__OUTBOX__MAXSTALL", "1h")];
    let (mut demo, mut log) = Demo::start_listened(&[], &settings, &[]).await;
    let mut stalled = RawClient::open(&demo, 1, "").await;
    stalled.head().await;
    let text = "x".repeat(60_000);
    for _ in 0..200 {
        demo.publish_to(1, &text).await;
    }
    let body = json!({ "broadcast": true, "message": "x" }).to_string();
    let (all_but_last, last) = body.split_at(body.len() - 1);
    let mut caller = RawClient::connect(&demo).await;
    let head = format!(
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{all_but_last}",
        body.len()
    );
    caller.write(head).await;
    demo.terminate();
    within("the client to be broken off", async {
        while !log.recv().await.unwrap().contains("connections that did not end were broken off") {}
        while !log.recv().await.unwrap().contains("accept thread stopped") {}
    })
    .await;
    // The workers stop as well.
    sleep(Duration::from_millis(500)).await;
    caller.write(last).await;
    assert!(caller.head().await.starts_with("HTTP/1.1 200 "));
    drop(caller);
    let status = within("the process to end", demo.child().wait()).await.unwrap();
    assert!(status.success(), "{status}");
    stalled.end().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_name_server_that_does_not_answer_holds_no_stop_up() {
    // Neither this port nor a mount of its own is given to everybody.
    let skipped = |what: &str| eprintln!("skipped: {what} is not granted here");
    let Ok(name_server) = UdpSocket::bind("127.0.0.77:53").await else { return skipped("port 53") };
    let resolver = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&resolver, "nameserver 127.0.0.77\n").unwrap();
    let script = r#"mount --bind "$0" /etc/resolv.conf || exit 99; exec "$1""#;
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script]).arg(resolver.path()).arg(Demo::binary());
    command.env("REALTIME__SERVER__PORT", "0").env("REALTIME__DRAIN__WINDOW", "0s");
    command.env("REALTIME__REDIS__URL", "redis://redis.test/").stderr(Stdio::piped()).kill_on_drop(true);
    let Ok(mut child) = command.spawn() else { return skipped("`unshare`") };
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let ready = within("the demo to start", async {
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains("is ready at http") {
                return true;
            }
        }
        false
    });
    if !ready.await {
        // 1 by `unshare`, 99 by the script.
        let code = child.wait().await.unwrap().code();
        assert!(matches!(code, Some(1 | 99)), "{code:?}");
        return skipped("a mount of its own");
    }
    tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
    within("a question", name_server.recv(&mut [0; 512])).await.unwrap();
    let begun = Instant::now();
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").arg(pid).status().unwrap().success());
    let status = within("the process to end", child.wait()).await.unwrap();
    assert!(status.success(), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

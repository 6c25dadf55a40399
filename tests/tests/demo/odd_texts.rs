//! Every text arrives as it was sent, byte for byte, on every wire: raw WebSocket, `realtime.v1` and event stream (where
//! CRLF and CR become LF, as the format has it), over the bus in memory and over Redis.

use realtime_tests::{Demo, EventStream, Redis, Socket};
use serde_json::{Value, json};

/// What has broken other systems.
fn texts() -> Vec<(&'static str, String)> {
    let mut texts: Vec<(&'static str, String)> = [
        ("nothing", ""),
        ("a space", " "),
        ("spaces around", "  a  "),
        ("NUL", "a\0b"),
        ("control characters", "\u{1}\u{7}\u{8}\u{b}\u{c}\u{1b}[31m\u{7f}"),
        ("C1 controls and NEL", "a\u{80}\u{85}\u{9f}b"),
        ("line and paragraph separators", "a\u{2028}b\u{2029}c"),
        ("a byte order mark first", "\u{feff}a"),
        ("a byte order mark within", "a\u{feff}b"),
        ("CRLF", "a\r\nb\r\n"),
        ("a lone CR", "a\rb\r"),
        ("LF and CR", "a\n\rb"),
        ("two line feeds", "a\n\nb"),
        ("line feeds only", "\n\n\n"),
        ("a line feed first and last", "\na\n"),
        ("an event of its own", "a\n\nevent:gap\ndata:{}\nid:9.9\n\n"),
        ("fields behind CR", "a\rid:9.9\rretry:1\rdata:x"),
        ("a comment", ":heartbeat"),
        ("a tab", "\ta\t"),
        ("emoji", "😀👩‍👩‍👧‍👦🏳️‍🌈"),
        ("from right to left", "\u{202e}שלום\u{202c} مرحبا"),
        ("combining marks", "Z̷̢a̸l̶g̵o̴ e\u{301}"),
        ("not characters", "\u{fffe}\u{ffff}\u{10ffff}"),
        ("the replacement character", "\u{fffd}"),
        ("JSON in JSON", r#"{"type":"bye","reason":"kicked","data":"\"\\u0000"}"#),
        ("escapes", r"\n\r\u0000\ud83d\\"),
        ("markup", "</script><img src=x onerror=alert(1)>&amp;"),
    ]
    .map(|(name, text)| (name, text.to_owned()))
    .into();
    let long = "ä\n€😀\t".repeat(5957) + "123456789";
    assert_eq!(long.len(), 64 << 10);
    texts.push(("64 KiB", long));
    texts
}

async fn arrive_everywhere(publisher: &Demo, demo: &Demo) {
    let (mut raw, mut v1, mut stream) = (demo.socket(1).await, demo.socket_v1(1).await, demo.stream(1).await);
    assert_eq!(v1.json().await["type"], "hello");
    for (name, text) in texts() {
        assert!(text.len() <= 65_536, "{name}");
        let id = publisher.publish_to(1, &text).await;
        assert!(raw.text().await == text, "{name} on a raw WebSocket");
        let message = v1.message().await;
        assert!(message["data"] == text.as_str() && message["id"] == id.as_str(), "{name} over realtime.v1");
        let event = stream.next().await.unwrap();
        assert!(event.data == text.replace("\r\n", "\n").replace('\r', "\n"), "{name} on an event stream");
        assert_eq!((event.event.as_str(), event.id.as_str()), ("message", id.as_str()), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_texts_arrive_as_they_were_sent() {
    let demo = Demo::start().await;
    arrive_everywhere(&demo, &demo).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_texts_arrive_over_redis_as_they_were_sent() {
    let redis = Redis::start().await;
    let settings = [("REALTIME__REDIS__URL", &*redis.url()), ("REALTIME__REDIS__MODE", "streams")];
    let nodes = [Demo::start_with(&settings).await, Demo::start_with(&settings).await];
    arrive_everywhere(&nodes[0], &nodes[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_texts_are_replayed_as_they_were_sent() {
    let demo = Demo::start().await;
    let cursor = demo.publish_to(1, "before").await;
    for (_, text) in texts() {
        demo.publish_to(1, &text).await;
    }
    let token = realtime_tests::token(1);
    let mut stream = EventStream::open(&demo, &token, Some(&cursor)).await.unwrap();
    let mut v1 = Socket::open(&demo, &token, &["realtime.v1"], Some(&cursor)).await.unwrap();
    assert_eq!(v1.json().await["recovered"], true);
    for (name, text) in texts() {
        assert!(v1.message().await["data"] == text.as_str(), "{name} over realtime.v1");
        let data = stream.data().await;
        assert!(data == text.replace("\r\n", "\n").replace('\r', "\n"), "{name} on an event stream");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_texts_of_clients_come_back_as_they_were_sent() {
    let limits = ["REALTIME__LIMITS__MAXINBOUNDBYTES", "REALTIME__LIMITS__MAXMESSAGEBYTES"];
    let demo = Demo::start_with(&limits.map(|limit| (limit, "400000"))).await;
    let (mut raw, mut v1) = (demo.socket(1).await, demo.socket_v1(1).await);
    assert_eq!(v1.json().await["type"], "hello");
    for (name, text) in texts() {
        raw.send(&text).await;
        assert!(raw.text().await == text, "{name} on a raw WebSocket");
        v1.send(&json!({ "type": "message", "data": text }).to_string()).await;
        assert!(v1.message().await["data"] == text.as_str(), "{name} over realtime.v1");
        // As a chat line, which is published.
        let line = json!({ "type": "chat", "to": 1, "text": text }).to_string();
        v1.send(&json!({ "type": "message", "data": line }).to_string()).await;
        let published: Value = serde_json::from_str(v1.message().await["data"].as_str().unwrap()).unwrap();
        assert!(published["data"]["text"] == text.as_str(), "{name} as a chat line");
        assert_eq!(
            serde_json::from_str::<Value>(&raw.text().await).unwrap(),
            published,
            "{name} as a chat line"
        );
    }
}

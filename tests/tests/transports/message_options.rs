//! A message whose time is over is not sent, of those with a collapse key a slow reader gets the newest, and who enters a
//! topic gets what it retains: on both transports.

use std::{num::NonZeroU16, time::Duration};

use realtime_core::{CollapseKey, Envelope, Hub, Message, Scope, SessionHandle, Settings, SlowPolicy, Topic};
use realtime_tests::{Embedded, EventStream, RawClient, Socket, session, sign, token, until};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

/// Handshakes of clients of a user: raw WebSocket, `realtime.v1`, event stream.
fn handshakes(user: i64) -> [String; 3] {
    let raw = RawClient::websocket(user);
    let v1 = raw.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: realtime.v1\r\n\r\n");
    [raw, v1, RawClient::event_stream(user)]
}

fn start() -> Embedded {
    Embedded::start(Hub::builder().settings(Settings::default()).start().unwrap())
}

fn topic() -> Topic {
    Topic::new("prices").unwrap()
}

fn to_topic(text: impl Into<String>) -> Envelope {
    Envelope::to_topic(topic(), Scope::Both, Message::text(text.into()))
}

fn price(text: impl Into<String>) -> Envelope {
    to_topic(text).collapse(CollapseKey::new("XAU").unwrap())
}

async fn publish(server: &Embedded, envelope: Envelope) {
    server.hub.publish(envelope).await.unwrap();
}

/// A client that reads nothing yet, in the topic.
async fn connect(server: &Embedded, handshake: &str) -> (RawClient, SessionHandle) {
    let mut client = RawClient::connect(server).await;
    client.write(handshake).await;
    client.head().await;
    let session = session(&server.hub, 1).await;
    session.subscribe(topic());
    (client, session)
}

/// Publishes more than a socket and an outbox hold, so that the session falls behind.
async fn stall(server: &Embedded) {
    let before = server.hub.metrics().catch_ups;
    for _ in 0..100 {
        publish(server, to_topic("x".repeat(10_000))).await;
    }
    until("the session to fall behind", || server.hub.metrics().catch_ups > before).await;
}

#[actix_web::test]
async fn a_slow_reader_of_a_thousand_updates_gets_few_and_the_last() {
    let filler = "x".repeat(10_000);
    for handshake in handshakes(1) {
        let server = start();
        let (mut client, _) = connect(&server, &handshake).await;
        stall(&server).await;
        for n in 0..1000 {
            publish(&server, price(format!("update {n} {filler}"))).await;
        }
        let read = client.until("update 999 ").await;
        let (seen, metrics) = (read.matches("update ").count(), server.hub.metrics());
        assert!(seen < 300, "{seen} of 1000 updates were sent: {metrics:?}");
        assert_eq!(metrics.collapsed, 1000 - seen as u64, "{metrics:?}");
        assert_eq!(metrics.gaps + metrics.gaps_unreported, 0);
    }
}

#[actix_web::test]
async fn a_slow_reader_of_a_class_gets_its_newest_messages_and_all_of_the_others() {
    let filler = "x".repeat(10_000);
    for handshake in handshakes(1) {
        let server = start();
        let (mut client, _) = connect(&server, &handshake).await;
        stall(&server).await;
        let class = SlowPolicy::DropOldest {
            class: CollapseKey::new("cpu").unwrap(),
            keep: NonZeroU16::new(20).unwrap(),
        };
        for n in 0..1000 {
            let tick = to_topic(format!("tick {n} {filler}"));
            publish(&server, if n == 500 { to_topic("an order") } else { tick.when_slow(class.clone()) })
                .await;
        }
        let read = client.until("tick 999 ").await;
        let (seen, metrics) = (read.matches("tick ").count(), server.hub.metrics());
        assert!((20..300).contains(&seen), "{seen} of 999 ticks were sent: {metrics:?}");
        assert_eq!(read.matches("an order").count(), 1);
        assert_eq!(metrics.dropped_oldest, 999 - seen as u64, "{metrics:?}");
        assert_eq!(metrics.gaps + metrics.gaps_unreported, 0);
    }
}

#[actix_web::test]
async fn a_reader_that_keeps_up_gets_each_update() {
    let server = start();
    let mut raw = Socket::open(&server, &token(1), &[], None).await.unwrap();
    session(&server.hub, 1).await.subscribe(topic());
    let mut stream = EventStream::open(&server, &token(2), None).await.unwrap();
    session(&server.hub, 2).await.subscribe(topic());
    for n in 0..50 {
        publish(&server, price(n.to_string())).await;
        assert_eq!((raw.text().await, stream.data().await), (n.to_string(), n.to_string()));
    }
}

#[actix_web::test]
async fn a_message_that_waits_longer_than_its_time_is_never_sent() {
    const TTL: Duration = Duration::from_millis(300);
    for handshake in handshakes(1) {
        let server = start();
        let (mut client, _) = connect(&server, &handshake).await;
        stall(&server).await;
        let end = Instant::now() + TTL;
        publish(&server, to_topic("in no hurry").with_ttl(Duration::from_secs(60))).await;
        publish(&server, to_topic("too late").with_ttl(TTL)).await;
        publish(&server, to_topic("after it")).await;
        // It has to be over.
        sleep_until(end + Duration::from_millis(50)).await;
        let read = client.until("after it").await;
        assert!(read.contains("in no hurry") && !read.contains("too late"));
        assert_eq!(server.hub.metrics().expired, 1);
    }
}

#[actix_web::test]
async fn a_message_whose_time_is_over_is_not_replayed() {
    const TTL: Duration = Duration::from_millis(100);
    let server = start();
    let v1 = Socket::open(&server, &token(1), &["realtime.v1"], None).await.unwrap();
    let stream = EventStream::open(&server, &token(1), None).await.unwrap();
    let cursor = stream.last_id.clone();
    drop((v1, stream));
    let end = Instant::now() + TTL;
    let to_user = |text: &str| Envelope::to_users([1], Scope::Both, Message::text(text.to_owned())).unwrap();
    publish(&server, to_user("too late").with_ttl(TTL)).await;
    publish(&server, to_user("in time").with_ttl(Duration::from_secs(60))).await;
    sleep_until(end + Duration::from_millis(50)).await;
    let mut v1 = Socket::open(&server, &token(1), &["realtime.v1"], Some(&cursor)).await.unwrap();
    assert_eq!(v1.json().await["recovered"], json!(true), "nothing is missing that was worth something");
    assert_eq!(v1.message().await["data"], "in time");
    let mut stream = EventStream::open(&server, &token(1), Some(&cursor)).await.unwrap();
    assert_eq!(stream.data().await, "in time");
}

/// A token whose sessions are in the topic from the beginning.
fn token_of_topic(user: i64) -> String {
    sign(&json!({ "userId": user, "clientid": "web", "exp": 4_000_000_000_u64, "topics": ["prices"] }))
}

#[actix_web::test]
async fn who_enters_a_topic_gets_what_it_retains() {
    let server = start();
    publish(&server, price("old").retain()).await;
    publish(&server, to_topic("of no key").retain()).await;
    publish(&server, price("new").retain()).await;
    publish(&server, to_topic("not retained")).await;
    // The node has taken it when its own session gets something that was published later.
    let mut reader = Socket::open(&server, &token(9), &[], None).await.unwrap();
    let to_reader = Envelope::to_users([9], Scope::Both, Message::text("taken")).unwrap();
    publish(&server, to_reader).await;
    assert_eq!(reader.text().await, "taken");

    // In the topic from the beginning.
    let mut raw = Socket::open(&server, &token_of_topic(1), &[], None).await.unwrap();
    assert_eq!((raw.text().await, raw.text().await), ("of no key".into(), "new".into()));
    let mut v1 = Socket::open(&server, &token_of_topic(2), &["realtime.v1"], None).await.unwrap();
    assert_eq!(v1.json().await["type"], "hello");
    for data in ["of no key", "new"] {
        let frame = v1.message().await;
        assert_eq!((&frame["data"], &frame["id"]), (&json!(data), &Value::Null), "{frame}");
        assert_eq!(frame["topic"], "prices");
    }
    let mut stream = EventStream::open(&server, &token_of_topic(3), None).await.unwrap();
    assert_eq!((stream.data().await, stream.data().await), ("of no key".into(), "new".into()));
    // Later.
    let mut later = Socket::open(&server, &token(4), &[], None).await.unwrap();
    session(&server.hub, 4).await.subscribe(topic());
    assert_eq!((later.text().await, later.text().await), ("of no key".into(), "new".into()));
    // And what is new comes to all of them, once.
    publish(&server, price("newest").retain()).await;
    assert_eq!((raw.text().await, later.text().await), ("newest".into(), "newest".into()));
    assert_eq!((v1.message().await["data"].clone(), stream.data().await), (json!("newest"), "newest".into()));
}

#[actix_web::test]
async fn a_retained_message_is_cleared_by_an_empty_one_and_by_its_end() {
    const TTL: Duration = Duration::from_millis(100);
    let server = start();
    let end = Instant::now() + TTL;
    publish(&server, to_topic("short").with_ttl(TTL).retain()).await;
    publish(&server, price("cleared").retain()).await;
    let mut reader = Socket::open(&server, &token_of_topic(9), &[], None).await.unwrap();
    publish(&server, price("").retain()).await;
    while !reader.text().await.is_empty() {}
    sleep_until(end + Duration::from_millis(50)).await;
    let mut newcomer = Socket::open(&server, &token_of_topic(1), &[], None).await.unwrap();
    publish(&server, to_topic("new")).await;
    assert_eq!(newcomer.text().await, "new");
}

#[actix_web::test]
async fn a_client_that_has_missed_nothing_is_not_sent_again_what_is_retained() {
    let server = start();
    let mut stream = EventStream::open(&server, &token_of_topic(1), None).await.unwrap();
    publish(&server, price("known").retain()).await;
    assert_eq!(stream.data().await, "known");
    let cursor = stream.last_id.clone();
    drop(stream);
    publish(&server, to_topic("missed")).await;
    let mut back = EventStream::open(&server, &token_of_topic(1), Some(&cursor)).await.unwrap();
    assert_eq!(back.data().await, "missed");
    // One that has lost its place gets it.
    let mut lost = EventStream::open(&server, &token_of_topic(1), Some("1.1")).await.unwrap();
    let mut seen = Vec::new();
    while seen.last().map(String::as_str) != Some("missed") {
        seen.push(lost.next().await.unwrap().data);
    }
    assert!(seen.contains(&"known".to_owned()), "{seen:?}");
}

#[actix_web::test]
async fn a_message_to_more_than_one_named_topic_is_not_retained() {
    let server = start();
    let to = |topics: &[Topic]| {
        Envelope::to_topics(topics.to_vec(), Scope::Both, Message::text("x")).unwrap().retain()
    };
    for topics in [&[Topic::all()][..], &[Topic::user(&1.into())], &[topic(), Topic::new("b").unwrap()]] {
        let error = server.hub.publish(to(topics)).await.unwrap_err();
        assert!(error.to_string().starts_with("a retained message needs exactly one topic"), "{error}");
        assert_eq!(error.status(), 400);
    }
    let local = server.hub.send_local(price("x")).unwrap_err();
    assert_eq!(local.to_string(), "a local send has no collapse key");
}

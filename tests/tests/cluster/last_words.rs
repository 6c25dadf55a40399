//! A message published before a kick or a revocation is delivered before the session ends, on every node.

use std::time::Duration;

use realtime_core::{
    Envelope, Hub, Message, Scope, Settings,
    error::{KickError, PublishError},
    testkit::ready,
};
use realtime_redis::{Incarnation, RedisConfig, RedisControl, RedisStreamsBus};
use realtime_tests::{Demo, Embedded, EventStream, Redis, Socket, token};
use reqwest::Method;
use serde_json::json;

const ROUNDS: i64 = 12;

/// A node over Redis that receives messages, and whose receipts other nodes wait for.
async fn node(redis: &Redis, name: &str) -> Embedded {
    let config = RedisConfig::single(redis.url());
    let hub = Hub::builder()
        .node(name)
        .bus(RedisStreamsBus::new(config.clone()).unwrap())
        .control(RedisControl::make(config, Incarnation::new(name)).unwrap())
        .start()
        .unwrap();
    ready(&hub).await;
    Embedded::start(hub)
}

fn why(user: i64) -> Envelope {
    Envelope::to_users([user], Scope::Both, Message::text("why")).unwrap()
}

/// The user's clients of both transports of a server, which read to the end.
struct Clients {
    socket: Socket,
    stream: EventStream,
}

impl Clients {
    async fn open(server: &Embedded, user: i64) -> Self {
        let mut socket = Socket::open(server, &token(user), &["realtime.v1"], None).await.unwrap();
        assert_eq!(socket.json().await["type"], "hello");
        Self { socket, stream: EventStream::open(server, &token(user), None).await.unwrap() }
    }

    async fn get_the_message_and_then_the_end(mut self, reason: &str) {
        let last = self.socket.json().await;
        assert_eq!((&last["type"], &last["data"]), (&json!("message"), &json!("why")));
        assert_eq!(self.socket.json().await, json!({ "type": "bye", "reason": reason, "retry": null }));
        assert_eq!(self.stream.data().await, "why");
        assert!(self.stream.next().await.is_none());
    }
}

#[actix_web::test]
async fn what_was_published_before_a_kick_is_delivered_first() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    for user in 1..=ROUNDS {
        let (here, there) = (Clients::open(&a, user).await, Clients::open(&b, user).await);
        a.hub.publish(why(user)).await.unwrap();
        assert_eq!(b.hub.kick(&user.into()).await.unwrap().closed, 4);
        here.get_the_message_and_then_the_end("kicked").await;
        there.get_the_message_and_then_the_end("kicked").await;
    }
}

#[actix_web::test]
async fn the_last_message_of_a_kick_is_delivered_first() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    for user in 1..=ROUNDS {
        let (here, there) = (Clients::open(&a, user).await, Clients::open(&b, user).await);
        assert_eq!(a.hub.kick_with(&user.into(), Message::text("why")).await.unwrap().closed, 4);
        here.get_the_message_and_then_the_end("kicked").await;
        there.get_the_message_and_then_the_end("kicked").await;
    }
}

#[actix_web::test]
async fn what_was_published_before_a_revocation_is_delivered_first() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    for user in 1..=ROUNDS {
        let (here, there) = (Clients::open(&a, user).await, Clients::open(&b, user).await);
        a.hub.publish(why(user)).await.unwrap();
        let later = std::time::SystemTime::now() + Duration::from_secs(60);
        assert_eq!(b.hub.revoke_user(&user.into(), later).await.unwrap().closed, 4);
        here.get_the_message_and_then_the_end("revoked").await;
        there.get_the_message_and_then_the_end("revoked").await;
    }
}

#[actix_web::test]
async fn no_session_is_kicked_when_the_last_message_cannot_be_published() {
    let mut settings = Settings::default();
    settings.limits.max_message_bytes = 10;
    let hub = Hub::builder().settings(settings).start().unwrap();
    let server = Embedded::start(hub);
    let mut clients = Clients::open(&server, 1).await;
    let error = server.hub.kick_with(&1.into(), "much too long").await.unwrap_err();
    assert!(matches!(error, KickError::Publish(PublishError::TooLarge(_))), "{error}");
    server.hub.publish(why(1)).await.unwrap();
    assert_eq!(clients.stream.data().await, "why");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demos_kick_takes_a_last_message() {
    let demo = Demo::start().await;
    let kick = async |path: &str, body: serde_json::Value| {
        demo.api(Method::DELETE, path, Some(&body.to_string())).await
    };
    let login = token(5);
    let mut stream = EventStream::open(&demo, &login, None).await.unwrap();
    for (path, body, msg) in [
        ("/api/online/5", json!({ "event": "why" }), "missing field `message`"),
        (
            "/api/online/5",
            json!({ "message": "why", "event": "open" }),
            "event: event name \"open\" is reserved",
        ),
        ("/api/online/5", json!({ "message": "why", "more": 1 }), "unknown field `more`"),
        ("/api/online/5?sessionId=1", json!({ "message": "why" }), "message: goes to all sessions of a user"),
    ] {
        let (status, answer) = kick(path, body).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["msg"].as_str().unwrap().contains(msg), "{answer}");
    }
    let (status, answer) = kick("/api/online/5", json!({ "message": "why", "event": "last" })).await;
    assert_eq!((status, answer), (200, json!({ "closed": 1 })));
    while stream.next().await.is_some() {}
    assert_eq!(EventStream::open(&demo, &login, None).await.err(), Some(204));
}

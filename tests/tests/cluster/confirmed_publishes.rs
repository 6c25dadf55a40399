//! A publisher learns how many sessions of each node a message is for, how many have it, and which nodes do not answer.

use std::{
    net::TcpStream as StdTcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{App, web};
use realtime_core::{
    Envelope, Hub, Message, Scope,
    auth::{JwtAlgorithm, JwtAuthenticator},
    control::{Confirmation, Delivery, NodeDelivery},
    testkit::ready,
};
use realtime_redis::{RedisCluster, RedisConfig};
use realtime_sse::SseConfig;
use realtime_tests::{
    Demo, EventStream, Proxy, Redis, Running, SECRET, Server, ServerKind, Socket, start_server, token, until,
    within,
};
use realtime_websocket::WebSocketConfig;
use reqwest::Method;
use serde_json::json;

/// A node of a cluster, with both transports.
struct Node {
    hub: Hub,
    server: Running,
}

impl Server for Node {
    fn port(&self) -> u16 {
        self.server.port()
    }
}

async fn node(redis: &Redis, name: &str, kind: ServerKind) -> Node {
    let node = start(redis.url(), name, kind).await;
    redis.knows_all_nodes();
    node
}

async fn start(url: String, name: &str, kind: ServerKind) -> Node {
    let cluster = RedisCluster::streams(RedisConfig::single(url), name).unwrap();
    let hub = Hub::builder().cluster(cluster).start().unwrap();
    ready(&hub).await;
    let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap());
    let app = {
        let hub = hub.clone();
        move || {
            let (jwt, hub) = (jwt.clone(), hub.clone());
            App::new()
                .configure(realtime_websocket::routes(hub.clone(), jwt.clone(), WebSocketConfig::default()))
                .configure(realtime_sse::routes(hub, jwt, SseConfig::default()))
                .route("/", web::get().to(async || "up"))
        }
    };
    Node { server: start_server!(kind, app, workers(2)), hub }
}

fn to_user(user: i64, text: impl Into<bytestring::ByteString>) -> Envelope {
    Envelope::to_users([user], Scope::Both, Message::text(text)).unwrap()
}

/// Sessions, queued and written of each node.
fn numbers(confirmation: &Confirmation) -> Vec<(&str, usize, usize, usize)> {
    let nodes = confirmation.nodes.iter();
    nodes
        .map(|NodeDelivery { node, delivery }| {
            let Delivery { sessions, queued, written } = *delivery;
            (node.as_str(), sessions, queued, written)
        })
        .collect()
}

const LONG: Duration = Duration::from_secs(10);

#[actix_web::test]
async fn the_sessions_of_each_node_are_counted_on_both_lanes() {
    let redis = Redis::start().await;
    for kind in [ServerKind::Realtime, ServerKind::Actix] {
        let (a, b) = (node(&redis, "a", kind).await, node(&redis, "b", kind).await);
        let mut socket = Socket::open(&a, &token(1), &["realtime.v1"], None).await.unwrap();
        assert_eq!(socket.json().await["type"], "hello");
        let mut raw = Socket::open(&b, &token(1), &[], None).await.unwrap();
        let mut stream = EventStream::open(&b, &token(1), None).await.unwrap();
        let _other = Socket::open(&b, &token(2), &[], None).await.unwrap();
        until("all sessions", || a.hub.all_sessions().len() + b.hub.all_sessions().len() == 4).await;
        let asked = Instant::now();
        let confirmation = a.hub.publish_and_confirm(to_user(1, "hello"), LONG).await.unwrap();
        assert!(asked.elapsed() < LONG / 2, "it returns when all sockets have it: {:?}", asked.elapsed());
        assert_eq!(numbers(&confirmation), [("a", 1, 1, 1), ("b", 2, 2, 2)], "{kind:?}");
        assert_eq!(confirmation.missing, [""; 0]);
        assert_eq!(socket.message().await["id"], confirmation.position.to_string());
        assert_eq!((raw.text().await, stream.data().await), ("hello".to_owned(), "hello".to_owned()));
        // Several targets that name a session twice, a transport, and a session that is left out.
        let envelope = Envelope::to_users([1, 1, 2], Scope::Both, "twice".into()).unwrap();
        let confirmation = b.hub.publish_and_confirm(envelope, LONG).await.unwrap();
        assert_eq!(numbers(&confirmation), [("a", 1, 1, 1), ("b", 3, 3, 3)], "{kind:?}");
        let left_out = a.hub.sessions(&1.into())[0].id();
        let sockets = Scope::Only(realtime_websocket::TRANSPORT);
        let envelope = Envelope::broadcast(sockets, "sockets".into()).except(left_out);
        let confirmation = b.hub.publish_and_confirm(envelope, LONG).await.unwrap();
        assert_eq!(numbers(&confirmation), [("a", 0, 0, 0), ("b", 2, 2, 2)], "{kind:?}");
        for hub in [a.hub, b.hub] {
            hub.drain().await;
        }
    }
}

#[actix_web::test]
async fn a_reader_that_stalls_has_a_message_queued_and_then_not_even_that() {
    let redis = Redis::start().await;
    for kind in [ServerKind::Realtime, ServerKind::Actix] {
        let (a, b) = (node(&redis, "a", kind).await, node(&redis, "b", kind).await);
        let path = format!("/resource/sse?Authorization={}", token(1));
        let mut stalled = StdTcpStream::connect(("127.0.0.1", b.port())).unwrap();
        socket2::SockRef::from(&stalled).set_recv_buffer_size(4 << 10).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nclientid: web\r\n\r\n");
        std::io::Write::write_all(&mut stalled, request.as_bytes()).unwrap();
        until("the stream", || b.hub.all_sessions().len() == 1).await;
        let mut reader = EventStream::open(&b, &token(2), None).await.unwrap();
        let publish = async |bytes: usize| {
            let message = Message::text("x".repeat(bytes));
            let envelope = Envelope::to_users([1, 2], Scope::Both, message).unwrap();
            let confirmation = a.hub.publish_and_confirm(envelope, Duration::from_millis(400)).await.unwrap();
            assert_eq!(confirmation.missing, [""; 0]);
            let numbers = numbers(&confirmation).iter().map(|(_, s, q, w)| (*s, *q, *w)).collect::<Vec<_>>();
            assert_eq!(numbers[0], (0, 0, 0));
            numbers[1]
        };
        let mut seen = Vec::new();
        while seen.last() != Some(&(2, 1, 1)) {
            let bytes = if seen.is_empty() { 1 } else { 60 << 10 };
            let (numbers, _) = futures_util::future::join(publish(bytes), reader.data()).await;
            if seen.last() != Some(&numbers) {
                seen.push(numbers);
            }
        }
        assert_eq!(seen, [(2, 2, 2), (2, 2, 1), (2, 1, 1)], "{kind:?}");
        drop(stalled);
        for hub in [a.hub, b.hub] {
            hub.drain().await;
        }
    }
}

#[actix_web::test]
async fn a_new_node_counts_on_those_that_come_back_to_an_emptied_redis() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.port()).await;
    let b = start(format!("redis://127.0.0.1:{}/", proxy.port()), "b", ServerKind::Realtime).await;
    let mut stream = EventStream::open(&b, &token(1), None).await.unwrap();
    proxy.lead_to(1);
    redis.cli(&["client", "kill", "type", "normal"]);
    redis.cli(&["flushall"]);
    let late = start(redis.url(), "late", ServerKind::Realtime).await;
    let asked = late.hub.publish_and_confirm(to_user(1, "early"), Duration::from_millis(500)).await;
    let error = asked.expect_err("nobody knows who else is alive").to_string();
    assert!(error.starts_with("it was published at "), "{error}");
    assert!(error.ends_with("the command has failed: Redis does not know which nodes are alive"), "{error}");
    proxy.lead_to(redis.port());
    let confirmation = late.hub.publish_and_confirm(to_user(1, "x"), LONG).await.unwrap();
    assert_eq!(numbers(&confirmation), [("b", 1, 1, 1), ("late", 0, 0, 0)]);
    assert_eq!(confirmation.missing, [""; 0]);
    within("the message, behind a gap", async { while stream.next().await.unwrap().data != "x" {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hangs_is_named() {
    let redis = Redis::start().await;
    let url = redis.url();
    let start = async |name: &str| {
        Demo::start_with(&[("REALTIME__REDIS__URL", url.as_str()), ("REALTIME__SERVER__NODE", name)]).await
    };
    let (a, b) = (start("a").await, start("b").await);
    let (mut on_a, _on_b) = (a.socket(1).await, b.socket(1).await);
    a.until_sessions(1, 2).await;
    let publish = async |confirm: u64| {
        let body = json!({ "userIds": [1], "message": "m", "confirm": confirm }).to_string();
        let (status, answer) = a.try_publish(&body).await;
        (status, answer["nodes"].clone(), answer["missing"].clone(), answer["position"].is_string())
    };
    let at = |node: &str| json!({ "node": node, "sessions": 1, "queued": 1, "written": 1 });
    assert_eq!(publish(9_000).await, (200, json!([at("a"), at("b")]), json!([]), true));
    b.pause();
    let answer = publish(500).await;
    b.resume();
    assert_eq!(answer, (200, json!([at("a")]), json!(["b"]), true));
    for _ in 0..2 {
        assert_eq!(on_a.text().await, "m");
    }
    for confirm in [0, 30_001] {
        assert_eq!(publish(confirm).await.0, 400);
    }
    let (status, _) = a.api(Method::GET, "/api/online", None).await;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_pubsub_mode_a_confirmation_is_refused_and_nothing_is_published() {
    let redis = Redis::start().await;
    let url = redis.url();
    let demo = Demo::start_with(&[("REALTIME__REDIS__URL", &url), ("REALTIME__REDIS__MODE", "pubsub")]).await;
    let mut socket = demo.socket(1).await;
    let (status, answer) = demo.try_publish(r#"{"userIds":[1],"message":"m","confirm":1000}"#).await;
    assert_eq!(status, 422);
    let msg = "failed to publish to `user:1`: unsupported by this bus: a confirmation of the nodes: RuoYi's messages have no room for it";
    assert_eq!(answer["msg"], msg);
    let (status, _) = demo.try_publish(r#"{"userIds":[1],"message":"later"}"#).await;
    assert_eq!((status, socket.text().await.as_str()), (200, "later"));
}

//! Two demo processes on one Redis.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::time::{Duration, Instant};

use realtime_tests::{Demo, EventStream, Redis, Socket, token, within};
use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

async fn node(redis: &Redis) -> Demo {
    let demo = Demo::start_with(&[("REALTIME__REDIS__URL", &redis.url())]).await;
    ready(&demo).await;
    demo
}

async fn ready(demo: &Demo) {
    within("the node to be ready", async {
        while demo.get("/health/ready").await.0 != 200 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_on_two_nodes_gets_every_message_once_per_session() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis).await, node(&redis).await);
    let (mut on_a, mut on_b) = (a.socket(1).await, b.socket(1).await);
    let mut stream = b.stream(1).await;
    for n in 0..50 {
        let publisher = if n % 2 == 0 { &a } else { &b };
        publisher.publish_to(1, &n.to_string()).await;
    }
    for n in 0..50 {
        assert_eq!(on_a.text().await, n.to_string());
        assert_eq!(on_b.text().await, n.to_string());
        assert_eq!(stream.data().await, n.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_to_another_node_misses_nothing() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis).await, node(&redis).await);
    let token = token(1);
    let mut stream = EventStream::open(&a, &token, None).await.unwrap();
    a.publish_to(1, "seen").await;
    assert_eq!(stream.data().await, "seen");
    let cursor = stream.last_id.clone();
    drop((stream, a));
    b.publish_to(1, "missed").await;
    let mut back = Socket::open(&b, &token, &["realtime.v1"], Some(&cursor)).await.unwrap();
    assert_eq!(back.json().await["recovered"], true);
    assert_eq!(back.json().await["data"], "missed");
    // A node that has just started has read the window too.
    let c = node(&redis).await;
    let mut on_c = EventStream::open(&c, &token, Some(&cursor)).await.unwrap();
    assert_eq!(on_c.data().await, "missed");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_nodes_serve_and_say_so_and_go_on_by_themselves() {
    let mut redis = Redis::start().await;
    let (a, b) = (node(&redis).await, node(&redis).await);
    let mut socket = b.socket(1).await;
    let mut v1 = b.socket_v1(1).await;
    assert_eq!(v1.json().await["type"], "hello");
    redis.kill();
    let killed = Instant::now();
    let body = json!({ "userIds": [1], "message": "lost" }).to_string();
    let (status, answer) = a.try_publish(&body).await;
    assert_eq!(status, 503, "{answer}");
    assert!(
        answer["msg"].as_str().unwrap().starts_with("failed to publish to `user:1`: the bus is unavailable")
    );
    within("both nodes to be unready", async {
        while a.get("/health/ready").await.0 != 503 || b.get("/health/ready").await.0 != 503 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(killed.elapsed() < Duration::from_secs(2), "took {:?}", killed.elapsed());
    // Connections stay, and new ones are taken in.
    socket.send("ping").await;
    assert_eq!(socket.text().await, "pong");
    let late = b.socket(2).await;
    drop(late);

    redis.restart().await;
    let back = Instant::now();
    within("publishing to work", async {
        while a.try_publish(&json!({ "userIds": [1], "message": "back" }).to_string()).await.0 != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(socket.text().await, "back");
    assert!(back.elapsed() < Duration::from_secs(2), "took {:?}", back.elapsed());
    // The history is another one, so the client is told that something may be missing, before what follows.
    let gap = v1.json().await;
    assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("bus")));
    assert_eq!(v1.json().await["data"], "back");
    ready(&b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_and_serves_without_redis() {
    let port = realtime_tests::free_port();
    let demo = Demo::start_with(&[("REALTIME__REDIS__URL", &format!("redis://127.0.0.1:{port}/"))]).await;
    let mut socket = demo.socket(1).await;
    socket.send("ping").await;
    assert_eq!(socket.text().await, "pong");
    let (status, answer) = demo.get("/health/ready").await;
    assert_eq!(status, 503, "{answer}");
    // Nobody can say who is online in the cluster, and that is what it says.
    let (status, answer) = demo.api(Method::GET, "/api/online/1", None).await;
    assert_eq!(status, 503);
    assert!(answer["msg"].as_str().unwrap().starts_with("presence is unavailable"), "{answer}");
}

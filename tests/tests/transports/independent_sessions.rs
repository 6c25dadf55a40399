//! Sessions of one user do not affect each other, and each gets a notice when its node stops.

use std::time::{Duration, Instant};

use realtime_tests::{Demo, EventStream, Socket, token, within};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn two_tabs_with_one_token_both_keep_receiving() {
    let demo = Demo::start().await;
    let token = token(1);
    let mut sockets = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..2 {
        sockets.push(Socket::open(&demo, &token, &[], None).await.unwrap());
        streams.push(EventStream::open(&demo, &token, None).await.unwrap());
    }
    for n in 0..20 {
        demo.publish_to(1, &n.to_string()).await;
    }
    for n in 0..20 {
        for socket in &mut sockets {
            assert_eq!(socket.text().await, n.to_string());
        }
        for stream in &mut streams {
            assert_eq!(stream.data().await, n.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_old_tab_never_touches_the_new_one() {
    let demo = Demo::start().await;
    let token = token(1);
    for _ in 0..20 {
        let old = (
            Socket::open(&demo, &token, &[], None).await.unwrap(),
            EventStream::open(&demo, &token, None).await.unwrap(),
        );
        let mut socket = Socket::open(&demo, &token, &[], None).await.unwrap();
        let mut stream = EventStream::open(&demo, &token, None).await.unwrap();
        drop(old);
        demo.until_sessions(1, 2).await;
        demo.publish_to(1, "x").await;
        assert_eq!(socket.text().await, "x");
        assert_eq!(stream.data().await, "x");
        drop((socket, stream));
        demo.until_sessions(1, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_never_becomes_a_broadcast() {
    let demo = Demo::start().await;
    let (mut socket, mut stream) = (demo.socket(1).await, demo.stream(1).await);
    for body in
        [r#"{"userIds":[],"message":"bad"}"#, r#"{"topics":[],"message":"bad"}"#, r#"{"message":"bad"}"#]
    {
        assert_eq!(demo.try_publish(body).await.0, 400);
    }
    demo.publish_to(1, "good").await;
    assert_eq!(socket.text().await, "good");
    assert_eq!(stream.data().await, "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_closes_sessions_with_a_time_to_come_back() {
    let mut demo = Demo::start().await;
    let mut v1 = demo.socket_v1(1).await;
    assert_eq!(v1.json().await["type"], "hello");
    let mut raw = demo.socket(2).await;
    let mut stream = demo.stream(3).await;
    let asked = Instant::now();
    demo.terminate();
    let bye = v1.json().await;
    assert_eq!((&bye["type"], &bye["reason"]), (&json!("bye"), &json!("drain")));
    assert!(bye["retry"].as_u64().unwrap() <= 5000);
    assert_eq!(v1.close_code().await, 1012);
    assert_eq!(raw.close_code().await, 1012);
    assert!(stream.next().await.is_none());
    let status = within("the end of the process", demo.child().wait()).await.unwrap();
    assert!(status.success());
    assert!(asked.elapsed() < Duration::from_secs(5), "took {:?}", asked.elapsed());
}

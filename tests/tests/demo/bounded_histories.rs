//! A token may say where the history of its sessions begins (`historyAfter`).

use realtime_tests::{Demo, EventStream, Socket, sign};
use serde_json::{Value, json};

fn token(history_after: &Value) -> String {
    let claims = json!({
        "userId": 1,
        "clientid": "web",
        "exp": 4_000_000_000_u64,
        "topics": ["room"],
        "historyAfter": history_after,
    });
    sign(&claims)
}

/// The first two texts that a client with a cursor gets, on both transports.
async fn replayed(demo: &Demo, token: &str, cursor: &str) -> [[String; 2]; 2] {
    let mut socket = Socket::open(demo, token, &["realtime.v1"], Some(cursor)).await.unwrap();
    assert_eq!(socket.json().await["recovered"], true);
    let mut text = async || socket.message().await["data"].as_str().unwrap().to_owned();
    let by_socket = [text().await, text().await];
    let mut stream = EventStream::open(demo, token, Some(cursor)).await.unwrap();
    [by_socket, [stream.data().await, stream.data().await]]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_bounds_what_an_old_cursor_reads_of_every_topic() {
    let demo = Demo::start().await;
    let cursor = demo.publish_to(1, "the cursor").await;
    demo.publish(json!({ "topics": ["room"], "message": "before" })).await;
    let bound = demo.publish_to(1, "at the bound").await;
    demo.publish(json!({ "topics": ["room"], "message": "after" })).await;
    demo.publish_to(1, "mine").await;
    let all = replayed(&demo, &token(&Value::Null), &cursor).await;
    assert_eq!(all, [["before", "at the bound"]; 2]);
    let bounded = replayed(&demo, &token(&json!(bound)), &cursor).await;
    assert_eq!(bounded, [["after", "mine"]; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_that_is_no_cursor_makes_the_token_none() {
    let demo = Demo::start().await;
    for bound in [json!("x"), json!(""), json!("7"), json!(7), json!(["7.1"])] {
        let token = token(&bound);
        assert_eq!(Socket::open(&demo, &token, &[], None).await.unwrap_err(), 401, "{bound}");
        assert_eq!(EventStream::open(&demo, &token, None).await.unwrap_err(), 401, "{bound}");
    }
}

//! A client subscribes to topics on any node, and gets what any node publishes there, also after moving to another node.

use realtime_tests::{Demo, EventStream, Redis, Socket, token};
use serde_json::{Value, json};

async fn node(redis: &Redis) -> Demo {
    let url = redis.url();
    let variables = [("REALTIME__REDIS__URL", url.as_str()), ("REALTIME__TOPICS__PUBLIC", "room:*")];
    let demo = Demo::start_with(&variables).await;
    demo.until_ready().await;
    demo
}

fn to_room(text: &str) -> Value {
    json!({ "topics": ["room:1"], "message": text })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_moves_to_another_node_keeps_its_topics_and_misses_nothing() {
    let redis = Redis::start().await;
    let (one, two) = (node(&redis).await, node(&redis).await);
    let token = token(1);
    let mut socket = Socket::open(&one, &token, &["realtime.v1"], None).await.unwrap();
    socket.json().await;
    socket.send(r#"{"type":"subscribe","topics":["room:1","hall:1"]}"#).await;
    let answer = socket.message().await;
    assert_eq!(answer["topics"], json!(["room:1"]));
    assert_eq!(answer["refused"][0]["topic"], "hall:1");
    for (node, text) in [(&two, "by the other"), (&one, "by its own")] {
        let id = node.publish(to_room(text)).await;
        let message = json!(
            { "type": "message", "id": id, "event": "message", "topic": "room:1", "data": text }
        );
        assert_eq!(socket.message().await, message);
    }
    drop(socket);
    // The answer's cursor is good on every node.
    let cursor = answer["cursor"].as_str().unwrap();
    two.publish(to_room("missed")).await;
    let path = format!("/resource/websocket?Authorization={token}&topics=room:1&cursor={cursor}");
    let protocol = [("Sec-WebSocket-Protocol", "realtime.v1")];
    let mut socket = Socket::open_at(&two, &path, &protocol).await.unwrap();
    let hello = socket.json().await;
    assert_eq!((&hello["recovered"], &hello["subscribed"]), (&json!(true), &json!(["room:1"])));
    let mut stream = EventStream::open_query(&two, &token, "&topics=room:1", Some(cursor)).await.unwrap();
    one.publish(to_room("live")).await;
    for text in ["by the other", "by its own", "missed", "live"] {
        assert_eq!(socket.message().await["data"], text);
        assert_eq!(stream.data().await, text);
    }
}

//! A client that comes back with a cursor receives what it missed, or a gap in its place.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use realtime_tests::{Demo, EventStream, Server, Socket, token, within};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn v1_greets_numbers_and_recovers() {
    let demo = Demo::start().await;
    let token = token(1);
    let mut socket = Socket::open(&demo, &token, &["other", "realtime.v1"], None).await.unwrap();
    let hello = socket.json().await;
    assert_eq!(hello["type"], "hello");
    assert_eq!(hello["recovered"], json!(null));
    assert_eq!(hello["pingInterval"], 20_000);
    assert_eq!(hello["session"].as_str().unwrap().len(), 32);
    let first = demo.publish(json!({ "userIds": [1], "message": "a", "event": "order" })).await;
    assert_eq!(socket.json().await, json!({ "type": "message", "id": first, "event": "order", "data": "a" }));
    socket.send(r#"{"type":"ping"}"#).await;
    assert_eq!(socket.json().await, json!({ "type": "pong" }));
    socket.send(r#"{"type":"message","data":"ping"}"#).await;
    let echo = json!({ "type": "message", "id": null, "event": "message", "data": "pong" });
    assert_eq!(socket.json().await, echo);
    drop(socket);

    let missed = demo.publish_to(1, "b").await;
    demo.publish_to(2, "not mine").await;
    let mut back = Socket::open(&demo, &token, &["realtime.v1"], Some(&first)).await.unwrap();
    let hello = back.json().await;
    assert_eq!((&hello["recovered"], &hello["cursor"]), (&json!(true), &json!(first)));
    assert_eq!(back.message().await["id"], json!(missed));
    let live = demo.publish_to(1, "c").await;
    assert_eq!(back.message().await["id"], json!(live));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_cannot_be_honoured_is_a_gap() {
    let demo = Demo::start_with(&[("REALTIME__HISTORY__MAXMESSAGES", "3")]).await;
    let first = demo.publish_to(1, "0").await;
    for n in 1..=5 {
        demo.publish_to(1, &n.to_string()).await;
    }
    for (cursor, reason, first_message) in
        [(first.as_str(), "history", Some("3")), ("1.1", "bus", Some("3")), ("nonsense", "cursor", None)]
    {
        let mut socket = Socket::open(&demo, &token(1), &["realtime.v1"], Some(cursor)).await.unwrap();
        assert_eq!(socket.json().await["recovered"], json!(false), "{cursor}");
        let gap = socket.json().await;
        assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!(reason)), "{cursor}");
        assert_eq!(gap["since"].is_u64(), reason == "history", "of others the node knows nothing: {gap}");
        if let Some(data) = first_message {
            assert_eq!(socket.message().await["data"], data, "what is left follows the gap");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_event_id_replays_what_was_missed() {
    let demo = Demo::start().await;
    let token = token(1);
    let mut stream = EventStream::open(&demo, &token, None).await.unwrap();
    demo.publish_to(1, "a").await;
    assert_eq!(stream.data().await, "a");
    let cursor = stream.last_id.clone();
    drop(stream);
    for text in ["b", "c"] {
        demo.publish_to(1, text).await;
        demo.publish_to(2, "not mine").await;
    }
    let mut back = EventStream::open(&demo, &token, Some(&cursor)).await.unwrap();
    assert_eq!(back.last_id, cursor, "the first block has the cursor");
    assert_eq!(back.data().await, "b");
    assert_eq!(back.data().await, "c");
    demo.publish_to(1, "d").await;
    assert_eq!(back.data().await, "d");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_cursor_serves_both_transports() {
    let demo = Demo::start().await;
    let token = token(1);
    let cursor = demo.publish_to(1, "a").await;
    demo.publish_to(1, "b").await;
    let mut stream = EventStream::open(&demo, &token, Some(&cursor)).await.unwrap();
    assert_eq!(stream.data().await, "b");
    let mut socket = Socket::open(&demo, &token, &["realtime.v1"], Some(&cursor)).await.unwrap();
    assert_eq!(socket.json().await["recovered"], json!(true));
    assert_eq!(socket.message().await["data"], "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_left_the_window_is_announced_by_an_event_of_its_own() {
    let began = SystemTime::now();
    let demo = Demo::start_with(&[("REALTIME__HISTORY__MAXMESSAGES", "2")]).await;
    let first = demo.publish_to(1, "0").await;
    for n in 1..=4 {
        demo.publish_to(1, &n.to_string()).await;
    }
    let mut stream = EventStream::open(&demo, &token(1), Some(&first)).await.unwrap();
    let gap = stream.next().await.unwrap();
    let notice: serde_json::Value = serde_json::from_str(&gap.data).unwrap();
    assert_eq!((gap.event.as_str(), &notice["reason"]), ("gap", &serde_json::json!("history")));
    assert!(notice["spread"].as_u64().is_some_and(|spread| spread <= 5000), "{notice}");
    let since = notice["since"].as_u64().map(|since| UNIX_EPOCH + Duration::from_millis(since));
    let slack = Duration::from_millis(1);
    assert!(since.is_some_and(|since| began <= since + slack && since <= SystemTime::now()), "{notice}");
    assert_eq!(stream.data().await, "3");
    assert_eq!(stream.data().await, "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_killed_node_come_back_to_a_gap() {
    let demo = Demo::start().await;
    let token = token(1);
    let mut stream = EventStream::open(&demo, &token, None).await.unwrap();
    demo.publish_to(1, "a").await;
    assert_eq!(stream.data().await, "a");
    let cursor = stream.last_id.clone();
    let port = demo.port().to_string();
    drop(demo);
    within("the broken stream", stream.next()).await;
    let demo = Demo::start_with(&[("REALTIME__SERVER__PORT", &port)]).await;
    demo.publish_to(1, "b").await;
    let mut back = EventStream::open(&demo, &token, Some(&cursor)).await.unwrap();
    let gap = back.next().await.unwrap();
    assert_eq!(gap.event, "gap");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&gap.data).unwrap()["reason"], json!("bus"));
    assert_eq!(back.data().await, "b");
}

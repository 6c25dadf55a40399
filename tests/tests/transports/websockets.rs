//! A WebSocket carries texts, raw or numbered, in both directions, and every end has a close code.

use futures_util::{SinkExt, StreamExt};
use realtime_tests::{CloseFrame, Demo, Socket, WsMessage, sign, within};
use serde_json::json;
use tokio::io::AsyncWriteExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_text_frame_is_the_message_and_nothing_else() {
    let demo = Demo::start().await;
    let mut socket = demo.socket(1).await;
    demo.publish(json!({ "userIds": [1], "message": "hello", "transport": "websocket" })).await;
    demo.publish(json!({ "userIds": [2], "message": "not mine" })).await;
    demo.publish(json!({ "broadcast": true, "message": "for all" })).await;
    assert_eq!(socket.text().await, "hello");
    assert_eq!(socket.text().await, "for all");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seeds_heartbeats_are_answered_at_once() {
    let demo = Demo::start().await;
    let mut socket = demo.socket(1).await;
    for (sent, answered) in
        [(r#"{"type":"ping"}"#, r#"{"type":"ping"}"#), ("ping", "pong"), ("PING", "pong"), ("你好", "你好")]
    {
        socket.send(sent).await;
        assert_eq!(socket.text().await, answered);
    }
    // The echo goes to the sender's own connection alone.
    let mut other = demo.socket(1).await;
    socket.send("mine").await;
    assert_eq!(socket.text().await, "mine");
    demo.publish_to(1, "both").await;
    assert_eq!(other.text().await, "both");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_a_client_end_with_their_code_after_what_came_before() {
    let demo = Demo::start_with(&[("REALTIME__LIMITS__MAXINBOUNDBYTES", "1000")]).await;
    let masked = |first: u8, payload: &[u8]| {
        let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
        frame.extend(payload);
        frame
    };
    let huge = [&[0x82, 0xFF][..], &(1_u64 << 40).to_be_bytes(), &[0; 4], &[0; 1000]].concat();
    for (name, frame, code) in [
        ("a header that announces 2^40 bytes", huge, 1009),
        ("reserved bits", masked(0xF1, b"x"), 1002),
        ("an unmasked frame", vec![0x81, 1, b'x'], 1002),
        ("text that is not UTF-8", masked(0x81, b"\xFF\xFE"), 1007),
        ("binary data", masked(0x82, b"x"), 1003),
        ("a close code that nobody may send", masked(0x88, &[0x03, 0xED]), 1002),
    ] {
        let mut socket = demo.socket(1).await;
        // A good text and the bad frame leave in one write.
        let bytes = [masked(0x81, b"good"), frame].concat();
        socket.0.get_mut().write_all(&bytes).await.unwrap();
        assert_eq!(socket.text().await, "good", "{name}");
        assert_eq!(socket.close_code().await, code, "{name}");
    }
    let mut v1 = demo.socket_v1(1).await;
    v1.json().await;
    v1.send("not JSON").await;
    assert_eq!(v1.json().await, json!({ "type": "bye", "reason": "invalid-payload", "retry": null }));
    assert_eq!(v1.close_code().await, 1007);
    demo.until_sessions(1, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_is_answered_with_its_own_code() {
    let demo = Demo::start().await;
    let mut socket = demo.socket(1).await;
    let frame = CloseFrame { code: 4000.into(), reason: "bye".into() };
    socket.0.send(WsMessage::Close(Some(frame))).await.unwrap();
    assert_eq!(socket.close_code().await, 4000);
    demo.until_sessions(1, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fragments_and_pings_inside_them_are_put_together() {
    let demo = Demo::start().await;
    let mut socket = demo.socket(1).await;
    let frame =
        |first: u8, payload: &[u8]| [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat();
    let bytes = [frame(0x01, "grü".as_bytes()), frame(0x89, b"p"), frame(0x80, b"n")].concat();
    socket.0.get_mut().write_all(&bytes).await.unwrap();
    loop {
        match within("a pong", socket.0.next()).await {
            Some(Ok(WsMessage::Pong(payload))) => break assert_eq!(&payload[..], b"p"),
            // A heartbeat of the server.
            Some(Ok(WsMessage::Ping(_))) => {}
            other => panic!("no pong but {other:?}"),
        }
    }
    assert_eq!(socket.text().await, "grün");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_writes_without_end_is_stopped() {
    let demo = Demo::start_with(&[("REALTIME__LIMITS__MAXINBOUNDRATE", "2")]).await;
    let mut socket = demo.socket(1).await;
    for _ in 0..21 {
        socket.send("x").await;
    }
    assert_eq!(socket.close_code().await, 4429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_answers_no_ping_is_dropped_and_one_that_does_stays() {
    let settings = [("REALTIME__HEARTBEAT__INTERVAL", "200ms"), ("REALTIME__HEARTBEAT__TIMEOUT", "200ms")];
    let demo = Demo::start_with(&settings).await;
    let mut v1 = demo.socket_v1(1).await;
    assert_eq!(v1.json().await["type"], "hello");
    let mut answering = demo.socket(2).await;
    let alive = tokio::spawn(async move { answering.close_code().await });
    assert_eq!(v1.json().await["type"], "ping");
    // tokio-tungstenite answers pings of the protocol on its own, but not those of realtime.v1.
    assert_eq!(v1.close_code().await, 4408);
    assert!(!alive.is_finished(), "pongs keep a connection");
    assert_eq!(demo.sessions(2).await, 1);
    alive.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_token() {
    let demo = Demo::start().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // So late that a tick comes before it on a busy machine, too.
    let token = sign(&json!({ "sub": "9", "clientid": "web", "exp": now + 4 }));
    let mut socket = Socket::open(&demo, &token, &["realtime.v1"], None).await.unwrap();
    assert_eq!(socket.json().await["type"], "hello");
    assert_eq!(socket.json().await["type"], "expiring");
    assert_eq!(socket.json().await, json!({ "type": "bye", "reason": "token-expired", "retry": null }));
    assert_eq!(socket.close_code().await, 4401);
    assert_eq!(Socket::open(&demo, &token, &[], None).await.unwrap_err(), 401);
}

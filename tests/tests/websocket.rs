//! WebSocket: handshakes, both protocols, limits and ends, over real sockets.
#![allow(clippy::unwrap_used, reason = "tests may")]

use futures_util::{SinkExt, StreamExt};
use realtime_tests::{CloseFrame, Demo, SECRET, Server, Socket, WsMessage, sign, token, within};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

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
async fn a_token_comes_by_query_or_header_bare_or_as_bearer() {
    let demo = Demo::start().await;
    let token = token(7);
    let path = "/resource/websocket";
    for query in [format!("{path}?Authorization={token}"), format!("{path}?Authorization=Bearer%20{token}")] {
        assert!(Socket::open_at(&demo, &query, &[]).await.is_ok(), "{query}");
    }
    for header in [token.clone(), format!("Bearer {token}")] {
        assert!(Socket::open_at(&demo, path, &[("Authorization", &header)]).await.is_ok(), "{header}");
    }
    let both = format!("{path}?Authorization=wrong");
    let refused = Socket::open_at(&demo, &both, &[("Authorization", &token)]).await;
    assert_eq!(refused.unwrap_err(), 401, "a parameter beats the header");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_login_or_origin_is_refused_before_the_upgrade() {
    let demo = Demo::start().await;
    let good = token(7);
    let expired = sign(&json!({ "userId": 7, "exp": 1 }));
    let path = |token: &str, more: &str| format!("/resource/websocket?Authorization={token}{more}");
    let own = format!("http://127.0.0.1:{}", demo.port());
    let local = format!("http://localhost:{}", demo.port());
    for (path, headers, status) in [
        ("/resource/websocket".to_owned(), vec![], 401),
        (path("nonsense", ""), vec![], 401),
        (path(&expired, ""), vec![], 401),
        (path(&good, "&clientid=app"), vec![], 401),
        (path(&good, ""), vec![("clientid", "app")], 401),
        (path(&good, ""), vec![("Origin", "http://evil.example")], 403),
        (path(&good, ""), vec![("Origin", "null")], 403),
        (path("nonsense", ""), vec![("Origin", "http://evil.example")], 403),
    ] {
        assert_eq!(Socket::open_at(&demo, &path, &headers).await.unwrap_err(), status, "{path} {headers:?}");
    }
    for headers in
        [vec![], vec![("Origin", own.as_str())], vec![("Origin", local.as_str())], vec![("clientid", "web")]]
    {
        assert!(Socket::open_at(&demo, &path(&good, ""), &headers).await.is_ok(), "{headers:?}");
    }
    // Refused and ended connections leave nothing behind.
    demo.until_sessions(7, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_id_can_be_made_mandatory() {
    let demo = Demo::start_with(&[("REALTIME__AUTH__REQUIRECLIENTID", "true")]).await;
    let token = token(7);
    let path = format!("/resource/websocket?Authorization={token}");
    assert_eq!(Socket::open_at(&demo, &path, &[]).await.unwrap_err(), 401);
    assert!(Socket::open_at(&demo, &format!("{path}&clientid=web"), &[]).await.is_ok());
}

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
    assert_eq!(back.json().await["id"], json!(missed));
    let live = demo.publish_to(1, "c").await;
    assert_eq!(back.json().await["id"], json!(live));
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
        if let Some(data) = first_message {
            assert_eq!(socket.json().await["data"], data, "what is left follows the gap");
        }
    }
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
            // The server's own, which opens the direct lane.
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
    // tokio-tungstenite answers pings of the protocol by itself, but not those of realtime.v1.
    assert_eq!(v1.close_code().await, 4408);
    assert!(!alive.is_finished(), "pongs keep a connection");
    assert_eq!(demo.sessions(2).await, 1);
    alive.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_token() {
    let demo = Demo::start().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let token = sign(&json!({ "sub": "9", "clientid": "web", "exp": now + 2 }));
    let mut socket = Socket::open(&demo, &token, &["realtime.v1"], None).await.unwrap();
    assert_eq!(socket.json().await["type"], "hello");
    assert_eq!(socket.json().await, json!({ "type": "bye", "reason": "token-expired", "retry": null }));
    assert_eq!(socket.close_code().await, 4401);
    assert_eq!(Socket::open(&demo, &token, &[], None).await.unwrap_err(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_websocket_handshake_is_told_so() {
    let demo = Demo::start().await;
    let token = token(1);
    let request = |http: &str, upgrade: &str, version: &str| {
        format!(
            "GET /resource/websocket?Authorization={token} HTTP/{http}\r\nHost: a\r\nConnection: Upgrade\r\n\
             Upgrade: {upgrade}\r\nSec-WebSocket-Version: {version}\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    for (http, upgrade, version, status, header) in [
        ("1.1", "websocket", "13", "101", "upgrade: websocket"),
        ("1.1", "xwebsocketx", "13", "426", "upgrade: websocket"),
        ("1.0", "websocket", "13", "400", ""),
        ("1.1", "websocket", "8", "400", "sec-websocket-version: 13"),
    ] {
        let mut tcp = TcpStream::connect(("127.0.0.1", demo.port())).await.unwrap();
        tcp.write_all(request(http, upgrade, version).as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within("an answer", tcp.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert_eq!(head.split(' ').nth(1), Some(status), "HTTP/{http} {upgrade} {version}");
        assert!(head.contains(header), "{head}");
    }
    assert_eq!(demo.get("/resource/websocket").await.0, 426);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_refuse_the_newcomer() {
    let settings =
        [("REALTIME__LIMITS__MAXCONNECTIONS", "3"), ("REALTIME__LIMITS__MAXCONNECTIONSPERUSER", "2")];
    let demo = Demo::start_with(&settings).await;
    let _first = (demo.socket(1).await, demo.stream(1).await);
    assert_eq!(Socket::open(&demo, &token(1), &[], None).await.unwrap_err(), 429);
    let _second = demo.socket(2).await;
    assert_eq!(Socket::open(&demo, &token(3), &[], None).await.unwrap_err(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_takes_nothing_ends_and_gives_its_memory_back() {
    let demo = Demo::start_with(&[("REALTIME__OUTBOX__MAXSTALL", "1s")]).await;
    let stalled = demo.socket(1).await;
    let mut healthy = demo.socket(2).await;
    let reader = tokio::spawn(async move {
        for n in 0..400 {
            assert!(healthy.text().await.starts_with(&format!("{n} ")));
        }
    });
    for n in 0..400 {
        demo.publish(json!({ "broadcast": true, "message": format!("{n} {}", "x".repeat(60_000)) })).await;
    }
    within("the healthy reader", reader).await.unwrap();
    demo.until_sessions(1, 0).await;
    // The kernel ends the connection: the peer that wakes up finds it broken, not half alive.
    within("the end of the connection", async {
        let mut stalled = stalled;
        while !matches!(stalled.0.next().await, None | Some(Err(_)) | Some(Ok(WsMessage::Close(_)))) {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_in_no_log() {
    // The demo logs at debug; its stderr is collected by the test.
    let token = token(1);
    let mut child = tokio::process::Command::new(Demo::binary())
        .env("REALTIME__SERVER__PORT", "0")
        .env("REALTIME__AUTH__JWT__SECRET", SECRET)
        .env("REALTIME__LOG__LEVEL", "trace,actix_http=debug,mio=info,tokio=info")
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stderr = tokio::io::BufReader::new(child.stderr.take().unwrap());
    let mut log = String::new();
    let port = within("the start", async {
        loop {
            let mut line = String::new();
            tokio::io::AsyncBufReadExt::read_line(&mut stderr, &mut line).await.unwrap();
            log.push_str(&line);
            if let Some(rest) = line.strip_prefix("realtime-demo is ready at http://127.0.0.1:") {
                return rest.trim().trim_end_matches('/').to_owned();
            }
        }
    })
    .await;
    for path in ["websocket", "sse/close", "sse"] {
        let url = format!("http://127.0.0.1:{port}/resource/{path}?Authorization={token}");
        reqwest::get(url).await.unwrap();
    }
    // The log is written by a thread of its own: what is still in its queue would be lost. This proves that the log is
    // detailed enough to prove something.
    within("the last request in the log", async {
        while !log.contains("session opened") {
            tokio::io::AsyncBufReadExt::read_line(&mut stderr, &mut log).await.unwrap();
        }
    })
    .await;
    child.start_kill().unwrap();
    within("the log's end", stderr.read_to_string(&mut log)).await.unwrap();
    assert!(!log.contains(&token), "{log}");
}

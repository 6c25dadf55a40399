//! A handshake accepts the token wherever clients put it, enforces the limits, and logs no token.

use realtime_tests::{Demo, SECRET, Server, Socket, sign, token, within};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

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
async fn a_malformed_websocket_handshake_is_refused_with_its_fault() {
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
    // The log is written by a thread of its own: what is still in its queue would be lost. This line shows that the log
    // is detailed enough for the checks below.
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

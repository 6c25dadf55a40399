//! The log has an audit of what the API and the logins did, without secrets and texts, in either format.

use std::{process::Stdio, time::Instant};

use realtime_tests::{API_KEY, Demo, RawClient, within};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
    sync::mpsc::UnboundedReceiver,
};

/// Waits for a line of the log with all of these words.
async fn line(log: &mut UnboundedReceiver<String>, words: &[&str]) -> String {
    within(&format!("a line with {words:?}"), async {
        loop {
            let line = log.recv().await.unwrap();
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
        }
    })
    .await
}

async fn post(demo: &Demo, path: &str, headers: &[(&str, &str)], body: Value) -> u16 {
    let mut request = Client::new().post(demo.url(path)).json(&body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn kicks_logins_and_refusals_are_logged_without_secrets_and_texts() {
    let (demo, mut log) = Demo::start_listened(&[], &[], &[]).await;
    let _socket = demo.socket(7).await;
    let (status, _) = demo.api(Method::DELETE, "/api/online/7", None).await;
    assert_eq!(status, 200);
    let kick = line(&mut log, &["audit", "/api/online/7"]).await;
    for word in ["INFO", "127.0.0.1", "DELETE", "status=200", "closed=1", "unconfirmed=0"] {
        assert!(kick.contains(word), "no {word} in {kick}");
    }

    let login =
        |name: &str, password: &str| json!({ "username": name, "password": password, "clientId": "web" });
    assert_eq!(post(&demo, "/auth/login", &[], login("alice", "demo")).await, 200);
    let done = line(&mut log, &["audit", "/auth/login", "status=200"]).await;
    assert!(done.contains("user=1"), "{done}");
    assert_eq!(post(&demo, "/auth/login", &[], login("alice", "hunter2")).await, 401);
    let refused = line(&mut log, &["audit", "/auth/login", "status=401", "refused"]).await;
    assert!(refused.contains("user=1") && !refused.contains("hunter2"), "{refused}");
    // A name that nobody has may be a password.
    assert_eq!(post(&demo, "/auth/login", &[], login("hunter2", "x")).await, 401);
    let refused = line(&mut log, &["audit", "/auth/login", "status=401"]).await;
    assert!(!refused.contains("hunter2"), "{refused}");

    let message = json!({ "userIds": [7], "message": "a text of somebody", "ttl": 0 });
    assert_eq!(post(&demo, "/api/publish", &[("X-API-Key", "wrong-key")], message.clone()).await, 401);
    let refused = line(&mut log, &["audit", "/api/publish", "status=401"]).await;
    assert!(!refused.contains("wrong-key") && !refused.contains("a text"), "{refused}");
    assert_eq!(post(&demo, "/api/publish", &[("X-API-Key", API_KEY)], message).await, 400);
    let refused = line(&mut log, &["audit", "/api/publish", "status=400"]).await;
    assert!(!refused.contains("a text") && !refused.contains(API_KEY), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_refusals_are_counted_instead_of_logged() {
    let (demo, mut log) = Demo::start_listened(&[], &[], &[]).await;
    for _ in 0..40 {
        post(&demo, "/api/publish", &[("X-API-Key", "wrong-key")], json!({})).await;
    }
    demo.terminate();
    let mut lines = 0;
    while let Some(line) = log.recv().await {
        lines += usize::from(line.contains("audit"));
    }
    // Twenty of ten seconds, and the forty may lie in more of them on a slow machine.
    assert!((20..40).contains(&lines), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_hides_what_another_address_does() {
    let variables = [("REALTIME__SERVER__TRUSTEDPROXIES", "127.0.0.1")];
    let (demo, mut log) = Demo::start_listened(&[], &variables, &[]).await;
    for _ in 0..300 {
        let status = post(&demo, "/api/publish", &[("X-Forwarded-For", "192.0.2.1")], json!({})).await;
        assert_eq!(status, 401);
    }
    let guess = [("X-Forwarded-For", "192.0.2.2"), ("X-API-Key", "guess")];
    post(&demo, "/api/publish", &guess, json!({})).await;
    let refused = line(&mut log, &["audit", "192.0.2.2", "status=401"]).await;
    assert!(refused.contains("unlogged=2"), "the others are counted: {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_escaped_path_is_no_way_around() {
    let (demo, mut log) = Demo::start_listened(&[], &[], &[]).await;
    let (status, _) = demo.api(Method::DELETE, "/%61pi/online/7", None).await;
    assert_eq!(status, 200);
    line(&mut log, &["audit", "/api/online/7", "DELETE", "status=200"]).await;
    let login = json!({ "username": "alice", "password": "wrong", "clientId": "web" });
    assert_eq!(post(&demo, "/auth/log%69n", &[], login).await, 401);
    line(&mut log, &["audit", "/auth/login", "status=401"]).await;
    assert_eq!(post(&demo, "/api/%0Aforged", &[], json!({})).await, 404);
    line(&mut log, &["audit", r"/api/\nforged", "status=404"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_write_few_and_short_lines() {
    let variables =
        [("REALTIME__SERVER__ALLOWEDHOSTS", "127.0.0.1"), ("REALTIME__AUTH__COOKIE", "realtime-login")];
    let (demo, mut log) = Demo::start_listened(&[], &variables, &[]).await;
    let long = "x".repeat(100_000);
    let (origin, method) = (format!("http://{long}"), Method::from_bytes(long.as_bytes()).unwrap());
    let upgrade = [
        ("Origin", origin.as_str()),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let stream = [("Origin", origin.as_str()), ("Cookie", "any=login")];
    const EACH: usize = 60;
    let client = Client::new();
    let begun = Instant::now();
    for _ in 0..EACH {
        for (method, path, headers, expected) in [
            (&Method::GET, "/resource/websocket", &upgrade[..], 403),
            (&Method::GET, "/resource/sse", &stream, 403),
            (&Method::GET, "/", &[("Host", long.as_str())], 421),
            (&method, "/api/publish", &[], 405),
        ] {
            let mut request = client.request(method.clone(), demo.url(path));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            assert_eq!(request.send().await.unwrap().status(), expected, "{path}");
        }
    }
    let tens = usize::try_from(begun.elapsed().as_secs() / 10 + 1).unwrap();
    demo.terminate();
    let mut lines = Vec::new();
    while let Some(line) = log.recv().await {
        lines.push(line);
    }
    for text in ["websocket.allowedOrigins", "sse.allowedOrigins", "server.allowedHosts", "audit"] {
        let of_kind = lines.iter().filter(|line| line.contains(text)).count();
        // In the audit an address has twenty, and one more each 3 s.
        assert!((1..=24 * tens).contains(&of_kind), "{of_kind} lines about {text}");
    }
    let longest = lines.iter().map(String::len).max();
    assert!(longest < Some(2048), "{longest:?} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_and_not_logged() {
    let (demo, mut log) = Demo::start_listened(&[], &[], &[]).await;
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}", "x".repeat(200_000));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
        ("GET / HTTP/9.9\r\n\r\n", "HTTP/1.1 400 "),
        (&long, "HTTP/1.1 431 "),
    ] {
        for _ in 0..10 {
            let mut client = RawClient::connect(&demo).await;
            // The server may have closed before all of it is written.
            client.tcp.write_all(request.as_bytes()).await.ok();
            client.end().await;
            // A reset by what is still being written takes the answer with it.
            let answer = String::from_utf8_lossy(&client.bytes);
            assert!(answer.starts_with(status) || request.len() > 1000 && answer.is_empty(), "{answer}");
        }
    }
    demo.terminate();
    while let Some(line) = log.recv().await {
        assert!(!line.contains("ERROR"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_may_be_json_and_its_level_that_of_rust_log() {
    let mut command = Command::new(Demo::binary());
    command
        .envs([
            ("REALTIME__SERVER__PORT", "0"),
            ("REALTIME__LOG__FORMAT", "json"),
            ("REALTIME__LOG__LEVEL", "error"),
            ("RUST_LOG", "warn,audit=debug"),
            ("REALTIME__API__KEY", API_KEY),
        ])
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut next = async || {
        let line = within("a line", lines.next_line()).await.unwrap().unwrap();
        serde_json::from_str::<Value>(&line).unwrap_or_else(|_| panic!("no JSON: {line}"))
    };
    let mut seen = Vec::new();
    let url = loop {
        let line = next().await;
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["target"].is_string());
        let message = line["fields"]["message"].as_str().unwrap_or_default().to_owned();
        if let Some(url) = message.strip_prefix("realtime-demo is ready at ") {
            break url.to_owned();
        }
        seen.push(message);
    };
    let said = "log: warn,audit=debug (environment variable RUST_LOG, which log.level gives way to)";
    assert!(seen.iter().any(|line| line == said), "{seen:#?}");
    let asked = Client::new().get(format!("{url}api/online")).header("X-API-Key", API_KEY).send();
    assert_eq!(asked.await.unwrap().status(), 200);
    let line = next().await;
    assert_eq!((line["target"].as_str(), line["level"].as_str()), (Some("audit"), Some("DEBUG")));
    assert_eq!((&line["fields"]["path"], &line["fields"]["status"]), (&json!("/api/online"), &json!(200)));
}

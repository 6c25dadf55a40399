//! A running demo takes over a changed configuration at SIGHUP, and keeps its connections.

use std::{fs, path::Path};

use realtime_tests::{Demo, SECRET, Socket, token, within};
use reqwest::{Client, Method};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::sync::mpsc::UnboundedReceiver;

/// Hash of the password `demo`.
const HASH: &str =
    "$argon2id$v=19$m=8192,t=2,p=1$KOepo+H+GDh0flcOAW7y4A$89E53bDvRgg+u9ttc8nEq3X6IMzs8w+A9rY6f1HA54Q";

/// What the file of a test says.
struct File<'a> {
    key: &'a str,
    user: &'a str,
    origin: &'a str,
    host: &'a str,
    level: &'a str,
    rest: &'a str,
}

const BEFORE: File<'static> = File {
    key: "the-key-before-the-reload",
    user: "eve",
    origin: "https://before.example",
    host: "127.0.0.1",
    level: "info",
    rest: "",
};

const AFTER: File<'static> = File {
    key: "the-key-after-the-reload",
    user: "fay",
    origin: "https://after.example",
    host: "127.0.0.1, after.example",
    level: "info,realtime_core=debug",
    rest: "",
};

impl File<'_> {
    fn write(&self, path: &Path) {
        let Self { key, user, origin, host, level, rest } = self;
        let text = format!(
            "server: {{allowedHosts: '{host}'}}
websocket: {{enabled: true, allowedOrigins: '{origin}'}}
sse: {{enabled: true, allowedOrigins: '{origin}'}}
api: {{key: {key}}}
log: {{level: '{level}'}}
auth:
  users:
    - {{id: 7, username: {user}, name: {user}, role: buyer, password: '{HASH}'}}
{rest}"
        );
        fs::write(path, text).unwrap();
    }
}

async fn start(file: &NamedTempFile) -> (Demo, UnboundedReceiver<String>) {
    BEFORE.write(file.path());
    let file = file.path().to_str().unwrap();
    Demo::start_listened(&["--config", file], &[], &["REALTIME__API__KEY"]).await
}

/// Waits for a line of the log with this text, and returns all up to it.
async fn logs(log: &mut UnboundedReceiver<String>, text: &str) -> String {
    let mut lines = String::new();
    within(text, async {
        while !lines.contains(text) {
            lines.push_str(&log.recv().await.unwrap());
            lines.push('\n');
        }
    })
    .await;
    lines
}

async fn status(demo: &Demo, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> u16 {
    let mut request = Client::new().request(method, demo.url(path)).body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    within("an answer", request.send()).await.unwrap().status().as_u16()
}

/// Which of the file's settings are in force.
async fn in_force(demo: &Demo, file: &File<'_>) -> [bool; 5] {
    let login = json!({ "username": file.user, "password": "demo", "clientId": "web" }).to_string();
    let json = [("Content-Type", "application/json")];
    let upgrade = [
        ("Origin", file.origin),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let preflight = [("Origin", file.origin), ("Access-Control-Request-Method", "GET")];
    let host = file.host.rsplit(", ").next().unwrap();
    [
        status(demo, Method::GET, "/api/online", &[("X-API-Key", file.key)], "").await == 200,
        status(demo, Method::POST, "/auth/login", &json, &login).await == 200,
        // Without a token the next check refuses it.
        status(demo, Method::GET, "/resource/websocket", &upgrade, "").await == 401,
        status(demo, Method::OPTIONS, "/resource/sse", &preflight, "").await == 204,
        status(demo, Method::GET, "/demo/config", &[("Host", host)], "").await == 200,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_changed_is_in_force_and_connections_stay() {
    let file = NamedTempFile::new().unwrap();
    let (demo, mut log) = start(&file).await;
    let mut socket = demo.socket(7).await;
    let mut stream = demo.stream(7).await;
    assert_eq!(in_force(&demo, &BEFORE).await, [true; 5]);
    assert_eq!(in_force(&demo, &AFTER).await, [false; 5]);

    AFTER.write(file.path());
    demo.reload();
    let lines = logs(&mut log, "the configuration has been reloaded").await;
    assert!(!lines.contains("restart") && !lines.contains("session opened"), "{lines}");
    assert_eq!(in_force(&demo, &AFTER).await, [true; 5]);
    // The host before is named after it, too.
    assert_eq!(in_force(&demo, &BEFORE).await, [false, false, false, false, true]);

    let body = json!({ "userIds": [7], "message": "still there" }).to_string();
    let headers = [("X-API-Key", AFTER.key), ("Content-Type", "application/json")];
    assert_eq!(status(&demo, Method::POST, "/api/publish", &headers, &body).await, 200);
    assert_eq!(socket.text().await, "still there");
    assert_eq!(stream.data().await, "still there");
    // The level is in force as well.
    drop(Socket::open(&demo, &token(7), &[], None).await.unwrap());
    logs(&mut log, "session opened").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_named_and_the_rest_is_in_force() {
    let file = NamedTempFile::new().unwrap();
    let (demo, mut log) = start(&file).await;
    File { rest: "history: {maxMessages: 3}\nsse.retry: 7s\n", ..AFTER }.write(file.path());
    demo.reload();
    let lines = logs(&mut log, "the configuration has been reloaded").await;
    let keys = r#"keys="history.maxMessages, sse.retry""#;
    assert!(lines.contains("need a restart") && lines.contains(keys), "{lines}");
    assert_eq!(in_force(&demo, &AFTER).await, [true; 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_for_what_comes_next_and_connections_stay() {
    let file = NamedTempFile::new().unwrap();
    let (demo, mut log) = start(&file).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(demo.socket(7).await);
    }
    File { rest: "limits: {maxConnectionsPerUser: 2, maxMessageBytes: 5}\n", ..BEFORE }.write(file.path());
    demo.reload();
    let lines = logs(&mut log, "the configuration has been reloaded").await;
    assert!(!lines.contains("restart"), "{lines}");
    assert_eq!(Socket::open(&demo, &token(7), &[], None).await.err(), Some(429));
    let headers = [("X-API-Key", BEFORE.key), ("Content-Type", "application/json")];
    let publish = async |message: &str| {
        let body = json!({ "userIds": [7], "message": message }).to_string();
        status(&demo, Method::POST, "/api/publish", &headers, &body).await
    };
    assert_eq!((publish("longer").await, publish("short").await), (400, 200));
    for socket in &mut sockets {
        assert_eq!(socket.text().await, "short");
    }
    // What contradicts a setting that needs a restart is not taken over, and said.
    File { rest: "limits: {maxMessageBytes: 16777216}\nhistory: {maxBytes: 268435456}\n", ..BEFORE }
        .write(file.path());
    demo.reload();
    let lines = logs(&mut log, "the configuration has been reloaded").await;
    assert!(
        lines.contains("limits: history.maxBytes: must be at least") && lines.contains("restart"),
        "{lines}"
    );
    assert_eq!(publish("longer").await, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_in_files_are_read_again_and_sessions_stay() {
    let (key, secret) = (NamedTempFile::new().unwrap(), NamedTempFile::new().unwrap());
    fs::write(&key, format!("{}\n", BEFORE.key)).unwrap();
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let files = [
        ("REALTIME__API__KEY_FILE", key.path().to_str().unwrap()),
        ("REALTIME__AUTH__JWT__SECRET_FILE", secret.path().to_str().unwrap()),
    ];
    let without = ["REALTIME__API__KEY", "REALTIME__AUTH__JWT__SECRET"];
    let (demo, mut log) = Demo::start_listened(&[], &files, &without).await;
    let mut socket = demo.socket(7).await;
    let admits = async |key: &str| status(&demo, Method::GET, "/api/online", &[("X-API-Key", key)], "").await;
    assert_eq!((admits(BEFORE.key).await, admits(AFTER.key).await), (200, 401));

    fs::write(&key, AFTER.key).unwrap();
    fs::write(&secret, "another secret of the tests, 32 bytes").unwrap();
    demo.reload();
    let lines = logs(&mut log, "the configuration has been reloaded").await;
    assert!(!lines.contains("restart") && !lines.contains("another secret"), "{lines}");
    assert_eq!((admits(BEFORE.key).await, admits(AFTER.key).await), (401, 200));
    // The login of before opens nothing any more, and its session goes on.
    assert_eq!(Socket::open(&demo, &token(7), &[], None).await.err(), Some(401));
    let headers = [("X-API-Key", AFTER.key), ("Content-Type", "application/json")];
    let body = json!({ "userIds": [7], "message": "still there" }).to_string();
    assert_eq!(status(&demo, Method::POST, "/api/publish", &headers, &body).await, 200);
    assert_eq!(socket.text().await, "still there");

    fs::write(&secret, "short").unwrap();
    demo.reload();
    logs(&mut log, "must have at least 32 bytes, has 5").await;
    assert_eq!(admits(AFTER.key).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_out_stays_in_force_and_is_named() {
    let file = NamedTempFile::new().unwrap();
    let write = |rest: &str| fs::write(&file, format!("websocket.enabled: true\n{rest}")).unwrap();
    write("");
    let arguments = ["--config", file.path().to_str().unwrap()];
    let (demo, mut log) = Demo::start_listened(&arguments, &[], &["REALTIME__API__KEY"]).await;
    let admits = async |key: &str| status(&demo, Method::GET, "/api/online", &[("X-API-Key", key)], "").await;
    write(&format!("api.key: {}\n", AFTER.key));
    demo.reload();
    let lines = logs(&mut log, "the configuration has been reloaded").await;
    assert!(!lines.contains("api.key"), "{lines}");
    assert_eq!(admits(AFTER.key).await, 200);
    // A random one in its place would be known to nobody.
    write("");
    for _ in 0..2 {
        demo.reload();
        let lines = logs(&mut log, "the configuration has been reloaded").await;
        assert!(lines.contains("need a restart") && lines.contains(r#"keys="api.key""#), "{lines}");
        assert_eq!(admits(AFTER.key).await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_used_changes_nothing() {
    let file = NamedTempFile::new().unwrap();
    let (demo, mut log) = start(&file).await;
    for rest in ["server.prot: 1\n", "sse.retry: soon\n", ": ["] {
        File { rest, ..AFTER }.write(file.path());
        demo.reload();
        let lines = logs(&mut log, "the one before stays in force").await;
        assert!(lines.contains("ERROR") && lines.contains(file.path().to_str().unwrap()), "{lines}");
    }
    assert_eq!(in_force(&demo, &BEFORE).await, [true; 5]);
    fs::remove_file(file.path()).unwrap();
    demo.reload();
    logs(&mut log, "cannot be read").await;
    assert_eq!(in_force(&demo, &BEFORE).await, [true; 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_files_ends_with_its_terminal() {
    let mut demo = Demo::start().await;
    demo.reload();
    let ended = within("the end", demo.child().wait()).await.unwrap();
    assert!(!ended.success());
}

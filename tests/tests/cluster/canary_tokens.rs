//! What a client logs in with occurs nowhere: not in the log at its loudest, in answers, in frames, in presence, in the
//! answers of the API, or in what is sent to Redis.

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use realtime_tests::{API_KEY, Demo, Redis, SECRET, Server, Socket, sign, within};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

/// A token of a user that is no other one.
fn token(user: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let jti = rand::random::<u64>().to_string();
    sign(&json!({ "userId": user, "clientid": "web", "iat": now - 1, "exp": now + 600, "jti": jti }))
}

/// Secrets, and texts in which they must not be.
#[derive(Default)]
struct Canary {
    secrets: Vec<(String, String)>,
    seen: Vec<(String, String)>,
}

impl Canary {
    /// Adds a secret. Of a token, signature and claims are secrets of their own; a beginning is as bad as the whole.
    fn keep(&mut self, what: &str, secret: &str) {
        for part in secret.rsplit('.').take(2) {
            let part = part.get(..part.len().min(20)).unwrap();
            assert!(part.len() >= 8, "{what}: too short to be found");
            self.secrets.push((what.to_owned(), part.to_owned()));
        }
    }

    fn see(&mut self, place: &str, text: impl Into<String>) {
        self.seen.push((place.to_owned(), text.into()));
    }

    fn check(&self) {
        let mut found = Vec::new();
        for (place, text) in &self.seen {
            for (what, secret) in &self.secrets {
                for line in text.lines().filter(|line| line.contains(secret.as_str())).take(1) {
                    found.push(format!("{what} in {place}: {line}"));
                }
            }
        }
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// What Redis is sent, until it is dropped.
struct Monitor {
    _child: Child,
    lines: Arc<Mutex<String>>,
}

impl Monitor {
    async fn start(redis: &Redis) -> Self {
        let mut child = Command::new("redis-cli")
            .args(["-u", &redis.url(), "monitor"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(String::new()));
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let all = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                let mut all = all.lock().unwrap();
                all.push_str(&line);
                all.push('\n');
            }
        });
        let monitor = Self { _child: child, lines };
        monitor.until("OK").await;
        monitor
    }

    async fn until(&self, text: &str) {
        within(&format!("Redis to be sent {text}"), async {
            while !self.lines.lock().unwrap().contains(text) {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

/// Sends a request as it is, and reads some of the answer.
async fn raw(demo: &Demo, head: &str) -> String {
    let mut tcp = TcpStream::connect(("127.0.0.1", demo.port())).await.unwrap();
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_millis(500), tcp.read_to_end(&mut answer)).await.ok();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn canary_tokens() {
    let redis = Redis::start().await;
    let monitor = Monitor::start(&redis).await;
    let url = redis.url();
    let settings = [
        ("REALTIME__REDIS__URL", url.as_str()),
        ("REALTIME__LOG__LEVEL", "trace"),
        ("REALTIME__AUTH__COOKIE", "sid"),
        ("RUST_LOG", "trace"),
    ];
    let (mut demo, log) = Demo::start_recorded(&settings).await;
    let mut canary = Canary::default();
    canary.keep("the secret", SECRET);
    canary.keep("the key of the API", API_KEY);
    let http = Client::new();

    // Each way to log in, with a token that is accepted, one that is refused, and one that is none.
    let expired = sign(&json!({ "userId": 7, "exp": 1, "jti": rand::random::<u64>().to_string() }));
    let revoked = token(5);
    let forged = format!("{}x{:x}", token(7), rand::random::<u64>());
    let garbage = format!("canary{:x}", rand::random::<u128>());
    for (kind, token) in [
        ("valid", token(7)),
        ("expired", expired),
        ("forged", forged),
        ("garbage", garbage),
        ("kicked", revoked),
    ] {
        canary.keep(kind, &token);
        let open = Socket::open(&demo, &token, &["realtime.v1"], None).await;
        if kind == "kicked" {
            let mut open = open.unwrap();
            assert_eq!(demo.api(Method::DELETE, "/api/online/5", None).await.0, 200);
            assert_eq!(open.close_code().await, 4409);
        } else if let Ok(mut open) = open {
            for _ in 0..1 {
                canary.see("a frame", open.text().await);
            }
            let other = self::token(7);
            canary.keep("refreshed", &other);
            open.send(&json!({ "type": "refresh", "token": other }).to_string()).await;
            canary.see("a frame", open.message().await.to_string());
            open.send(&json!({ "type": "refresh", "token": "canary-no-token" }).to_string()).await;
            canary.keep("a bad refresh", "canary-no-token");
            canary.see("a frame", open.message().await.to_string());
            open.send(&format!(r#"{{"type":"refresh","token":"{}" oops"#, self::token(7))).await;
        }
        let protocol = format!("realtime.v1, bearer.{token}");
        drop(Socket::open_at(&demo, "/resource/websocket", &[("Sec-WebSocket-Protocol", &protocol)]).await);
        let (bearer, cookie) = (format!("Bearer {token}"), format!("a=b; sid={token}; c=d"));
        drop(Socket::open_at(&demo, "/resource/websocket", &[("Authorization", &bearer)]).await);
        drop(Socket::open_at(&demo, "/resource/websocket", &[("Cookie", &cookie)]).await);
        for path in ["/resource/websocket", "/resource/sse", "/resource/nowhere", "/"] {
            let head = format!("GET {path}?Authorization={token}&clientid=web HTTP/1.1\r\nHost: x\r\n\r\n");
            canary.see(path, raw(&demo, &head).await);
            let ends = format!("Host: x\r\nAuthorization: {bearer}\r\nCookie: {cookie}\r\n\r\n");
            canary.see(path, raw(&demo, &format!("GET {path} HTTP/1.1\r\n{ends}")).await);
            canary.see(path, raw(&demo, &format!("GET {path} HTTP/1.0\r\n{ends}")).await);
            // Requests that are none.
            canary
                .see(path, raw(&demo, &format!("GET {path}?Authorization={token} HTTP/9.9\r\n{ends}")).await);
            canary.see(path, raw(&demo, &format!("GET {path} HTTP/1.1\r\nbad header {ends}")).await);
            canary.see(
                path,
                raw(&demo, &format!("BREW {path}?Authorization={token} HTTP/1.1\r\n{ends}")).await,
            );
        }
        for (path, in_header) in [
            ("/resource/sse/close", true),
            ("/resource/sse/refresh?session=0123456789abcdef0123456789abcdef", true),
            ("/resource/ticket", true),
            ("/resource/sse/ticket", true),
            ("/resource/websocket/ticket", true),
            ("/demo/order", true),
            ("/demo/kick", true),
            ("/resource/ticket", false),
        ] {
            let query = if in_header { String::new() } else { format!("?Authorization={token}") };
            let mut request = http.post(demo.url(&format!("{path}{query}"))).body("{}");
            if in_header {
                request = request.header("Authorization", &bearer);
            }
            let answer = request.send().await.unwrap().text().await.unwrap();
            let ticket = serde_json::from_str::<Value>(&answer).ok();
            let ticket = ticket.and_then(|answer| answer["data"]["ticket"].as_str().map(str::to_owned));
            if let Some(ticket) = ticket {
                canary.keep("a ticket", &ticket);
                let path = format!("/resource/websocket?ticket={ticket}");
                let _open = Socket::open_at(&demo, &path, &[]).await.unwrap();
                canary.see(
                    "a used ticket",
                    raw(&demo, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await,
                );
                let (_, body) = demo.get(&format!("/resource/sse?ticket={ticket}")).await;
                canary.see("a used ticket", body);
            } else {
                canary.see(path, answer);
            }
        }
    }

    // Logins of the page and keys of the API.
    let password = format!("canary{:x}", rand::random::<u128>());
    canary.keep("a password", &password);
    for body in [
        json!({ "username": "alice", "password": password, "clientId": "web" }).to_string(),
        json!({ "username": "nobody", "password": password, "clientId": "web" }).to_string(),
        json!({ "username": "alice", "password": [password], "clientId": "web" }).to_string(),
        json!({ "username": "alice", "passwort": password, "clientId": "web" }).to_string(),
        format!(r#"{{"username":"alice","password":"{password}" oops"#),
    ] {
        let answer = http.post(demo.url("/auth/login")).body(body).send().await.unwrap();
        canary.see("/auth/login", answer.text().await.unwrap());
    }
    let login = json!({ "username": "alice", "password": "demo", "clientId": "web" }).to_string();
    let answer: Value =
        http.post(demo.url("/auth/login")).body(login).send().await.unwrap().json().await.unwrap();
    let issued = answer["data"]["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    canary.keep("a token that was issued", &issued);
    let mut socket = Socket::open(&demo, &issued, &[], None).await.unwrap();
    let key = format!("canary{:x}", rand::random::<u128>());
    canary.keep("a wrong key", &key);
    for path in ["/api/publish", "/api/online", "/api/nowhere"] {
        let answer = http.post(demo.url(path)).header("X-API-Key", &key).body("{}").send().await.unwrap();
        canary.see(path, answer.text().await.unwrap());
        let answer = http.get(demo.url(path)).header("X-API-Key", &key).send().await.unwrap();
        canary.see(path, answer.text().await.unwrap());
    }
    for path in ["/api/online", "/api/online/1", "/api/online?page=1&size=1000", "/health/ready"] {
        canary.see(path, demo.api(Method::GET, path, None).await.1.to_string());
    }
    demo.publish_to(1, "the last word").await;
    // That alice has come online may be told before.
    while socket.text().await != "the last word" {}

    // Everything has been written down when the process has ended.
    demo.terminate();
    within("the demo to end", demo.child().wait()).await.unwrap();
    let log = within("the log's end", log).await.unwrap();
    assert!(log.contains(" TRACE ") && log.contains("login refused"), "the log is loud");
    let sent = monitor.lines.lock().unwrap().clone();
    assert!(sent.contains("the last word") && sent.contains(":ticket:"), "Redis is watched");
    canary.see("the log", log);
    canary.see("Redis", sent);
    canary.check();
}

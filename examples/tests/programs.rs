//! Each example as a process of its own, used as documented.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{ffi::OsStr, process::Stdio, sync::Arc};

use realtime_redis::{RedisConfig, RedisStreamsBus};
use realtime_tests::{
    Authority, EventStream, JavaLogins, Redis, Server, Socket, built_example, conformance::Subscriber, within,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
};
use tokio_rustls::TlsConnector;

/// An address with a free port.
const FREE: &str = "127.0.0.1:0";

/// A running example. It is killed when it is dropped.
struct Program {
    _child: Child,
    port: u16,
}

impl Server for Program {
    fn port(&self) -> u16 {
        self.port
    }
}

impl Program {
    /// Starts a server on a free port and returns it once it listens, with the line that starts with `line`.
    async fn start(binary: impl AsRef<OsStr>, line: &str) -> (Self, String) {
        Self::start_with(binary, line, &[FREE]).await
    }

    async fn start_with(binary: impl AsRef<OsStr>, line: &str, arguments: &[&str]) -> (Self, String) {
        let mut child =
            Command::new(binary).args(arguments).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (port, line) = within("the example to listen", async {
            let mut port = None;
            loop {
                let seen = lines.next_line().await.unwrap().expect("the example runs on");
                if let Some(address) = seen.strip_prefix("listening on 127.0.0.1:") {
                    port = address.parse().ok();
                }
                if seen.starts_with(line) {
                    return (port.expect("the address comes first"), seen);
                }
            }
        })
        .await;
        // A full pipe would hold the example up.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        (Self { _child: child, port }, line)
    }

    async fn post(&self, path: &str, body: &'static str) -> reqwest::Response {
        self.send(reqwest::Method::POST, path, body).await
    }

    async fn send(&self, method: reqwest::Method, path: &str, body: &'static str) -> reqwest::Response {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let request = reqwest::Client::new().request(method, url).body(body);
        within("an answer", request.send()).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_transports_work_under_a_scope_and_behind_a_middleware() {
    let (server, line) = Program::start(env!("CARGO_BIN_EXE_scope"), "connect user 42: ").await;
    let token = line.split_once("Authorization=").unwrap().1;
    let path = format!("/push/websocket?Authorization={token}");
    let mut socket = Socket::open_at(&server, &path, &[]).await.unwrap();
    let url = format!("http://127.0.0.1:{}/push/sse?Authorization={token}", server.port);
    let mut stream = within("the stream", reqwest::get(url)).await.unwrap();
    assert_eq!(stream.status(), 200);

    assert_eq!(server.post("/push/users/42", "paid").await.status(), 200);
    assert_eq!(socket.text().await, "paid");
    let mut seen = String::new();
    while !seen.contains("data:paid\n") {
        let chunk = within("the event", stream.chunk()).await.unwrap().expect("the stream goes on");
        seen.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(matches!(Socket::open_at(&server, "/resource/websocket", &[]).await, Err(404)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_of_the_first_page_pushes_over_both_transports() {
    let (server, _) = Program::start(env!("CARGO_BIN_EXE_start"), "listening on").await;
    let token = server.post("/login/42", "").await.text().await.unwrap();
    let mut socket = Socket::open(&server, &token, &[], None).await.unwrap();
    let mut stream = EventStream::open(&server, &token, None).await.unwrap();
    let position = server.post("/orders/42/paid", "").await.text().await.unwrap();
    let paid = r#"{"type":"order","data":{"status":"paid"}}"#;
    assert_eq!(socket.text().await, paid);
    let event = within("the event", stream.next()).await.unwrap();
    assert_eq!((event.data.as_str(), event.id), (paid, position));
    assert!(matches!(Socket::open(&server, "none", &[], None).await, Err(401)));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_transports_work_on_axum() {
    let (server, _) = Program::start(env!("CARGO_BIN_EXE_axum"), "push: ").await;
    let token = server.post("/login/42", "").await.text().await.unwrap();
    let mut socket = Socket::open(&server, &token, &["realtime.v1"], None).await.unwrap();
    assert_eq!(socket.message().await["type"], "hello");
    let mut stream = EventStream::open(&server, &token, None).await.unwrap();
    assert_eq!(server.post("/push/42", "paid").await.status(), 200);
    assert_eq!(socket.message().await["data"], "paid");
    assert_eq!(stream.data().await, "paid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_cookie_identifies_the_user() {
    let (server, _) = Program::start(env!("CARGO_BIN_EXE_login"), "push to").await;
    let path = "/resource/websocket";
    assert!(matches!(Socket::open_at(&server, path, &[]).await, Err(401)));
    assert!(matches!(Socket::open_at(&server, path, &[("cookie", "session=guessed")]).await, Err(401)));

    let answer = server.post("/login/42", "").await;
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let mut socket = Socket::open_at(&server, path, &[("cookie", &cookie)]).await.unwrap();
    assert_eq!(server.post("/push/42", "paid").await.status(), 200);
    assert_eq!(socket.text().await, "paid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_of_a_java_node_gets_what_java_nodes_publish() {
    let logins = JavaLogins::start().await;
    let token = logins.login(42);
    let arguments = [&*logins.redis.url(), FREE];
    let (server, _) =
        Program::start_with(env!("CARGO_BIN_EXE_java_logins"), "listening on", &arguments).await;
    let path = format!("/resource/websocket?Authorization=Bearer%20{token}&clientid=web");
    let mut socket = Socket::open_at(&server, &path, &[]).await.unwrap();
    let from_java = r#"["org.dromara.common.websocket.dto.WebSocketMessageDto",{"message":"paid","sessionKeys":["java.util.ArrayList",[42]]}]"#;
    assert_eq!(logins.redis.cli(&["publish", "global:websocket", from_java]), "1");
    assert_eq!(socket.text().await, "paid");
    let stranger = "/resource/websocket?Authorization=Bearer%20none&clientid=web";
    assert!(matches!(Socket::open_at(&server, stranger, &[]).await, Err(401)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_its_own_answers_prometheus() {
    let (server, line) = Program::start(env!("CARGO_BIN_EXE_measured"), "metrics: ").await;
    let url = line.strip_prefix("metrics: ").unwrap();
    let metrics = async || within("metrics", reqwest::get(url)).await.unwrap().text().await.unwrap();
    assert!(metrics().await.contains("\nrealtime_ready 1\n"));
    assert!(matches!(Socket::open_at(&server, "/resource/websocket", &[]).await, Err(401)));
    let refused = "\nrealtime_connections_refused_total{reason=\"login\"} 1\n";
    assert!(metrics().await.contains(refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_reaches_its_members_and_no_one_else() {
    let (server, _) = Program::start(env!("CARGO_BIN_EXE_chat"), "connect").await;
    let mut sockets = Vec::new();
    for user in ["alice", "bob", "carol"] {
        let token = server.post(&format!("/login/{user}"), "").await.text().await.unwrap();
        sockets.push(Socket::open(&server, &token, &[], None).await.unwrap());
    }
    let [alice, bob, carol] = sockets.as_mut_slice() else { unreachable!() };
    for socket in [&mut *alice, &mut *bob] {
        socket.send("join rust").await;
        assert_eq!(socket.text().await, "join rust: ok");
    }
    carol.send("say rust hello").await;
    assert_eq!(carol.text().await, "join rust first");
    alice.send("say rust hello").await;
    assert_eq!(alice.text().await, "rust alice: hello");
    assert_eq!(bob.text().await, "rust alice: hello");

    bob.send("leave rust").await;
    assert_eq!(bob.text().await, "leave rust: ok");
    alice.send("say rust bye").await;
    assert_eq!(alice.text().await, "rust alice: bye");
    bob.send("?").await;
    assert_eq!(bob.text().await, "join <room>, leave <room> or say <room> <text>");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sections_of_a_services_own_file_configure_transports_and_redis() {
    let binary = env!("CARGO_BIN_EXE_configured");
    let (server, line) = Program::start(binary, "connect user 42: ").await;
    let token = line.split_once("Authorization=").unwrap().1;
    let path = format!("/push/websocket?Authorization={token}");
    let mut socket = Socket::open_at(&server, &path, &[]).await.unwrap();
    assert_eq!(server.post("/orders/42/paid/20", "").await.status(), 200);
    assert_eq!(socket.text().await, "paid: 20 EUR");

    let redis = Redis::start().await;
    let file = std::env::temp_dir().join(format!("realtime-configured-{}.yml", std::process::id()));
    let yaml = format!(
        "orders: {{currency: USD}}\nsse: {{enabled: false}}\nredis: {{url: '{}', keyPrefix: shop}}\n",
        redis.url()
    );
    std::fs::write(&file, yaml).unwrap();
    let (server, _) = Program::start_with(binary, "connect user 42: ", &[FREE, file.to_str().unwrap()]).await;
    std::fs::remove_file(&file).unwrap();
    let path = format!("/resource/websocket?Authorization={token}");
    let mut socket = Socket::open_at(&server, &path, &[]).await.unwrap();
    assert_eq!(server.post("/orders/42/paid/20", "").await.status(), 200);
    assert_eq!(socket.text().await, "paid: 20 USD");
    assert!(redis.cli(&["keys", "*"]).contains("{shop:rt}"));
    let off = reqwest::get(format!("http://127.0.0.1:{}/resource/sse", server.port)).await.unwrap();
    assert_eq!(off.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_publishes_over_redis_without_http() {
    let redis = Redis::start().await;
    let bus = RedisStreamsBus::new(RedisConfig::single(redis.url())).unwrap();
    let mut node = Subscriber::up(&bus).await;

    let worker = Command::new(env!("CARGO_BIN_EXE_worker")).args([&redis.url(), "42", "paid"]).output();
    let output = within("the worker", worker).await.unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{printed}");

    let (position, text) = node.message().await;
    assert_eq!(text, "paid");
    assert_eq!(printed, format!("published at {}\n", position.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_follows_an_order_sees_what_becomes_of_it() {
    let (server, _) = Program::start(env!("CARGO_BIN_EXE_topics"), "change it").await;
    let mut streams = Vec::new();
    for user in [1, 2] {
        let token = server.post(&format!("/login/{user}"), "").await.text().await.unwrap();
        streams.push((EventStream::open(&server, &token, None).await.unwrap(), token));
    }
    let follow =
        async |token: &str| server.post(&format!("/orders/7/follow?Authorization={token}"), "").await;
    assert_eq!(follow("wrong").await.status(), 401);
    let answer = follow(&streams[0].1).await.text().await.unwrap();
    assert_eq!(answer, "1 sessions follow it\n");
    let change = async |order: &str, status| {
        let answer = server.send(reqwest::Method::PUT, &format!("/orders/{order}"), status).await;
        assert_eq!(answer.status(), 204);
    };
    change("7", "shipped").await;
    let event = within("an event", streams[0].0.next()).await.unwrap();
    assert_eq!((event.event.as_str(), event.data.as_str()), ("order", r#"{"id":7,"status":"shipped"}"#));
    // The other one follows it later, and has not been sent what came before.
    follow(&streams[1].1).await;
    change("8", "lost").await;
    change("7", "delivered").await;
    for (stream, _) in &mut streams {
        let event = within("an event", stream.next()).await.unwrap();
        assert_eq!(event.data, r#"{"id":7,"status":"delivered"}"#);
    }
    // Or a client names it when it connects.
    let query = "&topics=order:9,order:x";
    let mut stream = EventStream::open_query(&server, &streams[0].1, query, None).await.unwrap();
    let refused = within("an event", stream.next()).await.unwrap();
    assert_eq!(refused.data, r#"{"refused":[{"topic":"order:x","reason":"not allowed"}]}"#);
    change("9", "paid").await;
    let event = within("an event", stream.next()).await.unwrap();
    assert_eq!(event.data, r#"{"id":9,"status":"paid"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_to_pages_that_open_late_and_is_stopped() {
    let (server, line) =
        Program::start(env!("CARGO_BIN_EXE_answers"), "open the stream, early or late: ").await;
    let token = line.split_once("Authorization=").unwrap().1.trim_end_matches('\'').to_owned();
    assert_eq!(server.post("/users/42/answers/answer-7", "why?").await.status(), 202);
    let mut early = EventStream::open(&server, &token, None).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("takes") {
        seen += &within("an event", early.next()).await.unwrap().data;
    }
    let mut late = EventStream::open(&server, &token, None).await.unwrap();
    let prefix = within("an event", late.next()).await.unwrap();
    assert_eq!(prefix.event, "realtime.stream");
    assert!(prefix.data.contains(r#""at":0,"text":"You asked: why? This"#), "{}", prefix.data);
    let answer = server.post("/users/42/answers/answer-7/stop", "").await.text().await.unwrap();
    assert_eq!(answer, "1 writers were asked to stop\n");
    for stream in [&mut early, &mut late] {
        while !within("an event", stream.next()).await.unwrap().data.contains(r#""state":"stopped""#) {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_encrypted_and_http_2_is_offered() {
    let authority = Authority::new();
    let (certificate, key) = (authority.path("server.crt"), authority.path("server.key"));
    let arguments = [certificate.to_str().unwrap(), key.to_str().unwrap(), FREE];
    let (server, line) =
        Program::start_with(env!("CARGO_BIN_EXE_tls"), "open the stream: ", &arguments).await;
    let token = line.split_once("Authorization=").unwrap().1.trim_end_matches('\'');

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.path("ca.crt")).unwrap()).unwrap();
    let connect = async |protocol: &str| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots.clone()).with_no_client_auth();
        config.alpn_protocols = vec![protocol.into()];
        let tcp = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        within("TLS", TlsConnector::from(Arc::new(config)).connect(name, tcp)).await.unwrap()
    };
    assert_eq!(connect("h2").await.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut stream = connect("http/1.1").await;
    let request = format!("GET /resource/sse?Authorization={token} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("data:a second has passed\n") {
        assert_ne!(within("bytes", stream.read_buf(&mut seen)).await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_a_client_has_its_own_address() {
    let (server, line) = Program::start(env!("CARGO_BIN_EXE_behind_nginx"), "connect user 42: ").await;
    let path = format!("/resource/websocket?Authorization={}", line.split_once("Authorization=").unwrap().1);
    for (forwarded, address) in [
        (None, "127.0.0.1"),
        (Some("198.51.100.7"), "198.51.100.7"),
        // The first one is what the client itself has sent.
        (Some("203.0.113.9, 198.51.100.7, 10.0.0.2"), "198.51.100.7"),
    ] {
        let headers: Vec<_> = forwarded.map(|value| ("x-forwarded-for", value)).into_iter().collect();
        let mut socket = Socket::open_at(&server, &path, &headers).await.unwrap();
        assert_eq!(socket.text().await, format!("you are connected from {address}"), "{forwarded:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_publishes_reaches_the_sessions_of_another() {
    let redis = Redis::start().await;
    let url = redis.url();
    let mut nodes = Vec::new();
    for name in ["node-1", "node-2"] {
        let arguments = [url.as_str(), name, FREE];
        let (node, _) =
            Program::start_with(env!("CARGO_BIN_EXE_cluster"), "push, on any node", &arguments).await;
        within("the node to be ready", async {
            while node.send(reqwest::Method::GET, "/ready", "").await.status() != 204 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        nodes.push(node);
    }
    let [one, two] = nodes.as_slice() else { unreachable!() };
    let token = one.post("/login/42", "").await.text().await.unwrap();
    let mut stream = EventStream::open(two, &token, None).await.unwrap();
    assert_eq!(one.post("/push/42", "paid").await.status(), 204);
    assert_eq!(stream.data().await, "paid");
    within("presence", async {
        while one.send(reqwest::Method::GET, "/online", "").await.text().await.unwrap() != "42 on node-2\n" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(one.post("/kick/42", "").await.text().await.unwrap(), "1 sessions ended\n");
    assert!(within("the end", stream.next()).await.is_none());
    assert!(matches!(EventStream::open(two, &token, None).await, Err(204)));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_transport_works_without_the_other() {
    for (package, example, transport) in
        [("realtime-websocket", "websocket_only", "websocket"), ("realtime-sse", "sse_only", "sse")]
    {
        let binary = built_example(package, example, &["jwt"]);
        let (server, line) = Program::start(binary, "connect").await;
        let token = line.split_once("Authorization=").unwrap().1.trim_end_matches('\'');
        match transport {
            "websocket" => {
                let mut socket = Socket::open(&server, token, &[], None).await.unwrap();
                assert_eq!(server.post("/push/42", "paid").await.status(), 200);
                assert_eq!(socket.text().await, "paid");
            }
            _ => {
                let mut stream = EventStream::open(&server, token, None).await.unwrap();
                assert_eq!(server.post("/push/42", "paid").await.status(), 200);
                assert_eq!(stream.data().await, "paid");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_of_ones_own_connects_two_nodes() {
    let (server, line) = Program::start(env!("CARGO_BIN_EXE_own_bus"), "open a stream of node one").await;
    let token = line.split_once("Authorization=").unwrap().1.trim_end_matches('\'');
    let mut stream = EventStream::open(&server, token, None).await.unwrap();
    assert_eq!(server.post("/push/42", "paid").await.status(), 204);
    assert_eq!(stream.data().await, "paid");
}

#[test]
fn the_readmes_show_the_examples_as_they_are() {
    let read =
        |path: &str| std::fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    for page in ["README.md", "README.zh-CN.md"].map(read) {
        for example in [
            "crates/realtime-websocket/examples/websocket_only.rs",
            "crates/realtime-sse/examples/sse_only.rs",
        ] {
            assert!(page.contains(&format!("```rust\n{}```", read(example))), "{example}");
        }
    }
}

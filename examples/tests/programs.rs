//! Each example as a process of its own, used as its documentation says.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::process::Stdio;

use realtime_redis::{RedisConfig, RedisStreamsBus};
use realtime_tests::{Redis, Server, Socket, conformance::Subscriber, within};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

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
    async fn start(binary: &str, line: &str) -> (Self, String) {
        let mut child = Command::new(binary)
            .arg("127.0.0.1:0")
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
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
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        within("an answer", reqwest::Client::new().post(url).body(body).send()).await.unwrap()
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

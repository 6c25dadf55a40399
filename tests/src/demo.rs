//! [`Demo`]: the demo as a process of its own.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStderr},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinHandle,
};

use crate::{EventStream, Server, ServerKind, Socket, Upstream, built, within};

/// The secret that every demo here signs its tokens with.
pub const SECRET: &str = "the secret of the tests, 32 bytes";
/// The key that every demo here has for its API.
pub const API_KEY: &str = "the-key-of-the-tests";

/// A running demo. It is killed when it is dropped.
#[derive(Debug)]
pub struct Demo {
    child: Child,
    port: u16,
    /// The port of `server.internal`, where it is set.
    internal: Option<u16>,
    /// `http`, or `https` with `server.tls`.
    scheme: &'static str,
    http: reqwest::Client,
}

impl Demo {
    /// Starts the demo with both modules on, on a free port.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts the demo with further environment variables, such as `("REALTIME__SSE__ENABLED", "false")`.
    pub async fn start_with(variables: &[(&str, &str)]) -> Self {
        Self::start_from(&[], variables).await
    }

    /// Starts the demo with arguments, such as `--config` and a file.
    pub async fn start_from(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let (demo, mut lines) = Self::launch(arguments, variables, &[]).await;
        // A full pipe would cost lines of the log.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        demo
    }

    /// Starts the demo as in `realtime-demo 2>&1 | head`: once it is ready, its stderr is closed at the other end.
    pub async fn start_unread(variables: &[(&str, &str)]) -> Self {
        Self::launch(&[], variables, &[]).await.0
    }

    /// Starts the demo as in `realtime-demo 2>&1 | less`: its stderr stays open and is not read any more.
    pub async fn start_ignored(variables: &[(&str, &str)]) -> (Self, impl Sized) {
        Self::launch(&[], variables, &[]).await
    }

    /// Starts the demo with arguments, and without some of the variables that it gets otherwise, such as `REALTIME__API__KEY`.
    /// Returns the lines of its log, too.
    pub async fn start_listened(
        arguments: &[&str],
        variables: &[(&str, &str)],
        without: &[&str],
    ) -> (Self, UnboundedReceiver<String>) {
        let (demo, mut lines) = Self::launch(arguments, variables, without).await;
        let (sender, receiver) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                sender.send(line).ok();
            }
        });
        (demo, receiver)
    }

    /// Starts the demo and records what it prints, the start as well. The text is there when it has ended.
    pub async fn start_recorded(variables: &[(&str, &str)]) -> (Self, JoinHandle<String>) {
        let mut child = Self::command(&[], variables, &[]).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (demo, mut lines, seen) = Self::ready(child).await;
        let recorded = tokio::spawn(async move {
            let mut text = seen.join("\n");
            while let Ok(Some(line)) = lines.next_line().await {
                text.push('\n');
                text.push_str(&line);
            }
            stdout.read_to_string(&mut text).await.unwrap();
            text
        });
        (demo, recorded)
    }

    /// Starts the demo with arguments and without a secret of the environment.
    pub async fn start_from_alone(arguments: &[&str]) -> Self {
        let (demo, mut lines) = Self::launch(arguments, &[], &["REALTIME__AUTH__JWT__SECRET"]).await;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        demo
    }

    async fn launch(
        arguments: &[&str],
        variables: &[(&str, &str)],
        without: &[&str],
    ) -> (Self, Lines<BufReader<ChildStderr>>) {
        let child = Self::command(arguments, variables, without).spawn().unwrap();
        let (demo, lines, _) = Self::ready(child).await;
        (demo, lines)
    }

    fn command(arguments: &[&str], variables: &[(&str, &str)], without: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(Self::binary());
        command
            .args(arguments)
            .env("REALTIME__SERVER__PORT", "0")
            .env("REALTIME__SERVER__KIND", ServerKind::of_run().name())
            .env("REALTIME__API__KEY", API_KEY)
            .env("REALTIME__AUTH__JWT__SECRET", SECRET)
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for name in without {
            command.env_remove(name);
        }
        command
    }

    /// Waits until the demo has started. Returns it with what it prints, and with what it has printed.
    async fn ready(mut child: Child) -> (Self, Lines<BufReader<ChildStderr>>, Vec<String>) {
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (port, internal, scheme, seen) = within("the demo to start", async {
            let (mut seen, mut internal) = (Vec::new(), None);
            loop {
                let line = lines.next_line().await.unwrap().unwrap_or_else(|| panic!("no start: {seen:#?}"));
                if let Some(url) = line.strip_prefix("internal api: http://127.0.0.1:") {
                    internal = Some(url.split('/').next().unwrap().parse().unwrap());
                }
                for scheme in ["http", "https"] {
                    let ready = match ServerKind::of_run() {
                        ServerKind::Axum => format!("axum is ready at {scheme}://127.0.0.1:"),
                        _ => format!("realtime-demo is ready at {scheme}://127.0.0.1:"),
                    };
                    if let Some(url) = line.strip_prefix(&ready) {
                        return (url.trim_end_matches('/').parse().unwrap(), internal, scheme, seen);
                    }
                }
                seen.push(line);
            }
        })
        .await;
        (Self { child, port, internal, scheme, http: reqwest::Client::new() }, lines, seen)
    }

    /// The demo's binary, built once per test process.
    pub fn binary() -> &'static PathBuf {
        static BINARY: OnceLock<PathBuf> = OnceLock::new();
        BINARY.get_or_init(|| match ServerKind::of_run() {
            // cargo has built it with the test, in the folder above that of the test's binary.
            ServerKind::Axum => {
                let test = std::env::current_exe().unwrap();
                test.parent().unwrap().with_file_name("demo-on-axum")
            }
            ServerKind::Realtime | ServerKind::Actix => built("realtime-demo", "realtime-demo"),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the demo is running")
    }

    /// An address on it.
    pub fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", self.scheme, self.port)
    }

    /// An address on its internal server, or on the public one where it has no other.
    pub fn api_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.internal.unwrap_or(self.port))
    }

    /// Its ports, for a proxy in front of it.
    pub fn upstream(&self) -> Upstream {
        Upstream { public: self.port, internal: self.internal.unwrap_or(self.port) }
    }

    /// The process, to wait for its end.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Requests an orderly stop of the process (SIGTERM).
    pub fn terminate(&self) {
        assert!(Command::new("kill").arg(self.pid().to_string()).status().unwrap().success());
    }

    /// Requests that the process reads its configuration again (SIGHUP).
    pub fn reload(&self) {
        assert!(Command::new("kill").args(["-HUP", &self.pid().to_string()]).status().unwrap().success());
    }

    /// Stops the process where it stands (SIGSTOP).
    pub fn pause(&self) {
        assert!(Command::new("kill").args(["-STOP", &self.pid().to_string()]).status().unwrap().success());
    }

    /// Resumes the process (SIGCONT).
    pub fn resume(&self) {
        assert!(Command::new("kill").args(["-CONT", &self.pid().to_string()]).status().unwrap().success());
    }

    /// The resident memory of the process in KiB.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most resident memory that the process ever had, in KiB.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// A raw WebSocket of a user.
    pub async fn socket(&self, user: i64) -> Socket {
        Socket::open(self, &token(user), &[], None).await.unwrap()
    }

    /// A `realtime.v1` WebSocket of a user; its `hello` is still to be read.
    pub async fn socket_v1(&self, user: i64) -> Socket {
        Socket::open(self, &token(user), &["realtime.v1"], None).await.unwrap()
    }

    /// An event stream of a user; its first block has been read.
    pub async fn stream(&self, user: i64) -> EventStream {
        EventStream::open(self, &token(user), None).await.unwrap()
    }

    /// Publishes through the API; 200 is expected. Returns the position.
    pub async fn publish(&self, body: Value) -> String {
        let (status, answer) = self.try_publish(&body.to_string()).await;
        assert_eq!(status, 200, "{body}: {answer}");
        answer["position"].as_str().unwrap().to_owned()
    }

    /// Publishes a text to a user on both transports.
    pub async fn publish_to(&self, user: i64, message: &str) -> String {
        self.publish(json!({ "userIds": [user], "message": message })).await
    }

    /// Publishes an arbitrary body through the API.
    pub async fn try_publish(&self, body: &str) -> (u16, Value) {
        self.api(reqwest::Method::POST, "/api/publish", Some(body)).await
    }

    /// Calls the API with the key.
    pub async fn api(&self, method: reqwest::Method, path: &str, body: Option<&str>) -> (u16, Value) {
        self.call(method, self.api_url(path), body).await
    }

    /// Calls an arbitrary address with the key of the API.
    pub async fn call(&self, method: reqwest::Method, url: String, body: Option<&str>) -> (u16, Value) {
        let request = self.http.request(method, url).header("X-API-Key", API_KEY);
        let response = request.body(body.unwrap_or_default().to_owned()).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Calls any address without a key and returns status and text.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = self.http.get(self.url(path)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Waits until it reports that it is ready.
    pub async fn until_ready(&self) {
        within("the node to be ready", async {
            while self.get("/health/ready").await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// Number of sessions of a user.
    pub async fn sessions(&self, user: i64) -> usize {
        let (_, answer) = self.api(reqwest::Method::GET, &format!("/api/online/{user}"), None).await;
        answer["sessions"].as_array().unwrap().len()
    }

    /// Waits until a user has that number of sessions.
    pub async fn until_sessions(&self, user: i64, count: usize) {
        within(&format!("user {user} to have {count} sessions"), async {
            while self.sessions(user).await != count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

impl Server for Demo {
    fn port(&self) -> u16 {
        self.port
    }
}

/// A token of a user for the client id `web`, good for an hour, unlike any other.
pub fn token(user: i64) -> String {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600;
    sign(&json!({ "userId": user, "clientid": "web", "exp": exp, "jti": rand::random::<u64>().to_string() }))
}

/// Signs arbitrary claims with the secret of the tests.
pub fn sign(claims: &Value) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

//! [`RedisProcess`]: a redis-server or sentinel, alone or one of several.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::sleep;

use crate::within;

/// Credentials of clients; the servers and sentinels among themselves use the user `default`.
pub(crate) const LOGIN: &str = "app:app";

/// A redis-server or sentinel with a folder of its own. It is killed when it is dropped.
#[derive(Debug)]
pub struct RedisProcess {
    child: Child,
    port: u16,
    folder: TempDir,
    login: &'static [&'static str],
}

impl RedisProcess {
    /// Starts a server without persistence.
    pub(crate) fn server(arguments: &[String]) -> Self {
        Self::new(free_port(), &["--user", "app", "--pass", "app", "--no-auth-warning"], |port, folder| {
            server(port, folder, arguments)
        })
    }

    /// Starts a sentinel with these lines in its configuration.
    pub(crate) fn sentinel(lines: &str) -> Self {
        Self::new(free_port(), &[], |port, folder| {
            let file = folder.path().join("sentinel.conf");
            let dir = folder.path().display();
            std::fs::write(&file, format!("port {port}\nbind 127.0.0.1\ndir {dir}\n{lines}")).unwrap();
            Command::new("redis-server")
                .arg(file)
                .arg("--sentinel")
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server is installed (apt package redis-server)")
        })
    }

    fn new(port: u16, login: &'static [&'static str], spawn: impl FnOnce(u16, &TempDir) -> Child) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { child: spawn(port, &folder), port, folder, login }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs a command through redis-cli and returns what it printed; nothing if the server doesn't answer.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let mut command = Command::new("timeout");
        command.args(["2", "redis-cli", "-p", &port]).args(self.login).args(arguments).stderr(Stdio::null());
        String::from_utf8(command.output().unwrap().stdout).unwrap().trim().replace('\r', "")
    }

    /// Waits until it answers, and not another one that has taken its port.
    pub(crate) async fn answers(&self) {
        let own = format!("process_id:{}", self.child.id());
        within("a server to answer", async {
            while !self.cli(&["info", "server"]).lines().any(|line| line == own) {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts a server again, with nothing in it.
    pub(crate) async fn restart(&mut self, arguments: &[String]) {
        self.child = server(self.port, &self.folder, arguments);
        self.answers().await;
    }

    /// Stops it like a machine that hangs: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Resumes the process (SIGCONT).
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        assert!(
            Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success()
        );
    }
}

impl Drop for RedisProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn server(port: u16, folder: &TempDir, arguments: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(folder.path())
        .args(["--user", "app", "on", ">app", "~*", "&*", "+@all"])
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed (apt package redis-server)")
}

/// A port that is free, as is the one for a cluster's bus 10,000 above, and that no outgoing connection takes
/// while its server is down.
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random_range(15_000..21_000)));
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}

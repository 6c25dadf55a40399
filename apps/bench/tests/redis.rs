//! The binary's `redis`, against a server of its own.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// A redis-server of the test's own, on a port that no outgoing connection takes.
struct Redis {
    child: Child,
    port: u16,
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Redis {
    fn start() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let begin = 27_000 + (std::process::id() % 5_000) as u16;
        let port = loop {
            let port = begin + NEXT.fetch_add(1, Ordering::Relaxed);
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                break port;
            }
        };
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("tests/run.sh installs redis-server");
        let redis = Self { child, port };
        let own = format!("process_id:{}\r\n", redis.child.id());
        let until = Instant::now() + Duration::from_secs(20);
        while !redis.ask("INFO server").is_ok_and(|answer| answer.contains(&own)) {
            assert!(Instant::now() < until, "redis-server does not answer on port {port}");
            thread::sleep(Duration::from_millis(10));
        }
        redis
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// All of what it answers to an inline command, on a connection of its own.
    fn ask(&self, command: &str) -> io::Result<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn assert_empty(mut self) {
        let answer = self.ask("DBSIZE");
        let ended = self.child.try_wait();
        assert!(
            matches!(&answer, Ok(text) if text == ":0\r\n+OK\r\n"),
            "{answer:?}, and the server: {ended:?}"
        );
    }
}

#[test]
fn what_redis_spends_on_idle_nodes_is_shown_by_command_and_no_key_is_left() {
    let redis = Redis::start();
    let output = Command::new(env!("CARGO_BIN_EXE_realtime-bench"))
        .args(["redis", "--redis", &redis.url(), "--nodes", "3", "--users", "50"])
        .args(["--hold", "3s", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["goal_percent"], 2.0);
    assert!(json["redis_core_percent"].as_f64().is_some(), "{json}");
    for command in ["xread", "evalsha", "xadd"] {
        assert!(json["commands"][command]["calls_per_s"].as_f64().unwrap() > 1.0, "{command}: {json}");
    }
    redis.assert_empty();
}

#[test]
fn two_nodes_are_measured_beside_a_raw_client_and_no_key_is_left() {
    let redis = Redis::start();
    let output = Command::new(env!("CARGO_BIN_EXE_realtime-bench"))
        .args(["redis", "--redis", &redis.url(), "--messages", "200"])
        .args(["--publishes", "2000", "--history", "3000", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    for server in [&json["servers"][0], &json["servers"][1]] {
        assert_eq!(server["median"]["delivered"], 200, "{server}");
        assert_eq!(server["median"]["lost"], 0);
        for figure in ["latency_p99_ms", "publish_per_s", "window_s"] {
            assert!(server["median"][figure].as_f64().is_some(), "{figure}");
        }
    }
    redis.assert_empty();
}

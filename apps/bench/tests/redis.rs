//! The binary's `redis`, against a server of its own.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

struct Redis(Child);

impl Drop for Redis {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Redis {
    fn start() -> (Self, TcpStream, u16) {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let redis = Self(
            Command::new("redis-server")
                .args([
                    "--port",
                    &port.to_string(),
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                ])
                .stdout(Stdio::null())
                .spawn()
                .expect("tests/run.sh installs redis-server"),
        );
        let until = Instant::now() + Duration::from_secs(20);
        let socket = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(socket) => break socket,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            thread::sleep(Duration::from_millis(10));
        };
        (redis, socket, port)
    }
}

fn assert_empty(mut redis: TcpStream) {
    redis.write_all(b"*1\r\n$6\r\nDBSIZE\r\n").unwrap();
    let mut answer = [0; 4];
    redis.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b":0\r\n");
}

#[test]
fn what_redis_spends_on_idle_nodes_is_shown_by_command_and_no_key_is_left() {
    let (_redis, socket, port) = Redis::start();
    let output = Command::new(env!("CARGO_BIN_EXE_realtime-bench"))
        .args(["redis", "--redis", &format!("redis://127.0.0.1:{port}/"), "--nodes", "3", "--users", "50"])
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
    assert_empty(socket);
}

#[test]
fn two_nodes_are_measured_beside_a_raw_client_and_no_key_is_left() {
    let (_redis, socket, port) = Redis::start();
    let output = Command::new(env!("CARGO_BIN_EXE_realtime-bench"))
        .args(["redis", "--redis", &format!("redis://127.0.0.1:{port}/"), "--messages", "200"])
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
    assert_empty(socket);
}

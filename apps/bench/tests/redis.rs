//! The binary's `redis`, against a server of its own.

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

#[test]
fn two_nodes_are_measured_beside_a_raw_client_and_no_key_is_left() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _redis = Redis(
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("tests/run.sh installs redis-server"),
    );
    let until = Instant::now() + Duration::from_secs(20);
    let mut redis = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(redis) => break redis,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        thread::sleep(Duration::from_millis(10));
    };
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
    redis.write_all(b"*1\r\n$6\r\nDBSIZE\r\n").unwrap();
    let mut answer = [0; 4];
    redis.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b":0\r\n");
}

//! The demo serves and stops in order although its log is not read.

use std::{
    io::Write,
    net::TcpStream,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    time::{Duration, Instant},
};

use realtime_tests::{Demo, Redis, Server, within};
use tokio::time::{sleep, timeout};

const LOUD: (&str, &str) = ("REALTIME__LOG__LEVEL", "debug");

/// An outage of the bus is not forgiven.
const AT_ONCE: (&str, &str) = ("REALTIME__HEALTH__GRACE", "0s");

async fn is_ready(demo: &Demo) {
    demo.until_ready().await;
}

/// Publishes until it is taken; Redis may just have come back.
async fn published_to(demo: &Demo, user: i64, message: &str) {
    let body = serde_json::json!({ "userIds": [user], "message": message }).to_string();
    within("the bus to take a message", async {
        while demo.try_publish(&body).await.0 != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn ends(demo: &mut Demo, limit: Duration) -> ExitStatus {
    timeout(limit, demo.child().wait()).await.expect("the process does not end").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_an_unread_log_still_delivers_and_stops_in_order() {
    let mut redis = Redis::start().await;
    let url = redis.url();
    let mut demo = Demo::start_unread(&[LOUD, AT_ONCE, ("REALTIME__REDIS__URL", &url)]).await;
    is_ready(&demo).await;
    // Everything logged from here on is written to a closed pipe: sessions, the loss of Redis, its return.
    let (mut socket, mut stream) = (demo.socket(1).await, demo.stream(1).await);
    published_to(&demo, 1, "before").await;
    assert_eq!((socket.text().await, stream.data().await), ("before".into(), "before".into()));
    redis.kill();
    within("readiness to tell that Redis is gone", async {
        while demo.get("/health/ready").await.0 == 200 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    redis.restart().await;
    is_ready(&demo).await;
    published_to(&demo, 1, "after").await;
    // An outage is a gap on the stream; the raw socket has no gaps.
    within("the message after the outage", async {
        while stream.next().await.expect("the stream goes on").data != "after" {}
    })
    .await;
    assert_eq!(socket.text().await, "after");

    demo.terminate();
    assert!(ends(&mut demo, Duration::from_secs(15)).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_read_on_blocks_nothing() {
    let (mut demo, _stderr) = Demo::start_ignored(&[LOUD]).await;
    // Far more than a pipe takes.
    for n in 0..600 {
        let mut stream = demo.stream(1).await;
        demo.publish_to(1, &n.to_string()).await;
        assert_eq!(stream.data().await, n.to_string());
    }
    demo.terminate();
    assert!(ends(&mut demo, Duration::from_secs(15)).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_drain_at_once() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut demo = Demo::start().await;
        // A request whose body never comes: an orderly stop waits for it.
        let mut request = TcpStream::connect(("127.0.0.1", demo.port())).unwrap();
        let head = "POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
        request.write_all(head.as_bytes()).unwrap();
        assert_eq!(demo.get("/health/live").await.0, 200);
        demo.terminate();
        within("the drain to begin", async {
            while reqwest::get(demo.url("/health/ready")).await.is_ok_and(|answer| answer.status() == 200) {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        let pid = demo.pid().to_string();
        assert!(std::process::Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        let start = Instant::now();
        let status = ends(&mut demo, Duration::from_secs(15)).await;
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        assert_eq!((status.code(), status.signal()), (Some(code), None));
    }
}

#[test]
fn commands_with_unread_output_do_not_panic() {
    for arguments in [["check-config", "--config", "/nowhere.yml"], ["gen-token", "--user", "1"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = std::process::Command::new(Demo::binary());
        command.args(arguments).env("REALTIME__AUTH__JWT__SECRET", realtime_tests::SECRET);
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        assert_eq!(command.status().unwrap().code(), Some(1), "{arguments:?}");
    }
}

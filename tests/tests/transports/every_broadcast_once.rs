//! 4,000 connections receive every broadcast once and in order, and stalled readers take no memory.

use std::time::Duration;

use futures_util::future::try_join_all;
use realtime_tests::{Demo, EventStream, Socket, token};
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};

const USERS: i64 = 100;
const PER_USER: usize = 20;
const BROADCASTS: usize = 100;

/// The users whose readers stall: all of their 80 sockets, and 20 of their streams. The parser of streams is slow.
const FILLED: [i64; 4] = [0, 1, 2, 3];
const STALLED_STREAMS: usize = 20;

/// 2,000 WebSockets and 2,000 event streams of 100 users get each of 100 broadcasts, in order, none twice. 100
/// readers that take nothing for five seconds get all of them afterwards, and memory stays flat until then.
#[tokio::test(flavor = "multi_thread")]
async fn four_thousand_connections_get_every_broadcast_once_and_in_order() {
    // The others take their time on a slow machine, and the stalled ones must not reach a time limit until then.
    let patience = [("REALTIME__OUTBOX__MAXSTALL", "300s"), ("REALTIME__HEARTBEAT__TIMEOUT", "300s")];
    let demo = Demo::start_with(&patience).await;
    let (go, stalled_until) = watch::channel(false);
    let (mut live, mut stalled): (Vec<JoinHandle<()>>, Vec<JoinHandle<()>>) = Default::default();
    let mut stalled_streams = 0;
    for user in 0..USERS {
        let token = token(user);
        let sockets =
            try_join_all((0..PER_USER).map(|_| Socket::open(&demo, &token, &[], None))).await.unwrap();
        let streams =
            try_join_all((0..PER_USER).map(|_| EventStream::open(&demo, &token, None))).await.unwrap();
        let filled = FILLED.contains(&user);
        let wait = async |mut signal: watch::Receiver<bool>, stalls: bool| {
            if stalls {
                signal.wait_for(|go| *go).await.unwrap();
            }
        };
        for (mut socket, mut stream) in sockets.into_iter().zip(streams) {
            let signal = stalled_until.clone();
            let reader = tokio::spawn(async move {
                wait(signal, filled).await;
                let mut expected = Expected::default();
                while !expected.take(&socket.text().await) {}
            });
            if filled {
                stalled.push(reader)
            } else {
                live.push(reader)
            }
            let stalls = filled && stalled_streams < STALLED_STREAMS;
            stalled_streams += usize::from(stalls);
            let signal = stalled_until.clone();
            let reader = tokio::spawn(async move {
                wait(signal, stalls).await;
                let mut expected = Expected::default();
                while !expected.take(&stream.data().await) {}
            });
            if stalls { stalled.push(reader) } else { live.push(reader) }
        }
    }
    let before = demo.memory();
    // Together far more than a stalled reader's socket buffers and outbox hold.
    let filler = "x".repeat(60_000);
    for n in 0..BROADCASTS {
        demo.publish(json!({ "userIds": FILLED, "message": filler })).await;
        demo.publish(json!({ "broadcast": true, "message": n.to_string() })).await;
    }
    // A second copy of the last broadcast would come before this.
    demo.publish(json!({ "broadcast": true, "message": "the end" })).await;
    for reader in live {
        tokio::time::timeout(Duration::from_secs(60), reader).await.expect("a reader is stuck").unwrap();
    }
    // Five seconds of standstill are what is tested.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let grown = demo.memory().saturating_sub(before);
    assert!(stalled.iter().all(|reader| !reader.is_finished()), "stalled readers have taken nothing");
    println!("100 stalled readers that lack 6 MB each: the server has grown by {grown} KiB");
    // 100 readers that each lack 6 MB: were it kept for each, it would be 600 MB. The log's window is 6 MB.
    assert!(grown < 100 * 1024, "memory grew by {grown} KiB");
    go.send(true).unwrap();
    for reader in stalled {
        tokio::time::timeout(Duration::from_secs(60), reader)
            .await
            .expect("a stalled reader is stuck")
            .unwrap();
    }
}

/// The broadcasts that a reader still has to get.
#[derive(Default)]
struct Expected {
    next: usize,
}

impl Expected {
    /// Takes what was read; true at the end.
    fn take(&mut self, text: &str) -> bool {
        if text.starts_with("xxx") {
            return false;
        }
        if text == "the end" {
            assert_eq!(self.next, BROADCASTS);
            return true;
        }
        assert_eq!(text, self.next.to_string());
        self.next += 1;
        false
    }
}

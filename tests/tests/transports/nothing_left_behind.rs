//! Connections that come and go leave no descriptor open and no memory in use.
#![cfg(target_os = "linux")]

use std::fs;

use realtime_core::Hub;
use realtime_tests::{Embedded, RawClient, descriptors, in_own_process, until};
use tokio::time::Instant;

const BATCH: usize = 100;

/// Opens connections and breaks them off, in every way.
async fn churn(server: &Embedded, count: usize) {
    for batch in 0..count / BATCH {
        let clients = (0..BATCH).map(async |n| {
            let mut client = RawClient::connect(server).await;
            let user = i64::try_from(n).unwrap();
            let request = if n % 2 == 0 { RawClient::websocket(user) } else { RawClient::event_stream(user) };
            client.write(request).await;
            // Some do not wait until they are taken over.
            if n % 8 < 6 {
                client.head().await;
            }
            if (n / 2 + batch) % 2 == 0 { client.reset() } else { drop(client) }
        });
        futures_util::future::join_all(clients).await;
    }
}

/// The resident memory of this process in KiB.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[actix_web::test]
async fn twenty_thousand_connections_that_are_broken_off_leave_no_trace() {
    if !in_own_process("nothing_left_behind::twenty_thousand_connections_that_are_broken_off_leave_no_trace")
    {
        return;
    }
    let server = Embedded::start(Hub::builder().start().unwrap());
    let hub = &server.hub;
    let gone = async || {
        until("all to be gone", || {
            let metrics = hub.metrics();
            hub.all_sessions().is_empty()
                && metrics.opened == metrics.closed
                && metrics.taken_over == metrics.taken_over_ended
        })
        .await;
        until("the descriptors to be closed", || descriptors(&server) == 0).await;
        (open_files(), memory())
    };
    let begin = Instant::now();
    churn(&server, 2000).await;
    let (files, before) = gone().await;
    let mut after = Vec::new();
    for _ in 0..2 {
        churn(&server, 10_000).await;
        let (now, kib) = gone().await;
        assert!(now <= files + 4, "{now} descriptors instead of {files}");
        after.push(kib);
    }
    println!("{files} descriptors; {before}, then {after:?} KiB; {:.1?}", begin.elapsed());
    assert!(hub.metrics().opened >= 15_000, "{:?}", hub.metrics());
    assert!(after[1] < after[0] + 2048, "memory grows: {before}, then {after:?} KiB");
}

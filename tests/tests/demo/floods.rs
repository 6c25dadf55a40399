//! Clients in masses that connect, break off, ask, ping or stay silent cost a bounded memory and time; everybody else is
//! served meanwhile, and afterwards nothing of them is left.
#![cfg(target_os = "linux")]

use std::{fs, process::Command, time::Duration};

use futures_util::future::{join, join_all};
use realtime_tests::{API_KEY, Demo, RawClient, Socket, sign, within};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep, timeout},
};

/// The number of descriptors that the demo has open.
fn descriptors(demo: &Demo) -> usize {
    fs::read_dir(format!("/proc/{}/fd", demo.pid())).unwrap().count()
}

/// Waits until the demo has no more descriptors open than that.
async fn until_descriptors(demo: &Demo, count: usize) {
    within(&format!("no more than {count} descriptors"), async {
        while descriptors(demo) > count {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// CPU time of the demo so far.
fn cpu(demo: &Demo) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", demo.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(10 * ticks)
}

/// Shows that a client that behaves is served on both transports.
async fn others_are_served(demo: &Demo, user: i64) {
    let (mut socket, mut stream) = (demo.socket(user).await, demo.stream(user).await);
    demo.publish_to(user, "served").await;
    assert_eq!(socket.text().await, "served");
    assert_eq!(stream.data().await, "served");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_or_half_of_it_are_ended_and_others_are_served() {
    let demo = Demo::start().await;
    others_are_served(&demo, 1).await;
    let (before, memory) = (descriptors(&demo), demo.memory());
    let parts = ["", "G", "GET /resource/sse HTTP/1.1\r\nHost: x\r\nX-Slow: "];
    let mut clients = Vec::new();
    for batch in 0..20 {
        clients.extend(
            join_all((0..90).map(async |number| {
                let mut client = RawClient::connect(&demo).await;
                client.write(parts[(batch + number) % parts.len()]).await;
                if number % 4 == 0 {
                    client.tcp.shutdown().await.unwrap();
                }
                client
            }))
            .await,
        );
        others_are_served(&demo, 1).await;
    }
    println!("{} KiB for {} connections", demo.memory().saturating_sub(memory), clients.len());
    assert!(demo.memory().saturating_sub(memory) < 64 << 10, "{} KiB", demo.memory());
    // Some heads go on, a byte at a time, and are as late as the others.
    let drips = clients.iter_mut().map(async |client| {
        while client.tcp.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(500)).await;
        }
    });
    let begin = Instant::now();
    timeout(Duration::from_secs(15), join_all(drips)).await.ok();
    until_descriptors(&demo, before + 4).await;
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    others_are_served(&demo, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_connections_that_are_broken_off_leave_no_descriptor_and_no_memory() {
    let demo = Demo::start().await;
    let requests = [
        RawClient::websocket(1),
        RawClient::event_stream(2),
        String::new(),
        "GET /health/live HTTP/1.1\r\nHost: x\r\nX-Half: ".to_owned(),
        "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        format!(
            "POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\nContent-Length: 100\r\n\r\n{{"
        ),
        RawClient::websocket(3) + "\u{1}",
        RawClient::event_stream(4).replace("1.1", "1.0"),
    ];
    let abort = async |count: usize| {
        for batch in 0..count / 100 {
            join_all((0..100).map(async |number| {
                let mut client = RawClient::connect(&demo).await;
                client.write(&requests[number % requests.len()]).await;
                // Some are gone before they are answered.
                if batch % 2 == 0 && [0, 1, 4].contains(&(number % requests.len())) {
                    client.head().await;
                }
                if number % 3 == 0 { drop(client) } else { client.reset() }
            }))
            .await;
        }
        for user in 1..=4 {
            demo.until_sessions(user, 0).await;
        }
    };
    abort(2000).await;
    others_are_served(&demo, 1).await;
    sleep(Duration::from_millis(500)).await;
    let (before, mut memory) = (descriptors(&demo), Vec::new());
    for _ in 0..2 {
        abort(10_000).await;
        until_descriptors(&demo, before + 8).await;
        memory.push(demo.memory());
    }
    println!("{before} descriptors, {memory:?} KiB");
    assert!(memory[1] < memory[0] + 4096, "{memory:?} KiB");
    others_are_served(&demo, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_clients_wait_and_those_that_are_connected_are_served() {
    let demo = Demo::start().await;
    let mut socket = demo.socket(1).await;
    let mut stream = demo.stream(1).await;
    demo.until_sessions(1, 2).await;
    let limit = descriptors(&demo) + 40;
    let (limits, pid) = (format!("--nofile={limit}:{limit}"), demo.pid().to_string());
    let set = Command::new("prlimit").args([&limits, "--pid", &pid]).status();
    let set = set.expect("prlimit is there (util-linux)");
    assert!(set.success());
    let mut clients = Vec::new();
    for _ in 0..120 {
        let mut client = RawClient::connect(&demo).await;
        client.write(RawClient::websocket(2)).await;
        clients.push(client);
    }
    // Some are served, and the others wait.
    within("the descriptors to be used up", async {
        while descriptors(&demo) < limit - 2 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    sleep(Duration::from_secs(1)).await;
    let begin = cpu(&demo);
    sleep(Duration::from_secs(3)).await;
    let spent = cpu(&demo) - begin;
    println!("{spent:?} of CPU time in 3 s without descriptors");
    assert!(spent < Duration::from_millis(1500), "{spent:?}: the server spins");
    // What is connected, is served: `publish` needs a connection, so the chat carries it.
    let line = json!({ "type": "chat", "to": 1, "text": "still here" }).to_string();
    socket.send(&line).await;
    assert!(socket.text().await.contains("still here"));
    drop(clients.split_off(20));
    demo.publish_to(1, "served again").await;
    assert_eq!(socket.text().await, "served again");
    assert_eq!(stream.data().await, "served again");
    drop(clients);
    demo.until_sessions(2, 0).await;
    others_are_served(&demo, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_in_masses_take_no_more_topics_than_a_session_may_have() {
    let demo = Demo::start().await;
    let before = demo.memory();
    let token = sign(&json!({ "userId": 2, "exp": 4_102_444_800_u64, "grants": ["*"] }));
    let flood = (0..8).map(async |client| {
        let mut socket = Socket::open(&demo, &token, &["realtime.v1"], None).await.unwrap();
        assert_eq!(socket.json().await["type"], "hello");
        let mut subscribed = 0;
        for round in 0..30 {
            let topics: Vec<String> = (0..500).map(|topic| format!("t:{client}:{round}:{topic}")).collect();
            socket.send(&json!({ "type": "subscribe", "topics": topics }).to_string()).await;
            let answer = socket.message().await;
            // Those that it may have, and then none; or it has asked too often.
            if answer["type"] == "bye" {
                assert_eq!(answer["reason"], "rate-limited");
                break;
            }
            let granted = answer["topics"].as_array().unwrap().len();
            assert_eq!(granted + answer["refused"].as_array().unwrap().len(), 500, "each is answered");
            subscribed += granted;
        }
        subscribed
    });
    let subscribed = join_all(flood).await;
    assert!(subscribed.iter().all(|count| *count <= 100), "{subscribed:?}");
    others_are_served(&demo, 1).await;
    demo.until_sessions(2, 0).await;
    let grown = demo.memory().saturating_sub(before);
    println!("{grown} KiB");
    assert!(grown < 64 << 10, "{grown} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_in_masses_whose_answers_nobody_reads_take_a_bounded_memory() {
    let demo = Demo::start().await;
    others_are_served(&demo, 1).await;
    let before = demo.memory();
    let pings = RawClient::client_frame(0x89, &[b'p'; 125]).repeat(500);
    let flood = (0..8).map(async |user| {
        let mut client = RawClient::connect(&demo).await;
        client.write(RawClient::websocket(100 + user)).await;
        client.head().await;
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(3) {
            // A server that answers nothing more reads nothing more, or ends the connection.
            if let Ok(Err(_)) = timeout(Duration::from_millis(200), client.tcp.write_all(&pings)).await {
                break;
            }
        }
        client
    });
    let served = async {
        for _ in 0..10 {
            others_are_served(&demo, 1).await;
        }
    };
    let (clients, ()) = join(join_all(flood), served).await;
    let grown = demo.peak_memory().saturating_sub(before);
    println!("{grown} KiB for {} connections", clients.len());
    assert!(grown < 32 << 10, "{grown} KiB");
    let begin = Instant::now();
    drop(clients);
    for user in 100..108 {
        demo.until_sessions(user, 0).await;
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

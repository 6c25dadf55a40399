//! A client receives its messages in one order, on the body lane and on the taken-over lane.
#![cfg(target_os = "linux")]

use std::{collections::VecDeque, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use realtime_core::{Envelope, Hub, Message, Scope, Settings, Topic};
use realtime_tests::{Embedded, RawClient, ServerKind, publish, session, within};
use tokio::{
    io::AsyncReadExt,
    time::{sleep, timeout},
};

/// Frames that a client has yet to receive.
#[derive(Default)]
struct Expected {
    published: VecDeque<String>,
    pongs: VecDeque<String>,
    echoes: VecDeque<String>,
}

impl Expected {
    fn is_empty(&self) -> bool {
        self.published.is_empty() && self.pongs.is_empty() && self.echoes.is_empty()
    }

    /// Checks all frames that are here, and answers pings.
    async fn take(&mut self, client: &mut RawClient) {
        while let Some((first, payload)) = client.frame() {
            match first {
                0x81 => {
                    let text = String::from_utf8_lossy(&payload);
                    let queue = if text.starts_with("ECHO") { &mut self.echoes } else { &mut self.published };
                    let expected = queue.pop_front().unwrap();
                    assert!(text == expected, "{} came instead of {}", cut(&text), cut(&expected));
                }
                0x89 => client.send(0x8A, &payload).await,
                0x8A => assert_eq!(String::from_utf8(payload).unwrap(), self.pongs.pop_front().unwrap()),
                other => panic!("frame {other:#x} with {} bytes", payload.len()),
            }
        }
    }
}

fn cut(text: &str) -> &str {
    &text[..text.len().min(20)]
}

fn hub() -> Hub {
    let mut settings = Settings::default();
    settings.limits.max_inbound_rate = 0;
    Hub::builder().settings(settings).start().unwrap()
}

/// Publishes a broadcast, or to a topic or the user.
async fn publish_any_way(hub: &Hub, way: u32, text: &str) {
    let message = Message::text(text.to_owned());
    let envelope = match way {
        0 => Envelope::broadcast(Scope::Both, message),
        1 => Envelope::to_topics([Topic::new("order:42").unwrap()], Scope::Both, message).unwrap(),
        _ => return publish(hub, 1, text).await,
    };
    hub.publish(envelope).await.unwrap();
}

#[actix_web::test]
async fn order_holds_over_both_lanes_through_stalls_large_messages_pings_and_answers() {
    let server = Embedded::start(hub());
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut client = RawClient::open(&server, 1, "").await;
    client.head().await;
    let session = session(&server.hub, 1).await;
    session.subscribe(Topic::new("order:42").unwrap());
    let mut expected = Expected::default();
    let (mut number, mut opened, mut closed, mut direct) = (0, 0, 0, false);
    let mut stalls = false;
    for round in 0..1000 {
        if round % 8 == 0 {
            stalls = random.random_ratio(1, 3);
        }
        for _ in 0..random.random_range(0..4) {
            number += 1;
            let size = if random.random_ratio(1, 10) { random.random_range(0..60_000) } else { 10 };
            let text = format!("{number} {}", "x".repeat(size));
            publish_any_way(&server.hub, random.random_range(0..3), &text).await;
            expected.published.push_back(text);
        }
        if random.random_ratio(1, 4) {
            client.send(0x89, number.to_string().as_bytes()).await;
            expected.pongs.push_back(number.to_string());
        }
        if random.random_ratio(1, 4) {
            client.send(0x81, format!("echo {number}").as_bytes()).await;
            expected.echoes.push_back(format!("ECHO {number}"));
        }
        if stalls {
            sleep(Duration::from_millis(random.random_range(0..2))).await;
        } else if random.random_ratio(1, 3) {
            timeout(Duration::from_millis(2), client.tcp.read_buf(&mut client.bytes)).await.ok();
            expected.take(&mut client).await;
        } else {
            while let Ok(read) =
                timeout(Duration::from_millis(2), client.tcp.read_buf(&mut client.bytes)).await
            {
                assert!(read.unwrap() > 0);
                expected.take(&mut client).await;
            }
        }
        match (direct, session.is_direct()) {
            (false, true) => opened += 1,
            (true, false) => closed += 1,
            _ => {}
        }
        direct = session.is_direct();
    }
    within("everything", async {
        while !expected.is_empty() {
            assert!(client.tcp.read_buf(&mut client.bytes).await.unwrap() > 0);
            expected.take(&mut client).await;
        }
    })
    .await;
    println!("{number} messages; direct writes began {opened} times and ended {closed} times");
    // How often depends on the machine; both have to happen.
    assert!(ServerKind::of_run() != ServerKind::Realtime || (opened >= 2 && closed >= 2));
}

#[actix_web::test]
async fn a_head_that_waits_behind_an_earlier_answer_is_not_overtaken() {
    let server = Embedded::start(hub());
    // More than both sockets hold: the dispatcher keeps the rest, and the WebSocket's head behind it.
    const BYTES: usize = 8 << 20;
    let before = format!("GET /bytes/{BYTES} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut client = RawClient::open(&server, 1, &before).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    // The dispatcher starts the handshake when little is left of the answer. The client doesn't read from then on.
    while server.hub.sessions(&1.into()).is_empty() {
        let mut piece = [0; 1024];
        let count = within("a piece of the answer", client.tcp.read(&mut piece)).await.unwrap();
        client.bytes.extend_from_slice(&piece[..count]);
    }
    for n in 0..50 {
        publish(&server.hub, 1, &n.to_string()).await;
        sleep(Duration::from_millis(1)).await;
    }
    within("the first answer", async {
        while client.bytes.len() < BYTES {
            client.tcp.read_buf(&mut client.bytes).await.unwrap();
        }
    })
    .await;
    assert!(client.bytes.drain(..BYTES).all(|byte| byte == b'b'));
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    let mut expected =
        Expected { published: (0..50).map(|n| n.to_string()).collect(), ..Expected::default() };
    within("the messages", async {
        loop {
            expected.take(&mut client).await;
            if expected.is_empty() {
                break;
            }
            timeout(Duration::from_millis(20), client.tcp.read_buf(&mut client.bytes)).await.ok();
        }
    })
    .await;
}

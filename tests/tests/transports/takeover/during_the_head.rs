//! A connection that leaves the HTTP dispatcher loses nothing, reorders nothing, and leaves nothing behind.
#![cfg(target_os = "linux")]

use std::time::Duration;

use realtime_core::{CloseReason, Hub, Settings};
use realtime_tests::{
    Embedded, EventStream, RawClient, Server, ServerKind, Socket, descriptors, publish, session, token,
    until, within,
};
use tokio::{io::AsyncWriteExt, time::sleep};

use super::{hub, is_taken, requests, start};

/// A hub with a short `outbox.max_stall`.
fn impatient_hub(max_stall: Duration) -> Hub {
    let mut settings = Settings::default();
    settings.outbox.max_stall = max_stall;
    Hub::builder().settings(settings).start().unwrap()
}

#[actix_web::test]
async fn what_follows_a_handshake_in_its_packet_is_read_in_order() {
    let server = Embedded::start(hub());
    let (a, b) = (RawClient::client_frame(0x81, b"a"), RawClient::client_frame(0x81, b"b"));
    let frames = [a, b].concat();
    for cut in 0..=frames.len() {
        let mut client = RawClient::connect(&server).await;
        client.write([RawClient::websocket(1).as_bytes(), &frames[..cut]].concat()).await;
        assert!(client.head().await.starts_with("HTTP/1.1 101 "));
        client.write(&frames[cut..]).await;
        assert_eq!(client.next_frame().await, (0x81, b"A".to_vec()), "cut at {cut}");
        assert_eq!(client.next_frame().await, (0x81, b"B".to_vec()), "cut at {cut}");
    }
    // More than a connection may send ahead.
    let mut client = RawClient::connect(&server).await;
    let many: Vec<u8> =
        (0..2000).flat_map(|n| RawClient::client_frame(0x81, format!("{n}").as_bytes())).collect();
    let (handshake, mut bytes) = (RawClient::websocket(1), Vec::new());
    let (mut reading, mut writing) = client.tcp.split();
    let write = async { writing.write_all(&[handshake.as_bytes(), &many].concat()).await.unwrap() };
    let read = async {
        while bytes.len() < 2000 * 3 || !bytes.ends_with(b"1999") {
            tokio::io::AsyncReadExt::read_buf(&mut reading, &mut bytes).await.unwrap();
        }
    };
    within("all answers", async { tokio::join!(write, read) }).await;
    client.bytes = bytes;
    client.head().await;
    for n in 0..2000 {
        assert_eq!(client.frame(), Some((0x81, format!("{n}").into_bytes())));
    }
}

#[actix_web::test]
async fn requests_before_an_upgrade_are_answered_first() {
    let server = Embedded::start(hub());
    for (request, answer) in requests(1) {
        let mut before = "GET /bytes/3 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned();
        before.push_str("GET /bytes/5000 HTTP/1.1\r\nHost: x\r\n\r\n");
        // actix-web's server ends a connection whose pipelined body is not read.
        if is_taken() {
            before.push_str("POST /nothing HTTP/1.1\r\nHost: x\r\n");
            before.push_str("Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n");
        }
        let mut client = RawClient::connect(&server).await;
        let behind = RawClient::client_frame(0x81, b"behind");
        // Behind the request of a stream it would be one that is malformed.
        let behind = if answer.contains("101") { &behind[..] } else { b"" };
        client.write([before.as_bytes(), request.as_bytes(), behind].concat()).await;
        client.head().await;
        client.exactly(3).await;
        client.head().await;
        client.exactly(5000).await;
        if is_taken() {
            assert!(client.head().await.starts_with("HTTP/1.1 404 "));
        }
        assert!(client.head().await.starts_with(answer));
        let session = session(&server.hub, 1).await;
        until("the connection to be taken over", || session.is_direct() == is_taken()).await;
        publish(&server.hub, 1, "published").await;
        if answer.contains("101") {
            let texts = [client.next_frame().await.1, client.next_frame().await.1];
            assert!(texts.contains(&b"BEHIND".to_vec()) && texts.contains(&b"published".to_vec()));
        } else {
            client.until("data:published\n\n").await;
        }
        drop(client);
        until("the session to end", || server.hub.all_sessions().is_empty()).await;
    }
}

#[actix_web::test]
async fn requests_behind_an_event_stream_disturb_nothing_and_leaving_is_seen() {
    let server = Embedded::start(hub());
    for bytes in [100, 130 << 10] {
        let mut client = RawClient::connect(&server).await;
        let behind = "GET /bytes/1 HTTP/1.1\r\nHost: x\r\n\r\n".repeat(bytes / 36);
        client.write(RawClient::event_stream(1) + &behind).await;
        client.head().await;
        publish(&server.hub, 1, "one").await;
        client.until("data:one\n\n").await;
        client.write(&behind).await;
        publish(&server.hub, 1, "two").await;
        let between = client.until("data:two\n\n").await;
        assert!(!between.contains("HTTP"));
        drop(client);
        within("the end of the session", async {
            while !server.hub.all_sessions().is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

const BEFORE: usize = 8 << 20;

/// A client whose upgrade waits behind an answer of which it reads no more.
async fn stalled_during_the_head(server: &(impl Server + ?Sized), hub: &Hub, request: &str) -> RawClient {
    let mut client = RawClient::connect(server).await;
    client.write(format!("GET /bytes/{BEFORE} HTTP/1.1\r\nHost: x\r\n\r\n{request}")).await;
    client.head().await;
    while hub.sessions(&1.into()).is_empty() {
        let mut piece = [0; 1024];
        let read = tokio::io::AsyncReadExt::read(&mut client.tcp, &mut piece);
        let read = within("a piece of the answer", read).await.unwrap();
        client.bytes.extend_from_slice(&piece[..read]);
    }
    client
}

#[actix_web::test]
async fn a_peer_that_stalls_during_the_head_is_broken_off() {
    let hub = impatient_hub(Duration::from_millis(400));
    // The kernel's time limit would end it as well, but without counting it.
    let (ours, theirs) = if is_taken() {
        (Some(start(&hub, |_| {})), None)
    } else {
        (None, Some(Embedded::start(hub.clone())))
    };
    let server: &dyn Server = ours.as_ref().map_or_else(|| theirs.as_ref().unwrap() as _, |ours| ours as _);
    let filler = "x".repeat(60_000);
    for (request, _) in requests(1) {
        for leaves in [false, true] {
            let mut client = stalled_during_the_head(server, &hub, &request).await;
            for _ in 0..8 {
                publish(&hub, 1, &filler).await;
            }
            if leaves {
                client.tcp.shutdown().await.unwrap();
            }
            until("the session to end", || hub.all_sessions().is_empty()).await;
            until("the descriptor to be closed", || descriptors(server) == 0).await;
            let in_order = client.end().await;
            assert!(leaves || !in_order || !is_taken(), "the kernel has thrown away what was left");
        }
    }
    assert!(!is_taken() || hub.metrics().slow_consumers >= 2, "{:?}", hub.metrics());
}

#[actix_web::test]
async fn a_client_that_leaves_during_the_takeover_leaves_nothing_behind() {
    let server = Embedded::start(hub());
    for (request, _) in requests(1) {
        for end in 0..4 {
            let mut client = if end < 2 {
                stalled_during_the_head(&server, &server.hub, &request).await
            } else {
                let mut client = RawClient::connect(&server).await;
                client.write(&request).await;
                client
            };
            if end % 2 == 0 {
                client.reset();
            } else {
                client.tcp.shutdown().await.unwrap();
                client.end().await;
                drop(client);
            }
            until("the session to end", || server.hub.all_sessions().is_empty()).await;
            until("the descriptor to be closed", || descriptors(&server) == 0).await;
        }
    }
    until("all to be counted", || {
        let metrics = server.hub.metrics();
        metrics.taken_over == metrics.taken_over_ended && metrics.opened == metrics.closed
    })
    .await;
}

#[actix_web::test]
async fn a_kick_and_a_drain_during_the_lift_come_behind_the_head() {
    for drain in [false, true] {
        for (request, answer) in requests(1) {
            let server = Embedded::start(hub());
            let mut client = stalled_during_the_head(&server, &server.hub, &request).await;
            publish(&server.hub, 1, "before").await;
            if drain {
                let hub = server.hub.clone();
                actix_web::rt::spawn(async move { hub.drain().await });
                let session = session(&server.hub, 1).await;
                until("the drain", || session.closing().is_some()).await;
            } else {
                session(&server.hub, 1).await.close(CloseReason::Kicked);
            }
            client.exactly(BEFORE).await;
            assert!(client.head().await.starts_with(answer));
            if answer.contains("101") {
                assert_eq!(client.next_frame().await, (0x81, b"before".to_vec()));
                let (first, payload) = loop {
                    let frame = client.next_frame().await;
                    if frame.0 == 0x88 {
                        break frame;
                    }
                };
                let code = u16::from_be_bytes(payload[..2].try_into().unwrap());
                assert_eq!((first, code), (0x88, if drain { 1012 } else { 4409 }));
                client.send(0x88, &payload[..2]).await;
            } else {
                client.until("data:before\n\n").await;
                client.until(":disconnected\n").await;
                client.until("\r\n0\r\n\r\n").await;
            }
            assert!(client.end().await, "the connection ends in order");
            until("the descriptor to be closed", || descriptors(&server) == 0).await;
        }
    }
}

#[actix_web::test]
async fn no_descriptor_outlives_its_connection_and_every_end_is_seen_at_once() {
    let server = Embedded::start(hub());
    for end in 0..4 {
        let mut socket = Socket::open(&server, &token(1), &[], None).await.unwrap();
        let session = session(&server.hub, 1).await;
        assert_eq!(descriptors(&server), 1);
        let taken = ServerKind::of_run() == ServerKind::Realtime;
        until("the connection to be taken over", || session.is_direct() == taken).await;
        publish(&server.hub, 1, "x").await;
        assert_eq!(socket.text().await, "x");
        match end {
            0 => {
                session.close(CloseReason::Kicked);
                assert_eq!(socket.close_code().await, 4409);
            }
            1 => {
                socket.0.close(None).await.unwrap();
                socket.close_code().await;
            }
            2 => drop(socket),
            _ => {
                let stream = EventStream::open(&server, &token(1), None).await.unwrap();
                assert_eq!(descriptors(&server), 2);
                drop((socket, stream));
            }
        }
        until("the descriptors to be closed", || descriptors(&server) == 0).await;
    }
    let taken = if ServerKind::of_run() == ServerKind::Realtime { 5 } else { 0 };
    until("the sessions to be counted", || server.hub.metrics().taken_over_ended == taken).await;
    assert_eq!(server.hub.metrics().taken_over, taken);
}

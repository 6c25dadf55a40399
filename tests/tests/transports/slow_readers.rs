//! A reader that takes something keeps its connection; one that takes nothing is reset, and its memory is freed.
#![cfg(target_os = "linux")]

use std::time::Duration;

use futures_util::StreamExt;
use realtime_core::{CloseReason, Envelope, Hub, Message, Scope, SessionHandle, Settings};
use realtime_tests::{
    Demo, Embedded, RawClient, Server, ServerKind, WsMessage, descriptors, publish, session, until, within,
};
use serde_json::json;
use socket2::SockRef;
use tokio::{
    io::AsyncReadExt,
    net::TcpSocket,
    time::{Instant, sleep},
};

const MAX_STALL: Duration = Duration::from_secs(2);

fn start() -> Embedded {
    let mut settings = Settings::default();
    settings.outbox.max_stall = MAX_STALL;
    Embedded::start(Hub::builder().settings(settings).start().unwrap())
}

/// Publishes more than any socket holds.
async fn publish_much(hub: &Hub) {
    for _ in 0..100 {
        let message = Message::text("x".repeat(10_000));
        hub.publish(Envelope::broadcast(Scope::Both, message)).await.unwrap();
    }
}

/// A client whose segments are as on a network. On the loopback device they are so large that a small window opens only
/// once all of it has been read.
async fn connect(server: &Embedded) -> RawClient {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    SockRef::from(&socket).set_tcp_mss(1000).unwrap();
    let tcp = socket.connect(([127, 0, 0, 1], server.port()).into()).await.unwrap();
    RawClient { tcp, bytes: Vec::new() }
}

#[actix_web::test]
async fn a_slow_but_steady_reader_is_not_cut() {
    let server = start();
    let mut clients = [connect(&server).await, connect(&server).await];
    clients[0].write(RawClient::websocket(1)).await;
    clients[1].write(RawClient::event_stream(1)).await;
    for client in &mut clients {
        client.head().await;
    }
    until("both sessions", || server.hub.all_sessions().len() == 2).await;
    publish_much(&server.hub).await;
    let begin = Instant::now();
    while begin.elapsed() < 4 * MAX_STALL {
        for client in &mut clients {
            // 16 KiB a second. The window of a client that reads less opens too seldom for maxStall, and the server
            // has no other sign that it reads.
            let mut piece = [0; 1600];
            let read = within("bytes", client.tcp.read(&mut piece)).await;
            let metrics = server.hub.metrics();
            assert!(matches!(read, Ok(1..)), "{read:?} after {:?}: {metrics:?}", begin.elapsed());
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(server.hub.all_sessions().len(), 2, "{:?}", server.hub.metrics());
}

#[actix_web::test]
async fn a_slow_reader_of_a_large_answer_is_not_cut() {
    const LARGE: usize = 512 << 10;
    let mut settings = Settings::default();
    settings.outbox.max_stall = MAX_STALL;
    settings.limits.max_inbound_bytes = LARGE;
    let server = Embedded::start(Hub::builder().settings(settings).start().unwrap());
    let mut client = connect(&server).await;
    client.write(RawClient::websocket(1)).await;
    client.head().await;
    session(&server.hub, 1).await;
    let head = [&[0x81, 0x80 | 127][..], &(LARGE as u64).to_be_bytes(), &[0; 4]].concat();
    client.write([head, vec![b'y'; LARGE]].concat()).await;
    let begin = Instant::now();
    while begin.elapsed() < 3 * MAX_STALL {
        // 50 KiB a second.
        let mut piece = [0; 5 << 10];
        let read = within("bytes", client.tcp.read(&mut piece)).await;
        let metrics = server.hub.metrics();
        assert!(matches!(read, Ok(1..)), "{read:?} after {:?}: {metrics:?}", begin.elapsed());
        publish(&server.hub, 1, "behind").await;
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(server.hub.all_sessions().len(), 1, "{:?}", server.hub.metrics());
}

#[actix_web::test]
async fn a_dead_reader_is_reset() {
    for request in [RawClient::websocket(1), RawClient::event_stream(1)] {
        let server = start();
        let mut client = connect(&server).await;
        client.write(request).await;
        client.head().await;
        until("the session", || server.hub.all_sessions().len() == 1).await;
        publish_much(&server.hub).await;
        let begin = Instant::now();
        until("the session to end", || server.hub.all_sessions().is_empty()).await;
        until("the descriptor to be closed", || descriptors(&server) == 0).await;
        assert!(begin.elapsed() < 3 * MAX_STALL, "{:?}", begin.elapsed());
        assert!(!client.end().await, "the kernel has thrown away what was left");
    }
}

#[actix_web::test]
async fn a_stalled_reader_is_broken_off_and_what_it_held_is_free() {
    let mut settings = Settings::default();
    settings.outbox.max_stall = Duration::from_millis(400);
    settings.limits.max_connections_per_user = 1;
    let server = Embedded::start(Hub::builder().settings(settings).start().unwrap());
    let mut client = RawClient::open(&server, 1, "").await;
    client.head().await;
    let filler = "x".repeat(60_000);
    session(&server.hub, 1).await;
    for _ in 0..200 {
        publish(&server.hub, 1, &filler).await;
    }
    until("the descriptors to be closed", || descriptors(&server) == 0).await;
    assert_eq!(server.hub.metrics().slow_consumers, 1);
    let end = within("the end", async {
        loop {
            client.bytes.clear();
            match client.tcp.read_buf(&mut client.bytes).await {
                Ok(0) => break "FIN",
                Ok(_) => {}
                Err(_) => break "RST",
            }
        }
    })
    .await;
    assert_eq!(end, "RST", "the kernel has thrown away what was left");
    // Its connection is gone as well, with the rest of the write that the socket did not take: it counts no more.
    within("room for another connection of the user", async {
        while !RawClient::open(&server, 1, "").await.head().await.starts_with("HTTP/1.1 101 ") {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// A client that reads nothing, once its socket has taken much, and then that many short messages, or as many as it holds.
/// Returns their number, too.
async fn filled(
    server: &Embedded,
    request: &str,
    user: i64,
    count: usize,
) -> (RawClient, SessionHandle, usize) {
    let mut client = RawClient::connect(server).await;
    client.write(request).await;
    client.head().await;
    let session = session(&server.hub, user).await;
    until("frames to be written directly", || session.is_direct()).await;
    for _ in 0..3 {
        session.send_local("x".repeat(4000)).unwrap();
    }
    // Once the client's window is closed, most sockets hold as much as the others.
    sleep(Duration::from_millis(50)).await;
    let mut sent = 0;
    while sent < count && session.is_direct() {
        session.send_local("x").unwrap();
        sent += 1;
    }
    (client, session, sent)
}

#[actix_web::test]
async fn a_reader_whose_socket_has_no_room_for_the_end_is_reset() {
    if ServerKind::of_run() != ServerKind::Realtime {
        // The socket is its server's, and the kernel decides about the last frames.
        return;
    }
    for request in [RawClient::websocket, RawClient::event_stream] {
        let server = start();
        let mut most = usize::MAX;
        for _ in 0..3 {
            let (client, session, sent) = filled(&server, &request(1), 1, usize::MAX).await;
            drop((client, session));
            until("the session to end", || server.hub.all_sessions().is_empty()).await;
            most = most.min(sent);
        }
        let mut clients = Vec::new();
        for (user, count) in (2..).zip(most - 10..most) {
            let (client, session, _) = filled(&server, &request(user), user, count).await;
            clients.push((client, session.is_direct(), session));
        }
        clients.iter().for_each(|(_, _, session)| session.close(CloseReason::Kicked));
        until("the descriptors to be closed", || descriptors(&server) == 0).await;
        let mut reset = 0;
        for (mut client, was_direct, _) in clients {
            reset += usize::from(was_direct && !client.end().await);
        }
        assert!(reset > 0, "all sockets that took less than {most} messages took the end, too");
        until("all to be counted", || server.hub.metrics().taken_over_ended == 13).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_takes_nothing_ends_and_its_memory_is_freed() {
    let demo = Demo::start_with(&[("REALTIME__OUTBOX__MAXSTALL", "1s")]).await;
    let stalled = demo.socket(1).await;
    let mut healthy = demo.socket(2).await;
    let reader = tokio::spawn(async move {
        for n in 0..400 {
            assert!(healthy.text().await.starts_with(&format!("{n} ")));
        }
    });
    for n in 0..400 {
        demo.publish(json!({ "broadcast": true, "message": format!("{n} {}", "x".repeat(60_000)) })).await;
    }
    within("the healthy reader", reader).await.unwrap();
    demo.until_sessions(1, 0).await;
    // The kernel ends the connection: a peer that wakes up finds it broken, not half-open.
    within("the end of the connection", async {
        let mut stalled = stalled;
        while !matches!(stalled.0.next().await, None | Some(Err(_)) | Some(Ok(WsMessage::Close(_)))) {}
    })
    .await;
}

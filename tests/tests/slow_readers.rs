//! Readers that are slow: whoever takes something keeps its connection, and whoever takes nothing is reset.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::time::Duration;

use realtime_core::{Envelope, Hub, Message, Scope, Settings};
use realtime_tests::{Embedded, RawClient, Server, descriptors, until, within};
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
            // 16 KiB a second. The window of a client that reads less opens too seldom for maxStall, and nothing else tells
            // a server that it reads.
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

//! Messages published before a session ends are delivered before its end, and what the client sends later is ignored.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix_web::{App, HttpServer};
use bytestring::ByteString;
use realtime_core::{
    CloseReason, Envelope, Hub, Message, Scope, Settings,
    auth::{JwtAlgorithm, JwtAuthenticator},
};
use realtime_tests::{Embedded, SECRET, Server, Socket, token, until, within};
use realtime_websocket::{SessionHandle, WebSocketConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A connection that asked for a stream and reads nothing, with what it may buffer kept small.
async fn stalled_stream(server: &Embedded, user: i64) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut tcp = socket.connect(([127, 0, 0, 1], server.port()).into()).await.unwrap();
    let request = format!("GET /resource/sse?Authorization={} HTTP/1.1\r\nHost: a\r\n\r\n", token(user));
    tcp.write_all(request.as_bytes()).await.unwrap();
    tcp
}

#[actix_web::test]
async fn a_stream_that_is_broken_off_within_an_event_has_no_orderly_end() {
    let server = Embedded::start(Hub::builder().start().unwrap());
    let mut tcp = stalled_stream(&server, 1).await;
    until("the session", || server.emitters.exist_session(1)).await;
    for _ in 0..200 {
        server.emitters.publish_all("x".repeat(10_000)).await.unwrap();
    }
    // The socket is full when the outbox has been sent to the log.
    until("a full socket", || server.hub.metrics().catch_ups > 0).await;
    server.emitters.sessions(1)[0].close(CloseReason::SlowConsumer);
    let mut all = Vec::new();
    let end = within("the end", tcp.read_to_end(&mut all)).await;
    let text = String::from_utf8_lossy(&all);
    assert!(!text.contains(":disconnected"), "closing frames behind half an event make it a whole one");
    assert!(end.is_err() || !text.ends_with("0\r\n\r\n"), "an orderly end says that all has been sent");
}

#[actix_web::test]
async fn input_of_a_client_is_ignored_once_its_end_is_decided() {
    let handled = Arc::new(AtomicUsize::new(0));
    let hub = Hub::builder().start().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = HttpServer::new({
        let (hub, handled) = (hub.clone(), Arc::clone(&handled));
        move || {
            let handled = Arc::clone(&handled);
            let count = move |_: SessionHandle, _: ByteString| {
                handled.fetch_add(1, Ordering::SeqCst);
                async { None }
            };
            let config = WebSocketConfig::default().inbound(count);
            let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap());
            App::new().configure(realtime_websocket::routes(hub.clone(), jwt, config))
        }
    })
    .workers(1)
    .disable_signals()
    .listen(listener)
    .unwrap()
    .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);

    struct Port(u16);
    impl Server for Port {
        fn port(&self) -> u16 {
            self.0
        }
    }
    let mut socket = Socket::open(&Port(port), &token(1), &[], None).await.unwrap();
    socket.send("before").await;
    until("the first text", || handled.load(Ordering::SeqCst) == 1).await;
    // Enough waiting data to delay the client's end.
    for _ in 0..600 {
        hub.publish(Envelope::broadcast(Scope::Both, Message::text("x".repeat(10_000)))).await.unwrap();
    }
    until("a full socket", || hub.metrics().catch_ups > 0).await;
    hub.kick(&1.into()).await.unwrap();
    for _ in 0..20 {
        socket.send("after").await;
    }
    assert_eq!(socket.close_code().await, 4409);
    assert_eq!(handled.load(Ordering::SeqCst), 1);
    drop(handle.stop(false));
}

#[actix_web::test]
async fn what_was_published_before_an_end_comes_before_it() {
    let server = Embedded::start(Hub::builder().start().unwrap());
    for round in 0..12 {
        let mut socket = Socket::open(&server, &token(1), &[], None).await.unwrap();
        let why = Envelope::to_users([1], Scope::Both, Message::text(format!("why {round}"))).unwrap();
        server.hub.publish(why).await.unwrap();
        server.sockets.sessions(1).iter().for_each(|session| session.close(CloseReason::Policy));
        assert_eq!(socket.text().await, format!("why {round}"));
        assert_eq!(socket.close_code().await, 1008);
        until("its end", || !server.sockets.exist_session(1)).await;
    }
}

#[actix_web::test]
async fn a_large_upload_is_activity() {
    let mut settings = Settings::default();
    settings.heartbeat.interval = Duration::from_millis(100);
    settings.heartbeat.timeout = Duration::from_millis(300);
    settings.limits.max_inbound_bytes = 1 << 20;
    let server = Embedded::start(Hub::builder().settings(settings).start().unwrap());
    let mut tcp = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let request = format!(
        "GET /resource/websocket?Authorization={} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        token(1)
    );
    tcp.write_all(request.as_bytes()).await.unwrap();
    until("the session", || server.sockets.exist_session(1)).await;
    // One frame of 40 kB, a kilobyte at a time: nothing can be answered in the middle of it.
    let mut frame = vec![0x81, 0xFF];
    frame.extend_from_slice(&40_000_u64.to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    tcp.write_all(&frame).await.unwrap();
    let began = Instant::now();
    for _ in 0..40 {
        tcp.write_all(&[b'a'; 1000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    assert!(began.elapsed() > Duration::from_secs(1), "much longer than the time-out");
    assert_eq!(server.sockets.sessions(1).len(), 1);
    assert_eq!(server.sockets.sessions(1)[0].closing(), None);
}

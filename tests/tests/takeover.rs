//! Connections that leave the HTTP dispatcher, and those of which a part is still there: nothing is lost, nothing
//! overtaken, and nothing left behind.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::{
    App, Error, HttpRequest, HttpResponse, Responder,
    body::{BodySize, MessageBody},
    dev::{Service, ServiceResponse},
    http::header,
    middleware::{Compress, Logger},
    rt::net::TcpStream,
    web,
};
use bytestring::ByteString;
use realtime_core::{
    CloseReason, Hub, SessionHandle, Settings,
    auth::{JwtAlgorithm, JwtAuthenticator},
};
use realtime_server::Takeover;
use realtime_sse::{SseConfig, SseEmitters};
use realtime_tests::{
    Embedded, RawClient, Running, SECRET, Server, ServerKind, Socket, descriptors, publish, session,
    start_server, token, until, within,
};
use realtime_websocket::WebSocketConfig;
use socket2::SockRef;
use tokio::{io::AsyncWriteExt, sync::oneshot, time::sleep};

fn hub() -> Hub {
    let mut settings = Settings::default();
    settings.limits.max_inbound_rate = 0;
    Hub::builder().settings(settings).start().unwrap()
}

/// A hub that gives a socket up which takes nothing for a while.
fn impatient_hub(max_stall: Duration) -> Hub {
    let mut settings = Settings::default();
    settings.outbox.max_stall = max_stall;
    Hub::builder().settings(settings).start().unwrap()
}

/// The requests of both transports, and the beginning of their answers.
fn requests(user: i64) -> [(String, &'static str); 2] {
    [(RawClient::websocket(user), "HTTP/1.1 101 "), (RawClient::event_stream(user), "HTTP/1.1 200 ")]
}

fn is_taken() -> bool {
    ServerKind::of_run() == ServerKind::Realtime
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
        // actix-web's server ends a connection whose pipelined body nobody reads.
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
    // The kernel would do it as well, but it does not count.
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
async fn whoever_leaves_during_the_lift_leaves_nothing_behind() {
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

/// An application of its own around both transports.
fn start(hub: &Hub, configure: impl Fn(&mut web::ServiceConfig) + Send + Sync + 'static) -> Running {
    start_with(hub, Arc::new(|_: SessionHandle, text: ByteString| async move { Some(text) }), configure)
}

fn start_with(
    hub: &Hub,
    inbound: Arc<dyn realtime_websocket::InboundHandler>,
    configure: impl Fn(&mut web::ServiceConfig) + Send + Sync + 'static,
) -> Running {
    let (hub, configure) = (hub.clone(), Arc::new(configure));
    let app = move || {
        let authenticator = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap());
        let mut websocket = WebSocketConfig::default();
        websocket.inbound = Arc::clone(&inbound);
        let configure = Arc::clone(&configure);
        App::new()
            .app_data(web::Data::new(SseEmitters::new(hub.clone())))
            .wrap_fn(|request, service| {
                let replace = request.headers().contains_key("x-replace");
                let answer = service.call(request);
                async move {
                    let answer: ServiceResponse = answer.await?.map_into_boxed_body();
                    let answer = if replace {
                        // The transport's response is dropped.
                        answer.into_response(HttpResponse::Ok().body("replaced"))
                    } else {
                        answer
                    };
                    Ok(answer.map_body(|_, body| Counted { body, chunks: Arc::default() }))
                }
            })
            .wrap(Compress::default())
            .wrap(Logger::default())
            .route("/plain", web::get().to(plain))
            .route("/bytes/{count}", web::get().to(async |count: web::Path<usize>| "b".repeat(*count)))
            .configure(move |services| configure(services))
            .configure(realtime_websocket::routes(hub.clone(), authenticator.clone(), websocket))
            .configure(realtime_sse::routes(hub.clone(), authenticator, SseConfig::default()))
    };
    start_server!(
        ServerKind::of_run(),
        app.clone(),
        workers(1),
        h1_allow_half_closed(false),
        on_connect(|connection, data| {
            let tcp = connection.downcast_ref::<TcpStream>().unwrap();
            SockRef::from(tcp).set_send_buffer_size(32 << 10).unwrap();
            data.insert(ConnectionPort(tcp.peer_addr().unwrap().port()));
        })
    )
}

struct ConnectionPort(u16);

async fn plain(request: HttpRequest) -> impl Responder {
    request.conn_data::<ConnectionPort>().unwrap().0.to_string()
}

pin_project_lite::pin_project! {
    /// A body within a body, as a middleware makes it.
    struct Counted<B> {
        #[pin]
        body: B,
        chunks: Arc<AtomicUsize>,
    }
}

impl<B: MessageBody> MessageBody for Counted<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<web::Bytes, Self::Error>>> {
        let this = self.project();
        this.chunks.fetch_add(1, Ordering::Relaxed);
        this.body.poll_next(cx)
    }
}

#[actix_web::test]
async fn middleware_and_data_of_the_connection_work_around_a_takeover() {
    let hub = hub();
    let server = start(&hub, |_| {});
    for (request, answer) in requests(1) {
        let mut client = RawClient::connect(&server).await;
        let port = client.tcp.local_addr().unwrap().port().to_string();
        client.write("GET /plain HTTP/1.1\r\nHost: x\r\n\r\n").await;
        client.head().await;
        assert_eq!(client.exactly(port.len()).await, port.as_bytes());
        client.write(request.replace("Host: x", "Host: x\r\nAccept-Encoding: gzip, br")).await;
        let head = client.head().await;
        assert!(head.starts_with(answer) && !head.contains("gzip"), "{head}");
        let session = session(&hub, 1).await;
        until("the connection to be taken over", || session.is_direct() == is_taken()).await;
        publish(&hub, 1, "published").await;
        client.until("published").await;
        drop(client);
        until("the session to end", || hub.all_sessions().is_empty()).await;
    }
}

#[actix_web::test]
async fn a_response_that_a_middleware_replaces_gives_the_connection_back() {
    let hub = hub();
    let server = start(&hub, |_| {});
    let mut client = RawClient::connect(&server).await;
    let replaced = RawClient::event_stream(1).replace("Host: x", "Host: x\r\nX-Replace: 1");
    for _ in 0..3 {
        client.write(&replaced).await;
        let head = client.head().await;
        assert!(head.contains("content-length: 8"), "{head}");
        assert_eq!(client.exactly(8).await, b"replaced");
        until("the session to end", || hub.all_sessions().is_empty()).await;
    }
    client.write(RawClient::event_stream(1)).await;
    client.head().await;
    let session = session(&hub, 1).await;
    until("the connection to be taken over", || session.is_direct() == is_taken()).await;
    publish(&hub, 1, "published").await;
    client.until("data:published\n\n").await;
    drop(client);
    until("the session to end", || hub.all_sessions().is_empty()).await;
    until("all to be counted", || hub.metrics().taken_over == hub.metrics().taken_over_ended).await;
}

#[actix_web::test]
async fn a_claim_that_is_dropped_or_made_twice_changes_nothing() {
    async fn claims(request: HttpRequest) -> impl Responder {
        let first = Takeover::claim(&request).is_some();
        let kept = Takeover::claim(&request);
        let second = Takeover::claim(&request).is_some();
        drop(kept);
        format!("{first} {second}")
    }
    let hub = hub();
    let server = start(&hub, |services| {
        services.route("/claims", web::to(claims));
    });
    let mut client = RawClient::connect(&server).await;
    let expected = if is_taken() { "true false" } else { "false false" };
    for _ in 0..3 {
        client.write("GET /claims HTTP/1.1\r\nHost: x\r\n\r\n").await;
        client.head().await;
        assert_eq!(client.exactly(expected.len()).await, expected.as_bytes());
    }
    client.write("HEAD /claims HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(client.head().await.contains("content-length: 11"), "a response to HEAD has no stream");
    client.write("GET /claims HTTP/1.0\r\nHost: x\r\n\r\n").await;
    client.head().await;
    client.end().await;
    assert_eq!(client.bytes, b"false false");
}

#[actix_web::test]
async fn a_stream_that_a_middleware_reads_by_itself_is_not_taken_from_under_its_head() {
    /// Answers with the first block of a stream that its client never sees.
    async fn first_block(
        request: HttpRequest,
        emitters: web::Data<SseEmitters>,
    ) -> Result<HttpResponse, Error> {
        let principal = realtime_core::Principal::new(1.into(), "x");
        let stream = emitters.open_for(&request, principal, None).unwrap();
        let response = stream.respond_to(&request);
        let mut body = Box::pin(response.into_body());
        let read = std::future::poll_fn(|cx| body.as_mut().poll_next(cx));
        let block = tokio::time::timeout(Duration::from_millis(100), read).await;
        Ok(HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "text/plain"))
            .body(format!("{}", block.is_ok())))
    }
    let hub = hub();
    let server = start(&hub, |services| {
        services.route("/first-block", web::get().to(first_block));
    });
    let mut client = RawClient::connect(&server).await;
    for _ in 0..2 {
        client.write("GET /first-block HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
        client.until("e").await;
        client.bytes.clear();
    }
}

#[actix_web::test]
async fn a_handler_goes_on_while_its_client_reads_nothing() {
    let hub = hub();
    let (go, gone) = oneshot::channel::<()>();
    let (gone, count) = (Mutex::new(Some(gone)), Arc::new(AtomicUsize::new(0)));
    let inbound = {
        let count = Arc::clone(&count);
        move |_: SessionHandle, _: ByteString| {
            let (gone, count) = (gone.lock().unwrap().take(), Arc::clone(&count));
            async move {
                gone?.await.ok()?;
                count.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    };
    let server = start_with(&hub, Arc::new(inbound), |_| {});
    let mut client = RawClient::open(&server, 1, "").await;
    client.head().await;
    client.send(0x81, b"text").await;
    session(&hub, 1).await;
    for _ in 0..5 {
        publish(&hub, 1, &"x".repeat(60_000)).await;
    }
    sleep(Duration::from_millis(50)).await;
    go.send(()).unwrap();
    until("the handler to end", || count.load(Ordering::Relaxed) == 1).await;
}

#[actix_web::test]
async fn a_connection_that_panics_ends_alone() {
    let hub = hub();
    let inbound = |_: SessionHandle, text: ByteString| {
        assert_ne!(text, "panic", "as the test wants it");
        async move {
            assert_ne!(text, "panic later", "as the test wants it");
            Some(text)
        }
    };
    let server = start_with(&hub, Arc::new(inbound), |_| {});
    let mut others = [
        Socket::open(&server, &token(2), &[], None).await.unwrap(),
        Socket::open(&server, &token(3), &[], None).await.unwrap(),
    ];
    for text in ["panic", "panic later", "panic"] {
        let mut client = RawClient::open(&server, 1, "").await;
        client.head().await;
        let session = session(&hub, 1).await;
        until("the connection to be taken over", || session.is_direct() == is_taken()).await;
        client.send(0x81, text.as_bytes()).await;
        let in_order = client.end().await;
        assert!(!in_order || !is_taken(), "the connection is reset");
        until("the session to end", || hub.sessions(&1.into()).is_empty()).await;
        for other in &mut others {
            other.send("hello").await;
            assert_eq!(other.text().await, "hello");
        }
    }
    until("the descriptors to be closed", || descriptors(&server) == 2).await;
    assert_eq!(hub.metrics().taken_over_ended, if is_taken() { 3 } else { 0 });
}

//! Middleware and handlers of an application work with connections that leave the dispatcher, and fail alone.
#![cfg(target_os = "linux")]

use std::{
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{Error, HttpRequest, HttpResponse, Responder, body::MessageBody, http::header, web};
use bytes::Bytes;
use bytestring::ByteString;
use realtime_core::{CloseReason, Principal, SessionHandle, wire::DirectWrite};
use realtime_server::{Aborted, Connection, ConnectionBody, Step, Takeover};
use realtime_sse::SseEmitters;
use realtime_tests::{RawClient, Server, Socket, descriptors, publish, session, token, until, within};
use tokio::{sync::oneshot, task::yield_now, time::sleep};

use super::{hub, is_taken, requests, start, start_with};

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
async fn a_stream_that_a_middleware_reads_is_not_taken_over() {
    /// Answers with the first block of a stream that its client never sees.
    async fn first_block(
        request: HttpRequest,
        emitters: web::Data<SseEmitters>,
    ) -> Result<HttpResponse, Error> {
        let principal = Principal::new(1.into(), "x");
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
async fn a_stream_in_a_response_of_the_applications_own_arrives_as_it_is() {
    async fn own_head(request: HttpRequest, emitters: web::Data<SseEmitters>) -> HttpResponse {
        let stream = emitters.open_for(&request, Principal::new(1.into(), "x"), None).unwrap();
        HttpResponse::Ok().content_type("text/event-stream").insert_header(("x-own", "1")).body(stream)
    }
    let hub = hub();
    let server = start(&hub, |services| {
        services.route("/own-head", web::get().to(own_head));
    });
    // A stream that was taken over is no longer compressed.
    for accepted in if is_taken() { &["identity", "gzip"][..] } else { &["identity"] } {
        let url = format!("http://127.0.0.1:{}/own-head", server.port());
        let request = reqwest::Client::new().get(url).header("accept-encoding", *accepted);
        let mut stream = within("the head", request.send()).await.unwrap();
        assert_eq!(stream.headers()["x-own"], "1");
        assert!(stream.headers().get("content-encoding").is_none_or(|encoding| encoding == "identity"));
        let session = session(&hub, 1).await;
        until("the connection to be taken over", || session.is_direct() == is_taken()).await;
        publish(&hub, 1, "published").await;
        session.close(CloseReason::Kicked);
        let mut text = String::new();
        while let Some(piece) = within("a piece", stream.chunk()).await.unwrap() {
            text.push_str(std::str::from_utf8(&piece).unwrap());
        }
        assert!(text.starts_with(":connected\n"), "{text:?}");
        assert!(text.contains("\n\nevent:message\n") && text.contains("data:published\n\n"), "{text:?}");
        until("the session to end", || hub.all_sessions().is_empty()).await;
    }
}

/// Sends a text, and then back what comes up to a full stop. It panics at an exclamation mark.
struct Words {
    first: bool,
    ends: bool,
}

impl Connection for Words {
    fn poll_next(&mut self, _: &mut Context<'_>, input: &mut &[u8]) -> Poll<Step> {
        if mem::take(&mut self.first) {
            return Poll::Ready(Step::Write("words: ".into()));
        }
        if self.ends {
            return Poll::Ready(Step::End);
        }
        let words = Bytes::copy_from_slice(mem::take(input));
        assert!(!words.contains(&b'!'), "as the test wants it");
        self.ends |= words.contains(&b'.');
        if words.is_empty() { Poll::Pending } else { Poll::Ready(Step::Write(words)) }
    }

    fn closed(&mut self) {
        self.ends = true;
    }

    fn poll_aborted(&mut self, _: &mut Context<'_>) -> Poll<Aborted> {
        Poll::Pending
    }

    fn attach(&mut self, _: Arc<dyn DirectWrite>) {}
}

async fn words(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let upgrades = request.head().upgrade();
    let words = Words { first: true, ends: !upgrades };
    let body = ConnectionBody::new(words, Takeover::claim(&request), payload.into_inner());
    if upgrades {
        HttpResponse::SwitchingProtocols().upgrade("words").body(body)
    } else {
        HttpResponse::Ok().body(body)
    }
}

#[actix_web::test]
async fn a_connection_of_the_applications_own_is_the_same_on_both_lanes() {
    let server = start(&hub(), |services| {
        services.route("/words", web::get().to(words));
    });
    let mut client = RawClient::connect(&server).await;
    for _ in 0..2 {
        client.write("GET /words HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("transfer-encoding: chunked"), "{head}");
        assert_eq!(client.until("0\r\n\r\n").await, "7\r\nwords: \r\n0\r\n\r\n");
    }
    client
        .write("GET /words HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\none ")
        .await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    client.until("words: one ").await;
    client.write("two.").await;
    assert!(client.end().await);
    assert_eq!(client.bytes, b"two.");
    until("the descriptor to be closed", || descriptors(&server) == 0).await;
}

#[actix_web::test]
async fn a_handler_continues_while_its_client_reads_nothing() {
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
    let server = start(&hub(), |services| {
        services.route("/words", web::get().to(words));
    });
    let open = async || {
        let mut client = RawClient::connect(&server).await;
        let request = "GET /words HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        client.write(request).await;
        client.until("words: ").await;
        client
    };
    let mut others = [open().await, open().await];
    for _ in 0..3 {
        let mut client = open().await;
        client.write("one ").await;
        client.until("one ").await;
        client.write("two!").await;
        let in_order = client.end().await;
        assert!(!in_order || !is_taken(), "the connection is reset");
        for other in &mut others {
            other.write("three ").await;
            other.until("three ").await;
        }
    }
    until("the descriptors to be closed", || descriptors(&server) == 2).await;
}

#[actix_web::test]
async fn a_handler_that_panics_ends_its_connection_with_a_close_frame() {
    let hub = hub();
    let inbound = |_: SessionHandle, text: ByteString| {
        assert_ne!(text, "panic", "as the test wants it");
        async move {
            assert_ne!(text, "panic in the future", "as the test wants it");
            yield_now().await;
            assert_ne!(text, "panic later", "as the test wants it");
            Some(text)
        }
    };
    let server = start_with(&hub, Arc::new(inbound), |_| {});
    let mut others = [
        Socket::open(&server, &token(2), &[], None).await.unwrap(),
        Socket::open(&server, &token(3), &[], None).await.unwrap(),
    ];
    for text in ["panic", "panic in the future", "panic later"] {
        let mut socket = Socket::open(&server, &token(1), &[], None).await.unwrap();
        let session = session(&hub, 1).await;
        until("the connection to be taken over", || session.is_direct() == is_taken()).await;
        socket.send(text).await;
        assert_eq!(socket.close_code().await, 1011, "{text}");
        until("the session to end", || hub.sessions(&1.into()).is_empty()).await;
        for other in &mut others {
            other.send("hello").await;
            assert_eq!(other.text().await, "hello");
        }
    }
    until("the descriptors to be closed", || descriptors(&server) == 2).await;
    assert_eq!(hub.metrics().taken_over_ended, if is_taken() { 3 } else { 0 });
}

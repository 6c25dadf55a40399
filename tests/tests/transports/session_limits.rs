//! Limits of connections, by user, token, address and node, and of handshakes: what is refused and how, on both transports.

use std::{net::IpAddr, sync::Arc, time::Duration};

use actix_web::{App, HttpRequest, HttpResponse, web};
use futures_util::SinkExt;
use realtime_core::{
    Envelope, Hub, Principal, Scope, Settings, Topic,
    auth::{JwtAlgorithm, JwtAuthenticator, TrustedProxies},
    metrics::RefusalsSnapshot,
    settings::{Limits, OnExceeded},
};
use realtime_sse::{SseConfig, SseEmitters};
use realtime_tests::{RawClient, Running, SECRET, ServerKind, Socket, WsMessage, start_server, token, until};
use realtime_websocket::{WebSocketConfig, WebSockets};
use serde_json::json;

fn hub(change: impl FnOnce(&mut Limits)) -> Hub {
    let mut settings = Settings::default();
    settings.limits.max_connections_per_user = 0;
    change(&mut settings.limits);
    Hub::builder().settings(settings).start().unwrap()
}

/// A server behind a proxy on this machine, so that a test chooses its addresses, with handlers of its own as well.
fn start(hub: &Hub) -> Running {
    let proxies = || TrustedProxies::new(["127.0.0.1"]).unwrap();
    let sockets = web::Data::new(WebSockets::new(hub.clone()).trusted_proxies(proxies()));
    let emitters = web::Data::new(SseEmitters::new(hub.clone()).trusted_proxies(proxies()).retry(RETRY));
    let hub = hub.clone();
    let app = move || {
        let authenticator = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap());
        let websocket = WebSocketConfig::default().trusted_proxies(proxies());
        let sse = SseConfig::default().trusted_proxies(proxies()).tickets(true);
        App::new()
            .app_data(sockets.clone())
            .app_data(emitters.clone())
            .route("/own/socket", web::get().to(own_socket))
            .route("/own/stream", web::get().to(own_stream))
            .configure(realtime_websocket::routes(hub.clone(), authenticator.clone(), websocket))
            .configure(realtime_sse::routes(hub.clone(), authenticator, sse))
    };
    start_server!(ServerKind::of_run(), app.clone(), workers(2), h1_allow_half_closed(false))
}

async fn own_socket(
    request: HttpRequest,
    payload: web::Payload,
    sockets: web::Data<WebSockets>,
) -> actix_web::Result<HttpResponse> {
    Ok(sockets.upgrade(&request, payload, Principal::new(9.into(), "own"), None).await?)
}

async fn own_stream(
    request: HttpRequest,
    emitters: web::Data<SseEmitters>,
) -> actix_web::Result<HttpResponse> {
    let stream = emitters.open_request(&request, Principal::new(9.into(), "own")).await?;
    Ok(actix_web::Responder::respond_to(stream, &request))
}

/// Time after which the streams of the handler's own come back.
const RETRY: Duration = Duration::from_secs(60);
const WEBSOCKET: &str = "/resource/websocket";
const SSE: &str = "/resource/sse";

/// Sends the request of a connection from an address, and returns the client and the head of the answer.
async fn connect(server: &Running, path: &str, token: &str, address: &str) -> (RawClient, String) {
    let mut client = RawClient::connect(server).await;
    let upgrade = if path.ends_with("socket") {
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    } else {
        ""
    };
    let request = format!(
        "GET {path}?Authorization=Bearer%20{token} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {address}\r\n{upgrade}\r\n"
    );
    client.write(request).await;
    let head = client.head().await;
    (client, head)
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

fn retry_after(head: &str) -> Option<u64> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut values = lines.filter(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
    values.next().map(|(_, seconds)| seconds.parse().unwrap())
}

/// Answer of an event stream to a connection that is refused.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stream {
    /// An `EventSource` stops.
    Stops(u16),
    /// An `EventSource` comes back.
    ComesBack,
}

#[actix_web::test]
async fn every_limit_of_connections_has_its_answers_and_a_counter() {
    type Row = (&'static str, fn(&mut Limits), u16, Stream, fn(&RefusalsSnapshot) -> u64);
    let rows: [Row; 6] = [
        ("node", |limits| limits.max_connections = 2, 503, Stream::ComesBack, |by| by.node),
        ("user", |limits| limits.max_connections_per_user = 2, 429, Stream::Stops(429), |by| by.user),
        ("token", |limits| limits.max_connections_per_token = 2, 429, Stream::Stops(429), |by| by.token),
        ("address", |limits| limits.max_connections_per_address = 2, 429, Stream::ComesBack, |by| by.address),
        (
            "cluster",
            |limits| limits.max_connections_per_user_in_cluster = 2,
            429,
            Stream::ComesBack,
            |by| by.cluster,
        ),
        // Ten seconds' worth at once; the rates below are one and ten.
        ("rate", |limits| limits.max_handshake_rate = 1, 503, Stream::ComesBack, |by| by.node_rate),
    ];
    for (name, limit, websocket, stream, counter) in rows {
        let hub = hub(limit);
        let server = start(&hub);
        let token = token(1);
        let mut kept = Vec::new();
        let allowed = if name == "rate" { 10 } else { 2 };
        for n in 0..allowed {
            let (path, expected) = if n % 2 == 0 { (WEBSOCKET, 101) } else { (SSE, 200) };
            let (client, head) = connect(&server, path, &token, "192.0.2.1").await;
            assert_eq!(status(&head), expected, "{name}: {head}");
            kept.push(client);
        }
        let (_, head) = connect(&server, WEBSOCKET, &token, "192.0.2.1").await;
        assert_eq!(status(&head), websocket, "{name}: {head}");
        assert!(retry_after(&head).is_some_and(|seconds| (1..=60).contains(&seconds)), "{name}: {head}");
        let (mut client, head) = connect(&server, SSE, &token, "192.0.2.1").await;
        match stream {
            Stream::Stops(expected) => assert_eq!(status(&head), expected, "{name}"),
            Stream::ComesBack => {
                assert_eq!(status(&head), 200, "{name}");
                client.until(":disconnected\nretry:").await;
            }
        }
        let metrics = hub.metrics();
        assert_eq!((metrics.refused, counter(&metrics.refused_by)), (2, 2), "{name}: {metrics:?}");
        assert_eq!(hub.all_sessions().len(), allowed, "{name}: those that are open stay");
        if name == "rate" {
            continue;
        }
        // There is room again once a connection has ended.
        drop(kept.pop());
        until("the session to end", || hub.all_sessions().len() == 1).await;
        let (_client, head) = connect(&server, WEBSOCKET, &token, "192.0.2.1").await;
        assert_eq!(status(&head), 101, "{name}: {head}");
    }
}

#[actix_web::test]
async fn connections_of_an_address_are_counted_whatever_their_users_and_handlers() {
    let hub = hub(|limits| limits.max_connections_per_address = 4);
    let server = start(&hub);
    let mut kept = Vec::new();
    for (user, path, expected) in
        [(1, WEBSOCKET, 101), (2, SSE, 200), (3, "/own/socket", 101), (4, "/own/stream", 200)]
    {
        let (client, head) = connect(&server, path, &token(user), "2001:db8::1").await;
        assert_eq!(status(&head), expected, "{path}: {head}");
        kept.push(client);
    }
    // Another address of the same network.
    for (path, expected) in [(WEBSOCKET, 429), (SSE, 200), ("/own/socket", 429), ("/own/stream", 200)] {
        let (mut client, head) = connect(&server, path, &token(5), "2001:db8::ffff:2").await;
        assert_eq!(status(&head), expected, "{path}: {head}");
        if expected == 200 {
            client.until(":disconnected\nretry:").await;
            let retry = Duration::from_millis(client.until("\n").await.trim().parse().unwrap());
            assert_eq!(retry >= RETRY / 2, path == "/own/stream", "{path}: {retry:?}");
        }
    }
    let (client, head) = connect(&server, WEBSOCKET, &token(5), "2001:db8:0:1::1").await;
    assert_eq!(status(&head), 101, "another network has places of its own: {head}");
    kept.push(client);
    // A client that says it is behind others is counted by what the proxy saw.
    let (_, head) = connect(&server, WEBSOCKET, &token(5), "198.51.100.7, 2001:db8::3").await;
    assert_eq!(status(&head), 429, "{head}");
    drop(kept);
    until("all to end", || hub.all_sessions().is_empty()).await;
    assert_eq!(hub.metrics().refused_by.address, 5);
    // A request that was refused for its login has taken no place.
    for _ in 0..10 {
        let (_, head) = connect(&server, WEBSOCKET, "x", "2001:db8::1").await;
        assert_eq!(status(&head), 401);
    }
    let mut kept = Vec::new();
    for user in 1..=4 {
        let (client, head) = connect(&server, WEBSOCKET, &token(user), "2001:db8::1").await;
        assert_eq!(status(&head), 101, "{head}");
        kept.push(client);
    }
}

#[actix_web::test]
async fn an_office_of_five_hundred_comes_in_at_once() {
    let hub = hub(|limits| limits.max_handshake_rate_per_address = 50);
    let server = start(&hub);
    let mut kept = Vec::new();
    for user in 0..500 {
        let (client, head) = connect(&server, WEBSOCKET, &token(user), "192.0.2.1").await;
        assert_eq!(status(&head), 101, "client {user} of the office: {head}");
        kept.push(client);
    }
    assert_eq!(hub.all_sessions().len(), 500);
}

#[actix_web::test]
async fn an_address_that_shakes_hands_too_fast_is_told_when_to_come_back_before_its_token_is_looked_at() {
    // Slow, so that a busy machine is faster.
    let hub = hub(|limits| limits.max_handshake_rate_per_address = 1);
    let server = start(&hub);
    let attacker = "198.51.100.7";
    let mut answers = std::collections::BTreeMap::<u16, usize>::new();
    let refused = loop {
        let (_, head) = connect(&server, WEBSOCKET, "guess", attacker).await;
        *answers.entry(status(&head)).or_default() += 1;
        if status(&head) == 429 {
            break head;
        }
    };
    assert!(answers[&401] >= 10, "{answers:?}");
    assert_eq!(answers.keys().copied().collect::<Vec<_>>(), [401, 429], "{answers:?}");
    assert!(retry_after(&refused).is_some_and(|seconds| (1..=10).contains(&seconds)), "{refused}");
    assert_eq!(hub.metrics().refused_by.address_rate, 1);
    // The other requests that have a login checked count, too.
    for (method, path, admitted) in [
        ("GET", "/resource/sse/close", 200),
        ("POST", "/resource/sse/refresh", 400),
        ("POST", "/resource/sse/ticket", 400),
    ] {
        let request = format!(
            "{method} {path}?Authorization=guess HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {attacker}\r\n\
             Content-Length: 0\r\n\r\n"
        );
        // One handshake a second is free.
        loop {
            let mut client = RawClient::connect(&server).await;
            client.write(&request).await;
            let head = client.head().await;
            if status(&head) == 429 {
                assert!(
                    retry_after(&head).is_some_and(|seconds| (1..=10).contains(&seconds)),
                    "{path}: {head}"
                );
                break;
            }
            assert_eq!(status(&head), admitted, "{path}: {head}");
        }
    }
    loop {
        let (mut client, head) = connect(&server, SSE, "guess", attacker).await;
        if status(&head) == 200 {
            client.until(":disconnected\nretry:").await;
            break;
        }
        assert_eq!(status(&head), 401);
    }
    let (_client, head) = connect(&server, SSE, &token(1), "192.0.2.77").await;
    assert_eq!(status(&head), 200, "others are not concerned");
}

#[actix_web::test]
async fn the_oldest_session_makes_room_with_a_code_of_its_own_and_its_client_stays_away() {
    for of_token in [false, true] {
        let hub = hub(|limits| {
            limits.on_exceeded = OnExceeded::EndOldest;
            if of_token {
                limits.max_connections_per_token = 2;
            } else {
                limits.max_connections_per_user = 2;
            }
        });
        let server = start(&hub);
        let (same, other) = (token(1), token(1));
        let token = |n: usize| if of_token || n.is_multiple_of(2) { &same } else { &other };
        let (mut socket, head) = connect(&server, WEBSOCKET, token(0), "192.0.2.1").await;
        assert_eq!(status(&head), 101);
        let (mut stream, head) = connect(&server, SSE, token(1), "192.0.2.1").await;
        assert_eq!(status(&head), 200);
        stream.until(":connected\n").await;
        // The WebSocket is the oldest, then the stream.
        let (_third, head) = connect(&server, SSE, token(2), "192.0.2.1").await;
        assert_eq!(status(&head), 200);
        let frame = loop {
            let frame = socket.next_frame().await;
            if frame.0 == 0x88 {
                break frame;
            }
        };
        assert_eq!(&frame.1[..2], &4410_u16.to_be_bytes());
        assert_eq!(&frame.1[2..], b"too-many-sessions");
        let (_fourth, head) = connect(&server, WEBSOCKET, token(3), "192.0.2.1").await;
        assert_eq!(status(&head), 101);
        stream.until(":disconnected\nretry:86400000\n\n").await;
        drop((socket, stream));
        until("two to be left", || hub.all_sessions().len() == 2).await;
        let metrics = hub.metrics();
        assert_eq!((metrics.refused, metrics.ended_by_limit.too_many_sessions), (0, 2));
        // Another user, and with a limit of tokens another token of the same one, is not concerned.
        let (_fifth, head) = connect(&server, WEBSOCKET, &realtime_tests::token(2), "192.0.2.1").await;
        assert_eq!(status(&head), 101);
        let (_sixth, head) = connect(&server, WEBSOCKET, &other, "192.0.2.1").await;
        assert_eq!(status(&head), 101);
        until("the rest", || hub.sessions(&1.into()).len() == if of_token { 3 } else { 2 }).await;
    }
}

#[actix_web::test]
async fn what_clients_send_and_what_is_published_beyond_a_limit_is_answered_and_counted() {
    let mut settings = Settings::default();
    settings.limits.max_inbound_bytes = 1000;
    settings.limits.max_inbound_rate = 1;
    settings.limits.max_topics_per_session = 2;
    settings.limits.max_message_bytes = 1000;
    settings.limits.max_targets = 2;
    let any = |_: &Principal, _: &Topic| true;
    let hub = Hub::builder().settings(settings).topic_policy(any).start().unwrap();
    let server = start(&hub);
    let open = async || Socket::open(&server, &token(1), &[], None).await.unwrap();
    let mut socket = open().await;
    socket.send(&"x".repeat(1001)).await;
    assert_eq!(socket.close_code().await, 1009);
    let mut socket = open().await;
    for _ in 0..20 {
        // The server may have closed before the last of them.
        socket.0.send(WsMessage::text("ping")).await.ok();
    }
    assert_eq!(socket.close_code().await, 4429);
    let path = format!("{WEBSOCKET}?Authorization={}&topics=a,b,c", token(1));
    let v1 = [("Sec-WebSocket-Protocol", "realtime.v1")];
    let mut socket = Socket::open_at(&server, &path, &v1).await.unwrap();
    let hello = socket.json().await;
    assert_eq!(hello["subscribed"], json!(["a", "b"]));
    assert_eq!(hello["refused"], json!([{ "topic": "c", "reason": "too many topics" }]));
    let long = "x".repeat(161);
    socket.send(&json!({ "type": "subscribe", "topics": ["d", "a", long] }).to_string()).await;
    let answer = socket.message().await;
    assert_eq!(answer["topics"], json!(["a"]), "{answer}");
    let reason = "a topic has at most 160 bytes, this one has 161";
    assert_eq!(
        answer["refused"],
        json!([{ "topic": "d", "reason": "too many topics" }, { "topic": long, "reason": reason }])
    );
    let error = hub.publish_to_user(1, "x".repeat(1001)).await.unwrap_err();
    assert_eq!((error.status(), &*error.to_string()), (413, "the message has 1001 bytes, 1000 are allowed"));
    let many = Envelope::to_users([1, 2, 3], Scope::Both, "x".into()).unwrap();
    let error = hub.publish(many).await.unwrap_err();
    assert_eq!((error.status(), &*error.to_string()), (413, "the message has 3 targets, 2 are allowed"));
    until("the sessions to be counted", || hub.metrics().closed == 2).await;
    let metrics = hub.metrics();
    let ended = metrics.ended_by_limit;
    assert_eq!((ended.too_big, ended.rate_limited), (1, 1), "{metrics:?}");
    assert_eq!((metrics.topics_refused, metrics.publishes_refused), (2, 2), "{metrics:?}");
}

#[actix_web::test]
async fn a_client_without_an_address_is_not_counted_by_one() {
    let hub = hub(|limits| {
        limits.max_connections_per_address = 1;
        limits.max_handshake_rate_per_address = 1;
    });
    let mut kept = Vec::new();
    for _ in 0..50 {
        kept.push(hub.admit(None).unwrap());
    }
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    kept.push(hub.admit(Some(address)).unwrap());
    assert!(hub.admit(Some(address)).is_err());
}

//! A handshake that has a body, or offers anything beside a WebSocket, is refused, and what follows it is never answered
//! as a request.

use actix_web::{App, HttpResponse, dev::ServiceResponse, error::ErrorUnauthorized, web};
use futures_util::{StreamExt, stream};
use realtime_core::{
    Hub,
    auth::{JwtAlgorithm, JwtAuthenticator},
};
use realtime_sse::SseConfig;
use realtime_tests::{RawClient, Running, SECRET, ServerKind, start_server, token, within};
use realtime_websocket::WebSocketConfig;

fn start() -> Running {
    let hub = Hub::builder().start().unwrap();
    let app = move || {
        let jwt = std::sync::Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap());
        App::new()
            .wrap_fn(realtime_server::conform)
            .route("/smuggled", web::get().to(async || "smuggled"))
            .route("/pieces", web::get().to(pieces))
            .configure(realtime_websocket::routes(hub.clone(), jwt.clone(), WebSocketConfig::default()))
            .configure(realtime_sse::routes(hub.clone(), jwt, SseConfig::default()))
    };
    let options = realtime_server::socket_options(std::time::Duration::from_secs(10));
    start_server!(ServerKind::of_run(), app, workers(1), on_connect(options.clone()))
}

async fn pieces() -> HttpResponse {
    let pieces = stream::iter(["one", "two"]).map(|piece| Ok::<_, actix_web::Error>(web::Bytes::from(piece)));
    HttpResponse::Ok().streaming(pieces)
}

/// A handshake with these headers besides those that it needs.
fn handshake(connection: &str, upgrade: &str, more: &str) -> String {
    format!(
        "GET /resource/websocket?Authorization={} HTTP/1.1\r\nHost: x\r\n{connection}{upgrade}\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n",
        token(1)
    )
}

fn event_stream(more: &str) -> String {
    format!("GET /resource/sse?Authorization={} HTTP/1.1\r\nHost: x\r\n{more}\r\n", token(1))
}

const CONNECTION: &str = "Connection: Upgrade\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
const SIZED: &str = "Content-Length: 5\r\n";
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
const FRAME: &[u8] = b"\x81\x85\0\0\0\0hello";

/// What is answered to a head and what follows it, until the server closes the connection.
async fn answers(server: &Running, head: &str, behind: &[&str]) -> String {
    let mut client = RawClient::connect(server).await;
    client.write(format!("{head}{}", behind.concat())).await;
    client.end().await;
    String::from_utf8_lossy(&client.bytes).to_lowercase()
}

#[actix_web::test]
async fn a_body_is_refused_and_nothing_behind_it_is_answered() {
    let server = start();
    let body_ends = ["0\r\n\r\n", SMUGGLED, SMUGGLED];
    let body_comes = ["5\r\nhello\r\n0\r\n\r\n", SMUGGLED];
    let sized = ["hello", SMUGGLED, SMUGGLED];
    for head in [|more: &str| handshake(CONNECTION, UPGRADE, more), event_stream] {
        for (more, behind) in [(CHUNKED, &body_ends[..]), (CHUNKED, &body_comes), (SIZED, &sized)] {
            for _ in 0..3 {
                let answers = answers(&server, &head(more), behind).await;
                assert!(answers.starts_with("http/1.1 400 "), "{more}: {answers}");
                assert!(answers.contains("connection: close"), "{more}: {answers}");
                assert!(answers.contains("must not have a body"), "{more}: {answers}");
                // actix-web's server has read what follows and reports an error each.
                assert_eq!(answers.matches("http/1.1 2").count(), 0, "{more}: {answers}");
                assert!(!answers.contains("smuggled"), "{more}: {answers}");
            }
        }
    }
}

#[actix_web::test]
async fn what_is_not_one_offer_of_a_websocket_gets_426_and_nothing_behind_it_is_answered() {
    let server = start();
    for upgrade in [
        "Upgrade: h2c, websocket\r\n",
        "Upgrade: websocket, h2c\r\n",
        "Upgrade: websocket, websocket\r\n",
        "Upgrade: websocket\r\nUpgrade: h2c\r\n",
        "Upgrade: h2c\r\nUpgrade: websocket\r\n",
        "Upgrade: websocket/13\r\n",
        "Upgrade: xwebsocketx\r\n",
        "Upgrade:\r\n",
        "Upgrade: websocket\u{e9}\r\n",
        "",
    ] {
        let answers = answers(&server, &handshake(CONNECTION, upgrade, ""), &[SMUGGLED, SMUGGLED]).await;
        assert!(answers.starts_with("http/1.1 426 "), "{upgrade:?}: {answers}");
        assert!(answers.contains("upgrade: websocket\r\n"), "{upgrade:?}: {answers}");
        assert!(!answers.contains("smuggled"), "{upgrade:?}: {answers}");
    }
}

#[actix_web::test]
async fn a_connection_header_without_the_token_upgrade_is_refused() {
    let server = start();
    for connection in
        ["", "Connection: keep-alive\r\n", "Connection: xupgradex\r\n", "Connection: upgrade, close\r\n"]
    {
        let answers = answers(&server, &handshake(connection, UPGRADE, ""), &[SMUGGLED, SMUGGLED]).await;
        assert!(answers.starts_with("http/1.1 400 "), "{connection:?}: {answers}");
        assert!(answers.contains("`connection: upgrade`"), "{connection:?}: {answers}");
        assert!(!answers.contains("smuggled"), "{connection:?}: {answers}");
    }
}

#[actix_web::test]
async fn a_handshake_in_any_valid_form_is_accepted_and_what_follows_is_never_http() {
    let server = start();
    for (connection, upgrade, more) in [
        (CONNECTION, UPGRADE, ""),
        (CONNECTION, UPGRADE, "Content-Length: 0\r\n"),
        ("Connection: keep-alive, Upgrade\r\n", UPGRADE, ""),
        ("Connection: keep-alive\r\nConnection: upgrade\r\n", UPGRADE, ""),
        (CONNECTION, "Upgrade: WebSocket\r\n", ""),
        (CONNECTION, "Upgrade: \twebsocket \r\n", ""),
    ] {
        let mut client = RawClient::connect(&server).await;
        client.write(handshake(connection, upgrade, more)).await;
        client.write(FRAME).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{connection:?} {upgrade:?} {more:?}: {head}");
        within("the echo", async { while client.next_frame().await != (0x81, b"hello".to_vec()) {} }).await;
        // As a frame this is one that RFC 6455 does not allow.
        client.write(SMUGGLED).await;
        client.end().await;
        let rest = String::from_utf8_lossy(&client.bytes);
        assert!(rest.contains("protocol") && !rest.contains("HTTP/1.1"), "{rest}");
    }
}

#[actix_web::test]
async fn a_stream_that_answers_an_offer_of_a_websocket_says_how_it_is_framed() {
    let server = start();
    for connection in ["Connection: upgrade\r\n", ""] {
        let head = format!("GET /pieces HTTP/1.1\r\nHost: x\r\n{connection}Upgrade: websocket\r\n\r\n");
        let answers = answers(&server, &head, &[]).await;
        assert!(answers.starts_with("http/1.1 200 "), "{connection}: {answers}");
        assert!(answers.contains("connection: close\r\n"), "{connection}: {answers}");
        assert!(!answers.contains("transfer-encoding"), "{connection}: {answers}");
        assert!(answers.ends_with("\r\n\r\nonetwo"), "{connection}: {answers}");
    }
}

#[actix_web::test]
async fn an_event_stream_that_answers_an_offer_of_a_websocket_says_how_it_is_framed() {
    let server = start();
    for connection in [CONNECTION, ""] {
        let mut client = RawClient::connect(&server).await;
        client.write(event_stream(&format!("{connection}{UPGRADE}"))).await;
        let head = client.head().await.to_lowercase();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        let is_chunked = head.contains("transfer-encoding: chunked\r\n");
        assert!(is_chunked || head.contains("connection: close\r\n"), "{head}");
        let begin = client.until(":connected").await;
        assert_eq!(begin != ":connected", is_chunked, "{head}{begin}");
    }
}

#[actix_web::test]
async fn a_refusal_that_is_a_middlewares_error_closes_the_connection_and_says_so() {
    let app = || {
        App::new()
            .wrap_fn(|_, _| async { Err::<ServiceResponse, _>(ErrorUnauthorized("refused")) })
            .wrap_fn(realtime_server::conform)
    };
    let options = realtime_server::socket_options(std::time::Duration::from_secs(10));
    let server = start_server!(ServerKind::of_run(), app, workers(1), on_connect(options.clone()));
    // An offer of HTTP/2, as Java's client makes it with each request.
    for more in ["Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n", "Connection: close\r\n"] {
        let head = format!("GET /a HTTP/1.1\r\nHost: x\r\n{more}\r\n");
        let answers = answers(&server, &head, &[SMUGGLED]).await;
        assert!(answers.starts_with("http/1.1 401 "), "{more}: {answers}");
        assert!(answers.contains("connection: close\r\n"), "{more}: {answers}");
        assert!(!answers.contains("upgrade"), "{more}: {answers}");
        assert_eq!(answers.matches("http/1.1 401 ").count(), 1, "{more}: {answers}");
    }
}

//! An application's own: what its logins see of a request, binary messages, and reasons for the end of a session.

use std::sync::{Arc, Mutex};

use actix_web::{
    App, HttpMessage,
    dev::ServerHandle,
    middleware::{Next, from_fn},
    web,
};
use bytes::Bytes;
use bytestring::ByteString;
use futures_util::{SinkExt, StreamExt};
use realtime_core::{
    Authenticator, BoxFuture, CloseCode, CloseReason, Envelope, Hub, Message, Principal, Scope,
    SessionHandle,
    auth::{AuthError, Extensions, Handshake},
};
use realtime_sse::SseConfig;
use realtime_tests::{EventStream, Server, Socket, WsMessage, within};
use realtime_websocket::{HttpServer, InboundHandler, RAW_SUBPROTOCOL, SUBPROTOCOL, WebSocketConfig};

/// A middleware's result from the session store of the application.
#[derive(Debug, Clone, PartialEq)]
struct Visitor(i64);

/// A login by the visitor, if there is one, else by a token that is the user's id.
#[derive(Debug, Default)]
struct Logins(Mutex<Vec<String>>);

impl Authenticator for Logins {
    fn authenticate<'a>(&'a self, handshake: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
        Box::pin(async move {
            let tenant = handshake.param("tenant").unwrap_or("none");
            let visitor = handshake.extensions().get::<Visitor>();
            let token = handshake.token();
            self.0.lock().unwrap().push(format!("{tenant} {visitor:?} {token:?}"));
            let user = match (visitor, token) {
                (Some(Visitor(user)), _) => *user,
                (None, Some(token)) => token.parse().expect("the tests send numbers"),
                (None, None) => return Err(AuthError::Unauthorized("no login".to_owned())),
            };
            let mut principal = Principal::new(user.into(), token.unwrap_or_default());
            principal.extensions.insert(tenant.to_owned());
            Ok(principal)
        })
    }
}

/// Sends bytes back in reverse; the text `go` ends the session.
struct Reverse;

impl InboundHandler for Reverse {
    fn on_text(&self, session: SessionHandle, text: ByteString) -> BoxFuture<'static, Option<ByteString>> {
        assert_eq!(text, "go");
        let code = CloseCode::new(4001).expect("4001 is an application's");
        session.close(CloseReason::Application { code, name: "moved" });
        Box::pin(async { None })
    }

    fn on_binary(&self, session: SessionHandle, data: Bytes) -> Option<BoxFuture<'static, Option<Bytes>>> {
        assert_eq!(session.get::<String>().as_deref().map(String::as_str), Some("a b"));
        Some(Box::pin(async move { Some(data.iter().rev().copied().collect()) }))
    }
}

struct Running {
    port: u16,
    handle: ServerHandle,
    hub: Hub,
    logins: Arc<Logins>,
}

impl Server for Running {
    fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

/// Both transports in the scope `/t/{tenant}`, behind a middleware.
fn start() -> Running {
    let hub = Hub::builder().start().unwrap();
    let logins = Arc::new(Logins::default());
    let server = HttpServer::new({
        let (hub, logins) = (hub.clone(), Arc::clone(&logins));
        move || {
            let logins: Arc<dyn Authenticator> = Arc::clone(&logins) as _;
            let websocket = WebSocketConfig::default().inbound(Reverse);
            let visitors = from_fn(async |request: actix_web::dev::ServiceRequest, next: Next<_>| {
                let visitor =
                    request.headers().get("X-Visitor").and_then(|id| id.to_str().ok()?.parse().ok());
                if let Some(visitor) = visitor {
                    let mut extensions = Extensions::new();
                    extensions.insert(Visitor(visitor));
                    request.extensions_mut().insert(extensions);
                }
                next.call(request).await
            });
            let scope = web::scope("/t/{tenant}")
                .wrap(visitors)
                .configure(realtime_websocket::routes(hub.clone(), Arc::clone(&logins), websocket))
                .configure(realtime_sse::routes(hub.clone(), logins, SseConfig::default()));
            App::new().service(scope)
        }
    })
    .workers(1)
    .disable_signals()
    .bind(("127.0.0.1", 0))
    .unwrap();
    let port = server.addrs()[0].port();
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Running { port, handle, hub, logins }
}

#[actix_web::test]
async fn a_login_sees_path_parameters_and_what_middleware_has_left() {
    let server = start();
    let visitor: &[(&str, &str)] = &[("X-Visitor", "7")];
    let socket = Socket::open_at(&server, "/t/a%20b/resource/websocket", visitor).await.unwrap();
    let url = format!("http://127.0.0.1:{}/t/c/resource/sse?Authorization=8", server.port());
    let stream = reqwest::get(url).await.unwrap();
    assert_eq!(stream.status(), 200);
    let tenants: Vec<_> =
        [7, 8].map(|user| server.hub.sessions(&user.into())[0].get::<String>().unwrap().to_string()).into();
    assert_eq!(tenants, ["a b", "c"]);
    assert_eq!(*server.logins.0.lock().unwrap(), ["a b Some(Visitor(7)) None", "c None Some(\"8\")"]);
    drop(socket);
}

#[actix_web::test]
async fn a_token_may_be_offered_as_subprotocol() {
    let server = start();
    let path = "/t/a/resource/websocket";
    let open = async |offered: &'static str| {
        Socket::open_at(&server, path, &[("Sec-WebSocket-Protocol", offered)]).await
    };
    let mut v1 = open("bearer.5, realtime.v1").await.unwrap();
    assert_eq!(v1.json().await["type"], "hello");
    let mut raw = open("realtime.raw, bearer.5").await.unwrap();
    assert_eq!((SUBPROTOCOL, RAW_SUBPROTOCOL), ("realtime.v1", "realtime.raw"));
    server.hub.publish_to_user(5, "to both").await.unwrap();
    assert_eq!(raw.text().await, "to both");
    assert_eq!(v1.message().await["data"], "to both");
    assert_eq!(open("bearer.5").await.unwrap_err(), 400, "a browser would fail without another entry");
    assert_eq!(open("realtime.v1").await.unwrap_err(), 401);
}

#[actix_web::test]
async fn bytes_go_both_ways() {
    let server = start();
    let path = "/t/a%20b/resource/websocket?Authorization=5";
    let mut raw = Socket::open_at(&server, path, &[]).await.unwrap();
    let v1: &[(&str, &str)] = &[("Sec-WebSocket-Protocol", SUBPROTOCOL)];
    let mut v1 = Socket::open_at(&server, path, v1).await.unwrap();
    v1.json().await;
    for socket in [&mut raw, &mut v1] {
        socket.0.send(WsMessage::binary(vec![1, 2, 3])).await.unwrap();
    }
    assert_eq!(binary(&mut raw).await, [3, 2, 1]);
    assert_eq!(v1.message().await["base64"], "AwIB");
    let envelope =
        Envelope::to_users([5], Scope::Only(realtime_websocket::TRANSPORT), Message::binary(vec![0, 255]));
    let position = server.hub.publish(envelope.unwrap()).await.unwrap().position.unwrap().to_string();
    assert_eq!(binary(&mut raw).await, [0, 255]);
    let message = v1.message().await;
    assert_eq!(
        (&message["id"], &message["base64"], message.get("data")),
        (&position.into(), &"AP8=".into(), None)
    );
    let to_streams = Scope::Only(realtime_sse::TRANSPORT);
    let error =
        server.hub.publish(Envelope::broadcast(to_streams, Message::binary(vec![0]))).await.unwrap_err();
    assert_eq!(error.status(), 422, "{error}");
}

async fn binary(socket: &mut Socket) -> Vec<u8> {
    loop {
        match within("a frame", socket.0.next()).await.unwrap().unwrap() {
            WsMessage::Binary(bytes) => return bytes.to_vec(),
            // A heartbeat.
            WsMessage::Ping(_) => {}
            other => panic!("no bytes but {other:?}"),
        }
    }
}

#[actix_web::test]
async fn a_session_ends_with_a_code_of_the_application() {
    let server = start();
    let mut socket = Socket::open_at(&server, "/t/a/resource/websocket?Authorization=5", &[]).await.unwrap();
    socket.send("go").await;
    let frame = loop {
        match within("a Close frame", socket.0.next()).await.unwrap().unwrap() {
            WsMessage::Close(frame) => break frame.expect("it has a code"),
            WsMessage::Ping(_) => {}
            other => panic!("no Close frame but {other:?}"),
        }
    };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4001, "moved"));
}

#[actix_web::test]
async fn bytes_from_a_client_end_its_session_without_a_handler_for_them() {
    let server = realtime_tests::Embedded::start(Hub::builder().start().unwrap());
    let mut socket = Socket::open(&server, &realtime_tests::token(1), &[], None).await.unwrap();
    let mut stream = EventStream::open(&server, &realtime_tests::token(1), None).await.unwrap();
    socket.0.send(WsMessage::binary(vec![1])).await.unwrap();
    assert_eq!(socket.close_code().await, 1003);
    server.emitters.send_message(1, "still here").unwrap();
    assert_eq!(stream.data().await, "still here");
}

//! [`Embedded`]: both transports inside a server of the test's own.

use std::{net::TcpListener, sync::Arc};

use actix_web::{App, HttpResponse, Responder, dev::ServerHandle, rt::net::TcpStream, web};
use axum::{Router, extract::Path, routing::get};
use bytestring::ByteString;
use realtime_core::{
    Authenticator, Hub, Topic,
    auth::{JwtAlgorithm, JwtAuthenticator},
    ruoyi::ErrorStatus,
};
use realtime_sse::{SseConfig, SseEmitters};
use realtime_websocket::{SessionHandle, WebSocketConfig, WebSockets};
use socket2::SockRef;

use crate::{AxumServer, SECRET, Server, ServerKind};

/// A server of the run's [`ServerKind`] with both transports, a stream endpoint of its own at `/own`, and any number of
/// bytes at `/bytes/{count}`. It is stopped when it is dropped.
#[derive(Debug)]
pub struct Embedded {
    port: u16,
    running: Started,
    /// The hub behind both.
    pub hub: Hub,
    /// Its WebSockets.
    pub sockets: WebSockets,
    /// Its event streams.
    pub emitters: SseEmitters,
}

#[derive(Debug)]
enum Started {
    Actix(ServerHandle),
    Axum { _server: AxumServer },
}

/// Bytes that a socket holds: so few that a client that does not read is noticed soon.
const SEND_BUFFER: usize = 32 << 10;

impl Embedded {
    /// Starts a server that takes the tokens of [`crate::token`].
    pub fn start(hub: Hub) -> Self {
        Self::start_with(hub, Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap()))
    }

    /// Starts a server with logins of some kind.
    pub fn start_with(hub: Hub, authenticator: Arc<dyn Authenticator>) -> Self {
        Self::start_telling(hub, authenticator, ErrorStatus::default())
    }

    /// Starts a server that reports refused logins under that status.
    pub fn start_telling(hub: Hub, authenticator: Arc<dyn Authenticator>, error_status: ErrorStatus) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sockets, emitters) = (WebSockets::new(hub.clone()), SseEmitters::new(hub.clone()));
        // Every text is sent back in capitals, and `join <topic>` is granted.
        let inbound = |session: SessionHandle, text: ByteString| async move {
            if let Some(topic) = text.strip_prefix("join ") {
                session.subscribe(Topic::new(topic).unwrap());
            }
            Some(text.to_uppercase().into())
        };
        let websocket = WebSocketConfig::default().inbound(inbound).error_status(error_status);
        let sse = SseConfig::default().error_status(error_status);
        let max_stall = hub.settings().outbox.max_stall;
        if ServerKind::of_run() == ServerKind::Axum {
            let config = realtime_axum::Config::default().websocket(websocket).sse(sse);
            let router = Router::new()
                .route("/bytes/{count}", get(async |Path(count): Path<usize>| "b".repeat(count)))
                .merge(realtime_axum::routes(hub.clone(), authenticator, config));
            let server = AxumServer::start(listener, router, max_stall, Some(SEND_BUFFER));
            return Self { port, running: Started::Axum { _server: server }, hub, sockets, emitters };
        }
        let app = {
            let (hub, emitters) = (hub.clone(), emitters.clone());
            move || {
                let (hub, authenticator) = (hub.clone(), Arc::clone(&authenticator));
                App::new()
                    .app_data(web::Data::new(emitters.clone()))
                    .route("/own", web::get().to(own_stream))
                    .route("/bytes/{count}", web::get().to(bytes))
                    .configure(realtime_websocket::routes(
                        hub.clone(),
                        Arc::clone(&authenticator),
                        websocket.clone(),
                    ))
                    .configure(realtime_sse::routes(hub, authenticator, sse.clone()))
            }
        };
        let options = realtime_server::socket_options(max_stall);
        // Both servers have the same methods, and types of their own.
        macro_rules! start {
            ($server:expr) => {
                $server
                    .on_connect(move |connection, data| {
                        options(connection, data);
                        if let Some(tcp) = connection.downcast_ref::<TcpStream>() {
                            SockRef::from(tcp).set_send_buffer_size(SEND_BUFFER).unwrap();
                        }
                    })
                    .workers(2)
                    .h1_allow_half_closed(false)
                    .disable_signals()
                    .listen(listener)
                    .unwrap()
                    .run()
            };
        }
        let server = match ServerKind::of_run() {
            ServerKind::Realtime => start!(realtime_server::HttpServer::new(app)),
            ServerKind::Actix | ServerKind::Axum => start!(actix_web::HttpServer::new(app)),
        };
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self { port, running: Started::Actix(handle), hub, sockets, emitters }
    }
}

impl Server for Embedded {
    fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Started::Actix(handle) = &self.running {
            drop(handle.stop(false));
        }
    }
}

/// An endpoint with an authentication of its own that answers with a stream.
async fn own_stream(emitters: web::Data<SseEmitters>) -> impl Responder {
    match emitters.connect(77, "a login of another kind") {
        Ok(stream) => actix_web::Either::Left(stream),
        Err(error) => actix_web::Either::Right(HttpResponse::ServiceUnavailable().body(error.to_string())),
    }
}

async fn bytes(count: web::Path<usize>) -> impl Responder {
    "b".repeat(*count)
}

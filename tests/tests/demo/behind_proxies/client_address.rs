//! The address that a proxy forwards is the client's, and one that the client claims is not.

use std::{net::IpAddr, sync::Arc};

use actix_web::{App, dev::ServerHandle};
use realtime_core::{
    Authenticator, BoxFuture, Hub, Principal,
    auth::{AuthError, Handshake, JwtAlgorithm, JwtAuthenticator, TrustedProxies},
};
use realtime_server::HttpServer;
use realtime_sse::SseConfig;
use realtime_tests::{RawClient, ReverseProxy, SECRET, Server, Upstream};
use realtime_websocket::WebSocketConfig;
use tokio::net::TcpSocket;

use super::KINDS;

/// Logins whose sessions know their client's address.
struct Logins(JwtAuthenticator);

impl Authenticator for Logins {
    fn authenticate<'a>(&'a self, handshake: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
        Box::pin(async move {
            let mut principal = self.0.authenticate(handshake).await?;
            principal.extensions.insert(handshake.client_ip().unwrap());
            Ok(principal)
        })
    }
}

/// A server that tells each client its address.
fn server() -> (Upstream, ServerHandle) {
    let hub = Hub::builder()
        .on_open(|session| {
            session.send_local(format!("from {}", session.get::<IpAddr>().unwrap())).unwrap();
        })
        .start()
        .unwrap();
    let logins = Arc::new(Logins(JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap()));
    let proxies = TrustedProxies::new(["127.0.0.1"]).unwrap();
    let server = HttpServer::new(move || {
        let websocket = WebSocketConfig::default().trusted_proxies(proxies.clone());
        let sse = SseConfig::default().trusted_proxies(proxies.clone());
        App::new()
            .route("/health/ready", actix_web::web::get().to(async || "ready"))
            .configure(realtime_websocket::routes(hub.clone(), logins.clone(), websocket))
            .configure(realtime_sse::routes(hub.clone(), logins.clone(), sse))
    });
    let server = server.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
    let port = server.addrs()[0].port();
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    (Upstream { public: port, internal: port }, handle)
}

#[actix_web::test]
async fn the_last_entry_of_the_header_counts() {
    let (upstream, handle) = server();
    for kind in KINDS {
        let proxy = ReverseProxy::start(kind, [upstream; 2], &[]).await;
        for request in [RawClient::event_stream(1), RawClient::websocket(1)] {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
            let tcp = socket.connect(([127, 0, 0, 1], proxy.port()).into()).await.unwrap();
            let mut client = RawClient { tcp, bytes: Vec::new() };
            let claim = "Host: x\r\nX-Forwarded-For: 203.0.113.9\r\n";
            client.write(request.replace("Host: x\r\n", claim)).await;
            client.until("from 127.0.0.2").await;
        }
    }
    handle.stop(false).await;
}

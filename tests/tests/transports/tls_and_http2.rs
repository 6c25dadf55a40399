//! Both transports work over TLS, HTTP/2 and HTTP/1.0, where connections stay with the dispatcher.
#![cfg(target_os = "linux")]

use std::{
    fs,
    sync::{Arc, Once},
    time::Duration,
};

use actix_web::{App, dev::ServerHandle, rt::net::TcpStream as ServerStream, web};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use realtime_core::{
    CloseReason, Envelope, Hub, Message, Scope, SessionHandle, Settings,
    auth::{JwtAlgorithm, JwtAuthenticator},
};
use realtime_server::HttpServer;
use realtime_sse::SseConfig;
use realtime_tests::{Authority, RawClient, SECRET, Server, WsMessage, descriptors, token, until, within};
use realtime_websocket::WebSocketConfig;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Our server, over TLS on one port and with HTTP/2 in clear on another.
struct Secure {
    hub: Hub,
    authority: Authority,
    tls: Port,
    clear: Port,
    handle: ServerHandle,
}

#[derive(Clone, Copy)]
struct Port(u16);

impl Server for Port {
    fn port(&self) -> u16 {
        self.0
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

fn crypto() {
    static CRYPTO: Once = Once::new();
    CRYPTO.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
}

impl Secure {
    fn start(hub: Hub) -> Self {
        crypto();
        let authority = Authority::new();
        let chain = CertificateDer::from_pem_file(authority.path("server.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(authority.path("server.key")).unwrap();
        let config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![chain], key).unwrap();
        let app = {
            let hub = hub.clone();
            move || {
                let authenticator = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap());
                App::new()
                    .route("/plain", web::get().to(async || "plain"))
                    .configure(realtime_websocket::routes(
                        hub.clone(),
                        authenticator.clone(),
                        WebSocketConfig::default(),
                    ))
                    .configure(realtime_sse::routes(hub.clone(), authenticator, SseConfig::default()))
            }
        };
        let server = HttpServer::new(app)
            .max_stall(hub.settings().outbox.max_stall)
            .on_connect(|connection, _| {
                if let Some(tcp) = connection.downcast_ref::<ServerStream>() {
                    SockRef::from(tcp).set_send_buffer_size(32 << 10).unwrap();
                }
            })
            .workers(1)
            .disable_signals()
            .bind_rustls_0_23("127.0.0.1:0", config)
            .unwrap()
            .bind_auto_h2c("127.0.0.1:0")
            .unwrap();
        let [tls, clear] = *server.addrs() else { panic!("two addresses") };
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self { hub, authority, tls: Port(tls.port()), clear: Port(clear.port()), handle }
    }

    async fn connect(&self, protocol: &str) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        let ca = fs::read(self.authority.path("ca.crt")).unwrap();
        roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let tcp = TcpStream::connect(("127.0.0.1", self.tls.0)).await.unwrap();
        SockRef::from(&tcp).set_recv_buffer_size(8 << 10).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        within("a TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, tcp)).await.unwrap()
    }

    async fn session(&self) -> SessionHandle {
        until("the session", || !self.hub.all_sessions().is_empty()).await;
        let session = self.hub.all_sessions().pop().unwrap();
        assert!(!session.is_direct());
        session
    }

    async fn gone(&self) {
        until("the session to end", || self.hub.all_sessions().is_empty()).await;
        for port in [self.tls, self.clear] {
            until("the descriptors to be closed", || descriptors(&port) == 0).await;
        }
        assert_eq!(self.hub.metrics().taken_over, 0);
    }
}

async fn publish(hub: &Hub, text: &str) {
    let message = Message::text(text.to_owned());
    hub.publish(Envelope::broadcast(Scope::Both, message)).await.unwrap();
}

fn hub() -> Hub {
    Hub::builder().start().unwrap()
}

async fn until_text(stream: &mut (impl AsyncRead + Unpin), text: &str) -> String {
    let mut bytes = Vec::new();
    within(text, async {
        while !String::from_utf8_lossy(&bytes).contains(text) {
            assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "the end instead of {text:?}");
        }
    })
    .await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[actix_web::test]
async fn both_transports_work_over_tls() {
    let server = Secure::start(hub());
    let url = format!("wss://localhost/resource/websocket?Authorization=Bearer%20{}", token(1));
    let stream = server.connect("http/1.1").await;
    let (mut socket, _) =
        within("a WebSocket handshake", Box::pin(tokio_tungstenite::client_async(url, stream)))
            .await
            .unwrap();
    let session = server.session().await;
    publish(&server.hub, "published").await;
    let mut texts = Vec::new();
    socket.send(WsMessage::text("ping")).await.unwrap();
    while texts.len() < 2 {
        if let WsMessage::Text(text) = within("a text", socket.next()).await.unwrap().unwrap() {
            texts.push(text.to_string());
        }
    }
    texts.sort();
    assert_eq!(texts, ["pong", "published"]);
    session.close(CloseReason::Kicked);
    while !matches!(within("the end", socket.next()).await, Some(Ok(WsMessage::Close(_)))) {}
    socket.flush().await.ok();
    server.gone().await;

    let mut stream = server.connect("http/1.1").await;
    stream.write_all(RawClient::event_stream(1).as_bytes()).await.unwrap();
    until_text(&mut stream, ":connected").await;
    server.session().await;
    publish(&server.hub, "published").await;
    until_text(&mut stream, "data:published\n\n").await;
    drop(stream);
    server.gone().await;
}

/// An event stream over HTTP/2.
async fn over_http2(server: &Secure, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let (client, connection) = within("a handshake", h2::client::handshake(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut client = within("the connection", client.ready()).await.unwrap();
    let uri = format!("http://localhost/resource/sse?Authorization=Bearer%20{}", token(1));
    let request = http::Request::get(uri).body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    // Another request of the same connection is answered in parallel.
    let plain = http::Request::get("http://localhost/plain").body(()).unwrap();
    let (other, _) = client.send_request(plain, true).unwrap();
    let answer = within("the answer", answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("transfer-encoding"));
    assert_eq!(within("the other answer", other).await.unwrap().status(), 200);
    server.session().await;
    publish(&server.hub, "published").await;
    let mut body = answer.into_body();
    let mut text = String::new();
    while !text.contains("data:published\n\n") {
        let bytes: Bytes = within("an event", body.data()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    drop((body, client));
    connection.abort();
    server.gone().await;
}

#[actix_web::test]
async fn event_streams_work_over_http2_with_tls_and_in_clear() {
    // actix-http looks at a stream of HTTP/2 only when it has something to send: leaving is seen at a heartbeat.
    let mut settings = Settings::default();
    settings.heartbeat.interval = Duration::from_millis(500);
    let server = Secure::start(Hub::builder().settings(settings).start().unwrap());
    let stream = server.connect("h2").await;
    over_http2(&server, stream).await;
    let stream = TcpStream::connect(("127.0.0.1", server.clear.0)).await.unwrap();
    over_http2(&server, stream).await;
}

#[actix_web::test]
async fn http_1_beside_http2_in_clear_is_taken_over_and_http_1_0_is_not() {
    let server = Secure::start(hub());
    let mut client = RawClient::open(&server.clear, 1, "").await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    until("the connection to be taken over", || {
        server.hub.all_sessions().first().is_some_and(SessionHandle::is_direct)
    })
    .await;
    drop(client);
    until("the session to end", || server.hub.all_sessions().is_empty()).await;

    let mut client = RawClient::connect(&server.clear).await;
    client.write(RawClient::event_stream(1).replace("HTTP/1.1", "HTTP/1.0")).await;
    client.head().await;
    server.session().await;
    publish(&server.hub, "published").await;
    client.until("data:published\n\n").await;
    drop(client);
    until("the session to end", || server.hub.all_sessions().is_empty()).await;
    assert_eq!(server.hub.metrics().taken_over, 1);
}

#[actix_web::test]
async fn a_reader_that_stalls_over_tls_is_broken_off() {
    let mut settings = Settings::default();
    settings.outbox.max_stall = Duration::from_millis(400);
    let server = Secure::start(Hub::builder().settings(settings).start().unwrap());
    let mut stream = server.connect("http/1.1").await;
    stream.write_all(RawClient::event_stream(1).as_bytes()).await.unwrap();
    until_text(&mut stream, ":connected").await;
    server.session().await;
    let filler = "x".repeat(60_000);
    for _ in 0..100 {
        publish(&server.hub, &filler).await;
    }
    server.gone().await;
}

#[actix_web::test]
async fn a_client_that_sends_nothing_is_answered_in_time_for_any_protocol() {
    let server = HttpServer::new(App::new)
        .workers(1)
        .client_request_timeout(Duration::from_millis(200))
        .disable_signals()
        .bind("127.0.0.1:0")
        .unwrap()
        .bind_auto_h2c("127.0.0.1:0")
        .unwrap();
    let addresses = server.addrs();
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    for address in addresses {
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut answer = String::new();
        within("the end", client.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    handle.stop(true).await;
}

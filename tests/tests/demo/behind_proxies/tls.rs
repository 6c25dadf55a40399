//! Where TLS ends at the proxy, both transports work, and event streams share one connection over HTTP/2.

use std::{
    fs,
    sync::{Arc, Once},
};

use futures_util::StreamExt;
use realtime_tests::{ReverseProxy, WsMessage, token, within};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{KINDS, in_front_of, node};

async fn connect(proxy: &ReverseProxy, protocol: &str) -> TlsStream<TcpStream> {
    static CRYPTO: Once = Once::new();
    CRYPTO.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
    let mut roots = RootCertStore::empty();
    let ca = fs::read(proxy.authority().path("ca.crt")).unwrap();
    roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let tcp = TcpStream::connect(("127.0.0.1", proxy.tls_port())).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    within("a TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, tcp)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_transports_work_and_streams_share_a_connection() {
    for kind in KINDS {
        let node = node(&[]).await;
        let proxy = in_front_of(kind, &node, &[]).await;
        let url = format!("wss://localhost/resource/websocket?Authorization={}", token(1));
        let tls = connect(&proxy, "http/1.1").await;
        let handshake = Box::pin(tokio_tungstenite::client_async(url, tls));
        let (mut socket, _) = within("a WebSocket handshake", handshake).await.unwrap();

        let tls = connect(&proxy, "h2").await;
        let (client, connection) = within("a handshake", h2::client::handshake(tls)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut client = within("the connection", client.ready()).await.unwrap();
        let mut streams = Vec::new();
        // More than the six connections that a browser opens over HTTP/1.1.
        for _ in 0..8 {
            let uri = format!("https://localhost/resource/sse?Authorization={}", token(1));
            let request = http::Request::get(uri).body(()).unwrap();
            let (answer, _) = client.send_request(request, true).unwrap();
            let answer = within("the answer", answer).await.unwrap();
            assert_eq!(answer.status(), 200, "{kind:?}");
            streams.push(answer.into_body());
        }
        node.until_sessions(1, 9).await;
        node.publish_to(1, "over TLS").await;
        assert_eq!(within("a text", socket.next()).await.unwrap().unwrap(), WsMessage::text("over TLS"));
        for mut stream in streams {
            let mut text = String::new();
            while !text.contains("data:over TLS\n\n") {
                let bytes = within("an event", stream.data()).await.unwrap().unwrap();
                text.push_str(std::str::from_utf8(&bytes).unwrap());
            }
        }
        drop(client);
        connection.abort();
    }
}

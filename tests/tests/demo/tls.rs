//! The demo over TLS: HTTP/2, WebSockets, and certificates that are replaced.

use std::{fs, path::PathBuf, process::Command, sync::Arc};

use futures_util::StreamExt;
use realtime_tests::{API_KEY, Authority, Browser, Demo, Server, WsMessage, token, within};
use reqwest::Client;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::mpsc::UnboundedReceiver};
use tokio_rustls::{TlsConnector, client::TlsStream};

const ALICE: i64 = 1;

/// The demo over TLS, whose files are copied from an authority.
struct Secure {
    demo: Demo,
    log: UnboundedReceiver<String>,
    folder: TempDir,
}

impl Secure {
    async fn start(authority: &Authority) -> Self {
        let folder = tempfile::tempdir().unwrap();
        renew(&folder, authority);
        let [cert, key] = ["server.crt", "server.key"].map(|file| path(&folder, file).display().to_string());
        let files =
            [("REALTIME__SERVER__TLS__CERT", cert.as_str()), ("REALTIME__SERVER__TLS__KEY", key.as_str())];
        let (demo, log) = Demo::start_listened(&[], &files, &[]).await;
        Self { demo, log, folder }
    }

    async fn connect(&self, authority: &Authority, protocol: &str) -> Option<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let ca = fs::read(authority.path("ca.crt")).unwrap();
        roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let tcp = TcpStream::connect(("127.0.0.1", self.demo.port())).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        within("a TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, tcp)).await.ok()
    }

    /// Waits for a line of the log with this text.
    async fn logs(&mut self, text: &str) -> String {
        within(text, async {
            loop {
                let line = self.log.recv().await.unwrap();
                if line.contains(text) {
                    return line;
                }
            }
        })
        .await
    }

    async fn publish(&self, authority: &Authority, message: &str) {
        let url = self.demo.url("/api/publish");
        let body = json!({ "userIds": [ALICE], "message": message }).to_string();
        let answer = curl(authority, &["-H", &format!("X-API-Key: {API_KEY}"), "-d", &body, &url]);
        assert!(answer.contains("position"), "{answer}");
    }
}

fn path(folder: &TempDir, file: &str) -> PathBuf {
    folder.path().join(file)
}

/// Puts the certificate of this authority where the demo reads it.
fn renew(folder: &TempDir, authority: &Authority) {
    for file in ["server.crt", "server.key"] {
        fs::copy(authority.path(file), path(folder, file)).unwrap();
    }
}

fn curl(authority: &Authority, arguments: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]).arg(authority.path("ca.crt"));
    let output = curl.args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || output.status.code() == Some(28), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_speaks_both_versions_and_reads_a_stream() {
    let authority = Authority::new();
    let secure = Secure::start(&authority).await;
    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let url = secure.demo.url("/health/live");
        let answer =
            curl(&authority, &[option, "-o", "/dev/null", "-w", "%{http_version} %{http_code}", &url]);
        assert_eq!(answer, format!("{version} 200"));
        let stream = secure.demo.url(&format!("/resource/sse?Authorization={}", token(ALICE)));
        let stream = curl(&authority, &[option, "--max-time", "1", "-i", &stream]);
        assert!(stream.starts_with(&format!("HTTP/{version} 200")), "{stream}");
        assert!(stream.contains("text/event-stream") && stream.contains(":connected"), "{stream}");
        let page = curl(&authority, &[option, &secure.demo.url("/")]);
        assert!(page.contains("<html"), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_has_more_streams_than_six_beside_a_websocket() {
    let authority = Authority::new();
    let secure = Secure::start(&authority).await;
    let browser = Browser::start_with(&["--ignore-certificate-errors"]).await;
    browser.open(&secure.demo.url("/health/live")).await;
    let script = "const [token, count] = arguments;
        window.heard = [];
        window.open = 0;
        const address = (path) => `${path}?Authorization=${token}`;
        for (let each = 0; each < count; each += 1) {
          const source = new EventSource(address('/resource/sse'));
          source.onopen = () => { window.open += 1; };
          source.onmessage = (event) => window.heard.push(event.data);
        }
        const socket = new WebSocket(address(`wss://${location.host}/resource/websocket`));
        socket.onopen = () => { window.open += 1; };
        socket.onmessage = (event) => window.heard.push(event.data);";
    browser.run(script, &[json!(token(ALICE)), json!(20)]).await;
    browser.until("window.open === 21").await;
    // Requests of the page still have a way.
    let version = "const entry = () => performance.getEntriesByType('resource').at(-1);
        return fetch('/health/ready').then((answer) => answer.text()).then(() => entry().nextHopProtocol);";
    assert_eq!(browser.run(version, &[]).await, "h2");
    secure.publish(&authority, "to all of them").await;
    browser.until("window.heard.filter((text) => text === 'to all of them').length === 21").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_while_connections_stay_open() {
    let (first, second) = (Authority::new(), Authority::new());
    let mut secure = Secure::start(&first).await;
    let tls = secure.connect(&first, "http/1.1").await.unwrap();
    let serial =
        |tls: &TlsStream<TcpStream>| tls.get_ref().1.peer_certificates().unwrap()[0].as_ref().to_vec();
    let old = serial(&tls);
    let url = format!("wss://localhost/resource/websocket?Authorization={}", token(ALICE));
    let (mut socket, _) =
        within("a WebSocket handshake", Box::pin(tokio_tungstenite::client_async(url, tls))).await.unwrap();
    let tls = secure.connect(&first, "h2").await.unwrap();
    let (client, connection) = within("a handshake", h2::client::handshake(tls)).await.unwrap();
    tokio::spawn(connection);
    let mut client = within("the connection", client.ready()).await.unwrap();
    let uri = format!("https://localhost/resource/sse?Authorization={}", token(ALICE));
    let (answer, _) = client.send_request(http::Request::get(uri).body(()).unwrap(), true).unwrap();
    let mut stream = within("the answer", answer).await.unwrap().into_body();

    renew(&secure.folder, &second);
    secure.demo.reload();
    secure.logs("the configuration has been reloaded").await;
    let new = serial(&secure.connect(&second, "h2").await.unwrap());
    assert_ne!(old, new);
    assert!(secure.connect(&first, "h2").await.is_none(), "the old certificate is still shown");

    // A key that is not that of the certificate, and a file that is none: the one before stays.
    fs::copy(first.path("server.key"), path(&secure.folder, "server.key")).unwrap();
    secure.demo.reload();
    let line = secure.logs("server.tls.key").await;
    assert!(line.contains("server.key`: it is not the key of the certificate"), "{line}");
    secure.logs("the one before stays in force").await;
    fs::write(path(&secure.folder, "server.crt"), "").unwrap();
    secure.demo.reload();
    let line = secure.logs("server.tls.cert").await;
    assert!(line.contains("server.crt`: no certificate in PEM is in it"), "{line}");
    secure.logs("the one before stays in force").await;
    assert_eq!(serial(&secure.connect(&second, "http/1.1").await.unwrap()), new);

    secure.publish(&second, "to those who were there").await;
    let text = within("a text", socket.next()).await.unwrap().unwrap();
    assert_eq!(text, WsMessage::text("to those who were there"));
    let mut text = String::new();
    while !text.contains("data:to those who were there\n\n") {
        let bytes = within("an event", stream.data()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&bytes).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_config_looks_at_the_files() {
    let (first, second) = (Authority::new(), Authority::new());
    let (cert, key) = (first.path("server.crt"), first.path("server.key"));
    for (key, problem) in [
        (key.clone(), None),
        (second.path("server.key"), Some("it is not the key of the certificate `")),
        (cert.clone(), Some("no private key in PEM is in it")),
    ] {
        let mut check = Command::new(Demo::binary());
        check
            .arg("check-config")
            .env("REALTIME__SERVER__TLS__CERT", &cert)
            .env("REALTIME__SERVER__TLS__KEY", &key);
        let output = check.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.success(), problem.is_none(), "{error}");
        let named = format!(
            "error: server.tls.key (environment variable REALTIME__SERVER__TLS__KEY): `{}`: ",
            key.display()
        );
        assert!(problem.is_none_or(|problem| error.contains(&format!("{named}{problem}"))), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_clear_gets_no_answer_in_clear() {
    let authority = Authority::new();
    let secure = Secure::start(&authority).await;
    let url = format!("http://127.0.0.1:{}/health/live", secure.demo.port());
    assert!(Client::new().get(url).send().await.is_err());
    let status =
        curl(&authority, &["-o", "/dev/null", "-w", "%{http_code}", &secure.demo.url("/health/live")]);
    assert_eq!(status, "200");
}

//! Pages of other origins get in over no transport in a real browser, unless they are named.

use std::{fs, net::SocketAddr};

use realtime_tests::{Authority, Browser, Demo, Server, token};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const ALICE: i64 = 1;

/// Names of the browser: that of the server, and all others of `.test` for the server of foreign pages.
const NAMES: &str = "--host-resolver-rules=MAP push.app.test 127.0.0.1, MAP rebound.test 127.0.0.1, \
                     MAP *.test 127.0.0.2, MAP push.app.test. 127.0.0.2";

/// An address of the demo without a content security policy.
const BARE: &str = "/health/live";

/// Tries every way in, with a token that is good: the foreign page may have stolen it.
const TRY: &str = "
const told = {};
const finished = new Promise((resolve) => {
  globalThis.tell = (way, result) => {
    told[way] ??= result;
    if (Object.keys(told).length === 4) resolve(told);
  };
});
const socket = new WebSocket(`${ws}/resource/websocket?Authorization=${token}`);
socket.onopen = () => tell('websocket', 'in');
socket.onerror = () => tell('websocket', 'out');
for (const withCredentials of [false, true]) {
  const source = new EventSource(`${http}/resource/sse?Authorization=${token}`, { withCredentials });
  const way = withCredentials ? 'stream with cookies' : 'stream';
  source.onopen = () => { source.close(); tell(way, 'in'); };
  source.onerror = () => { source.close(); tell(way, 'out'); };
}
fetch(`${http}/resource/sse/close`, { method: 'POST', headers: { Authorization: `Bearer ${token}` } })
  .then((answer) => answer.json())
  .then(() => tell('close', 'in'), () => tell('close', 'out'));
";

/// A server of foreign pages. `/to?<url>` redirects there.
struct Pages {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Pages {
    async fn start(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(answer(socket));
            }
        });
        Self { address, serving }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(mut socket: TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if socket.read_buf(&mut request).await.unwrap_or_default() == 0 {
            return;
        }
    }
    let request = String::from_utf8(request).unwrap();
    let target = request.split(' ').nth(1).unwrap();
    let answer = match target.strip_prefix("/to?") {
        // Also readable for the page itself, so that only the last answer decides.
        Some(to) => format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\naccess-control-allow-origin: *\r\n"),
        None => "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n".to_owned(),
    };
    let answer = format!("{answer}connection: close\r\ncontent-length: 1\r\n\r\n.");
    socket.write_all(answer.as_bytes()).await.ok();
}

/// What the page in view achieves at a server.
async fn attempt(browser: &Browser, http: &str) -> Value {
    let script = format!("const [ws, http, token] = arguments; {TRY} return finished;");
    browser.run(&script, &arguments(http)).await
}

/// What a page within the page in view achieves, by its HTML and the frame's attribute for it.
async fn attempt_within(browser: &Browser, frame: &str, http: &str) -> Value {
    let [ws, http, token] = arguments(http);
    let inner = format!(
        "<script>const [ws, http, token] = [{ws}, {http}, {token}]; {TRY}
        finished.then((told) => parent.postMessage(told, '*'));</script>"
    );
    let script = format!(
        "const [inner] = arguments;
        const frame = document.createElement('iframe');
        const told = new Promise((resolve) => addEventListener('message', (event) => resolve(event.data), {{ once: true }}));
        {frame}
        document.body.append(frame);
        return told;"
    );
    browser.run(&script, &[json!(inner)]).await
}

fn arguments(http: &str) -> [Value; 3] {
    [json!(http.replacen("http", "ws", 1)), json!(http), json!(token(ALICE))]
}

fn all(result: &str) -> Value {
    json!({ "websocket": result, "stream": result, "stream with cookies": result, "close": result })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_of_another_origin_gets_in() {
    let demo = Demo::start().await;
    let port = demo.port();
    let server = format!("http://push.app.test:{port}");
    // The same port on another address: only the names differ.
    let (same_port, other_port) =
        (Pages::start(&format!("127.0.0.2:{port}")).await, Pages::start("127.0.0.1:0").await);
    let browser = Browser::start_with(&[NAMES]).await;

    let own = format!("{server}{BARE}");
    browser.open(&own).await;
    assert_eq!(attempt(&browser, &server).await, all("in"), "a page of the server itself");

    for page in [
        format!("http://{}", other_port.address),
        format!("http://{}", same_port.address),
        format!("http://evil.test:{port}"),
        format!("http://app.test:{port}"),
        format!("http://sub.push.app.test:{port}"),
        format!("http://evilpush.app.test:{port}"),
        format!("http://push.app.test.evil.test:{port}"),
        format!("http://push.app.test.:{port}"),
        format!("http://xn--psh-goa.app.test:{port}"),
    ] {
        browser.open(&page).await;
        assert_eq!(attempt(&browser, &server).await, all("out"), "{page}");
    }
    // A redirect makes the origin `null`.
    let redirect = format!("http://evil.test:{port}/to?{server}");
    browser.open(&format!("http://evil.test:{port}")).await;
    assert_eq!(attempt(&browser, &redirect).await, all("out"), "{redirect}");

    let file = tempfile::Builder::new().suffix(".html").tempfile().unwrap();
    fs::write(file.path(), ".").unwrap();
    browser.open(&format!("file://{}", file.path().display())).await;
    assert_eq!(attempt(&browser, &server).await, all("out"), "a file");

    // Frames of the server's own page that have no origin, or another one.
    for frame in [
        "frame.sandbox = 'allow-scripts'; frame.srcdoc = inner;",
        "frame.src = 'data:text/html,' + encodeURIComponent(inner);",
    ] {
        browser.open(&own).await;
        assert_eq!(attempt_within(&browser, frame, &server).await, all("out"), "{frame}");
    }
    browser.open(&format!("http://evil.test:{port}")).await;
    for frame in [
        "frame.srcdoc = inner;",
        "frame.src = URL.createObjectURL(new Blob([inner], { type: 'text/html' }));",
    ] {
        assert_eq!(attempt_within(&browser, frame, &server).await, all("out"), "{frame}");
    }
    demo.until_sessions(ALICE, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_clear_gets_into_no_server_over_tls() {
    let authority = Authority::new();
    let [cert, key] = ["server.crt", "server.key"].map(|file| authority.path(file).display().to_string());
    let demo =
        Demo::start_with(&[("REALTIME__SERVER__TLS__CERT", &cert), ("REALTIME__SERVER__TLS__KEY", &key)])
            .await;
    let server = format!("https://push.app.test:{}", demo.port());
    let pages = Pages::start("127.0.0.2:0").await;
    let browser = Browser::start_with(&[NAMES, "--ignore-certificate-errors"]).await;
    browser.open(&format!("{server}{BARE}")).await;
    assert_eq!(attempt(&browser, &server).await, all("in"));
    browser.open(&format!("http://evil.test:{}", pages.address.port())).await;
    assert_eq!(attempt(&browser, &server).await, all("out"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_named_gets_in_with_what_it_has() {
    let pages = Pages::start("127.0.0.2:0").await;
    let origins = format!("https://elsewhere.test,http://*.app.test:{}", pages.address.port());
    let demo = Demo::start_with(&[
        ("REALTIME__WEBSOCKET__ALLOWEDORIGINS", &origins),
        ("REALTIME__SSE__ALLOWEDORIGINS", &origins),
    ])
    .await;
    let server = format!("http://push.app.test:{}", demo.port());
    let browser = Browser::start_with(&[NAMES]).await;
    browser.open(&format!("http://sub.app.test:{}", pages.address.port())).await;
    assert_eq!(attempt(&browser, &server).await, all("in"));
    browser.open(&format!("http://evilapp.test:{}", pages.address.port())).await;
    assert_eq!(attempt(&browser, &server).await, all("out"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_name_was_rebound_gets_in_unless_hosts_are_named() {
    let browser = Browser::start_with(&[NAMES]).await;
    let demo = Demo::start().await;
    let rebound = format!("http://rebound.test:{}", demo.port());
    browser.open(&format!("{rebound}{BARE}")).await;
    assert_eq!(attempt(&browser, &rebound).await, all("in"), "for browser and server it is one origin");

    let demo = Demo::start_with(&[("REALTIME__SERVER__ALLOWEDHOSTS", "push.app.test, 127.0.0.1")]).await;
    let rebound = format!("http://rebound.test:{}", demo.port());
    // Health is for everybody, so that there is a page.
    browser.open(&format!("{rebound}{BARE}")).await;
    let mut refused = all("out");
    // It is of the same origin, and reads that it is refused.
    refused["close"] = json!("in");
    assert_eq!(attempt(&browser, &rebound).await, refused);
    let server = format!("http://push.app.test:{}", demo.port());
    browser.open(&format!("{server}{BARE}")).await;
    assert_eq!(attempt(&browser, &server).await, all("in"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_another_host_is_refused_everywhere_but_at_health() {
    let demo = Demo::start_with(&[("REALTIME__SERVER__ALLOWEDHOSTS", "push.app.test")]).await;
    let client = reqwest::Client::new();
    for path in
        ["/", "/api/online", "/auth/login", "/demo/config", "/resource/sse", "/resource/websocket", "/none"]
    {
        for (host, refused) in
            [("push.app.test", false), ("evil.test:80", true), ("127.0.0.1", true), ("", true)]
        {
            let request = client.get(demo.url(path)).header("Host", host);
            let response = request.send().await.unwrap();
            assert_eq!(response.status() == 421, refused, "{path} {host:?}: {}", response.status());
            if refused {
                let body = response.text().await.unwrap();
                let host = format!(r#"host \"{host}\" is not served here"#);
                assert_eq!(body, format!(r#"{{"code":421,"msg":"{host}","data":null}}"#));
            }
        }
    }
    let health = client.get(demo.url("/health/ready")).header("Host", "10.1.2.3:8080").send().await.unwrap();
    assert_eq!(health.status(), 200);
}

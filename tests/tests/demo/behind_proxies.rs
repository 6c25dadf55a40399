//! Behind nginx and HAProxy, as they are configured in `apps/demo/deploy`, both transports work as without a proxy.

mod client_address;
mod killed_node;
mod tls;
mod unavailable;

use std::time::{Duration, Instant};

use realtime_tests::{
    API_KEY, Demo, EventStream, ProxyKind, RawClient, ReverseProxy, Server, Socket, token, until, within,
};
use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

const KINDS: [ProxyKind; 2] = [ProxyKind::Nginx, ProxyKind::HaProxy];
const FILE: [&str; 2] =
    ["--config", concat!(env!("CARGO_MANIFEST_DIR"), "/../apps/demo/deploy/application.yml")];

/// A node as it is deployed, with further variables.
async fn node(variables: &[(&str, &str)]) -> Demo {
    let internal = [("REALTIME__SERVER__INTERNAL", "127.0.0.1:0")];
    Demo::start_from(&FILE, &[&internal, variables].concat()).await
}

/// A proxy in front of one node, which stands for both.
async fn in_front_of(kind: ProxyKind, node: &Demo, replacements: &[(&str, &str)]) -> ReverseProxy {
    ReverseProxy::start(kind, [node.upstream(); 2], replacements).await
}

async fn open(proxy: &ReverseProxy, user: i64) -> (Socket, EventStream) {
    let socket = Socket::open(proxy, &token(user), &[], None).await.unwrap();
    (socket, EventStream::open(proxy, &token(user), None).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "a test's figures")]
async fn a_message_passes_at_once() {
    for kind in KINDS {
        let node = node(&[]).await;
        let proxy = in_front_of(kind, &node, &[]).await;
        let (mut socket, mut stream) = open(&proxy, 1).await;
        let mut times = Vec::new();
        for number in 0..20 {
            let begin = Instant::now();
            node.publish_to(1, &number.to_string()).await;
            assert_eq!(stream.data().await, number.to_string());
            assert_eq!(socket.text().await, number.to_string());
            times.push(begin.elapsed());
        }
        let first = times[0];
        times.sort();
        println!(
            "{kind:?}: from publish to both clients: first {first:.1?}, median {:.1?}, longest {:.1?}",
            times[10], times[19]
        );
        // HAProxy without `http-no-delay` takes 200 ms; what nginx holds back, it holds for longer.
        assert!(times[10] < Duration::from_millis(150), "{times:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_keep_their_codes() {
    for kind in KINDS {
        let node = node(&[]).await;
        let proxy = in_front_of(kind, &node, &[]).await;
        let kicked = token(1);
        let mut raw = Socket::open(&proxy, &kicked, &[], None).await.unwrap();
        let mut v1 = Socket::open(&proxy, &kicked, &["realtime.v1"], None).await.unwrap();
        let mut stream = EventStream::open(&proxy, &kicked, None).await.unwrap();
        // Through the proxy's port for backends.
        let (status, answer) = node
            .call(Method::DELETE, proxy.internal_url("/api/online/1"), Some(r#"{"message":"bye"}"#))
            .await;
        assert_eq!((status, &answer["closed"]), (200, &json!(3)), "{kind:?}");
        assert_eq!(raw.text().await, "bye");
        assert_eq!(raw.close_code().await, 4409, "{kind:?}");
        assert_eq!(v1.message().await["type"], "hello");
        assert_eq!(v1.message().await["data"], "bye");
        assert_eq!(v1.message().await, json!({ "type": "bye", "reason": "kicked", "retry": null }));
        assert_eq!(v1.close_code().await, 4409, "{kind:?}");
        assert_eq!(stream.data().await, "bye");
        assert!(stream.next().await.is_none());
        assert_eq!(EventStream::open(&proxy, &kicked, None).await.unwrap_err(), 204, "{kind:?}");
        assert_eq!(Socket::open(&proxy, &kicked, &[], None).await.unwrap_err(), 401, "{kind:?}");
        // The client's own.
        let (mut socket, _stream) = open(&proxy, 2).await;
        socket.0.close(None).await.unwrap();
        assert!(matches!(socket.close_code().await, 1000 | 1005), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_prefix_is_taken_off() {
    for kind in KINDS {
        let node = node(&[]).await;
        let proxy = in_front_of(kind, &node, &[]).await;
        let path = format!("/push/resource/websocket?Authorization={}", token(1));
        let mut socket = Socket::open_at(&proxy, &path, &[]).await.unwrap();
        let mut stream = RawClient::connect(&proxy).await;
        stream.write(RawClient::event_stream(1).replace("/resource", "/push/resource")).await;
        stream.until(":connected\n").await;
        node.publish_to(1, "below a path").await;
        assert_eq!(socket.text().await, "below a path");
        stream.until("data:below a path\n\n").await;
        let status = async |path: &str| {
            let url = format!("http://127.0.0.1:{}{path}", proxy.port());
            reqwest::Client::new()
                .post(url)
                .header("X-API-Key", API_KEY)
                .send()
                .await
                .unwrap()
                .status()
                .as_u16()
        };
        assert_eq!(status("/push/resource/sse/close").await, 200, "{kind:?}");
        // The page asks for its files, and for the transports, by relative addresses.
        let get = async |path: &str| {
            let answer =
                reqwest::get(format!("http://127.0.0.1:{}/push/{path}", proxy.port())).await.unwrap();
            assert_eq!(answer.status(), 200, "{kind:?}: {path}");
            answer.text().await.unwrap()
        };
        let page = get("").await;
        let files: Vec<_> = page.split('"').filter(|word| word.starts_with("assets/")).collect();
        assert!(files.contains(&"assets/app.js"), "{page}");
        for file in files {
            get(file).await;
        }
        // Neither address leads to the API.
        assert_eq!((status("/api/publish").await, status("/push/api/publish").await), (404, 404), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_path_leads_to_the_api() {
    // Without `server.internal` it is at the clients' address.
    let node = Demo::start_from(&FILE, &[]).await;
    let body = r#"{"broadcast":true,"message":"x"}"#;
    for kind in KINDS {
        let proxy = in_front_of(kind, &node, &[]).await;
        for path in [
            "/api/publish",
            "/%61pi/publish",
            "/ap%69/publish",
            "/api%2Fpublish",
            "/%2561pi/publish",
            "//api/publish",
            "/./api/publish",
            "/x/../api/publish",
            "http://x/%61pi/publish",
            "/push/%61pi/publish",
            "/push/%2561pi/publish",
            "/push//api/publish",
            "/push/push/api/publish",
            "/%70ush/api/publish",
        ] {
            let mut client = RawClient::connect(&proxy).await;
            let length = body.len();
            client
                .write(format!(
                    "POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\nContent-Length: {length}\r\n\r\n{body}"
                ))
                .await;
            let head = client.head().await;
            assert!(head.starts_with("HTTP/1.1 404 "), "{kind:?}: {path}: {head}");
        }
    }
    assert_eq!(node.try_publish(body).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_keep_idle_connections_open_and_silence_is_cut() {
    for kind in KINDS {
        let cut_after_2s: &[(&str, &str)] = match kind {
            ProxyKind::Nginx => &[("proxy_read_timeout 60s", "proxy_read_timeout 2s")],
            ProxyKind::HaProxy => {
                &[("client 60s", "client 2s"), ("server 60s", "server 2s"), ("tunnel 60s", "tunnel 2s")]
            }
        };
        let silent = node(&[]).await;
        let proxy = in_front_of(kind, &silent, cut_after_2s).await;
        let (mut socket, mut stream) = open(&proxy, 1).await;
        assert_eq!(socket.close_code().await, 1006, "{kind:?}");
        assert!(stream.next().await.is_none(), "{kind:?}");

        let beating = node(&[("REALTIME__HEARTBEAT__INTERVAL", "250ms")]).await;
        let proxy = in_front_of(kind, &beating, cut_after_2s).await;
        let (mut raw, mut stream) = open(&proxy, 1).await;
        let mut v1 = Socket::open(&proxy, &token(1), &["realtime.v1"], None).await.unwrap();
        let begin = Instant::now();
        assert_eq!(v1.json().await["type"], "hello");
        // A client that reads and sends nothing of its own; the raw one answers no ping before it reads again.
        while begin.elapsed() < Duration::from_secs(6) {
            assert_eq!(v1.json().await["type"], "ping", "{kind:?}");
        }
        beating.publish_to(1, "still here").await;
        assert_eq!(raw.text().await, "still here");
        assert_eq!(v1.message().await["data"], "still here");
        assert_eq!(stream.data().await, "still here");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_has_a_token() {
    for kind in KINDS {
        let mut node = node(&[]).await;
        let proxy = in_front_of(kind, &node, &[]).await;
        let token = token(1);
        let socket = Socket::open(&proxy, &token, &[], None).await.unwrap();
        let stream = EventStream::open(&proxy, &token, None).await.unwrap();
        // What no proxy passes on: a line that is no header, and an address that is too long.
        let head = format!("GET /resource/sse?Authorization={token}");
        for request in [
            format!("{head} HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n"),
            format!("{head}&x={} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(40_000)),
        ] {
            let mut client = RawClient::connect(&proxy).await;
            client.write(request).await;
            assert!(client.head().await.starts_with("HTTP/1.1 4"), "{kind:?}");
        }
        node.child().kill().await.unwrap();
        drop((socket, stream));
        // Both transports, and any other path with a query.
        within("a proxy without nodes", async {
            while EventStream::open(&proxy, &token, None).await.unwrap_err() != 200 {}
        })
        .await;
        assert!(matches!(Socket::open(&proxy, &token, &[], None).await.unwrap_err(), 502 | 503));
        for prefix in ["", "/push"] {
            let url = format!("http://127.0.0.1:{}{prefix}/demo/ai?Authorization={token}", proxy.port());
            assert!(reqwest::get(url).await.unwrap().status().is_server_error(), "{kind:?}");
        }
        until("the last request in a log", || proxy.logs().contains("/demo/ai")).await;
        let logs = proxy.logs();
        assert!(logs.contains("GET /resource/sse") && logs.contains("GET /resource/websocket"), "{logs}");
        assert!(!logs.contains(&token[..20]) && !logs.contains("Authorization"), "{kind:?}: {logs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_pass_by_a_node_that_drains() {
    for kind in KINDS {
        let (mut draining, other) = (node(&[]).await, node(&[]).await);
        let proxy = ReverseProxy::start(kind, [draining.upstream(), other.upstream()], &[]).await;
        // Its close frame is not answered, so that the drain takes a second.
        let held = Socket::open(&draining, &token(1), &[], None).await.unwrap();
        draining.terminate();
        within("the drain to begin", async {
            while reqwest::get(draining.api_url("/health/ready")).await.unwrap().status() == 200 {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let mut sockets = Vec::new();
        while sockets.len() < 20 && draining.child().try_wait().unwrap().is_none() {
            let socket = Socket::open(&proxy, &token(2), &[], None).await;
            sockets.push(socket.unwrap_or_else(|status| panic!("{kind:?}: {status}")));
        }
        assert!(!sockets.is_empty(), "the drain was over too soon");
        drop(held);
    }
}

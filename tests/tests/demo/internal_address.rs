//! With `server.internal` the publish API answers on that address and nowhere else, until the drain is over.

use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use realtime_tests::{Demo, Socket, token, within};
use reqwest::Method;
use serde_json::json;
use tokio::time::{sleep, timeout};

const INTERNAL: &str = "REALTIME__SERVER__INTERNAL";
const ANY_PORT: (&str, &str) = (INTERNAL, "127.0.0.1:0");
const MESSAGE: &str = r#"{"broadcast":true,"message":"x"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_at_the_internal_address_and_nowhere_else() {
    let demo = Demo::start_with(&[ANY_PORT]).await;
    let (mut socket, mut stream) = (demo.socket(1).await, demo.stream(1).await);
    demo.publish_to(1, "over the internal address").await;
    assert_eq!(socket.text().await, "over the internal address");
    assert_eq!(stream.data().await, "over the internal address");
    assert_eq!(demo.sessions(1).await, 2);

    for (method, path) in [
        (Method::POST, "/api/publish"),
        (Method::GET, "/api/online"),
        (Method::GET, "/api/online/1"),
        (Method::DELETE, "/api/online/1"),
    ] {
        let (status, answer) = demo.call(method.clone(), demo.url(path), Some(MESSAGE)).await;
        assert_eq!((status, &answer["msg"]), (404, &json!(format!("nothing at {path}"))), "{method}");
        // The key is asked for there as well.
        let answer = reqwest::Client::new().request(method, demo.api_url(path)).body(MESSAGE).send().await;
        assert_eq!(answer.unwrap().status(), 401, "{path}");
    }
    assert_eq!(demo.sessions(1).await, 2, "nobody was kicked by a request that met nothing");
    let (status, answer) = demo.call(Method::DELETE, demo.api_url("/api/online/1"), None).await;
    assert_eq!((status, &answer["closed"]), (200, &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_at_both_addresses_and_clients_at_the_public_one_only() {
    let demo = Demo::start_with(&[ANY_PORT]).await;
    let status = async |url: String| reqwest::get(url).await.unwrap().status().as_u16();
    for path in ["/health/live", "/health/ready"] {
        assert_eq!((status(demo.url(path)).await, status(demo.api_url(path)).await), (200, 200), "{path}");
    }
    let stream = format!("/resource/sse?Authorization={}", token(1));
    for path in ["/", "/demo/config", "/resource/websocket", &stream] {
        assert_eq!(status(demo.api_url(path)).await, 404, "{path}");
    }
    assert_eq!(status(demo.url(&stream)).await, 200);
}

#[test]
fn a_taken_address_is_an_error_that_names_it_and_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listener = TcpListener::bind(taken).unwrap();
    let taken = taken.to_string();
    let output = |arguments: &[&str], port: &str| {
        let mut command = std::process::Command::new(Demo::binary());
        command.args(arguments).env("REALTIME__SERVER__PORT", port).env(INTERNAL, &taken);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (started, stderr) = output(&[], "0");
    let expected = format!("error: failed to bind {taken} (server.internal): Address already in use");
    assert!(!started && stderr.contains(&expected), "{stderr}");
    drop(listener);
    // One that clashes with the public address is found without starting anything.
    let port = taken.rsplit(':').next().unwrap();
    for arguments in [&["check-config"][..], &[]] {
        let (valid, stderr) = output(arguments, port);
        let expected = format!(
            "error: server.internal (environment variable {INTERNAL}): `{taken}` and the public address `{taken}` \
             (server.host, server.port) cannot both be listened on"
        );
        assert!(!valid && stderr.contains(&expected), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_has_begun_is_answered_though_the_process_stops() {
    let mut demo = Demo::start_with(&[ANY_PORT]).await;
    let mut request = TcpStream::connect(demo.api_url("").trim_start_matches("http://")).unwrap();
    let head = format!("POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n", MESSAGE.len());
    write!(request, "{head}X-API-Key: {}\r\n\r\n{}", realtime_tests::API_KEY, &MESSAGE[..5]).unwrap();
    // Requests are read in the order of their connections: this answer shows that the first one has been read.
    assert_eq!(reqwest::get(demo.api_url("/health/live")).await.unwrap().status(), 200);
    demo.terminate();
    within("the address to be given up", async {
        while tokio::net::TcpStream::connect(demo.api_url("").trim_start_matches("http://")).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    request.write_all(&MESSAGE.as_bytes()[5..]).unwrap();
    let answer =
        tokio::task::spawn_blocking(move || std::io::read_to_string(request)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("position"), "{answer}");
    let status = timeout(Duration::from_secs(15), demo.child().wait()).await.expect("the process ends");
    assert!(status.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_until_the_drain_is_over_and_ends_with_the_process() {
    let mut demo = Demo::start_with(&[ANY_PORT]).await;
    let mut streams = Vec::new();
    for user in 1..=20 {
        streams.push(demo.stream(user).await);
    }
    // Its close frame is not answered, so that the drain takes a second.
    let socket = Socket::open(&demo, &token(21), &[], None).await.unwrap();
    demo.terminate();
    within("the drain to begin", async {
        while reqwest::get(demo.api_url("/health/ready")).await.unwrap().status() == 200 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(demo.try_publish(MESSAGE).await.0, 200);
    for stream in &mut streams {
        within("the stream to end", async { while stream.next().await.is_some() {} }).await;
    }
    drop(socket);
    // The client keeps its connection to the API open; that doesn't delay the stop.
    let began = Instant::now();
    let status = timeout(Duration::from_secs(15), demo.child().wait()).await.expect("the process ends");
    assert!(status.unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

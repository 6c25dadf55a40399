//! Answers are neither stored nor guessed at: they may hold a token, or what concerns one caller.

use realtime_tests::{API_KEY, Demo, token};
use reqwest::{Client, Method, RequestBuilder, Response};

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_stored_or_sniffed() {
    let demo = Demo::start_with(&[("REALTIME__SERVER__INTERNAL", "127.0.0.1:0")]).await;
    let http = Client::new();
    let token = token(1);
    let login = r#"{"username":"alice","password":"demo","clientId":"web"}"#;
    let public = |method: Method, path: &str| http.request(method, demo.url(path));
    let upgrade = |token: &str| {
        public(Method::GET, &format!("/resource/websocket?Authorization={token}"))
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    let internal = |path: &str| http.get(demo.api_url(path));
    let requests: Vec<(u16, RequestBuilder)> = vec![
        (200, public(Method::POST, "/auth/login").body(login)),
        (401, public(Method::POST, "/auth/login").body(login.replace("demo", "x"))),
        (400, public(Method::POST, "/auth/login").body("<script>")),
        (200, public(Method::GET, "/demo/config")),
        (200, public(Method::GET, &format!("/demo/online?Authorization={token}"))),
        (401, public(Method::GET, "/demo/online")),
        (404, public(Method::GET, "/<script>")),
        (405, public(Method::DELETE, "/auth/login")),
        (200, public(Method::GET, "/health/live")),
        (426, public(Method::GET, "/resource/websocket")),
        (401, upgrade("x")),
        (403, upgrade(&token).header("Origin", "http://elsewhere")),
        (401, public(Method::GET, "/resource/sse")),
        (200, public(Method::GET, &format!("/resource/sse?Authorization={token}"))),
        (200, public(Method::GET, "/resource/sse/close")),
        (400, public(Method::POST, &format!("/resource/sse/refresh?Authorization={token}"))),
        (200, internal("/api/online").header("X-API-Key", API_KEY)),
        (401, internal("/api/online")),
        (404, internal("/")),
    ];
    for (status, request) in requests {
        let answer = request.send().await.unwrap();
        let url = answer.url().path().to_owned();
        assert_eq!(answer.status(), status, "{url}");
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff", "{url}");
        let stored = header(&answer, "cache-control");
        assert!(stored.split(", ").any(|word| word == "no-store"), "{url}: {stored}");
    }
    // The page's files are asked for again each time.
    for path in ["/", "/assets/app.js", "/realtime.js"] {
        let answer = public(Method::GET, path).send().await.unwrap();
        let headers = (header(&answer, "x-content-type-options"), header(&answer, "cache-control"));
        assert_eq!(headers, ("nosniff", "no-cache"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_id_that_is_no_short_word_makes_no_token() {
    let demo = Demo::start().await;
    for (client_id, status) in [
        ("web".to_owned(), 200),
        (String::new(), 400),
        ("a b".into(), 400),
        ("x".repeat(65), 400),
        ("x".repeat(200 << 10), 413),
    ] {
        let login = serde_json::json!({ "username": "alice", "password": "demo", "clientId": client_id });
        let answer =
            Client::new().post(demo.url("/auth/login")).body(login.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), status, "{} bytes", client_id.len());
    }
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

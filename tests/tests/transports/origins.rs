//! Pages of other origins read event streams, and use their visitors' cookies, only if they are named.

use std::sync::Arc;

use realtime_core::{
    Authenticator, BoxFuture, Hub, Principal,
    auth::{AuthError, Handshake},
};
use realtime_tests::{Demo, Embedded, Server, token, within};
use reqwest::{Client, Method, Response, header::HeaderMap};

const PAGE: &str = "https://app.example.com";

/// Paths of the stream, with the method that a page uses.
const PATHS: [(Method, &str); 3] = [
    (Method::GET, "/resource/sse"),
    (Method::POST, "/resource/sse/close"),
    (Method::POST, "/resource/sse/refresh"),
];

async fn ask(server: &impl Server, method: &Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let url = format!("http://127.0.0.1:{}{path}", server.port());
    let mut request = Client::new().request(method.clone(), url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    within("an answer", request.send()).await.unwrap()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

/// What the page may do: its origin, and whether it may send cookies.
fn access(response: &Response) -> (Option<&str>, bool) {
    let headers = response.headers();
    assert!(headers.get_all("vary").iter().any(|vary| vary == "Origin"), "{headers:?}");
    let credentials = text(headers, "access-control-allow-credentials");
    assert!(matches!(credentials, None | Some("true")));
    (text(headers, "access-control-allow-origin"), credentials.is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_reads_a_stream_only_if_it_is_named() {
    let demo = Demo::start_with(&[("REALTIME__SSE__ALLOWEDORIGINS", PAGE)]).await;
    let (login, own) = (format!("Bearer {}", token(1)), format!("http://127.0.0.1:{}", demo.port()));
    for (method, path) in &PATHS {
        for (origin, named) in [
            (PAGE, true),
            (own.as_str(), true),
            ("https://app.example.com:8443", false),
            ("http://app.example.com", false),
            ("https://evil.example", false),
            ("null", false),
        ] {
            let headers = [("Origin", origin), ("Authorization", login.as_str())];
            let response = ask(&demo, method, path, &headers).await;
            let expected = if named { (Some(origin), true) } else { (None, false) };
            assert_eq!(access(&response), expected, "{path} {origin}");
            // Its browser keeps the response from the page; a login of its own gets it, as before.
            let status = if path.ends_with("refresh") { 400 } else { 200 };
            assert_eq!(response.status(), status, "{path} {origin}");

            let preflight = [("Origin", origin), ("Access-Control-Request-Method", method.as_str())];
            let response = ask(&demo, &Method::OPTIONS, path, &preflight).await;
            assert_eq!(access(&response), expected, "{path} {origin}");
            assert_eq!(response.status(), if named { 204 } else { 403 }, "{path} {origin}");
            if named {
                let methods = text(response.headers(), "access-control-allow-methods").unwrap();
                assert!(methods.contains(method.as_str()), "{path}: {methods}");
                let allowed = text(response.headers(), "access-control-allow-headers").unwrap();
                for header in ["authorization", "clientid", "last-event-id"] {
                    assert!(allowed.contains(header), "{path}: {allowed}");
                }
            }
        }
        // No browser: nothing to say, but that the response depends on who asks.
        let response = ask(&demo, method, path, &[("Authorization", &login)]).await;
        assert_eq!(access(&response), (None, false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_read_by_a_named_page_too() {
    let demo = Demo::start_with(&[("REALTIME__SSE__ALLOWEDORIGINS", PAGE)]).await;
    let response = ask(&demo, &Method::GET, "/resource/sse", &[("Origin", PAGE)]).await;
    assert_eq!((response.status().as_u16(), access(&response)), (401, (Some(PAGE), true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_every_page_may_read_none_sends_cookies() {
    let demo = Demo::start_with(&[("REALTIME__SSE__ALLOWEDORIGINS", "*")]).await;
    let login = format!("Bearer {}", token(1));
    let headers = [("Origin", "https://evil.example"), ("Authorization", &login)];
    let response = ask(&demo, &Method::GET, "/resource/sse", &headers).await;
    assert_eq!((response.status().as_u16(), access(&response)), (200, (Some("*"), false)));
    let headers = [&headers[..], &[("Cookie", "a=b")]].concat();
    let response = ask(&demo, &Method::GET, "/resource/sse", &headers).await;
    assert_eq!((response.status().as_u16(), access(&response)), (403, (None, false)));
}

/// Logins by the cookie `session`, which is the user's id.
struct Cookies;

impl Authenticator for Cookies {
    fn authenticate<'a>(&'a self, handshake: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
        let user = handshake.cookie("session").and_then(|user| user.parse::<i64>().ok());
        let login = user.map(|user| Principal::new(user.into(), &format!("session {user}")));
        Box::pin(async { login.ok_or_else(|| AuthError::Unauthorized("not signed in".to_owned())) })
    }
}

#[actix_web::test]
async fn a_page_of_another_origin_logs_nobody_in_by_a_cookie() {
    let server = Embedded::start_with(Hub::builder().start().unwrap(), Arc::new(Cookies));
    let own = format!("http://127.0.0.1:{}", server.port());
    for (method, path) in &PATHS {
        for (headers, allowed) in [
            // No browser, or a page of this server that asks by GET.
            (vec![], true),
            (vec![("Sec-Fetch-Site", "same-origin")], true),
            (vec![("Origin", own.as_str())], true),
            // Through a proxy that changes `Host`.
            (vec![("Origin", "http://localhost:5173"), ("Sec-Fetch-Site", "same-origin")], true),
            (vec![("Origin", "http://localhost:5173")], false),
            (vec![("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")], false),
            (vec![("Origin", "null")], false),
            (vec![("Origin", own.as_str()), ("Origin", "https://evil.example")], false),
            // An image, or a form.
            (vec![("Sec-Fetch-Site", "cross-site")], false),
            (vec![("Sec-Fetch-Site", "same-site")], false),
        ] {
            let headers = [&headers[..], &[("Cookie", "session=7")]].concat();
            let response = ask(&server, method, path, &headers).await;
            let expected = match (allowed, path.ends_with("refresh")) {
                (true, false) => 200,
                (true, true) => 400,
                (false, _) => 403,
            };
            assert_eq!(response.status(), expected, "{path} {headers:?}");
        }
    }
    let foreign = [("Origin", "https://evil.example"), ("Cookie", "session=7")];
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let response =
        ask(&server, &Method::GET, "/resource/websocket", &[&foreign[..], &upgrade].concat()).await;
    assert_eq!(response.status(), 403);
}

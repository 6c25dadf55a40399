//! A cookie is a login for pages of the server itself, where it is configured, and never for those of other sites.

use realtime_tests::{Demo, Server, Socket, token};
use reqwest::{Client, Method, Response};

async fn call(demo: &Demo, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let url = format!("http://127.0.0.1:{}{path}", demo.port());
    let mut request = Client::new().request(method, url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

/// Headers that a page of another site causes.
fn foreign() -> Vec<Vec<(&'static str, &'static str)>> {
    vec![
        vec![("Origin", "https://evil.example")],
        vec![("Origin", "null")],
        vec![("Origin", "http://127.0.0.1:1")],
        // An image or a script.
        vec![("Sec-Fetch-Site", "cross-site")],
        vec![("Sec-Fetch-Site", "same-site")],
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_is_a_login_where_it_is_configured_and_for_no_other_site() {
    let demo = Demo::start_with(&[("REALTIME__AUTH__COOKIE", "sid")]).await;
    let cookie = format!("theme=dark; sid={}", token(7));
    let login = ("Cookie", cookie.as_str());
    let own = format!("http://127.0.0.1:{}", demo.port());
    for origin in [None, Some(("Origin", own.as_str())), Some(("Sec-Fetch-Site", "same-origin"))] {
        let headers: Vec<_> = [login].into_iter().chain(origin).collect();
        assert_eq!(call(&demo, Method::GET, "/resource/sse", &headers).await.status(), 200, "{origin:?}");
        let ticket = call(&demo, Method::POST, "/resource/sse/ticket", &headers).await;
        assert_eq!(ticket.status(), 200, "{origin:?}");
        let headers: Vec<(&'static str, &str)> =
            [("Cookie", cookie.as_str())].into_iter().chain(origin).collect();
        Socket::open_at(&demo, "/resource/websocket", &headers).await.unwrap();
    }
    for headers in foreign() {
        let headers: Vec<_> = [login].into_iter().chain(headers).collect();
        for (method, path) in [
            (Method::GET, "/resource/sse"),
            (Method::POST, "/resource/sse/refresh?session=0123456789abcdef0123456789abcdef"),
            (Method::POST, "/resource/sse/ticket"),
        ] {
            let status = call(&demo, method.clone(), path, &headers).await.status().as_u16();
            assert!([401, 403].contains(&status), "{method} {path} {headers:?}: {status}");
        }
    }
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        let headers = [("Cookie", cookie.as_str()), ("Origin", origin)];
        assert_eq!(Socket::open_at(&demo, "/resource/websocket", &headers).await.err(), Some(403));
        let status = call(&demo, Method::POST, "/resource/websocket/ticket", &headers).await.status();
        assert_eq!(status, 403, "{origin}");
    }
    // Another site's request ends no stream of the visitor.
    let _open = call(&demo, Method::GET, "/resource/sse", &[login]).await;
    demo.until_sessions(7, 1).await;
    for headers in foreign() {
        let headers: Vec<_> = [login].into_iter().chain(headers).collect();
        for method in [Method::GET, Method::POST] {
            call(&demo, method, "/resource/sse/close", &headers).await;
        }
    }
    assert_eq!(demo.sessions(7).await, 1);
    // Nor is it a login of the page's own routes.
    assert_eq!(call(&demo, Method::GET, "/demo/online", &[login]).await.status(), 401);
    assert_eq!(call(&demo, Method::POST, "/resource/ticket", &[login]).await.status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_is_nothing_by_default_and_another_login_comes_first() {
    let demo = Demo::start().await;
    let cookie = format!("sid={}", token(7));
    let login = ("Cookie", cookie.as_str());
    assert_eq!(call(&demo, Method::GET, "/resource/sse", &[login]).await.status(), 401);
    assert_eq!(Socket::open_at(&demo, "/resource/websocket", &[login]).await.err(), Some(401));
    let demo = Demo::start_with(&[("REALTIME__AUTH__COOKIE", "sid")]).await;
    let bearer = format!("Bearer {}", token(8));
    let both = [login, ("Authorization", bearer.as_str())];
    let _open = call(&demo, Method::GET, "/resource/sse", &both).await;
    demo.until_sessions(8, 1).await;
    assert_eq!(demo.sessions(7).await, 0);
    for bad in ["sid=", "sid=x", "SID=y", "xsid=z"] {
        assert_eq!(
            call(&demo, Method::GET, "/resource/sse", &[("Cookie", bad)]).await.status(),
            401,
            "{bad}"
        );
    }
}

//! A parameter or header that is empty is absent; one that is given with two values, or is not text, is refused, or is a
//! gap where it is a position. It is the same for all of them, on both transports and for requests of the demo.

use realtime_tests::{API_KEY, Demo, RawClient, token, within};

/// Path of a request, and the rest of its head.
const REQUESTS: [(&str, &str); 3] = [
    (
        "/resource/websocket",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: realtime.v1\r\n",
    ),
    ("/resource/sse", ""),
    ("/demo/online", ""),
];

/// Sends a request whose bytes need not be text.
async fn ask(demo: &Demo, method: &str, path: &str, query: &str, headers: &[u8]) -> RawClient {
    let mut client = RawClient::connect(demo).await;
    let mut bytes = format!("{method} {path}?{query} HTTP/1.1\r\nHost: x\r\n").into_bytes();
    bytes.extend(headers);
    bytes.extend(b"\r\n");
    client.write(bytes).await;
    client
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Reads until a text is there; returns what was read.
async fn until(client: &mut RawClient, text: &str) -> String {
    within(text, async {
        loop {
            let read = String::from_utf8_lossy(&client.bytes).into_owned();
            if read.contains(text) {
                return read;
            }
            assert!(client.read().await > 0, "{text} did not come but {read}");
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_given_once_or_not_at_all() {
    let demo = Demo::start().await;
    let (mine, other) = (token(1), token(2));
    let twice = "given more than once, with different values";
    for (path, more) in REQUESTS {
        for (query, headers, problem) in [
            (format!("Authorization={mine}"), String::new(), None),
            (format!("Authorization=&Authorization={mine}&Authorization={mine}"), String::new(), None),
            ("Authorization=".into(), format!("Authorization:\r\nAuthorization: {mine}\r\n"), None),
            (String::new(), format!("Authorization: {mine}\r\nAuthorization: {mine}\r\n"), None),
            (format!("Authorization={mine}&clientid=&clientid=web"), "clientid:\r\n".into(), None),
            ("Authorization=".into(), "Authorization:\r\n".into(), Some("Authorization is missing")),
            (format!("Authorization={mine}&Authorization={other}"), String::new(), Some(twice)),
            (format!("Authorization={other}&Authorization={mine}"), String::new(), Some(twice)),
            (String::new(), format!("Authorization: {mine}\r\nauthorization: {other}\r\n"), Some(twice)),
            (
                format!("Authorization={mine}&Authorization=%FF"),
                String::new(),
                Some("Authorization: not UTF-8"),
            ),
            (format!("Authorization={mine}"), "Authorization: \u{1}\r\n".into(), Some("not UTF-8")),
            (format!("Authorization={mine}&clientid=web&clientid=app"), String::new(), Some(twice)),
            (format!("Authorization={mine}&clientid=%FF"), String::new(), Some("clientid: not UTF-8")),
            (format!("Authorization={mine}"), "clientid: web\r\nclientid: app\r\n".into(), Some(twice)),
        ] {
            // Stands for a byte that is not text.
            let byte = |byte| if byte == 1 { 0xFF } else { byte };
            let headers: Vec<u8> = headers.bytes().map(byte).chain(more.bytes()).collect();
            let mut client = ask(&demo, "GET", path, &query, &headers).await;
            let head = client.head().await;
            match problem {
                None => assert!([101, 200].contains(&status(&head)), "{path} {query}: {head}"),
                Some(problem) => {
                    assert_eq!(status(&head), 401, "{path} {query}");
                    until(&mut client, problem).await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_and_the_like_are_given_once_or_not_at_all() {
    let demo = Demo::start().await;
    for (path, more) in &REQUESTS[..2] {
        for (query, expected) in [
            ("topics=&fresh=&hello=", 200),
            ("topics=a&topics=a&topics=", 200),
            ("topics=a&topics=b", 400),
            ("topics=%FF", 400),
            ("topics=a,%C3", 400),
            ("fresh=a&fresh=*", 400),
            ("fresh=%FF", 400),
        ] {
            let query = format!("Authorization={}&{query}", token(1));
            let head = ask(&demo, "GET", path, &query, more.as_bytes()).await.head().await;
            let status = status(&head);
            assert_eq!(if status == 101 { 200 } else { status }, expected, "{path} {query}");
        }
    }
    for (query, expected) in [("hello=1&hello=0", 400), ("hello=%FF", 400), ("hello=1&hello=1", 200)] {
        let query = format!("Authorization={}&{query}", token(1));
        let head = ask(&demo, "GET", "/resource/sse", &query, b"").await.head().await;
        assert_eq!(status(&head), expected, "{query}");
    }
    for query in ["session=&session=", "session=0&session=1", "session=%FF"] {
        let query = format!("Authorization={}&{query}", token(1));
        let head =
            ask(&demo, "POST", "/resource/sse/refresh", &query, b"Content-Length: 0\r\n").await.head().await;
        assert_eq!(status(&head), 400, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_unclear_is_a_gap() {
    let demo = Demo::start().await;
    let first = demo.publish_to(1, "one").await;
    let second = demo.publish_to(1, "two").await;
    for (path, more) in &REQUESTS[..2] {
        for (query, header, is_clear) in [
            (format!("cursor={first}&cursor={first}&cursor="), &b""[..], true),
            (format!("cursor={first}&lastEventId="), b"Last-Event-ID:\r\n", true),
            (format!("cursor={first}&cursor={second}"), b"", false),
            (format!("cursor={second}&cursor={first}"), b"", false),
            (format!("lastEventId={first}&lastEventId={second}"), b"", false),
            (format!("cursor={first}&cursor=%FF"), b"", false),
            (format!("cursor={first}"), b"Last-Event-ID: \xFF\r\n", false),
            (format!("cursor={first}"), b"Last-Event-ID: 1.1\r\nLast-Event-ID: 1.2\r\n", false),
        ] {
            let query = format!("Authorization={}&{query}", token(1));
            let mut client = ask(&demo, "GET", path, &query, &[header, more.as_bytes()].concat()).await;
            let head = client.head().await;
            assert!([101, 200].contains(&status(&head)), "{path} {query}: {head}");
            let expected = if is_clear { "two" } else { r#""reason":"cursor""# };
            let read = until(&mut client, expected).await;
            assert_eq!(read.contains("gap"), !is_clear, "{path} {query}: {read}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_given_once_or_not_at_all() {
    let demo = Demo::start().await;
    for (keys, expected) in [
        (format!("X-API-Key: {API_KEY}\r\n"), 200),
        (format!("X-API-Key:\r\nX-API-Key: {API_KEY}\r\nx-api-key: {API_KEY}\r\n"), 200),
        ("X-API-Key:\r\n".into(), 401),
        (format!("X-API-Key: {API_KEY}\r\nX-API-Key: other\r\n"), 401),
        (format!("X-API-Key: other\r\nX-API-Key: {API_KEY}\r\n"), 401),
    ] {
        let head = ask(&demo, "GET", "/api/online", "page=", keys.as_bytes()).await.head().await;
        assert_eq!(status(&head), expected, "{keys}");
    }
    let key = format!("X-API-Key: {API_KEY}\r\nContent-Length: 0\r\n");
    for (method, path, query, expected) in [
        ("GET", "/api/online", "page=1&page=1&size=", 200),
        ("GET", "/api/online", "page=1&page=2", 400),
        ("GET", "/api/online", "page=%FF", 400),
        ("DELETE", "/api/online/1", "sessionId=", 400),
        ("DELETE", "/api/online/1", "sessionId=%FF", 400),
        ("DELETE", "/api/online/1", "sessionId=00112233445566778899aabbccddeeff&sessionId=b", 400),
        ("DELETE", "/api/online/1", "sessionId=00112233445566778899aabbccddeeff&sessionId=", 400),
    ] {
        let head = ask(&demo, method, path, query, key.as_bytes()).await.head().await;
        assert_eq!(status(&head), expected, "{method} {path}?{query}");
    }
}

//! What users of RuoYi's modules run into has the answers that docs/migration-ruoyi.md gives.

use std::time::Duration;

use realtime_tests::{Demo, EventStream, ProxyKind, ReverseProxy, Server, Socket, token};
use reqwest::{Client, Response};
use serde_json::Value;

/// nginx in front of a node, with some of its lines changed.
async fn behind_nginx(replacements: &[(&str, &str)]) -> (Demo, ReverseProxy) {
    let node = Demo::start_with(&[("REALTIME__SERVER__INTERNAL", "127.0.0.1:0")]).await;
    let proxy = ReverseProxy::start(ProxyKind::Nginx, [node.upstream(); 2], replacements).await;
    (node, proxy)
}

async fn get(server: &impl Server, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = Client::new().get(format!("http://127.0.0.1:{}{path}", server.port()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    tokio::time::timeout(Duration::from_secs(10), request.send()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nginx_that_buffers_by_default_holds_no_event_back() {
    let (node, proxy) = behind_nginx(&[("proxy_buffering off;", "")]).await;
    let mut stream = EventStream::open(&proxy, &token(1), None).await.unwrap();
    for number in ["1", "2", "3"] {
        node.publish_to(1, number).await;
        assert_eq!(stream.data().await, number);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_upgrade_lines_nginx_gets_an_answer_that_names_them() {
    let (_node, proxy) = behind_nginx(&[("proxy_set_header Upgrade $http_upgrade;", "")]).await;
    let refused = Socket::open(&proxy, &token(1), &[], None).await;
    assert!(matches!(refused, Err(426)), "{:?}", refused.err());
    let answer = get(&proxy, &format!("/resource/websocket?Authorization={}", token(1)), &[]).await;
    let answer: Value = answer.json().await.unwrap();
    assert!(answer["msg"].as_str().unwrap().to_lowercase().contains("upgrade"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_without_bearer_and_one_with_it_are_taken_by_address_and_by_header() {
    let node = Demo::start_with(&[]).await;
    let token = token(1);
    for (query, header) in [
        (format!("?Authorization=Bearer%20{token}&clientid=web"), None),
        (format!("?Authorization={token}"), None),
        (String::new(), Some(format!("Bearer {token}"))),
    ] {
        let headers: Vec<_> = header.iter().map(|value| ("Authorization", value.as_str())).collect();
        let answer = get(&node, &format!("/resource/sse{query}"), &headers).await;
        assert_eq!(answer.status(), 200, "{query}");
        assert_eq!(answer.headers()["content-type"], "text/event-stream", "{query}");
    }
    let answer = get(&node, "/resource/sse", &[]).await;
    assert_eq!(
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["code"].as_u64()),
        (401, Some(401))
    );
}

//! What a node cannot do, or does not admit, takes nothing else away.

use std::time::Duration;

use realtime_tests::{API_KEY, ProxyKind, Redis, ReverseProxy, Server, Socket, token, within};
use reqwest::Method;
use tokio::time::sleep;

use super::{KINDS, in_front_of, node};

/// Status of a request with the API's key.
async fn status(url: String) -> u16 {
    reqwest::Client::new().get(url).header("X-API-Key", API_KEY).send().await.unwrap().status().as_u16()
}

fn public(proxy: &ReverseProxy, path: &str) -> String {
    format!("http://127.0.0.1:{}{path}", proxy.port())
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_handshakes_take_no_node_out() {
    for kind in KINDS {
        let node = node(&[("REALTIME__LIMITS__MAXHANDSHAKERATE", "1")]).await;
        let proxy = in_front_of(kind, &node, &[]).await;
        for path in ["/resource/websocket", "/push/resource/websocket"] {
            let mut seen = Vec::new();
            for _ in 0..20 {
                seen.push(Socket::open_at(&proxy, path, &[]).await.unwrap_err());
            }
            // No login, or too many handshakes, which is the node's own answer.
            assert!(seen.iter().all(|status| [401, 503].contains(status)), "{kind:?}: {seen:?}");
            assert!(seen.contains(&503), "{kind:?}: {seen:?}");
            for path in ["/", "/push/", "/health/live"] {
                assert_eq!(status(public(&proxy, path)).await, 200, "{kind:?}: {path}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_without_an_answer_takes_no_node_out() {
    for kind in KINDS {
        let node = node(&[("REALTIME__PRESENCE__MODE", "off")]).await;
        let proxy = in_front_of(kind, &node, &[]).await;
        for _ in 0..4 {
            assert_eq!(status(proxy.internal_url("/api/online")).await, 503, "{kind:?}");
        }
        let message = Some(r#"{"broadcast":true,"message":"x"}"#);
        let (published, _) = node.call(Method::POST, proxy.internal_url("/api/publish"), message).await;
        assert_eq!(published, 200, "{kind:?}");
        for _ in 0..4 {
            let request = reqwest::Client::new().get(public(&proxy, "/demo/online")).bearer_auth(token(1));
            assert_eq!(request.send().await.unwrap().status(), 503, "{kind:?}");
        }
        assert_eq!(status(public(&proxy, "/")).await, 200, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_reach_nodes_that_are_not_ready() {
    for kind in KINDS {
        let mut redis = Redis::start().await;
        let node = node(&[("REALTIME__REDIS__URL", &redis.url()), ("REALTIME__HEALTH__GRACE", "0s")]).await;
        let proxy = in_front_of(kind, &node, &[]).await;
        assert_eq!(status(proxy.internal_url("/api/nodes")).await, 200, "{kind:?}");
        redis.kill();
        // HAProxy asks whether nodes are ready, and sends them no clients then.
        let expected = if kind == ProxyKind::HaProxy { 503 } else { 200 };
        within("the node to be unready", async {
            while status(node.api_url("/health/ready")).await == 200
                || status(public(&proxy, "/")).await != expected
            {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        assert_eq!(status(proxy.internal_url("/api/nodes")).await, 200, "{kind:?}");
    }
}

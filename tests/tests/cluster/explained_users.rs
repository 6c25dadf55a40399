//! An operator asks one node why a user got a message or did not, and watches a user, over the whole cluster.

use realtime_tests::{Demo, Redis, Traced, within};
use reqwest::Method;
use serde_json::{Value, json};

async fn node(redis: &str, name: &str) -> Demo {
    Demo::start_with(&[("REALTIME__REDIS__URL", redis), ("REALTIME__SERVER__NODE", name)]).await
}

/// Two nodes that know each other.
async fn cluster(redis: &Redis) -> (Demo, Demo) {
    let (a, b) = (node(&redis.url(), "a").await, node(&redis.url(), "b").await);
    within("the leases of both", async {
        while each(&explain(&a, 1).await["nodes"], "node") != ["a", "b"] {}
    })
    .await;
    (a, b)
}

async fn explain(demo: &Demo, user: i64) -> Value {
    let (status, answer) = demo.api(Method::GET, &format!("/api/explain/{user}"), None).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// Field of each element of a list.
fn each<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|element| element[field].as_str().unwrap_or("null")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_ends_of_all_nodes_are_told() {
    let redis = Redis::start().await;
    let (a, b) = cluster(&redis).await;
    let (mut socket, mut stream) = (a.socket(1).await, b.stream(1).await);
    a.until_sessions(1, 2).await;
    let position = a.publish_to(1, "x").await;
    assert_eq!((socket.text().await, stream.data().await), ("x".to_owned(), "x".to_owned()));
    for asked in [&a, &b] {
        let answer = explain(asked, 1).await;
        assert_eq!((&answer["problems"], &answer["online"]), (&json!([]), &json!(true)));
        assert_eq!(
            (each(&answer["nodes"], "node"), &answer["nodes"][1]["answered"]),
            (vec!["a", "b"], &json!(true))
        );
        assert_eq!(each(&answer["sessions"], "node"), ["a", "b"]);
        assert_eq!(each(&answer["sessions"], "mode"), ["live", "live"]);
        let message = &answer["messages"][0];
        assert_eq!(message["position"], position);
        assert_eq!(each(&message["sessions"], "state"), ["written", "written"]);
    }
    b.api(Method::DELETE, "/api/online/1", None).await;
    assert_eq!(socket.close_code().await, 4409);
    assert!(stream.next().await.is_none());
    within("both ends", async {
        loop {
            let answer = explain(&a, 1).await;
            let mut nodes = each(&answer["closes"], "node");
            nodes.sort_unstable();
            if nodes == ["a", "b"] {
                return;
            }
        }
    })
    .await;
    assert_eq!(each(&explain(&b, 1).await["closes"], "reason"), ["kicked", "kicked"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_follows_a_user_over_the_nodes() {
    let redis = Redis::start().await;
    let (a, b) = cluster(&redis).await;
    let (mut trace, nodes) = Traced::begin(&a, &json!({ "userId": 1, "seconds": 60 })).await;
    assert_eq!((&nodes["answered"], &nodes["missing"]), (&json!(["a", "b"]), &json!(null)));
    let mut stream = b.stream(1).await;
    let (connect, _) = trace.until("connect").await;
    assert_eq!((&connect["node"], &connect["transport"]), (&json!("b"), &json!("sse")));
    let position = a.publish_to(1, "x").await;
    assert_eq!(stream.data().await, "x");
    let (written, before) = trace.until("written").await;
    assert_eq!((&written["node"], &written["position"]), (&json!("b"), &json!(position)));
    assert!(before.iter().any(|event| event["kind"] == "received" && event["node"] == "b"), "{before:?}");
    drop(stream);
    let (close, _) = trace.until("close").await;
    assert_eq!((&close["node"], &close["reason"]), (&json!("b"), &json!("gone")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hangs_is_named_and_its_sessions_are_known_by_presence() {
    let redis = Redis::start().await;
    let (a, b) = cluster(&redis).await;
    let _open = (a.socket(1).await, b.socket(1).await);
    a.until_sessions(1, 2).await;
    let (mut trace, _) = Traced::begin(&a, &json!({ "userId": 1, "seconds": 60 })).await;
    b.pause();
    a.publish_to(1, "x").await;
    let answer = explain(&a, 1).await;
    let (nodes, before) = trace.until("nodes").await;
    b.resume();
    assert_eq!(
        (each(&answer["nodes"], "node"), &answer["nodes"][1]["answered"]),
        (vec!["a", "b"], &json!(false))
    );
    assert_eq!(each(&answer["sessions"], "mode"), ["live", "null"]);
    assert_eq!(each(&answer["messages"][0]["sessions"], "state"), ["written", "unknown"]);
    assert_eq!((&nodes["answered"], &nodes["missing"]), (&json!(["a"]), &json!(["b"])));
    assert!(before.iter().any(|event| event["kind"] == "written" && event["node"] == "a"), "{before:?}");
    let (nodes, _) = trace.until("nodes").await;
    assert_eq!(nodes["answered"], json!(["a", "b"]), "it is asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_a_node_tells_what_it_knows_and_what_it_could_not_ask() {
    let redis = Redis::start().await;
    let a = node(&redis.url(), "a").await;
    let mut socket = a.socket(1).await;
    a.publish_to(1, "x").await;
    assert_eq!(socket.text().await, "x");
    drop(redis);
    let answer = within("a problem", async {
        loop {
            let answer = explain(&a, 1).await;
            if answer["problems"].as_array().unwrap().len() == 2 {
                return answer;
            }
        }
    })
    .await;
    assert_eq!((&answer["online"], each(&answer["sessions"], "mode")), (&json!(null), vec!["live"]));
    assert_eq!(each(&answer["messages"][0]["sessions"], "state"), ["written"]);
    let (mut trace, nodes) = Traced::begin(&a, &json!({ "userId": 1, "seconds": 60 })).await;
    assert_eq!(nodes["answered"], json!(["a"]));
    assert!(nodes["detail"].is_string(), "{nodes}");
    drop(socket);
    assert_eq!(trace.until("close").await.0["reason"], "gone");
}

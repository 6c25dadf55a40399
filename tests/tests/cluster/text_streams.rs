//! Text streams over a cluster: real nodes, a real redis-server, clients on both transports.

mod ends;
mod late_readers;
mod outages;
mod reader;
mod reloads;

use std::time::Duration;

use realtime_tests::{Demo, Redis, token, within};
use serde_json::{Value, json};
use tokio::time::sleep;

use reader::{Reader, Transport};

/// The user whose topic all streams of these tests are in.
const USER: i64 = 1;

/// A prompt whose answer has characters of one to four bytes.
const PROMPT: &str = "Größe? 漢字 and 😀👩‍👩‍👧, please";

async fn node(redis: &Redis) -> Demo {
    node_with(redis, &[]).await
}

async fn node_with(redis: &Redis, variables: &[(&str, &str)]) -> Demo {
    let url = redis.url();
    let mut all = vec![("REALTIME__REDIS__URL", url.as_str())];
    all.extend(variables);
    let demo = Demo::start_with(&all).await;
    ready(&demo).await;
    demo
}

async fn ready(demo: &Demo) {
    demo.until_ready().await;
}

/// Starts an answer on a node. Returns its stream.
async fn ask(node: &Demo, id: &str) {
    let (status, answer) = post(node, "/demo/ai", json!({ "prompt": PROMPT, "id": id })).await;
    assert_eq!((status, &answer["stream"]), (200, &json!(id)), "{answer}");
}

/// Posts as the user.
async fn post(node: &Demo, path: &str, body: Value) -> (u16, Value) {
    let request = reqwest::Client::new().post(node.url(path)).bearer_auth(token(USER));
    let response = request.body(body.to_string()).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// An answer as a node knows it.
async fn answer(node: &Demo, id: &str) -> Option<Value> {
    let request = reqwest::Client::new().get(node.url(&format!("/demo/ai/{id}"))).bearer_auth(token(USER));
    let response = request.send().await.unwrap();
    match response.status().as_u16() {
        200 => Some(response.json().await.unwrap()),
        404 => None,
        status => panic!("{status}"),
    }
}

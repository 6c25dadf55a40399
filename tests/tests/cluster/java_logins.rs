//! Logins of Java nodes: Sa-Token's tokens and keys, over real sockets and a real Redis.

mod handshakes;
mod outages;
mod watch;

use std::{sync::Arc, time::Duration};

use realtime_core::Hub;
use realtime_redis::{SaTokenAuthenticator, SaTokenConfig};
use realtime_tests::{Embedded, JAVA_SECRET, Redis, Server, Socket, within};
use serde_json::{Value, json};
use tokio::time::sleep;

const PERIOD: Duration = Duration::from_millis(200);

fn config(redis: &Redis) -> SaTokenConfig {
    SaTokenConfig::new(redis.url(), JAVA_SECRET)
}

fn serve(config: SaTokenConfig) -> (Embedded, SaTokenAuthenticator) {
    let authenticator = SaTokenAuthenticator::new(config).unwrap();
    let server = Embedded::start_with(Hub::builder().start().unwrap(), Arc::new(authenticator.clone()));
    (server, authenticator)
}

/// Sends a request to the stream endpoint and returns its answer.
async fn ask(server: &Embedded, query: &str, headers: &[(&'static str, &str)]) -> (u16, reqwest::Response) {
    let mut request =
        reqwest::Client::new().get(format!("http://127.0.0.1:{}/resource/sse?{query}", server.port()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = within("an answer", request.send()).await.unwrap();
    (response.status().as_u16(), response)
}

/// Asks both transports, which have to refuse with 401, and returns why.
async fn refusal(server: &Embedded, query: &str, headers: &[(&'static str, &str)]) -> String {
    let path = format!("/resource/websocket?{query}");
    assert_eq!(Socket::open_at(server, &path, headers).await.err(), Some(401), "{path}");
    let (status, response) = ask(server, query, headers).await;
    let answer: Value = response.json().await.unwrap();
    assert_eq!((status, &answer["code"], &answer["data"]), (401, &json!(401), &Value::Null), "{answer}");
    answer["msg"].as_str().unwrap().to_owned()
}

async fn refusal_of(server: &Embedded, token: &str) -> String {
    let message = refusal(server, &format!("clientid=web&Authorization=Bearer%20{token}"), &[]).await;
    assert!(token.is_empty() || !message.contains(token), "a refusal shows the token");
    message
}

/// Both transports let a request in.
async fn admits(server: &Embedded, query: &str, headers: &[(&'static str, &str)]) {
    let path = format!("/resource/websocket?{query}");
    Socket::open_at(server, &path, headers).await.unwrap_or_else(|status| panic!("{status} for {path}"));
    let (status, response) = ask(server, query, headers).await;
    assert_eq!((status, &response.headers()["content-type"]), (200, &"text/event-stream".parse().unwrap()));
}

/// Number of look-ups that Redis has answered.
fn look_ups(redis: &Redis) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_mget:calls="));
    calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
}

/// Waits for whole rounds of the watch, without new logins.
async fn rounds(redis: &Redis, count: u64) {
    // The first may have begun before.
    let goal = look_ups(redis) + count + 1;
    within("the watch to go round", async {
        while look_ups(redis) < goal {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

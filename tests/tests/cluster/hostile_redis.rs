//! Broken content of Redis: it is skipped, or begun anew, and everything else goes on, on all nodes.
//!
//! Each case writes something with a script into the keys of a running cluster of two nodes. Afterwards users are online,
//! messages arrive and are replayed, and kicks are confirmed.

mod closed_connections;
mod control;
mod log;
mod presence;
mod records;

use std::time::Duration;

use futures_util::StreamExt;
use realtime_tests::{Demo, EventStream, Redis, Socket, WsMessage, token, within};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

/// Time in which everything works again.
const LIMIT: Duration = Duration::from_secs(15);

/// Two nodes of a cluster.
struct Cluster {
    redis: Redis,
    nodes: [Demo; 2],
    /// The user of the next check.
    user: i64,
}

impl Cluster {
    async fn start() -> Self {
        let redis = Redis::start().await;
        let nodes = [node(&redis).await, node(&redis).await];
        let mut cluster = Self { redis, nodes, user: 1000 };
        cluster.works().await.unwrap();
        cluster
    }

    /// Writes something with a script: `rt`, `presence` and `control` are the beginnings of the keys, `bad` is no text.
    fn write(&self, script: &str) {
        let script = format!(
            "local rt, presence, control, bad = '{{rt}}:', '{{rt/presence}}:', '{{rt/control}}:', '\\255\\254'
             local call = redis.call
             {script}
             return 'written'"
        );
        assert_eq!(self.redis.cli(&["eval", &script, "0"]), "written", "{script}");
    }

    /// Checks that users are online, messages arrive and are replayed, and kicks are confirmed.
    async fn works(&mut self) -> Result<(), String> {
        let Self { nodes: [a, b], user, .. } = self;
        *user += 2;
        let (user, other) = (*user, *user + 1);
        for node in [&*a, &*b] {
            until("ready", async || {
                let (status, text) = node.get("/health/ready").await;
                if status == 200 { Ok(()) } else { Err(text) }
            })
            .await?;
        }
        let open =
            async || Socket::open(b, &token(user), &[], None).await.map_err(|status| status.to_string());
        let mut socket = until("a session", open).await?;
        for node in [&*a, &*b] {
            until("the online users", async || {
                let page = node.api(Method::GET, "/api/online?size=1000", None).await;
                let one = node.api(Method::GET, &format!("/api/online/{user}"), None).await;
                let is_listed = page.1["items"].as_array().is_some_and(|items| {
                    items.iter().any(|item| item["userId"] == user && item["sessions"] == 1)
                });
                let is_online = page.0 == 200 && is_listed && one.1["online"] == true;
                if is_online { Ok(()) } else { Err(format!("{page:?} {one:?}")) }
            })
            .await?;
        }
        until("a publish", async || publish(a, user, "live").await).await?;
        until("a message", async || match timeout(LIMIT, socket.0.next()).await {
            Ok(Some(Ok(WsMessage::Text(text)))) if text == "live" => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
        let mut stream =
            EventStream::open(b, &token(other), None).await.map_err(|status| status.to_string())?;
        until("a publish", async || publish(a, other, "seen").await).await?;
        data(&mut stream, "seen").await?;
        let cursor = stream.last_id.clone();
        drop(stream);
        until("a publish", async || publish(b, other, "missed").await).await?;
        let mut stream =
            EventStream::open(a, &token(other), Some(&cursor)).await.map_err(|status| status.to_string())?;
        data(&mut stream, "missed").await?;
        until("a confirmed kick", async || {
            let (status, answer) = a.api(Method::DELETE, &format!("/api/online/{user}"), None).await;
            let confirmed = status == 200 && answer["unconfirmed"] == Value::Null;
            if confirmed { Ok(()) } else { Err(format!("{status}: {answer}")) }
        })
        .await?;
        until("the end of a session", async || match timeout(LIMIT, socket.0.next()).await {
            Ok(None | Some(Err(_) | Ok(WsMessage::Close(_)))) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
    }
}

/// Runs cases one after the other, and names all that fail.
async fn check(cases: &[(&str, &str)]) {
    let (mut cluster, mut failed) = (Cluster::start().await, Vec::new());
    for (case, script) in cases {
        cluster.write(script);
        let mut result = cluster.works().await;
        if result.is_ok() {
            // A node that starts meets it as well.
            let left = &mut cluster.nodes[1];
            left.terminate();
            within("the end of a node", left.child().wait()).await.unwrap();
            cluster.nodes[1] = node(&cluster.redis).await;
            result = cluster.works().await.map_err(|problem| format!("with a new node: {problem}"));
        }
        if let Err(problem) = result {
            failed.push(format!("{case}: {problem}"));
            cluster = Cluster::start().await;
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

async fn node(redis: &Redis) -> Demo {
    Demo::start_with(&[("REALTIME__REDIS__URL", &redis.url())]).await
}

async fn publish(node: &Demo, user: i64, text: &str) -> Result<(), String> {
    let body = json!({ "userIds": [user], "message": text }).to_string();
    let (status, answer) = node.try_publish(&body).await;
    if status == 200 { Ok(()) } else { Err(format!("{status}: {answer}")) }
}

/// Waits for an event with this text.
async fn data(stream: &mut EventStream, text: &str) -> Result<(), String> {
    until("an event", async || match timeout(LIMIT, stream.next()).await {
        Ok(Some(event)) if event.data == text => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
}

/// Tries until it succeeds, or until the limit is over.
async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T, String>) -> Result<T, String> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(problem) if Instant::now() > deadline => return Err(format!("no {what}: {problem}")),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

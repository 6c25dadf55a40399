//! Kicks and revocations, and nodes that carry them out.

mod outages;
mod panics;
mod starting_nodes;
mod tokens;

use std::time::Duration;

use realtime_core::{CloseReason, Hub};
use realtime_redis::{Incarnation, RedisConfig, RedisControl};
use realtime_sse::{SseEmitters, SseStream};
use realtime_tests::{Redis, within};
use tokio::time::sleep;

fn start(url: impl Into<String>, name: &str) -> Hub {
    let control = RedisControl::make(RedisConfig::single(url), Incarnation::new(name)).unwrap();
    Hub::builder().node(name).control(control).start().unwrap()
}

/// A node that admits connections, and whose receipts other nodes wait for.
async fn node(redis: &Redis, name: &str) -> Hub {
    let hub = start(redis.url(), name);
    within("the node's lease", async {
        while !redis.cli(&["zrange", "{rt/control}:nodes", "0", "-1"]).contains(&format!("{name}~")) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    within("a start", hub.started()).await;
    hub
}

fn open(hub: &Hub, user: i64, token: &str) -> Result<SseStream, String> {
    SseEmitters::new(hub.clone()).connect(user, token).map_err(|error| error.to_string())
}

fn is_kicked(stream: &SseStream) -> bool {
    stream.handle().closing() == Some(CloseReason::Kicked)
}

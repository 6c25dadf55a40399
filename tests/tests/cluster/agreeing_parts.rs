//! A cluster made by one constructor: bus, presence and control that agree.

use std::time::Duration;

use realtime_core::{Hub, Principal};
use realtime_redis::{RedisCluster, RedisConfig, RedisMode};
use realtime_sse::{SseEmitters, SseStream};
use realtime_tests::{Redis, publish, until, within};
use tokio::time::sleep;

/// A section `redis` of an application's configuration.
fn config(redis: &Redis, mode: &str) -> RedisConfig {
    let section =
        serde_json::json!({ "url": redis.url(), "mode": mode, "keyPrefix": "app", "commandTimeout": "1s" });
    serde_json::from_value(section).unwrap()
}

async fn started(hub: Hub) -> Hub {
    within("a start", hub.started()).await;
    until("a bus that delivers", || hub.ready().is_ok()).await;
    hub
}

fn open(hub: &Hub, token: &str) -> SseStream {
    SseEmitters::new(hub.clone()).open(Principal::new(1.into(), token), None).unwrap()
}

/// Waits until user 1 has `count` sessions, and returns their nodes.
async fn nodes(hub: &Hub, count: usize) -> Vec<String> {
    within("the sessions in presence", async {
        loop {
            let sessions = hub.presence().sessions(&1.into()).await.unwrap_or_default();
            if sessions.len() == count {
                let mut nodes: Vec<_> = sessions.into_iter().map(|session| session.node).collect();
                nodes.sort();
                return nodes;
            }
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

#[actix_web::test]
async fn nodes_of_one_configuration_share_messages_users_and_kicks() {
    let redis = Redis::start().await;
    for mode in ["streams", "pubsub"] {
        let node = |name: &str| {
            let cluster = RedisCluster::new(config(&redis, mode), format!("{mode}-{name}")).unwrap();
            Hub::builder().cluster(cluster).start().unwrap()
        };
        let (a, b) = (started(node("a")).await, started(node("b")).await);
        let (on_a, on_b) = (open(&a, &format!("{mode} 1")), open(&b, &format!("{mode} 2")));
        assert_eq!(a.node(), format!("{mode}-a"));
        assert_eq!(nodes(&a, 2).await, [format!("{mode}-a"), format!("{mode}-b")]);

        let before = b.metrics().received;
        publish(&a, 1, "to both").await;
        until("the message on the other node", || b.metrics().received > before).await;

        let outcome = a.kick(&1.into()).await.unwrap();
        assert_eq!((outcome.closed, outcome.unconfirmed), (2, Vec::new()), "{mode}");
        drop((on_a, on_b));
        for hub in [a, b] {
            assert_eq!(hub.drain().await, 0);
        }
    }
    assert!(redis.cli(&["keys", "*"]).lines().all(|key| key.trim_matches('"').starts_with("{app:rt")));
}

#[actix_web::test]
async fn a_part_that_is_set_afterwards_replaces_the_clusters() {
    let redis = Redis::start().await;
    let config = config(&redis, "pubsub").mode(RedisMode::Streams);
    let node = |name: &str| {
        let cluster = RedisCluster::new(config.clone(), name).unwrap();
        Hub::builder().cluster(cluster).presence(|local| local).start().unwrap()
    };
    let (a, b) = (started(node("a")).await, started(node("b")).await);
    let sessions = [open(&a, "t1"), open(&b, "t2")];
    assert_eq!((nodes(&a, 1).await, nodes(&b, 1).await), (vec!["a".to_owned()], vec!["b".to_owned()]));
    assert_eq!(a.kick(&1.into()).await.unwrap().closed, 2);
    drop(sessions);
}

//! Connections that Redis has closed are replaced before they are used.

use realtime_core::{Hub, bus::Bus};
use realtime_redis::{Incarnation, RedisConfig, RedisControl, RedisPresence, RedisStreamsBus};
use realtime_tests::{
    RedisCluster,
    conformance::{Subscriber, envelope},
};

use super::*;

/// The first publish, list and kick.
async fn ask(node: &Demo, user: i64, what: usize) -> (u16, Value) {
    let kick = format!("/api/online/{user}");
    match what {
        0 => node.try_publish(&json!({ "userIds": [user], "message": "x" }).to_string()).await,
        1 => node.api(Method::GET, "/api/online", None).await,
        _ => node.api(Method::DELETE, &kick, None).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_after_redis_has_closed_idle_connections_succeeds() {
    for mode in ["streams", "pubsub"] {
        let redis = Redis::start().await;
        let variables = [("REALTIME__REDIS__URL", redis.url()), ("REALTIME__REDIS__MODE", mode.to_owned())];
        let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
        let node = Demo::start_with(&variables).await;
        within("the node", async {
            while node.get("/health/ready").await.0 != 200 || ask(&node, 1, 2).await.0 != 200 {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        for round in 0..12 {
            for what in [0, 1, 2] {
                // Every other time what is left of a pause in which Redis closes what is idle.
                if round % 4 == 3 {
                    redis.cli(&["config", "set", "timeout", "1"]);
                    sleep(Duration::from_millis(2100)).await;
                    redis.cli(&["config", "set", "timeout", "0"]);
                } else {
                    redis.cli(&["client", "kill", "type", "normal"]);
                    // A connection that was idle for a while is closed, not one in use.
                    sleep(Duration::from_millis(100)).await;
                }
                let (status, answer) = ask(&node, 1, what).await;
                assert_eq!(status, 200, "{mode}, {round}, request {what}: {answer}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_nodes_that_name_no_host_are_found_where_they_were_asked() {
    let cluster = RedisCluster::start().await;
    // CLUSTER SLOTS has null then, and with a type whose name is not set `?`.
    for kind in ["unknown-endpoint", "hostname"] {
        for answer in cluster.on_each(&["config", "set", "cluster-preferred-endpoint-type", kind]) {
            assert_eq!(answer, "OK");
        }
        let config = RedisConfig::new(cluster.topology()).key_prefix(kind);
        let bus = RedisStreamsBus::new(config.clone()).unwrap();
        let mut events = Subscriber::up(&bus).await;
        bus.publish(&envelope("x")).await.unwrap();
        assert_eq!(events.message().await.1, "x", "{kind}");
        let life = Incarnation::new("a");
        let presence = RedisPresence::make(config.clone(), life.clone()).unwrap();
        let control = RedisControl::make(config.clone(), life).unwrap();
        let hub = Hub::builder().node("a").presence(presence).control(control).start().unwrap();
        until("a confirmed kick", async || match hub.kick(&1.into()).await {
            Ok(result) if result.unconfirmed.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
        .unwrap();
        hub.presence().users(0, 10).await.unwrap();
    }
}

//! A Redis that works and says no: it is full, lacks replicas, or does not let a node write.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::time::Duration;

use realtime_core::{Bus, BusError, Hub};
use realtime_redis::{Incarnation, RedisConfig, RedisControl, RedisPresence, RedisStreamsBus};
use realtime_tests::{Redis, conformance::envelope, within};
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_refuses_is_an_error_that_says_why_and_costs_no_connection() {
    let redis = Redis::start().await;
    let bus = RedisStreamsBus::new(RedisConfig::single(redis.url())).unwrap();
    bus.publish(&envelope("before")).await.unwrap();
    for (name, refuse, allow) in [
        ("OOM", ["config", "set", "maxmemory", "1"], ["config", "set", "maxmemory", "0"]),
        (
            "NOREPLICAS",
            ["config", "set", "min-replicas-to-write", "1"],
            ["config", "set", "min-replicas-to-write", "0"],
        ),
        ("NOPERM", ["acl", "setuser", "default", "-xadd"], ["acl", "setuser", "default", "+xadd"]),
    ] {
        assert_eq!(redis.cli(&refuse), "OK");
        for _ in 0..300 {
            let refused = bus.publish(&envelope("x")).await;
            let Err(BusError::Refused(problem)) = refused else { panic!("{name}: {refused:?}") };
            assert!(problem.to_uppercase().contains(name), "{problem}");
        }
        assert_eq!(redis.cli(&allow), "OK");
        bus.publish(&envelope("after")).await.unwrap();
        assert_eq!((bus.metrics().connects, bus.metrics().claims), (1, 1), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_and_control_keep_their_connections_when_redis_is_full() {
    let redis = Redis::start().await;
    let (config, life) = (RedisConfig::single(redis.url()), Incarnation::new("a"));
    let presence = RedisPresence::make(config.clone(), life.clone()).unwrap();
    let control = RedisControl::make(config, life).unwrap();
    let hub = Hub::builder().node("a").presence(presence).control(control).start().unwrap();
    within("a confirmed kick", async {
        while !hub.kick(&1.into()).await.is_ok_and(|outcome| outcome.unconfirmed.is_empty()) {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let count = |section: &str, name: &str| -> u64 {
        let info = redis.cli(&["info", section]);
        let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
        line.parse().unwrap()
    };
    assert_eq!(redis.cli(&["config", "set", "maxmemory", "1"]), "OK");
    let before = count("stats", "total_connections_received:");
    let mut asked = 0;
    within("Redis to refuse a lot", async {
        while count("errorstats", "errorstat_OOM:count=") < 10 {
            asked += 1;
            hub.kick(&1.into()).await.unwrap_err();
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let opened = count("stats", "total_connections_received:") - before - asked - 2;
    assert!(opened < 5, "{opened} connections were opened");
}

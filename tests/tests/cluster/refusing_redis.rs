//! A refusal by Redis is an error with Redis' own text, and costs no connection.

use std::time::Duration;

use realtime_core::{
    Hub,
    bus::{Bus, BusError, BusEvent},
};
use realtime_redis::{
    Incarnation, RedisConfig, RedisControl, RedisPresence, RedisPubSubBus, RedisStreamsBus, RedisTickets,
};
use realtime_tests::{
    Demo, Fault, Part, Redis,
    conformance::{Subscriber, Terms, bus_conforms, envelope, tickets_conform},
    within,
};
use tokio::time::sleep;

const MESSAGE: &str = r#"{"userIds":[1],"message":"x"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_by_redis_is_an_error_with_its_reason_and_costs_no_connection() {
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
    let demo = Demo::start_with(&[("REALTIME__REDIS__URL", &redis.url())]).await;
    within("the demo to publish", async {
        while demo.try_publish(MESSAGE).await.0 != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(redis.cli(&["config", "set", "maxmemory", "1"]), "OK");
    let (status, answer) = demo.try_publish(MESSAGE).await;
    assert!(status == 503 && answer["msg"].as_str().unwrap().contains("OOM"), "{status}: {answer}");
    let seen = "Publishing fails with Redis' own words, from the demo 503; the connection stays.";
    Fault::new("Redis: full, without its replicas, or lets nobody write", Part::Streams, seen).record();
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
            // A kick also deletes expired entries, after which Redis accepts its write: only its receipt is refused.
            hub.kick(&1.into()).await.ok();
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let opened = count("stats", "total_connections_received:") - before - asked - 2;
    assert!(opened < 5, "{opened} connections were opened");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_the_operations_guide_may_do_all_that_is_needed() {
    let redis = Redis::start().await;
    let guide = include_str!("../../../docs/operations.md");
    let command = &guide[guide.find("redis-cli ACL SETUSER").unwrap()..];
    let command = command[..command.find("```").unwrap()].replace(['\\', '\''], " ");
    let arguments: Vec<_> = command.split_whitespace().skip(1).collect();
    assert_eq!(redis.cli(&arguments), "OK");
    let config = RedisConfig::single(format!("redis://realtime:a-password@127.0.0.1:{}/", redis.port()));
    bus_conforms(|| RedisStreamsBus::new(config.clone()).unwrap(), &Terms::full().with_ids()).await;
    bus_conforms(|| RedisPubSubBus::new(config.clone()).unwrap(), &Terms::ruoyi("sse")).await;
    tickets_conform(|| RedisTickets::make(config.clone()).unwrap()()).await;
    let life = Incarnation::new("a");
    let presence = RedisPresence::make(config.clone(), life.clone()).unwrap();
    let control = RedisControl::make(config, life).unwrap();
    let hub = Hub::builder().node("a").presence(presence).control(control).start().unwrap();
    within("presence and a confirmed kick", async {
        loop {
            let confirmed = hub.kick(&1.into()).await.is_ok_and(|outcome| outcome.unconfirmed.is_empty());
            if confirmed && hub.presence().is_online(&[1.into()]).await.is_ok() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // A forbidden command of any part would be listed here.
    assert_eq!(redis.cli(&["acl", "log"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_heartbeats_are_refused_reports_why_and_stays_down_until_one_comes_back() {
    let redis = Redis::start().await;
    let bus = RedisStreamsBus::new(RedisConfig::single(redis.url())).unwrap();
    let mut events = Subscriber::up(&bus).await;
    assert_eq!(redis.cli(&["config", "set", "maxmemory", "1"]), "OK");
    for _ in 0..2 {
        let event = events.until(|event| matches!(event, BusEvent::Up(_) | BusEvent::Down(_))).await;
        let BusEvent::Down(problem) = event else { panic!("{event:?}") };
        assert!(problem.contains("heartbeat") && problem.contains("OOM"), "{problem}");
    }
    assert_eq!(redis.cli(&["config", "set", "maxmemory", "0"]), "OK");
    events.until(|event| matches!(event, BusEvent::Up(_))).await;
    events.until(|event| matches!(event, BusEvent::CaughtUp(_))).await;
}

//! Every node answers who is online on all nodes, in one query.

use std::time::{Duration, Instant};

use realtime_core::{Hub, UserId, presence::NoPresence};
use realtime_redis::{Incarnation, RedisConfig, RedisPresence};
use realtime_tests::{Redis, conformance::presence_conforms};

use super::{drained, node, open, until_count};

#[actix_web::test]
async fn the_presence_of_one_node_conforms() {
    presence_conforms(&[Hub::builder().start().unwrap()]).await;
}

#[actix_web::test]
async fn the_presence_of_a_cluster_conforms() {
    let redis = Redis::start().await;
    presence_conforms(&[node(&redis), node(&redis)]).await;
}

#[actix_web::test]
async fn a_presence_that_is_off_is_an_error() {
    let hub = Hub::builder().presence(|_| NoPresence).start().unwrap();
    let _session = open(&hub, 1);
    let error = hub.presence().is_online(&[1.into()]).await.unwrap_err();
    assert_eq!(error.to_string(), "presence is unavailable: it is switched off");
    hub.presence().count().await.unwrap_err();
    hub.presence().users(0, 1).await.unwrap_err();
    hub.presence().sessions(&1.into()).await.unwrap_err();
}

#[actix_web::test]
async fn ten_thousand_users_are_asked_about_in_one_go() {
    let redis = Redis::start().await;
    let hub = node(&redis);
    let _sessions: Vec<_> = (0..1000).map(|n| open(&hub, n * 10)).collect();
    until_count(std::slice::from_ref(&hub), 1000, 1000).await;
    let users: Vec<UserId> = (0..10_000).map(UserId::from).collect();
    let mut times = Vec::new();
    for _ in 0..100 {
        let asked = Instant::now();
        let online = hub.presence().is_online(&users).await.unwrap();
        times.push(asked.elapsed());
        assert_eq!(online.iter().filter(|online| **online).count(), 1000);
        assert!(online[10] && !online[11]);
    }
    times.sort();
    println!("is_online of 10,000 ids: p50 {:?}, p99 {:?}", times[50], times[98]);
    let calls = redis.cli(&["info", "commandstats"]);
    assert!(calls.contains("cmdstat_smismember:calls=1000,"), "{calls}");
}

#[actix_web::test]
async fn the_user_of_the_docs_may_do_all_that_presence_does() {
    let redis = Redis::start().await;
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let (_, command) = docs.split_once("redis-cli ACL SETUSER ").unwrap();
    let (rules, _) = command.split_once("```").unwrap();
    let mut arguments = vec!["acl", "setuser"];
    arguments
        .extend(rules.split_whitespace().filter(|word| *word != "\\").map(|word| word.trim_matches('\'')));
    redis.cli(&arguments);
    let url = redis.url().replace("//", "//realtime:a-password@");
    let hubs = ["a", "b"].map(|name| {
        let presence = RedisPresence::make(RedisConfig::single(url.as_str()), Incarnation::new(name));
        Hub::builder().presence(presence.unwrap()).start().unwrap()
    });
    presence_conforms(&hubs).await;
    let session = open(&hubs[0], 1);
    drained(session, Duration::from_millis(1));
    assert_eq!(hubs[0].drain().await, 0);
    until_count(&hubs[1..], 0, 0).await;
    let refused = redis.cli(&["acl", "log"]);
    assert_eq!(refused.trim(), "", "Redis refused something");
}

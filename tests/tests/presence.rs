//! Presence: one suite for one node and for a cluster, and a cluster's bad days.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use realtime_core::{Hub, UserId};
use realtime_redis::{Incarnation, RedisConfig, RedisPresence};
use realtime_sse::{SseEmitters, SseStream};
use realtime_tests::{Demo, EventStream, Redis, token, within};
use reqwest::Method;
use tokio::time::sleep;

fn node(redis: &Redis) -> Hub {
    let presence = RedisPresence::make(RedisConfig::single(redis.url()), Incarnation::new("node")).unwrap();
    Hub::builder().presence(presence).start().unwrap()
}

fn open(hub: &Hub, user: impl Into<UserId>) -> SseStream {
    SseEmitters::new(hub.clone()).connect(user, "a token").unwrap()
}

/// Waits until every one of the hubs counts so many users and sessions.
async fn until_count(hubs: &[Hub], users: usize, sessions: usize) {
    within(&format!("{users} users with {sessions} sessions"), async {
        for hub in hubs {
            loop {
                let count = hub.presence().count().await.unwrap();
                if (count.users, count.sessions) == (users, sessions) {
                    break;
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
    })
    .await;
}

/// What every presence promises, over one node or several.
async fn presence_conforms(hubs: &[Hub]) {
    let hub = |n: usize| &hubs[n % hubs.len()];
    until_count(hubs, 0, 0).await;
    let text: UserId = "u-7".parse().unwrap();
    let mut open_sessions = vec![
        open(hub(0), 5),
        open(hub(1), 5),
        open(hub(0), 1_925_000_000_000_000_001),
        open(hub(1), text.clone()),
        open(hub(1), -3),
    ];
    until_count(hubs, 4, 5).await;
    for hub in hubs {
        let presence = hub.presence();
        let asked = [5.into(), 6.into(), text.clone(), 1_925_000_000_000_000_001.into()];
        assert_eq!(presence.is_online(&asked).await.unwrap(), [true, false, true, true]);
        assert_eq!(presence.is_online(&[]).await.unwrap(), [] as [bool; 0]);
        let users = presence.users(0, 10).await.unwrap();
        let users: Vec<_> = users.into_iter().map(|user| (user.user_id, user.sessions)).collect();
        let big = 1_925_000_000_000_000_001_i64;
        assert_eq!(users, [((-3).into(), 1), (5.into(), 2), (big.into(), 1), (text.clone(), 1)]);
        let page = presence.users(1, 2).await.unwrap();
        assert_eq!(page.iter().map(|user| user.user_id.clone()).collect::<Vec<_>>(), [5.into(), big.into()]);
        assert!(presence.users(9, 5).await.unwrap().is_empty());
        let sessions = presence.sessions(&5.into()).await.unwrap();
        assert_eq!(sessions.len(), 2);
        assert!(sessions[0].since <= sessions[1].since, "oldest first");
        assert!(sessions.iter().all(|session| session.transport == "sse" && !session.node.is_empty()));
        assert!(presence.sessions(&6.into()).await.unwrap().is_empty());
    }
    // One of two sessions is not the last one.
    drop(open_sessions.remove(0));
    until_count(hubs, 4, 4).await;
    assert_eq!(hub(0).presence().is_online(&[5.into()]).await.unwrap(), [true]);
    drop(open_sessions);
    until_count(hubs, 0, 0).await;
}

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
async fn a_reload_makes_no_flicker() {
    let redis = Redis::start().await;
    let hubs = [node(&redis), node(&redis)];
    let mut session = open(&hubs[0], 1);
    until_count(&hubs, 1, 1).await;
    for n in 1..10 {
        drop(session);
        session = open(&hubs[n % 2], 1);
        for _ in 0..5 {
            assert_eq!(hubs[0].presence().is_online(&[1.into()]).await.unwrap(), [true]);
        }
    }
    drop(session);
}

#[actix_web::test]
async fn an_emptied_or_restarted_redis_is_filled_again() {
    let mut redis = Redis::start().await;
    let hubs = [node(&redis), node(&redis)];
    let _sessions: Vec<_> = (0..700).map(|n| open(&hubs[n as usize % 2], n)).collect();
    // More users than one script takes.
    let _more: Vec<_> = (1000..1700).map(|n| open(&hubs[0], n)).collect();
    until_count(&hubs, 1400, 1400).await;
    redis.cli(&["flushall"]);
    until_count(&hubs, 1400, 1400).await;
    redis.kill();
    let away = hubs[0].presence().count().await;
    assert!(away.is_err(), "nobody can say now: {away:?}");
    redis.restart().await;
    within("presence to be asked again", async {
        while hubs[0].presence().count().await.is_err() || hubs[1].presence().count().await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    until_count(&hubs, 1400, 1400).await;
}

#[actix_web::test]
async fn ten_thousand_users_are_asked_about_in_one_command() {
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
    assert!(calls.contains("cmdstat_zmscore:calls=100,"), "{calls}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_of_a_killed_node_are_offline_within_15_seconds() {
    const USERS: i64 = 1000;
    let redis = Redis::start().await;
    let settings = [("REALTIME__REDIS__URL", &*redis.url())];
    let (survivor, victim) = (Demo::start_with(&settings).await, Demo::start_with(&settings).await);
    let tokens: Vec<String> = (0..USERS).map(token).collect();
    let _streams =
        try_join_all(tokens.iter().map(|token| EventStream::open(&victim, token, None))).await.unwrap();
    // One of them is on both nodes and stays.
    let _stays = survivor.stream(7).await;
    let total = async || {
        let (status, answer) = survivor.api(Method::GET, "/api/online?size=1", None).await;
        assert_eq!(status, 200, "{answer}");
        answer["total"].as_i64().unwrap()
    };
    within("all users to be online", async {
        while total().await != USERS {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // Dropping it is a kill -9.
    drop(victim);
    let killed = Instant::now();
    within("the users to be offline", async {
        while total().await != 1 {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(killed.elapsed() < Duration::from_secs(15), "took {:?}", killed.elapsed());
    let (_, answer) = survivor.api(Method::GET, "/api/online/7", None).await;
    assert_eq!(answer["sessions"].as_array().unwrap().len(), 1);
    println!("{USERS} users of a killed node were offline after {:?}", killed.elapsed());
}

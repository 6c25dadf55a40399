//! A user who comes back in time after a reload, a drain or a rolling restart was never offline.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use futures_util::future::join_all;
use realtime_core::{CloseReason, Hub, Settings, error::ConnectError, presence::PresenceState};
use realtime_redis::{Incarnation, RedisConfig, RedisControl, RedisPresence};
use realtime_sse::{EmitterError, SseEmitters, SseStream};
use realtime_tests::{Demo, Fault, Part, Redis, within};
use tokio::time::{sleep, timeout};

use super::{Changes, changed, changes, drained, no_change, node, open, until_count, until_told, watcher};

#[actix_web::test]
async fn a_reload_makes_no_flicker() {
    let redis = Redis::start().await;
    let cluster = vec![node(&redis), node(&redis)];
    for hubs in [cluster, vec![Hub::builder().start().unwrap()]] {
        let mut session = open(&hubs[0], 1);
        until_count(&hubs, 1, 1).await;
        let mut events = hubs[0].presence().changes();
        for n in 1..10 {
            drop(session);
            session = open(&hubs[n % hubs.len()], 1);
            for _ in 0..5 {
                assert_eq!(hubs[0].presence().is_online(&[1.into()]).await.unwrap(), [true]);
            }
        }
        no_change(&mut events).await;
        drop(session);
        let offline = changes(&mut events, 1).await;
        assert_eq!((&offline[0].0, offline[0].1), (&1.into(), PresenceState::Offline));
    }
    let seen = "Its user stays online: a user goes offline `presence.grace` after the last session.";
    Fault::new("Client: a page is reloaded, on any node", Part::Presence, seen).record();
}

#[actix_web::test]
async fn who_comes_back_is_online_since_the_new_session() {
    let redis = Redis::start().await;
    for hub in [node(&redis), Hub::builder().start().unwrap()] {
        let mut events = hub.presence().changes();
        let first = open(&hub, 1);
        assert_eq!(changes(&mut events, 1).await[0].1, PresenceState::Online);
        drop(first);
        assert_eq!(changes(&mut events, 1).await[0].1, PresenceState::Offline);
        let back = SystemTime::now() - Duration::from_millis(1);
        let _second = open(&hub, 1);
        let (_, state, since) = changes(&mut events, 1).await.remove(0);
        assert_eq!(state, PresenceState::Online);
        assert!(since >= back, "said to be online since {since:?}, came back at {back:?}");
    }
}

#[actix_web::test]
async fn who_comes_back_within_the_grace_has_been_online_all_the_time() {
    let redis = Redis::start().await;
    let hub = node(&redis);
    let mut events = hub.presence().changes();
    let first = open(&hub, 1);
    let (.., since) = changes(&mut events, 1).await.remove(0);
    drop(first);
    until_count(std::slice::from_ref(&hub), 1, 0).await;
    let _second = open(&hub, 1);
    until_count(std::slice::from_ref(&hub), 1, 1).await;
    // The node fills an emptied Redis with what it knows.
    redis.cli(&["flushall"]);
    let mut told = BTreeMap::new();
    until_told(&mut events, &mut told, 1).await;
    assert_eq!(told[&1.into()], since);
}

#[actix_web::test]
async fn a_draining_node_reports_no_user_offline_who_comes_back_in_time() {
    let redis = Redis::start().await;
    let (stays, stops) = (node(&redis), node(&redis));
    let hubs = [stays, stops];
    let mut events: Vec<Changes> = hubs.iter().map(|hub| hub.presence().changes()).collect();
    let streams: Vec<_> = (0..20).map(|n| open(&hubs[1], n)).collect();
    for events in &mut events {
        changes(events, 20).await;
    }
    let handles: Vec<_> = streams.iter().map(SseStream::handle).collect();
    let ends = async {
        within("the node to drain", async {
            while handles.iter().any(|handle| handle.closing().is_none()) {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        drop(streams);
    };
    let (left, ()) = tokio::join!(hubs[1].drain(), ends);
    assert_eq!(left, 0);
    let back = handles.iter().map(async |handle| {
        let Some(CloseReason::Drain { retry }) = handle.closing() else { panic!("it was drained") };
        sleep(retry).await;
        open(&hubs[0], handle.user().clone())
    });
    let _back = join_all(back).await;
    until_count(&hubs, 20, 20).await;
    for events in &mut events {
        no_change(events).await;
    }
    let seen = "Nobody is said to have gone who comes back when told: a user stays online for `presence.grace` and a \
                second beyond that time.";
    Fault::new("Node: stops in order", Part::Presence, seen).record();
}

#[actix_web::test]
async fn a_client_that_a_draining_node_refuses_is_expected_for_longer() {
    let redis = Redis::start().await;
    let (stays, stops) = (node(&redis), node(&redis));
    let hubs = [stays, stops];
    let mut events = hubs[0].presence().changes();
    let (early, last) = (open(&hubs[1], 1), open(&hubs[1], 2));
    changes(&mut events, 2).await;
    let handles = [early.handle(), last.handle()];
    let client = async {
        within("the first close", async {
            while handles[0].closing().is_none() {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        drop(early);
        until_count(&hubs, 2, 1).await;
        // A load balancer has not noticed yet.
        let refused = SseEmitters::new(hubs[1].clone()).connect(1, "a token").map(drop);
        assert!(
            matches!(refused, Err(EmitterError::Connect { error: ConnectError::Draining, .. })),
            "{refused:?}"
        );
    };
    tokio::join!(hubs[1].drain(), client);
    drop(last);
    // Longer than the first delay, a second and the grace.
    sleep(Duration::from_millis(4500)).await;
    let online = hubs[0].presence().is_online(&[1.into(), 2.into()]).await.unwrap();
    assert_eq!(online, [true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_rolling_restart_takes_no_user_offline() {
    const USERS: i64 = 20;
    let redis = Redis::start().await;
    let settings = [("REALTIME__REDIS__URL", &*redis.url())];
    let (survivor, mut victim) = (Demo::start_with(&settings).await, Demo::start_with(&settings).await);
    let mut watcher = watcher(&survivor).await;
    let mut sockets = Vec::new();
    for user in 0..USERS {
        sockets.push((user, victim.socket_v1(user).await));
    }
    let mut online = 0;
    while online < USERS {
        for change in changed(&mut watcher).await {
            assert_eq!(change["state"], "online", "{change}");
            online += 1;
        }
    }
    victim.terminate();
    let back = sockets.into_iter().map(async |(user, mut socket)| {
        let retry = loop {
            let frame = socket.json().await;
            if frame["type"] == "bye" {
                break frame["retry"].as_u64().expect("it may come back");
            }
        };
        assert_eq!(socket.close_code().await, 1012);
        drop(socket);
        sleep(Duration::from_millis(retry)).await;
        survivor.socket_v1(user).await
    });
    let _back = join_all(back).await;
    within("the node to stop", victim.child().wait()).await.unwrap();
    let told = timeout(Duration::from_millis(3500), changed(&mut watcher)).await;
    assert!(told.is_err(), "nobody came or went, but {told:?}");
}

#[actix_web::test]
async fn the_grace_of_a_drained_user_includes_the_time_to_come_back() {
    let redis = Redis::start().await;
    let local = Hub::builder().start().unwrap();
    for hubs in [vec![local], vec![node(&redis), node(&redis)]] {
        let retry = Duration::from_secs(4);
        let mut events = hubs[0].presence().changes();
        let (first, last) = (open(&hubs[0], 1), open(hubs.last().unwrap(), 1));
        let (back, away) = (open(&hubs[0], 2), open(&hubs[0], 3));
        until_count(&hubs, 3, 4).await;
        changes(&mut events, 3).await;
        let told = (Instant::now(), SystemTime::now() - Duration::from_millis(1));
        drained(first, retry);
        drained(back, retry);
        drained(away, retry);
        until_count(&hubs, 3, 1).await;
        // User 1 leaves the other node without a drain, and the grace of the drain still applies.
        drop(last);
        sleep(retry).await;
        let _back = open(hubs.last().unwrap(), 2);
        let gone = changes(&mut events, 2).await;
        let took = told.0.elapsed();
        assert!(took > retry + Duration::from_secs(2) && took < Duration::from_secs(10), "took {took:?}");
        for ((user, state, since), expected) in gone.iter().zip([1, 3]) {
            assert_eq!((user, *state), (&expected.into(), PresenceState::Offline));
            // It is when the last session ended, not until when it was waited for.
            let ended = since.duration_since(told.1).unwrap();
            assert!(ended < Duration::from_secs(2), "user {user}: {ended:?} later");
        }
        no_change(&mut events).await;
    }
}

#[actix_web::test]
async fn the_grace_is_what_the_settings_say() {
    let redis = Redis::start().await;
    for cluster in [true, false] {
        let mut settings = Settings::default();
        settings.presence.grace = Duration::from_millis(100);
        let mut hub = Hub::builder().settings(settings);
        if cluster {
            let make = RedisPresence::make(RedisConfig::single(redis.url()), Incarnation::new("node"));
            hub = hub.presence(make.unwrap());
        }
        let hub = hub.start().unwrap();
        let session = open(&hub, 1);
        let hub = [hub];
        until_count(&hub, 1, 1).await;
        let left = Instant::now();
        drop(session);
        until_count(&hub, 0, 0).await;
        assert!(left.elapsed() < Duration::from_secs(2), "cluster {cluster}: took {:?}", left.elapsed());
    }
}

#[actix_web::test]
async fn a_node_that_stops_in_order_is_not_waited_for() {
    let redis = Redis::start().await;
    let start = |name: &str| {
        let (config, incarnation) = (RedisConfig::single(redis.url()), Incarnation::new(name));
        let presence = RedisPresence::make(config.clone(), incarnation.clone()).unwrap();
        let control = RedisControl::make(config, incarnation).unwrap();
        Hub::builder().node(name).presence(presence).control(control).start().unwrap()
    };
    let (stays, stops) = (start("stays"), start("stops"));
    within("a start", stops.started()).await;
    let hubs = [stays.clone(), stops.clone()];
    let session = open(&stops, 5);
    until_count(&hubs, 1, 1).await;
    let mut events = stays.presence().changes();
    drop(session);
    assert_eq!(stops.drain().await, 0);
    let stopped = Instant::now();
    let outcome = stays.kick(&5.into()).await.unwrap();
    assert_eq!(outcome.unconfirmed, [] as [&str; 0]);
    let gone = changes(&mut events, 1).await;
    assert_eq!(gone[0].1, PresenceState::Offline);
    // The grace and a sweep, not the rest of a lease.
    assert!(stopped.elapsed() < Duration::from_secs(5), "took {:?}", stopped.elapsed());
}

//! Presence: one suite for one node and for a cluster, and a cluster's bad days.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use futures_util::{
    StreamExt,
    future::{join_all, try_join_all},
    stream::BoxStream,
};
use realtime_core::{
    CloseReason, Hub, Settings, UserId,
    presence::{NoPresence, PresenceChange, PresenceEvent, PresenceState},
};
use realtime_redis::{Incarnation, RedisConfig, RedisControl, RedisPresence};
use realtime_sse::{SseEmitters, SseStream};
use realtime_tests::{Demo, EventStream, Fault, Part, Redis, sign, token, within};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

fn node(redis: &Redis) -> Hub {
    let presence = RedisPresence::make(RedisConfig::single(redis.url()), Incarnation::new("node")).unwrap();
    // Nobody reads the sessions here, and a slow machine takes its time.
    let mut settings = Settings::default();
    settings.outbox.max_stall = Duration::from_secs(300);
    Hub::builder().settings(settings).presence(presence).start().unwrap()
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

type Changes = BoxStream<'static, PresenceEvent>;

/// The next changes of so many users, in the order of users.
async fn changes(events: &mut Changes, count: usize) -> Vec<(UserId, PresenceState, SystemTime)> {
    let mut changes = Vec::new();
    for _ in 0..count {
        match within("a change of presence", events.next()).await {
            Some(PresenceEvent::Changed(PresenceChange { user_id, state, since })) => {
                changes.push((user_id, state, since));
            }
            other => panic!("no change but {other:?}"),
        }
    }
    changes.sort_by_key(|(user, ..)| user.clone());
    changes
}

/// Nothing changes for longer than a user takes to go offline.
async fn no_change(events: &mut Changes) {
    let change = timeout(Duration::from_millis(3500), events.next()).await;
    assert!(change.is_err(), "nobody came or went, but {change:?}");
}

/// What every presence promises, over one node or several.
async fn presence_conforms(hubs: &[Hub]) {
    let hub = |n: usize| &hubs[n % hubs.len()];
    let mut events: Vec<Changes> = hubs.iter().map(|hub| hub.presence().changes()).collect();
    let began = SystemTime::now() - Duration::from_millis(1);
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
    let left = SystemTime::now() - Duration::from_millis(1);
    drop(open_sessions);
    until_count(hubs, 0, 0).await;
    // Every listener was told of all of it once.
    let mut told = Vec::new();
    for events in &mut events {
        let (online, offline) = (changes(events, 4).await, changes(events, 4).await);
        let users: [UserId; 4] = [(-3).into(), 5.into(), 1_925_000_000_000_000_001.into(), text.clone()];
        for (changes, expected, after) in
            [(&online, PresenceState::Online, began), (&offline, PresenceState::Offline, left)]
        {
            assert_eq!(changes.iter().map(|(user, ..)| user.clone()).collect::<Vec<_>>(), users);
            for (user, state, since) in changes {
                assert_eq!(*state, expected, "{user}");
                assert!(*since >= after && *since <= SystemTime::now(), "{user} {state:?} since {since:?}");
            }
        }
        told.push((online, offline));
    }
    told.dedup();
    assert_eq!(told.len(), 1, "all listeners are told the same");
    for events in &mut events {
        no_change(events).await;
    }
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
    // What an emptied Redis is told shows what the node knows.
    redis.cli(&["flushall"]);
    let mut told = BTreeMap::new();
    until_told(&mut events, &mut told, 1).await;
    assert_eq!(told[&1.into()], since);
}

/// Does to the only node what others do to one whose lease has ended, for some of its users; how many are left to it.
fn sweep_some(redis: &Redis, users: usize, lease: u64) -> String {
    let node = redis.cli(&["zrange", "{rt/presence}:nodes", "0", "0"]);
    let entries = format!("{{rt/presence}}:node:{}", node.trim());
    let script = "redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
        for _, user in ipairs(redis.call('HRANDFIELD', KEYS[1], ARGV[3])) do
          redis.call('HDEL', KEYS[1], user)
          redis.call('HDEL', KEYS[3], user)
          redis.call('ZADD', KEYS[4], 1, user)
        end
        return redis.call('HLEN', KEYS[1])";
    let (nodes, refs, leaving) = ("{rt/presence}:nodes", "{rt/presence}:refs", "{rt/presence}:leaving");
    let (lease, users) = (lease.to_string(), users.to_string());
    let arguments = ["eval", script, "4", &entries, nodes, refs, leaving, node.trim(), &lease, &users];
    redis.cli(&arguments).trim().to_owned()
}

#[actix_web::test]
async fn after_a_new_connection_only_what_redis_has_lost_is_written_again() {
    let redis = Redis::start().await;
    let hub = [node(&redis)];
    let _sessions: Vec<_> = (0..1000).map(|n| open(&hub[0], n)).collect();
    until_count(&hub, 1000, 1000).await;
    // Longer than what follows the first connection.
    within("the node to have compared", async {
        while !redis.cli(&["info", "commandstats"]).contains("cmdstat_hscan:") {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // Until the comparison is over, and what follows from it.
    redis.cli(&["config", "resetstat"]);
    until_scripts(&redis, 3).await;
    assert_eq!(sweep_some(&redis, 3, 4_000_000_000_000), "997");
    until_count(&hub, 997, 1000).await;
    redis.cli(&["config", "resetstat"]);
    redis.cli(&["client", "kill", "type", "normal"]);
    let killed = Instant::now();
    within("all users to be there again", async {
        while hub[0].presence().count().await.map(|count| count.users) != Ok(1000) {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(killed.elapsed() < Duration::from_secs(5), "took {:?}", killed.elapsed());
    let stats = redis.cli(&["info", "commandstats"]);
    let written = stats.split_once("cmdstat_hset:calls=").unwrap().1.split(',').next().unwrap();
    assert!(written.parse::<usize>().unwrap() < 50, "{written} HSET");
}

#[actix_web::test]
async fn a_node_that_was_swept_halfway_writes_all_of_its_users_again() {
    let redis = Redis::start().await;
    let hub = [node(&redis)];
    let _sessions: Vec<_> = (0..1200).map(|n| open(&hub[0], n)).collect();
    until_count(&hub, 1200, 1200).await;
    assert_eq!(sweep_some(&redis, 500, 1), "700");
    let swept = Instant::now();
    within("those who were swept to be missing", async {
        while redis.cli(&["zcard", "{rt/presence}:leaving"]).trim() != "0" {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    until_count(&hub, 1200, 1200).await;
    assert!(swept.elapsed() < Duration::from_secs(5), "took {:?}", swept.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hung_for_longer_than_its_lease_has_its_users_back() {
    const USERS: i64 = 1200;
    let redis = Redis::start().await;
    let settings = [("REALTIME__REDIS__URL", &*redis.url())];
    let (survivor, victim) = (Demo::start_with(&settings).await, Demo::start_with(&settings).await);
    let tokens: Vec<String> = (0..USERS).map(token).collect();
    let _streams =
        try_join_all(tokens.iter().map(|token| EventStream::open(&victim, token, None))).await.unwrap();
    let until_total = async |total: i64| {
        within(&format!("{total} users to be online"), async {
            loop {
                let (status, answer) = survivor.api(Method::GET, "/api/online?size=1", None).await;
                assert_eq!(status, 200, "{answer}");
                if answer["total"] == total {
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    };
    until_total(USERS).await;
    victim.pause();
    let paused = Instant::now();
    until_total(0).await;
    assert!(paused.elapsed() < Duration::from_secs(15), "took {:?}", paused.elapsed());
    victim.resume();
    let resumed = Instant::now();
    until_total(USERS).await;
    let back = resumed.elapsed();
    assert!(back < Duration::from_secs(5), "took {back:?}");
    let seen = "Its users are offline within 15 s, and online again within 5 s of its going on.";
    Fault::new("Node: hangs for longer than its lease (SIGSTOP), with 1,200 users", Part::Presence, seen)
        .figures(format_args!("online again after {back:.1?}"))
        .record();
}

/// Tells a session to come back after so long, and ends it.
fn drained(stream: SseStream, retry: Duration) {
    stream.handle().close(CloseReason::Drain { retry });
    drop(stream);
}

#[actix_web::test]
async fn a_node_that_drains_tells_nobody_offline_who_comes_back_when_told() {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_rolling_restart_takes_nobody_offline() {
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
async fn who_was_told_to_come_back_is_waited_for_so_long() {
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
        // User 1 leaves for good where nobody was told anything, and is waited for all the same.
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
async fn a_redis_that_hung_takes_nobody_for_dead() {
    let redis = Redis::start().await;
    let hubs = [node(&redis), node(&redis), node(&redis)];
    let _sessions = [open(&hubs[0], 1), open(&hubs[1], 2), open(&hubs[2], 3)];
    until_count(&hubs, 3, 3).await;
    let mut events: Vec<Changes> = hubs.iter().map(|hub| hub.presence().changes()).collect();
    redis.pause();
    let hung = Instant::now();
    let away = hubs[0].presence().count().await;
    assert!(away.is_err(), "nobody can say now: {away:?}");
    let refused = hung.elapsed();
    assert!(refused < Duration::from_millis(2500), "took {refused:?}");
    // Longer than a lease.
    sleep(Duration::from_secs(10).saturating_sub(hung.elapsed())).await;
    redis.resume();
    let back = Instant::now();
    within("presence to be asked again", async {
        for hub in &hubs {
            while hub.presence().count().await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        }
    })
    .await;
    let back = back.elapsed();
    assert!(back < Duration::from_secs(2), "took {back:?}");
    for events in &mut events {
        no_change(events).await;
    }
    until_count(&hubs, 3, 3).await;
    let seen = "Within 2.5 s an error, from the demo 503. When Redis goes on, everybody is still online, and nobody was \
                said to have gone.";
    Fault::new("Redis: hangs for 10 s (SIGSTOP)", Part::Presence, seen)
        .figures(format_args!("an error after {refused:.1?}, answers {back:.1?} after it goes on"))
        .record();
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
async fn a_presence_that_is_off_says_so() {
    let hub = Hub::builder().presence(|_| NoPresence).start().unwrap();
    let _session = open(&hub, 1);
    let error = hub.presence().is_online(&[1.into()]).await.unwrap_err();
    assert_eq!(error.to_string(), "presence is unavailable: it is switched off");
    hub.presence().count().await.unwrap_err();
    hub.presence().users(0, 1).await.unwrap_err();
    hub.presence().sessions(&1.into()).await.unwrap_err();
}

#[actix_web::test]
async fn an_emptied_or_restarted_redis_is_filled_again() {
    let mut redis = Redis::start().await;
    let hubs = [node(&redis), node(&redis)];
    let _sessions: Vec<_> = (0..700).map(|n| open(&hubs[n as usize % 2], n)).collect();
    // More users than one script takes.
    let _more: Vec<_> = (1000..1700).map(|n| open(&hubs[0], n)).collect();
    until_count(&hubs, 1400, 1400).await;
    let mut events = hubs[1].presence().changes();
    let mut told = BTreeMap::new();
    until_told(&mut events, &mut told, 0).await;
    redis.cli(&["flushall"]);
    let emptied = Instant::now();
    until_count(&hubs, 1400, 1400).await;
    let filled = emptied.elapsed();
    assert!(filled < Duration::from_secs(3), "took {filled:?}");
    let seen = "Within 3 s the nodes have written all of it again; until then users are missing. Who is said to be \
                online once more is so since the same time.";
    Fault::new("Redis: emptied (FLUSHALL)", Part::Presence, seen)
        .figures(format_args!("1,400 users after {filled:.1?}"))
        .record();
    // Who is said to be online once more is so since the same time.
    until_told(&mut events, &mut told, 1400).await;
    redis.cli(&["flushall"]);
    until_count(&hubs, 1400, 1400).await;
    let before = told.clone();
    until_told(&mut events, &mut told, 1400).await;
    assert_eq!(told, before);
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
    let started = Instant::now();
    until_count(&hubs, 1400, 1400).await;
    let filled = started.elapsed();
    assert!(filled < Duration::from_secs(3), "took {filled:?}");
    let seen = "Meanwhile an error, from the demo 503. Within 3 s the nodes have written all of it again.";
    Fault::new("Redis: killed, and started again, empty", Part::Presence, seen)
        .figures(format_args!("1,400 users after {filled:.1?}"))
        .record();
}

/// Takes what is told until it has been about so many users since the last call; gaps may lie between.
async fn until_told(events: &mut Changes, told: &mut BTreeMap<UserId, SystemTime>, users: usize) {
    let mut seen = 0;
    while seen < users {
        match within("a change of presence", events.next()).await {
            Some(PresenceEvent::Changed(change)) => {
                assert_eq!(change.state, PresenceState::Online, "{change:?}");
                told.insert(change.user_id, change.since);
                seen += 1;
            }
            Some(PresenceEvent::Gap) => {}
            None => panic!("the events have ended"),
        }
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn the_users_of_a_killed_node_are_offline_within_15_seconds() {
    let redis = Redis::start().await;
    let (streams, pubsub) = tokio::join!(kill_a_node(&redis, "streams"), kill_a_node(&redis, "pubsub"));
    let seen = "Its users are offline within 15 s, but for those who are on another node as well; subscribers of \
                `presence` are told once about each.";
    Fault::new("Node: killed, with 1,000 users", Part::Presence, seen)
        .figures(format_args!("after {streams:.1?} (`streams`), {pubsub:.1?} (`pubsub`)"))
        .record();
}

/// Kills one of two nodes of a cluster of its own; how long its users stayed online.
async fn kill_a_node(redis: &Redis, mode: &str) -> Duration {
    const USERS: i64 = 1000;
    let settings = [
        ("REALTIME__REDIS__URL", &*redis.url()),
        ("REALTIME__REDIS__MODE", mode),
        ("REALTIME__REDIS__KEYPREFIX", mode),
    ];
    let (survivor, victim) = (Demo::start_with(&settings).await, Demo::start_with(&settings).await);
    let tokens: Vec<String> = (0..USERS).map(token).collect();
    let _streams =
        try_join_all(tokens.iter().map(|token| EventStream::open(&victim, token, None))).await.unwrap();
    // One of them is on both nodes and stays.
    let _stays = survivor.stream(7).await;
    let mut watcher = watcher(&survivor).await;
    let total = async || {
        let (status, answer) = survivor.api(Method::GET, "/api/online?size=1", None).await;
        assert_eq!(status, 200, "{answer}");
        answer["total"].as_i64().unwrap()
    };
    within("all users to be online", async {
        while total().await != USERS + 1 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // Dropping it is a kill -9.
    drop(victim);
    let killed = Instant::now();
    within("the users to be offline", async {
        while total().await != 2 {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(15), "took {took:?}");
    let (_, answer) = survivor.api(Method::GET, "/api/online/7", None).await;
    assert_eq!(answer["sessions"].as_array().unwrap().len(), 1);
    // The survivor says so, once about each of them.
    let mut gone: Vec<i64> = Vec::new();
    while gone.len() < usize::try_from(USERS - 1).unwrap() {
        for change in changed(&mut watcher).await {
            if change["state"] == "offline" {
                gone.push(change["userId"].as_i64().unwrap());
            }
        }
    }
    gone.sort_unstable();
    assert_eq!(gone, (0..USERS).filter(|user| *user != 7).collect::<Vec<_>>());
    took
}

/// A stream in the topic `presence`, of user 1000000.
async fn watcher(demo: &Demo) -> EventStream {
    let claims =
        json!({ "sub": 1_000_000, "clientid": "web", "topics": ["presence"], "exp": 4_000_000_000_u64 });
    let mut stream = EventStream::open(demo, &sign(&claims), None).await.unwrap();
    // It hears of itself when it is the first one of its user.
    while changed(&mut stream).await.iter().all(|change| change["userId"] != 1_000_000) {}
    stream
}

/// The next changes that a stream in the topic `presence` gets.
async fn changed(stream: &mut EventStream) -> Vec<Value> {
    let event = stream.next().await.expect("the stream goes on");
    assert_eq!(event.event, "presence");
    let event: Value = serde_json::from_str(&event.data).unwrap();
    assert_eq!((&event["type"], &event["data"]["gap"]), (&json!("presence"), &Value::Null), "{event}");
    event["data"]["changes"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_in_the_topic_presence_are_told_in_both_modes() {
    let redis = Redis::start().await;
    for mode in ["streams", "pubsub"] {
        let settings = [
            ("REALTIME__REDIS__URL", &*redis.url()),
            ("REALTIME__REDIS__MODE", mode),
            ("REALTIME__REDIS__KEYPREFIX", mode),
        ];
        let (a, b) = (Demo::start_with(&settings).await, Demo::start_with(&settings).await);
        let mut watcher = watcher(&a).await;
        let mut told = Vec::new();
        let (socket, stream) = (b.socket(5).await, b.stream(5).await);
        told.extend(changed(&mut watcher).await);
        drop((socket, stream));
        let late = b.stream(6).await;
        while told.len() < 3 {
            told.extend(changed(&mut watcher).await);
        }
        let states: Vec<_> = told.iter().map(|change| (&change["userId"], &change["state"])).collect();
        let expected = [(5, "online"), (6, "online"), (5, "offline")];
        assert_eq!(json!(states), json!(expected), "{mode}");
        assert!(told.iter().all(|change| change["since"].as_str().unwrap().ends_with('Z')));
        drop(late);
    }
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

/// How often Redis has run a command since its counters were reset.
fn calls(redis: &Redis, command: &str) -> u64 {
    let stats = redis.cli(&["info", "commandstats"]);
    let calls =
        stats.split_once(&format!("cmdstat_{command}:calls=")).and_then(|(_, rest)| rest.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

/// Waits until the scripts of presence have run so often.
async fn until_scripts(redis: &Redis, count: u64) {
    within("leases to be renewed", async {
        while calls(redis, "evalsha") < count {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[actix_web::test]
async fn changes_are_read_only_while_somebody_listens() {
    let redis = Redis::start().await;
    let hubs = [node(&redis), node(&redis)];
    let _session = open(&hubs[0], 1);
    until_count(&hubs, 1, 1).await;
    redis.cli(&["config", "resetstat"]);
    until_scripts(&redis, 6).await;
    assert_eq!(calls(&redis, "xread"), 0, "nobody listens");
    let mut events = hubs[1].presence().changes();
    let _second = open(&hubs[0], 2);
    assert_eq!(changes(&mut events, 1).await[0].0, 2.into());
    assert!(calls(&redis, "xread") > 0);
    drop(events);
    // The read that waits ends first.
    within("the reading to end", async {
        loop {
            redis.cli(&["config", "resetstat"]);
            until_scripts(&redis, 4).await;
            if calls(&redis, "xread") == 0 {
                break;
            }
        }
    })
    .await;
}

#[actix_web::test]
async fn a_listener_that_comes_while_others_come_and_go_misses_nothing_and_begins_without_a_gap() {
    let redis = Redis::start().await;
    let hubs = [node(&redis), node(&redis)];
    let mut sessions = Vec::new();
    for user in 0..30 {
        // Now and then the node has had no word of what the other one has written.
        sessions.push(open(&hubs[0], 1000 + user));
        let mut events = hubs[1].presence().changes();
        sessions.push(open(&hubs[0], user));
        within("the user to be told", async {
            loop {
                match events.next().await.unwrap() {
                    PresenceEvent::Changed(change) if change.user_id == user.into() => break,
                    PresenceEvent::Changed(_) => {}
                    PresenceEvent::Gap => panic!("it begins with a gap"),
                }
            }
        })
        .await;
    }
}

#[actix_web::test]
async fn one_node_of_a_cluster_looks_for_what_has_ended_each_second() {
    let redis = Redis::start().await;
    let hubs: Vec<Hub> = (0..6).map(|_| node(&redis)).collect();
    until_count(&hubs, 0, 0).await;
    redis.cli(&["config", "resetstat"]);
    let began = Instant::now();
    until_scripts(&redis, 30).await;
    // A look asks twice, who has left and who has died.
    let looks = calls(&redis, "zrangebyscore") as f64 / 2.0;
    let seconds = began.elapsed().as_secs_f64();
    assert!(looks <= seconds / 0.9 + 1.0, "{looks} looks in {seconds:.1} s");
    assert!(looks >= 1.0, "nobody has looked in {seconds:.1} s");
}

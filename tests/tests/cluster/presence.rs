//! Presence: nodes, what they are asked and told, and one suite for one node and for a cluster.

mod changes;
mod grace;
mod outages;
mod who_is_online;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, stream::BoxStream};
use realtime_core::{
    CloseReason, Hub, Settings, UserId,
    presence::{PresenceChange, PresenceEvent, PresenceState},
};
use realtime_redis::{Incarnation, RedisConfig, RedisPresence};
use realtime_sse::{SseEmitters, SseStream};
use realtime_tests::{Demo, EventStream, Redis, sign, within};
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

/// Tells a session to come back after so long, and ends it.
fn drained(stream: SseStream, retry: Duration) {
    stream.handle().close(CloseReason::Drain { retry });
    drop(stream);
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

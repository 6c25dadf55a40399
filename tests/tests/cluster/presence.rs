//! Presence: queries and changes on several nodes, and one suite for one node and for a cluster.

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
    // The sessions are not read here, and a slow machine takes its time.
    let mut settings = Settings::default();
    settings.outbox.max_stall = Duration::from_secs(300);
    Hub::builder().settings(settings).presence(presence).start().unwrap()
}

fn open(hub: &Hub, user: impl Into<UserId>) -> SseStream {
    SseEmitters::new(hub.clone()).connect(user, "a token").unwrap()
}

/// Waits until each hub counts these users and sessions.
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

/// The next `count` changes, sorted by user.
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

/// Closes a session with a request to come back after `retry`.
fn drained(stream: SseStream, retry: Duration) {
    stream.handle().close(CloseReason::Drain { retry });
    drop(stream);
}

/// Collects changes until `users` of them have come; gaps may lie between.
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
    // It receives its own user's change when it is that user's first session.
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

/// Number of times that Redis has run a command since its counters were reset.
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

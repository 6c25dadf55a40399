//! Subscribers receive each change of presence once, and without subscribers no changes are read.

use std::time::Instant;

use futures_util::StreamExt;
use realtime_core::{Hub, presence::PresenceEvent};
use realtime_tests::{Demo, Redis, within};
use serde_json::json;

use super::{calls, changed, changes, node, open, until_count, until_scripts, watcher};

#[tokio::test(flavor = "multi_thread")]
async fn sessions_in_the_topic_presence_receive_changes_in_both_modes() {
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
async fn changes_are_read_only_while_there_are_listeners() {
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
        // In some rounds the node has not yet received the other node's changes.
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
    // A sweep queries twice: for users that have left, and for nodes that have died.
    let looks = calls(&redis, "zrangebyscore") as f64 / 2.0;
    let seconds = began.elapsed().as_secs_f64();
    assert!(looks <= seconds / 0.9 + 1.0, "{looks} looks in {seconds:.1} s");
    assert!(looks >= 1.0, "nobody has looked in {seconds:.1} s");
}

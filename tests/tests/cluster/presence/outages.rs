//! When a node is killed or hangs, or Redis hangs or loses its data, presence is correct again within seconds.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use realtime_tests::{Demo, EventStream, Fault, Part, Redis, token, within};
use reqwest::Method;
use tokio::time::sleep;

use super::{Changes, changed, no_change, node, open, until_count, until_scripts, until_told, watcher};

/// Sweeps some users of the only node, as other nodes do after its lease has ended. Returns how many are left to it.
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

#[actix_web::test]
async fn a_redis_that_hung_takes_no_node_for_dead() {
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
    // Users that are reported online again keep the time since which they are.
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

#[actix_web::test]
async fn the_users_of_a_dead_node_are_offline_in_time_however_many_others_come_and_go() {
    let redis = Redis::start().await;
    let (busy, dead) = (node(&redis), node(&redis));
    let session = open(&dead, -1);
    until_count(&[busy.clone(), dead.clone()], 1, 1).await;
    let coming = busy.clone();
    let coming_and_going = actix_web::rt::spawn(async move {
        for user in (0..5000).cycle() {
            drop(open(&coming, user));
            tokio::task::yield_now().await;
        }
    });
    drop((session, dead));
    let died = Instant::now();
    within("the user to be offline", async {
        while busy.presence().is_online(&[(-1).into()]).await != Ok(vec![false]) {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(died.elapsed() < Duration::from_secs(15), "took {:?}", died.elapsed());
    coming_and_going.abort();
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

/// Kills one of two nodes of a cluster of its own. Returns how long its users stayed online.
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
    // The survivor reports each of them offline once.
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

//! A kick that Redis did not take is sent to the other nodes once Redis takes it, and an emptied Redis is filled
//! again. A kick in a Redis that does not know all live nodes waits for those that come back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use realtime_core::{Hub, Settings, auth::TokenHash, control::CommandResult};
use realtime_redis::{Incarnation, RedisConfig, RedisControl};
use realtime_tests::{Fault, Part, Proxy, Redis, within};
use tokio::{join, time::sleep};

use super::{is_kicked, node, open, start, starting_nodes::Gate};

#[actix_web::test]
async fn a_kick_that_failed_is_completed_by_repeating_it() {
    let mut redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let session = open(&a, 1, "t").unwrap();
    redis.kill();
    let error = a.kick(&1.into()).await.unwrap_err();
    assert!(error.to_string().contains("only this node has carried it out"), "{error}");
    assert!(is_kicked(&session));
    drop(session);
    redis.restart().await;
    within("a kick that goes through", async {
        while !a.kick(&1.into()).await.is_ok_and(|outcome| outcome.unconfirmed.is_empty()) {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    open(&b, 1, "t").expect_err("the token is refused everywhere");
    open(&a, 1, "t").expect_err("the token is refused everywhere");
    open(&b, 1, "a new login").unwrap();
    let seen = "A kick that failed while Redis was away is told to the other nodes when it is back, and at the latest \
                when it is repeated.";
    Fault::new("Redis: comes back after a failed kick", Part::Kicks, seen).record();
}

#[actix_web::test]
async fn refusals_of_a_failed_kick_are_sent_as_soon_as_redis_is_back() {
    let mut redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let (here, there) = (open(&a, 1, "t").unwrap(), open(&b, 1, "t").unwrap());
    redis.kill();
    a.kick(&1.into()).await.unwrap_err();
    assert!(is_kicked(&here) && !is_kicked(&there));
    redis.restart().await;
    within("the other session's end", async {
        while !is_kicked(&there) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    open(&b, 1, "t").unwrap_err();
}

#[actix_web::test]
async fn refusals_are_written_again_to_an_emptied_redis() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let _session = open(&a, 1, "t").unwrap();
    a.kick(&1.into()).await.unwrap();
    a.revoke_token(TokenHash::of("stolen"), None).await.unwrap();
    // That of logins without one.
    assert_eq!(a.revoke_token(TokenHash::of(""), None).await.unwrap(), CommandResult::default());
    assert_eq!(redis.cli(&["zcard", "{rt/control}:refused"]), "2");
    redis.cli(&["flushall"]);
    // No node holds a lease now; the kick still waits for both.
    let there = open(&b, 2, "u").unwrap();
    let outcome = a.kick(&2.into()).await.unwrap();
    assert_eq!((outcome.closed, outcome.unconfirmed), (1, vec![]));
    assert!(is_kicked(&there));
    within("the lists", async {
        while redis.cli(&["zcard", "{rt/control}:refused"]) != "3" {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let late = node(&redis, "late").await;
    open(&late, 1, "t").unwrap_err();
    open(&late, 2, "u").unwrap_err();
    open(&late, 7, "stolen").unwrap_err();
}

#[actix_web::test]
async fn refusals_are_written_again_to_a_redis_that_is_emptied_after_a_reconnect() {
    let redis = Redis::start().await;
    let (a, _b) = (node(&redis, "a").await, node(&redis, "b").await);
    let _session = open(&a, 1, "t").unwrap();
    a.kick(&1.into()).await.unwrap();
    redis.cli(&["client", "kill", "type", "normal"]);
    // The leases survive, and are renewed over the new connections.
    for _ in 0..2 {
        let before = leases(&redis);
        within("renewed leases", async {
            while before.iter().zip(leases(&redis)).any(|(before, now)| *before == now) {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    redis.cli(&["flushall"]);
    within("the lists", async {
        while redis.cli(&["zcard", "{rt/control}:refused"]) != "1" {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let late = node(&redis, "late").await;
    open(&late, 1, "t").unwrap_err();
}

/// The ends of the leases of both nodes.
fn leases(redis: &Redis) -> Vec<String> {
    let ends = |name: &str| {
        let lease = "local nodes = redis.call('zrange', KEYS[1], 0, -1, 'withscores')
                     for i = 1, #nodes, 2 do if nodes[i]:sub(1, 2) == ARGV[1] then return nodes[i + 1] end end";
        redis.cli(&["eval", lease, "1", "{rt/control}:nodes", &format!("{name}~")])
    };
    ["a", "b"].map(ends).into()
}

#[actix_web::test]
async fn a_kick_that_redis_did_not_write_is_sent_when_it_writes_again() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let (here, there) = (open(&a, 1, "t").unwrap(), open(&b, 1, "t").unwrap());
    redis.cli(&["config", "set", "min-replicas-to-write", "1"]);
    a.kick(&1.into()).await.unwrap_err();
    assert!(is_kicked(&here) && !is_kicked(&there));
    // The refused logins can still be read.
    let late = start(redis.url(), "late");
    within("a start", late.started()).await;
    redis.cli(&["config", "set", "min-replicas-to-write", "0"]);
    within("the other session's end", async {
        while !is_kicked(&there) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for hub in [&a, &b, &late] {
        within("a refusal", async {
            while open(hub, 1, "t").is_ok() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[actix_web::test]
async fn kicks_go_on_after_a_failover_to_a_clock_that_is_behind() {
    let mut redis = Redis::start().await;
    // Commands of a master whose clock was an hour ahead.
    let ahead = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3600);
    let id = format!("{}-0", ahead.as_millis());
    redis.cli(&["xadd", "{rt/control}:commands", &id, "v", "1", "c", r#"{"command":"kick","user":77}"#]);
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    redis.kill();
    redis.restart().await;
    let there = open(&b, 1, "t").unwrap();
    within("a kick that goes through", async {
        while !a.kick(&1.into()).await.is_ok_and(|outcome| outcome.unconfirmed.is_empty()) {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    within("the session's end", async {
        while !is_kicked(&there) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A kick on a node that has just started, while the node of the session has not come back to Redis yet.
async fn is_final_on_a_node_that_comes_back(redis: &Redis, proxy: &Proxy, lose: impl FnOnce()) {
    let b = start(format!("redis://127.0.0.1:{}/", proxy.port()), "b");
    within("a start", b.started()).await;
    let there = open(&b, 1, "t").unwrap();
    proxy.lead_to(1);
    redis.cli(&["client", "kill", "type", "normal"]);
    lose();
    let late = start(redis.url(), "late");
    within("a start", late.started()).await;
    let user = 1.into();
    let (outcome, ()) = join!(late.kick(&user), async {
        sleep(Duration::from_millis(500)).await;
        proxy.lead_to(redis.port());
    });
    let outcome = outcome.unwrap();
    assert_eq!((outcome.closed, outcome.unconfirmed), (1, vec![]));
    assert!(is_kicked(&there));
    for hub in [&b, &late] {
        open(hub, 1, "t").expect_err("the kick was confirmed");
    }
}

#[actix_web::test]
async fn a_new_node_waits_for_those_that_come_back_to_an_emptied_redis() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.port()).await;
    is_final_on_a_node_that_comes_back(&redis, &proxy, || drop(redis.cli(&["flushall"]))).await;
    let seen = "The kick waits for the nodes that come back within 3 s, and they have carried it out when it is answered.";
    Fault::new("Redis: emptied, and a node that has just started kicks", Part::Kicks, seen).record();
}

#[actix_web::test]
async fn a_new_node_waits_for_those_whose_lease_has_ended_while_redis_was_away() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.port()).await;
    let end = "for _, node in ipairs(redis.call('zrange', KEYS[1], 0, -1)) do redis.call('zadd', KEYS[1], 1, node) end";
    is_final_on_a_node_that_comes_back(&redis, &proxy, || {
        redis.cli(&["eval", end, "1", "{rt/control}:nodes"]);
    })
    .await;
}

#[actix_web::test]
async fn a_kick_in_a_redis_that_takes_no_leases_is_an_error() {
    let redis = Redis::start().await;
    redis.cli(&["acl", "setuser", "leaseless", "on", ">secret", "~*", "&*", "+@all", "-set"]);
    let hub = start(format!("redis://leaseless:secret@127.0.0.1:{}/", redis.port()), "a");
    within("a start", hub.started()).await;
    let session = open(&hub, 1, "t").unwrap();
    let error = hub.kick(&1.into()).await.expect_err("others may be alive").to_string();
    assert!(error.contains("Redis does not know which nodes are alive; it was sent, but may not"), "{error}");
    assert!(is_kicked(&session));
}

#[actix_web::test]
async fn questions_push_no_kick_out_that_a_node_has_missed() {
    let redis = Redis::start().await;
    let a = node(&redis, "a").await;
    let proxy = Proxy::start(redis.port()).await;
    let b = start(format!("redis://127.0.0.1:{}/", proxy.port()), "b");
    within("a start", b.started()).await;
    let session = open(&b, 1, "t").unwrap();
    proxy.lead_to(1);
    redis.cli(&["client", "kill", "type", "normal"]);
    let end = "for _, node in ipairs(redis.call('zrange', KEYS[1], 0, -1)) do \
               if node:sub(1, 2) == 'b~' then redis.call('zrem', KEYS[1], node) end end";
    redis.cli(&["eval", end, "1", "{rt/control}:nodes"]);
    a.kick(&1.into()).await.unwrap();
    assert!(!is_kicked(&session));
    // Almost as many as are kept; with the questions they are more.
    let fill = "for i = 1, 9500 do redis.call('XADD', KEYS[1], '*', 'v', '1', 'x', 'x') end return 1";
    assert_eq!(redis.cli(&["eval", fill, "1", "{rt/control}:commands"]), "1");
    for _ in 0..8 {
        join_all((0..100).map(|_| async { a.explain(&2.into(), 1).await })).await;
    }
    proxy.lead_to(redis.port());
    within("the session's end", async {
        while !is_kicked(&session) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    within("a refusal", async {
        while open(&a, 1, "t").is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    open(&b, 1, "t").unwrap_err();
}

#[actix_web::test]
async fn a_kick_is_carried_out_once_however_many_questions_come_behind_it() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    a.kick(&1.into()).await.unwrap();
    let session = open(&b, 1, "a later login").unwrap();
    // More than a node remembers. They leave the stream as questions do once they have been answered, and the kick stays.
    let ask = "for i = 1, 1000 do redis.call('XADD', KEYS[1], '*', 'v', '1', 'x', 'x') end return 1";
    let answered = "for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do \
                    if entry[2][3] == 'x' then redis.call('XDEL', KEYS[1], entry[1]) end end return 1";
    for _ in 0..21 {
        assert_eq!(redis.cli(&["eval", ask, "1", "{rt/control}:commands"]), "1");
        let outcome = a.kick(&2.into()).await.unwrap();
        assert!(outcome.unconfirmed.is_empty(), "{outcome:?}");
        assert_eq!(redis.cli(&["eval", answered, "1", "{rt/control}:commands"]), "1");
    }
    redis.cli(&["client", "kill", "type", "normal"]);
    within("a kick that goes through", async {
        while !a.kick(&3.into()).await.is_ok_and(|outcome| outcome.unconfirmed.is_empty()) {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(!is_kicked(&session));
    open(&a, 1, "a later login").unwrap();
}

#[actix_web::test]
async fn a_node_that_stops_sends_what_only_it_refuses() {
    let redis = Redis::start().await;
    let b = node(&redis, "b").await;
    let proxy = Proxy::start(redis.port()).await;
    let config = RedisConfig::single(format!("redis://127.0.0.1:{}/", proxy.port()));
    let control = RedisControl::make(config, Incarnation::new("a")).unwrap();
    let mut settings = Settings::default();
    settings.drain.window = Duration::ZERO;
    let a = Hub::builder().node("a").settings(settings).control(control).start().unwrap();
    within("a start", a.started()).await;
    let session = open(&a, 1, "t").unwrap();
    proxy.lead_to(1);
    redis.cli(&["client", "kill", "type", "normal"]);
    a.kick(&1.into()).await.unwrap_err();
    drop(session);
    // The node compares what is refused with a Redis that does not answer yet.
    let gate = Gate::shut(&redis).await;
    proxy.lead_to(gate.port);
    sleep(Duration::from_millis(1500)).await;
    let opens = async {
        sleep(Duration::from_millis(300)).await;
        gate.open.send_replace(true);
    };
    tokio::join!(within("a drain", a.drain()), opens);
    open(&b, 1, "t").expect_err("the other node was told");
}

#[actix_web::test]
async fn a_node_that_compares_many_refusals_keeps_its_lease() {
    let redis = Redis::start().await;
    let proxy = Proxy::start_at(redis.port(), 150_000).await;
    let a = start(format!("redis://127.0.0.1:{}/", proxy.port()), "a");
    within("a start", a.started()).await;
    let fill =
        "for i = 1, 40000 do redis.call('ZADD', KEYS[1], 4e9, string.format('%032x 1', i)) end return 1";
    assert_eq!(redis.cli(&["eval", fill, "1", "{rt/control}:refused"]), "1");
    redis.cli(&["client", "kill", "type", "normal"]);
    let has_lease = "local now = redis.call('TIME') \
                     local lease = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES') \
                     return tonumber(lease[2] or 0) > now[1] * 1000 and 1 or 0";
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(14) {
        assert_eq!(
            redis.cli(&["eval", has_lease, "1", "{rt/control}:nodes"]),
            "1",
            "the lease ended after {:?}",
            begin.elapsed()
        );
        sleep(Duration::from_millis(100)).await;
    }
    within("the comparison", async {
        while open(&a, 1, "t").is_err() || !redis.cli(&["info", "commandstats"]).contains("cmdstat_zscan") {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

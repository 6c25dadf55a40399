//! A kick or a revocation ends sessions on every node and returns once all live nodes have confirmed it, or names
//! those that have not.

use std::time::{Duration, Instant, SystemTime};

use realtime_core::{CloseReason, Hub, MemoryBus, Principal, SessionHandle, auth::TokenHash};
use realtime_redis::{Incarnation, RedisConfig, RedisControl, RedisPresence};
use realtime_sse::{SseEmitters, SseStream};
use realtime_tests::{
    Demo, EventStream, Fault, Part, Redis, Socket,
    conformance::{control_conforms, late_node_conforms},
    token, within,
};
use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

/// A node, once its presence has its lease.
async fn node(redis: &Redis, name: &str) -> Hub {
    node_on(MemoryBus::new(), redis, name).await
}

async fn node_on(bus: MemoryBus, redis: &Redis, name: &str) -> Hub {
    let incarnation = Incarnation::new(name);
    let config = RedisConfig::single(redis.url());
    let presence = RedisPresence::make(config.clone(), incarnation.clone()).unwrap();
    let control = RedisControl::make(config, incarnation).unwrap();
    let hub = Hub::builder().node(name).bus(bus).presence(presence).control(control).start().unwrap();
    within("the node's lease", async {
        while !redis.cli(&["zrange", "{rt/presence}:nodes", "0", "-1"]).contains(&format!("{name}~")) {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    within("a start", hub.started()).await;
    redis.knows_all_nodes();
    hub
}

fn open(hub: &Hub, user: i64, token: &str, issued_at: Option<SystemTime>) -> Result<SseStream, String> {
    let mut principal = Principal::new(user.into(), token);
    principal.issued_at = issued_at;
    SseEmitters::new(hub.clone()).open(principal, None).map_err(|error| error.to_string())
}

async fn until_closing(session: &SessionHandle, reason: CloseReason) {
    within("a session's end", async {
        while session.closing() != Some(reason) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Waits until the hub refuses a login.
async fn until_refused(hub: &Hub, user: i64, token: &str) {
    within("a refusal", async {
        while open(hub, user, token, None).is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[actix_web::test]
async fn a_kick_ends_the_users_sessions_on_every_node_and_is_confirmed() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let (on_a, on_b) = (open(&a, 1, "t1", None).unwrap(), open(&b, 1, "t2", None).unwrap());
    let other = open(&b, 2, "t3", None).unwrap();
    let asked = Instant::now();
    let outcome = a.kick(&1.into()).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1), "took {:?}", asked.elapsed());
    assert_eq!((outcome.closed, outcome.unconfirmed), (2, vec![]));
    for session in [&on_a, &on_b] {
        assert_eq!(session.handle().closing(), Some(CloseReason::Kicked));
    }
    assert_eq!(other.handle().closing(), None);
    // A kicked token is refused on the node that never saw it, too.
    until_refused(&a, 1, "t2").await;
    until_refused(&b, 1, "t1").await;
    open(&a, 1, "a new login", None).unwrap();
}

#[actix_web::test]
async fn a_kick_that_redis_loses_before_it_is_confirmed_is_an_error() {
    let redis = Redis::start().await;
    let a = node(&redis, "a").await;
    let session = open(&a, 1, "t1", None).unwrap();
    // A node that is waited for, and never confirms.
    let lease = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() + Duration::from_secs(9);
    redis.cli(&["zadd", "{rt/control}:nodes", &lease.as_millis().to_string(), "ghost~1"]);
    let kicking = a.clone();
    let kick = tokio::spawn(async move { kicking.kick(&1.into()).await });
    until_closing(&session.handle(), CloseReason::Kicked).await;
    redis.cli(&["flushall"]);
    let error = within("an answer", kick).await.unwrap().expect_err("nobody else has it").to_string();
    assert!(error.contains("Redis has lost it; it was sent, but may not"), "{error}");
    a.kick(&1.into()).await.expect("it may be repeated");
}

#[actix_web::test]
async fn one_session_is_kicked_wherever_it_is() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let (first, second) = (open(&b, 1, "t1", None).unwrap(), open(&b, 1, "t2", None).unwrap());
    let id = first.handle().id();
    assert_eq!(a.kick_session(&1.into(), id).await.unwrap().closed, 1);
    assert_eq!(first.handle().closing(), Some(CloseReason::Kicked));
    assert_eq!(second.handle().closing(), None);
}

#[actix_web::test]
async fn a_revocation_outlives_the_node_that_gave_it() {
    let redis = Redis::start().await;
    let now = SystemTime::now();
    let before = Some(now - Duration::from_secs(60));
    {
        let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
        let session = open(&b, 1, "stolen", before).unwrap();
        let older = open(&b, 2, "older", before).unwrap();
        let newer = open(&b, 2, "newer", Some(now + Duration::from_secs(60))).unwrap();
        let until = Some(now + Duration::from_secs(3600));
        assert_eq!(a.revoke_token(TokenHash::of("stolen"), until).await.unwrap().closed, 1);
        assert_eq!(a.revoke_user(&2.into(), now).await.unwrap().closed, 1);
        until_closing(&session.handle(), CloseReason::Revoked).await;
        until_closing(&older.handle(), CloseReason::Revoked).await;
        assert_eq!(newer.handle().closing(), None);
        a.kick(&3.into()).await.unwrap();
    }
    // A node that starts later refuses what was revoked, and ends no session for an old kick.
    let late = node(&redis, "late").await;
    let back = open(&late, 3, "back again", None).unwrap();
    until_refused(&late, 1, "stolen").await;
    until_refused(&late, 2, "older").await;
    open(&late, 2, "newer", Some(now + Duration::from_secs(60))).unwrap();
    assert_eq!(back.handle().closing(), None);
    let seen = "It refuses what was revoked before. Old kicks do not end new sessions.";
    Fault::new("Node: starts after a revocation", Part::Kicks, seen).record();
}

#[actix_web::test]
async fn without_redis_a_kick_is_carried_out_here_and_reports_that_others_lack_it() {
    let mut redis = Redis::start().await;
    let hub = node(&redis, "a").await;
    let session = open(&hub, 1, "t", None).unwrap();
    redis.kill();
    let error = hub.kick(&1.into()).await.unwrap_err();
    assert!(error.to_string().contains("only this node has carried it out"), "{error}");
    assert_eq!(session.handle().closing(), Some(CloseReason::Kicked));
    let seen = "A kick is carried out on its own node, and an error that says so, from the demo 503.";
    Fault::new("Redis: cannot be reached", Part::Kicks, seen).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demos_kick_reaches_every_node_and_names_the_one_that_hangs() {
    let redis = Redis::start().await;
    let start = async |name: &str| {
        let url = redis.url();
        let settings = [("REALTIME__REDIS__URL", url.as_str()), ("REALTIME__SERVER__NODE", name)];
        let demo = Demo::start_with(&settings).await;
        within("the node's lease", async {
            while !redis.cli(&["zrange", "{rt/presence}:nodes", "0", "-1"]).contains(&format!("{name}~")) {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        demo
    };
    let (a, b) = (start("node-a").await, start("node-b").await);
    let (one, two) = (token(1), token(1));
    let mut socket = Socket::open(&a, &one, &["realtime.v1"], None).await.unwrap();
    let mut stream = EventStream::open(&b, &two, None).await.unwrap();
    assert_eq!(socket.json().await["type"], "hello");
    let (_, answer) = a.api(Method::DELETE, "/api/online/1", None).await;
    assert_eq!(answer, json!({ "closed": 2 }));
    assert_eq!(socket.json().await, json!({ "type": "bye", "reason": "kicked", "retry": null }));
    assert_eq!(socket.close_code().await, 4409);
    assert!(stream.next().await.is_none());
    within("the other node's refusal", async {
        while EventStream::open(&a, &two, None).await.err() != Some(204) {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;

    let signal = |signal: &str| {
        let pid = b.pid().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
    };
    let _waiting = a.stream(5).await;
    signal("-STOP");
    let (status, answer) = a.api(Method::DELETE, "/api/online/5", None).await;
    signal("-CONT");
    assert_eq!((status, &answer), (200, &json!({ "closed": 1, "unconfirmed": ["node-b"] })));
    let seen = "After 1 s the answer names it as `unconfirmed`.";
    Fault::new("Node: hangs", Part::Kicks, seen).record();
}

#[actix_web::test]
async fn the_control_of_a_cluster_conforms() {
    let (redis, bus) = (Redis::start().await, MemoryBus::new());
    let hubs = [node_on(bus.clone(), &redis, "a").await, node_on(bus.clone(), &redis, "b").await];
    control_conforms(&hubs).await;
    late_node_conforms(&hubs, async || node_on(bus, &redis, "late").await).await;
}

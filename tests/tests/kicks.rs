//! A kick and a revocation are final: whatever was down, starting or closing when they came.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use realtime_core::{CloseReason, Hub, Principal, auth::TokenHash, error::ConnectError};
use realtime_redis::{Incarnation, RedisConfig, RedisControl};
use realtime_sse::{SseEmitters, SseStream};
use realtime_tests::{Embedded, Fault, Part, Redis, Server, Socket, token, within};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

fn start(url: impl Into<String>, name: &str) -> Hub {
    let control = RedisControl::make(RedisConfig::single(url), Incarnation::new(name)).unwrap();
    Hub::builder().node(name).control(control).start().unwrap()
}

/// A node, once it takes connections in and others wait for it.
async fn node(redis: &Redis, name: &str) -> Hub {
    let hub = start(redis.url(), name);
    within("the node's lease", async {
        while !redis.cli(&["zrange", "{rt/control}:nodes", "0", "-1"]).contains(&format!("{name}~")) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    within("a start", hub.started()).await;
    hub
}

fn open(hub: &Hub, user: i64, token: &str) -> Result<SseStream, String> {
    SseEmitters::new(hub.clone()).connect(user, token).map_err(|error| error.to_string())
}

fn is_kicked(stream: &SseStream) -> bool {
    stream.handle().closing() == Some(CloseReason::Kicked)
}

/// Something between a node and Redis that holds back what the node says, and says nothing, while it is shut.
struct Gate {
    port: u16,
    open: watch::Sender<bool>,
}

impl Gate {
    async fn shut(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, server) = (listener.local_addr().unwrap().port(), redis.port());
        let (open, opened) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut opened = opened.clone();
                tokio::spawn(async move {
                    opened.wait_for(|open| *open).await.ok();
                    let mut server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                    copy_bidirectional(&mut client, &mut server).await.ok();
                });
            }
        });
        Self { port, open }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

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
async fn what_a_failed_kick_refused_is_told_as_soon_as_redis_is_back() {
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
async fn a_kick_refuses_the_tokens_of_closing_sessions_too() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let leaving = open(&a, 1, "t").unwrap();
    leaving.handle().close(CloseReason::NoPong);
    assert_eq!(b.kick(&1.into()).await.unwrap().closed, 0);
    for hub in [&a, &b] {
        open(hub, 1, "t").expect_err("the client was told to come back, and then kicked");
    }
    let alone = Hub::builder().start().unwrap();
    let leaving = open(&alone, 1, "t").unwrap();
    leaving.handle().close(CloseReason::NoPong);
    assert_eq!(alone.kick(&1.into()).await.unwrap().closed, 0);
    open(&alone, 1, "t").unwrap_err();
}

#[actix_web::test]
async fn whoever_dials_another_node_during_a_kick_keeps_nothing() {
    const ROUNDS: usize = 30;
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let mut kept = 0;
    for round in 0..ROUNDS {
        let token = format!("token {round}");
        let first = open(&a, 1, &token).unwrap();
        let handle = first.handle();
        let dial = async {
            while handle.closing().is_none() {
                tokio::task::yield_now().await;
            }
            drop(first);
            open(&b, 1, &token)
        };
        let user = 1.into();
        let (outcome, second) = tokio::join!(a.kick(&user), dial);
        assert_eq!(outcome.unwrap().unconfirmed, [] as [&str; 0]);
        // Once the kick is confirmed there is nothing to wait for.
        kept += usize::from(second.is_ok_and(|second| !is_kicked(&second)));
        open(&b, 1, &token).unwrap_err();
    }
    assert_eq!(kept, 0, "of {ROUNDS}");
}

#[actix_web::test]
async fn a_node_that_restarts_lets_no_kicked_token_in() {
    const ROUNDS: usize = 8;
    let redis = Redis::start().await;
    let a = node(&redis, "a").await;
    let mut let_in = 0;
    for round in 0..ROUNDS {
        let token = format!("token {round}");
        let session = open(&a, 1, &token).unwrap();
        a.kick(&1.into()).await.unwrap();
        assert!(is_kicked(&session));
        let b = start(redis.url(), "b");
        // As fast as the port is open, and on until the node takes others in.
        within("a start", async {
            loop {
                let_in += usize::from(open(&b, 1, &token).is_ok());
                if open(&b, 2, "another's").is_ok() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        let_in += usize::from(open(&b, 1, &token).is_ok());
    }
    assert_eq!(let_in, 0);
    let seen = "It takes nobody in before it has read what is refused: for up to 5 s its handshakes wait, then they are \
                told to come back.";
    Fault::new("Node: starts after a kick", Part::Kicks, seen).record();
}

#[actix_web::test]
async fn a_node_that_cannot_reach_redis_at_its_start_takes_nobody_in_until_it_can() {
    let redis = Redis::start().await;
    let a = node(&redis, "a").await;
    let _session = open(&a, 1, "t").unwrap();
    a.kick(&1.into()).await.unwrap();
    let gate = Gate::shut(&redis).await;
    let b = start(gate.url(), "b");
    assert_eq!(open(&b, 1, "t").unwrap_err(), ConnectError::Starting.to_string());
    open(&b, 2, "another's").expect_err("nobody knows yet what is refused");
    assert_eq!(b.ready().unwrap_err(), "the refused logins have not been read yet");

    // Over sockets a handshake waits a while, and is then told to come back.
    let server = Embedded::start(b.clone());
    let (one, two, three) = (token(1), token(2), token(3));
    let asked = Instant::now();
    let url = format!("http://127.0.0.1:{}/resource/sse?Authorization={one}", server.port());
    let upgrade =
        format!("http://127.0.0.1:{}/resource/websocket?clientid=web&Authorization={two}", server.port());
    let upgrade = reqwest::Client::new()
        .get(upgrade)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let (stream, socket) = tokio::join!(reqwest::get(url), upgrade.send());
    assert!(asked.elapsed() > Duration::from_secs(4), "took {:?}", asked.elapsed());
    assert!(stream.unwrap().text().await.unwrap().starts_with(":disconnected\nretry:"));
    let socket = socket.unwrap();
    assert_eq!(socket.status(), 503);
    let retry: u64 = socket.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((2..=5).contains(&retry), "{retry}");

    let socket = Socket::open(&server, &three, &["realtime.v1"], None);
    let open_gate = async {
        sleep(Duration::from_millis(100)).await;
        gate.open.send_replace(true);
    };
    let (socket, ()) = tokio::join!(socket, open_gate);
    assert_eq!(socket.expect("it was let in when the node had started").json().await["type"], "hello");
    within("a start", b.started()).await;
    open(&b, 2, "another's").unwrap();
    open(&b, 1, "t").unwrap_err();
}

#[actix_web::test]
async fn without_a_token_of_its_own_only_the_kicked_users_sessions_end() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    for token in ["", "the same for all"] {
        let (one, two) = (open(&a, 1, token).unwrap(), open(&b, 2, token).unwrap());
        assert_eq!(a.kick(&1.into()).await.unwrap().closed, 1);
        assert!(is_kicked(&one) && !is_kicked(&two));
        for hub in [&a, &b] {
            open(hub, 3, token).expect("who was not kicked is let in");
            // Where there is no token there is nothing to refuse.
            assert_eq!(open(hub, 1, token).is_ok(), token.is_empty(), "{token:?}");
        }
    }
}

#[actix_web::test]
async fn every_session_of_a_kicked_sessions_token_ends() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let (tab, other_tab) = (open(&a, 1, "t").unwrap(), open(&a, 1, "t").unwrap());
    let (elsewhere, other_login) = (open(&b, 1, "t").unwrap(), open(&b, 1, "another").unwrap());
    let id = tab.handle().id().to_string();
    let outcome = b.kick_session(&1.into(), &id).await.unwrap();
    assert_eq!((outcome.closed, outcome.unconfirmed), (3, vec![]));
    assert!([&tab, &other_tab, &elsewhere].into_iter().all(is_kicked));
    assert!(!is_kicked(&other_login));
    for hub in [&a, &b] {
        open(hub, 1, "t").unwrap_err();
    }
}

#[actix_web::test]
async fn a_login_of_the_revocations_second_is_taken_on_every_node() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
    let revoked = at(second) + Duration::from_millis(700);
    a.revoke_user(&1.into(), revoked).await.unwrap();
    let alone = Hub::builder().start().unwrap();
    alone.revoke_user(&1.into(), revoked).await.unwrap();
    for hub in [&a, &b, &alone] {
        let open = |issued_at| {
            let mut principal = Principal::new(1.into(), "t");
            principal.issued_at = Some(issued_at);
            SseEmitters::new(hub.clone()).open(principal, None)
        };
        open(at(second)).expect("signed right after the revocation, in whole seconds");
        open(at(second - 1)).expect_err("signed before");
    }
}

#[actix_web::test]
async fn a_redis_that_was_emptied_is_told_again_what_is_refused() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let _session = open(&a, 1, "t").unwrap();
    a.kick(&1.into()).await.unwrap();
    a.revoke_token(TokenHash::of("stolen"), None).await.unwrap();
    redis.cli(&["flushall"]);
    // Nobody holds a lease now, and still this waits for both.
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
async fn refusals_outlive_any_number_of_orders() {
    let redis = Redis::start().await;
    let a = node(&redis, "a").await;
    let _session = open(&a, 1, "t").unwrap();
    a.kick(&1.into()).await.unwrap();
    redis.cli(&["xtrim", "{rt/control}:commands", "MAXLEN", "0"]);
    let late = node(&redis, "late").await;
    open(&late, 1, "t").unwrap_err();
}

#[actix_web::test]
async fn a_node_starts_at_once_however_much_is_refused() {
    let redis = Redis::start().await;
    let order = r#"{"command":"revoke","user":1,"tokens":[{"token":"00000000000000000000000000000001"}]}"#;
    let fill = "for i = 1, 20000 do redis.call('ZADD', KEYS[1], 4e9, string.format('%032x 1', i)) end \
                for i = 1, 10000 do redis.call('XADD', KEYS[2], '*', 'v', '1', 'c', ARGV[1]) end return 1";
    assert_eq!(redis.cli(&["eval", fill, "2", "{rt/control}:refused", "{rt/control}:commands", order]), "1");
    let asked = Instant::now();
    let a = start(redis.url(), "a");
    within("a start", a.started()).await;
    assert!(asked.elapsed() < Duration::from_secs(3), "took {:?}", asked.elapsed());
}

#[actix_web::test]
async fn a_kick_that_redis_did_not_write_is_told_when_it_writes_again() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let (here, there) = (open(&a, 1, "t").unwrap(), open(&b, 1, "t").unwrap());
    redis.cli(&["config", "set", "min-replicas-to-write", "1"]);
    a.kick(&1.into()).await.unwrap_err();
    assert!(is_kicked(&here) && !is_kicked(&there));
    // What it needs to know can be read.
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
async fn orders_of_older_nodes_are_carried_out() {
    let redis = Redis::start().await;
    let order = |json: String| redis.cli(&["xadd", "{rt/control}:commands", "*", "v", "1", "c", &json]);
    let hash = |token: &str| serde_json::to_string(&TokenHash::of(token)).unwrap();
    // They keep what is refused in the orders alone, and do not say whose tokens it is.
    order(format!(r#"{{"command":"revokeToken","token":{}}}"#, hash("stolen")));
    order(format!(r#"{{"command":"revoke","tokens":[{{"token":{}}}]}}"#, hash("kicked before")));
    order(r#"{"command":"kick","user":2}"#.to_owned());
    let a = node(&redis, "a").await;
    open(&a, 1, "stolen").unwrap_err();
    open(&a, 1, "kicked before").unwrap_err();
    let (one, two) = (open(&a, 1, "t").unwrap(), open(&a, 2, "t2").unwrap());
    order(format!(r#"{{"command":"revoke","tokens":[{{"token":{}}}]}}"#, hash("t")));
    within("the session's end", async {
        while !is_kicked(&one) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(!is_kicked(&two), "the kick was before it came");
    // A node of this version tells those after it in the new form.
    redis.cli(&["del", "{rt/control}:commands"]);
    within("the list", async {
        while redis.cli(&["zcard", "{rt/control}:refused"]) != "2" {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    open(&node(&redis, "b").await, 1, "stolen").unwrap_err();
}

#[actix_web::test]
async fn kicks_go_on_after_a_failover_to_a_clock_that_is_behind() {
    let mut redis = Redis::start().await;
    // Orders of a master whose clock was an hour ahead.
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

#[actix_web::test]
async fn receipts_do_not_stay() {
    let redis = Redis::start().await;
    let a = Arc::new(node(&redis, "a").await);
    let _session = open(&a, 1, "t").unwrap();
    a.kick(&1.into()).await.unwrap();
    let keys = redis.cli(&["keys", "{rt/control}:receipts:*"]);
    assert!(!keys.is_empty());
    for key in keys.lines() {
        assert_ne!(redis.cli(&["ttl", key]), "-1", "{key}");
    }
}

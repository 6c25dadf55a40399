//! While Redis cannot be asked about a login, the client is asked to retry later; it is not refused for good.

use std::time::{Duration, Instant};

use realtime_redis::{RedisConfig, SaTokenConfig, Topology};
use realtime_tests::{
    Embedded, Fault, JAVA_SECRET, JavaLogins, Part, Payload, RedisCluster, RedisSentinel, Socket, within,
};
use tokio::time::sleep;

use super::{PERIOD, admits, ask, config, refusal_of, rounds, serve};

fn config_at(topology: Topology) -> SaTokenConfig {
    SaTokenConfig::new("", JAVA_SECRET).redis(RedisConfig::new(topology))
}

/// A login that cannot be checked: a WebSocket gets 503, a stream gets 200 and the time after which to come back.
async fn login_cannot_be_checked(server: &Embedded, token: &str) {
    assert_eq!(Socket::open(server, token, &[], None).await.err(), Some(503));
    let (status, response) = ask(server, &format!("Authorization=Bearer%20{token}"), &[]).await;
    assert_eq!((status, &response.headers()["content-type"]), (200, &"text/event-stream".parse().unwrap()));
    let text = response.text().await.unwrap();
    let retry = text.strip_prefix(":disconnected\nretry:").and_then(|rest| rest.strip_suffix("\n\n"));
    let retry: u64 = retry.unwrap_or_else(|| panic!("{text:?}")).parse().unwrap();
    assert!((1500..=4500).contains(&retry), "around 3 s, and not the same for all: {retry}");
}

#[actix_web::test]
async fn an_unavailable_redis_refuses_no_login_for_good() {
    let mut java = JavaLogins::start().await;
    let (server, _) = serve(config(&java.redis));
    let (token, query) = (java.login(1), format!("Authorization=Bearer%20{}", java.login(1)));
    admits(&server, &query, &[]).await;
    java.redis.kill();
    login_cannot_be_checked(&server, &token).await;
    // A malformed token is refused without a working Redis.
    assert_eq!(refusal_of(&server, "abc").await, "token is malformed");
    java.redis.restart().await;
    found_again(&server, &java.login(1)).await;
    let seen = "Handshakes are refused for now, not for good: 503, a stream is told to come back.";
    Fault::new("Redis: cannot be reached", Part::Logins, seen).record();
}

#[actix_web::test]
async fn a_redis_that_hangs_is_unavailable_once_the_time_limit_is_over() {
    let java = JavaLogins::start().await;
    let limit = Duration::from_millis(500);
    let redis = RedisConfig::single(java.redis.url()).command_timeout(limit);
    let (server, _) = serve(config(&java.redis).redis(redis));
    let token = java.login(1);
    admits(&server, &format!("Authorization=Bearer%20{token}"), &[]).await;
    java.redis.pause();
    // The first uses open connections, the second has to open new ones.
    for _ in 0..2 {
        let start = Instant::now();
        login_cannot_be_checked(&server, &token).await;
        let waited = start.elapsed();
        assert!(waited >= limit && waited < 6 * limit, "two look-ups took {waited:?}");
    }
    java.redis.resume();
    found_again(&server, &token).await;
    let seen = "Handshakes are refused for now once the time limit is over.";
    Fault::new("Redis: hangs", Part::Logins, seen).record();
}

#[actix_web::test]
async fn logins_are_found_under_sentinel_also_after_a_failover() {
    let mut redis = RedisSentinel::start().await;
    let (server, _) = serve(config_at(redis.topology()));
    let login = |redis: &RedisSentinel| log_in(redis, 1);
    let token = login(&redis);
    admits(&server, &format!("Authorization=Bearer%20{token}"), &[]).await;
    assert!(refusal_of(&server, &Payload::of(1).sign()).await.starts_with("token is unknown"));
    let old = redis.master().unwrap();
    redis.kill(old);
    login_cannot_be_checked(&server, &token).await;
    redis.failed_over_from(old).await;
    // As soon as the connections lead to the new master.
    let token = login(&redis);
    found_again(&server, &token).await;
    let seen = "Handshakes are refused for now, not for good, until another one is promoted.";
    Fault::new("Sentinel: the master is killed", Part::Logins, seen).record();
}

#[actix_web::test]
async fn a_master_that_was_isolated_is_asked_no_more() {
    let redis = RedisSentinel::start().await;
    let (server, authenticator) = serve(config_at(redis.topology()));
    let _watch = authenticator.watch(server.hub.clone(), PERIOD);
    let ended = log_in(&redis, 1);
    let mut socket = Socket::open(&server, &ended, &[], None).await.unwrap();
    let old = redis.isolate_master().await;
    let new = redis.master().unwrap();
    // It still answers, without anything written from now on.
    let (key, token) = (JavaLogins::keys(&Payload::of(1)).1[0][1].clone(), log_in(&redis, 2));
    let key = key.rsplit_once(':').map(|(stem, _)| format!("{stem}:{ended}")).unwrap();
    assert_eq!(redis.server(new).cli(&["SET", &key, "\"-5\""]), "OK");
    assert!(!redis.server(old).cli(&["GET", &key]).contains("-5"));
    found_again(&server, &token).await;
    assert_eq!(socket.close_code().await, 4409);
    assert_eq!(refusal_of(&server, &ended).await, "token was kicked out");
    let seen = "Logins are looked up at the new master soon after the sentinels name it.";
    Fault::new("Sentinel: an old master is isolated with its clients", Part::Logins, seen).record();
}

#[actix_web::test]
async fn many_handshakes_at_once_share_a_connection() {
    let java = JavaLogins::start().await;
    let (server, authenticator) = serve(config(&java.redis));
    let _watch = authenticator.watch(server.hub.clone(), PERIOD);
    let tokens: Vec<_> = (1..=60).map(|user| java.login(user)).collect();
    let open = tokens.iter().map(|token| Socket::open(&server, token, &[], None));
    let sockets = within("all handshakes", futures_util::future::join_all(open)).await;
    assert!(sockets.iter().all(Result::is_ok));
    rounds(&java.redis, 2).await;
    let clients = java.redis.cli(&["CLIENT", "LIST"]);
    // One for the handshakes, at most two for the watch, and the one that asks.
    assert!(clients.lines().count() <= 4, "{clients}");
}

#[actix_web::test]
async fn a_connection_that_was_closed_while_idle_costs_no_handshake() {
    let java = JavaLogins::start().await;
    let (server, _) = serve(config(&java.redis));
    let query = format!("Authorization=Bearer%20{}", java.login(1));
    admits(&server, &query, &[]).await;
    for _ in 0..3 {
        // As after the server's `timeout`, or a firewall's.
        java.redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        admits(&server, &query, &[]).await;
    }
}

/// Writes the keys of a login to the master that the sentinels name. Returns its token.
fn log_in(redis: &RedisSentinel, user: i64) -> String {
    let (token, keys) = JavaLogins::keys(&Payload::of(user));
    keys.iter().for_each(|set| assert_eq!(redis.cli(&set.each_ref().map(String::as_str)), "OK"));
    token
}

/// Waits until a login opens a WebSocket.
async fn found_again(server: &Embedded, token: &str) {
    within("logins to be found again", async {
        while Socket::open(server, token, &[], None).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[actix_web::test]
async fn logins_are_found_in_a_cluster_wherever_their_keys_are() {
    let redis = RedisCluster::start().await;
    let (server, authenticator) = serve(config_at(redis.topology()));
    let _watch = authenticator.watch(server.hub.clone(), PERIOD);
    let (mut sockets, mut logins) = (Vec::new(), Vec::new());
    for user in 1..=6 {
        let (token, keys) = JavaLogins::keys(&Payload::of(user));
        keys.iter().for_each(|set| assert_eq!(redis.cli(&set.each_ref().map(String::as_str)), "OK"));
        sockets.push(Socket::open(&server, &token, &[], None).await.unwrap());
        logins.push(keys[0][1].clone());
    }
    assert!(refusal_of(&server, &Payload::of(1).sign()).await.starts_with("token is unknown"));
    // The watch asks about all of them at once, and ends only the one that has gone.
    redis.cli(&["DEL", &logins[2]]);
    assert_eq!(sockets[2].close_code().await, 4401);
    for user in [1, 2, 4, 5, 6] {
        assert_eq!(server.hub.sessions(&user.into()).len(), 1, "{user}");
    }
}

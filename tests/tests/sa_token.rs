//! Logins of Java nodes: Sa-Token's tokens and keys, over real sockets and a real Redis.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{
    io::Read,
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::Algorithm;
use realtime_core::{
    CloseReason, Hub, Principal, UserId,
    auth::{ClientIdPolicy, Credential},
};
use realtime_redis::{RedisConfig, SaTokenAuthenticator, SaTokenConfig, SaTokenStyle, Topology};
use realtime_tests::{
    Demo, Embedded, EventStream, Fault, JAVA_SECRET, JavaLogins, Part, Payload, Redis, RedisCluster,
    RedisSentinel, Server, Socket, within,
};
use serde_json::{Value, json};
use tokio::time::sleep;

const PERIOD: Duration = Duration::from_millis(200);

fn config(redis: &Redis) -> SaTokenConfig {
    SaTokenConfig::new(redis.url(), JAVA_SECRET)
}

fn config_at(topology: Topology) -> SaTokenConfig {
    SaTokenConfig::new("", JAVA_SECRET).redis(RedisConfig::new(topology))
}

fn serve(config: SaTokenConfig) -> (Embedded, SaTokenAuthenticator) {
    let authenticator = SaTokenAuthenticator::new(config).unwrap();
    let server = Embedded::start_with(Hub::builder().start().unwrap(), Arc::new(authenticator.clone()));
    (server, authenticator)
}

/// What the stream endpoint says to a request.
async fn ask(server: &Embedded, query: &str, headers: &[(&'static str, &str)]) -> (u16, reqwest::Response) {
    let mut request =
        reqwest::Client::new().get(format!("http://127.0.0.1:{}/resource/sse?{query}", server.port()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = within("an answer", request.send()).await.unwrap();
    (response.status().as_u16(), response)
}

/// Asks both transports, which have to refuse with 401, and returns why.
async fn refusal(server: &Embedded, query: &str, headers: &[(&'static str, &str)]) -> String {
    let path = format!("/resource/websocket?{query}");
    assert_eq!(Socket::open_at(server, &path, headers).await.err(), Some(401), "{path}");
    let (status, response) = ask(server, query, headers).await;
    let answer: Value = response.json().await.unwrap();
    assert_eq!((status, &answer["code"], &answer["data"]), (401, &json!(401), &Value::Null), "{answer}");
    answer["msg"].as_str().unwrap().to_owned()
}

async fn refusal_of(server: &Embedded, token: &str) -> String {
    let message = refusal(server, &format!("clientid=web&Authorization=Bearer%20{token}"), &[]).await;
    assert!(token.is_empty() || !message.contains(token), "a refusal shows the token");
    message
}

/// Both transports let a request in.
async fn admits(server: &Embedded, query: &str, headers: &[(&'static str, &str)]) {
    let path = format!("/resource/websocket?{query}");
    Socket::open_at(server, &path, headers).await.unwrap_or_else(|status| panic!("{status} for {path}"));
    let (status, response) = ask(server, query, headers).await;
    assert_eq!((status, &response.headers()["content-type"]), (200, &"text/event-stream".parse().unwrap()));
}

#[actix_web::test]
async fn a_login_of_a_java_node_opens_both_transports() {
    let java = JavaLogins::start().await;
    let (server, _) = serve(config(&java.redis));
    let snowflake = 1_925_000_000_000_000_001;
    for (payload, user) in [
        (Payload::of(1), UserId::from(1)),
        (Payload::of(snowflake), snowflake.into()),
        (Payload { user_id: json!("2"), ..Payload::of(2) }, 2.into()),
    ] {
        let token = java.keep(&payload);
        let mut socket = Socket::open(&server, &token, &[], None).await.unwrap();
        let mut stream = EventStream::open(&server, &token, None).await.unwrap();
        let sessions = server.hub.sessions(&user);
        let mut expected = Principal::new(user.clone(), &token);
        expected.client_id = Some("web".into());
        expected.credential = Some(Credential::new(&token));
        assert_eq!(sessions.len(), 2);
        assert!(sessions.iter().all(|session| *session.principal() == expected));
        server.sockets.send_message(user.clone(), "to a socket").unwrap();
        server.emitters.send_message(user, "to a stream").unwrap();
        assert_eq!((socket.text().await, stream.data().await), ("to a socket".into(), "to a stream".into()));
    }
}

#[actix_web::test]
async fn a_token_that_was_not_signed_by_a_java_node_is_refused() {
    let java = JavaLogins::start().await;
    let (server, _) = serve(config(&java.redis));
    let payload = Payload::of(1);
    let good = payload.sign();
    let [header, body, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
    assert_eq!(header, "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9", "the header that Java writes");
    // {"alg":"none"}, in two forms
    let none = format!("eyJhbGciOiJub25lIn0.{body}.");
    let none_signed = format!("eyJhbGciOiJub25lIn0.{body}.{signature}");
    for (token, problem) in [
        (payload.sign_with(Algorithm::HS256, "another secret"), "token signature is wrong"),
        (payload.sign_with(Algorithm::HS512, JAVA_SECRET), "token algorithm is not HS256"),
        (payload.sign_with(Algorithm::HS384, JAVA_SECRET), "token algorithm is not HS256"),
        (none, "token algorithm is not HS256"),
        (none_signed, "token algorithm is not HS256"),
        (format!("{header}.{body}"), "token is malformed"),
        ("abc".to_owned(), "token is malformed"),
        (String::new(), "Authorization is missing"),
    ] {
        // Redis knows them all, so it is the signature that counts.
        java.set_login(&token, "sys_user:1");
        java.set_last_active(&token, "1");
        assert_eq!(refusal_of(&server, &token).await, problem, "{token}");
    }
    for (payload, problem) in [
        (Payload { login_type: "app".into(), ..payload.clone() }, "token is of another login type"),
        (Payload { user_id: Value::Null, ..payload.clone() }, "token claims cannot be read"),
        (Payload { user_id: json!("a b"), ..payload }, "token claims cannot be read"),
    ] {
        assert_eq!(refusal_of(&server, &java.keep(&payload)).await, problem);
    }
}

#[actix_web::test]
async fn what_redis_says_of_a_login_is_the_last_word() {
    let java = JavaLogins::start().await;
    let (server, _) = serve(config(&java.redis));
    let login = |change: &dyn Fn(&str)| {
        let token = java.login(1);
        change(&token);
        token
    };
    let mut messages = Vec::new();
    for (token, problem) in [
        (Payload::of(1).sign(), "token is unknown"),
        (login(&|token| java.log_out(token)), "token is unknown"),
        (login(&|token| java.kick_out(token)), "token was kicked out"),
        (login(&|token| java.replace(token)), "token was replaced"),
        (login(&|token| java.set_login(token, "-3")), "token has expired"),
        (login(&|token| java.set_login(token, "-6")), "token is frozen"),
        (login(&|token| java.set_login(token, "-2")), "token is marked as invalid (-2)"),
        (login(&|token| java.set_login(token, "sys_user:2")), "token is another login's"),
        (
            login(&|token| drop(java.redis.cli(&["DEL", &java.last_active_key(token)]))),
            "token is frozen: its",
        ),
        (login(&|token| java.freeze(token)), "token is frozen: it was inactive"),
        (login(&|token| java.set_last_active(token, "?")), "token's last activity cannot be read"),
    ] {
        let message = refusal_of(&server, &token).await;
        assert!(message.starts_with(problem), "{message} for {problem}");
        messages.push(message);
    }
    messages.sort();
    messages.dedup();
    assert_eq!(messages.len(), 10, "each kind has words of its own");

    for unlimited in ["1,-1", "1"] {
        let token = login(&|token| java.set_last_active(token, unlimited));
        admits(&server, &format!("Authorization=Bearer%20{token}"), &[]).await;
    }
}

#[actix_web::test]
async fn a_parameter_hides_the_header_and_both_need_the_prefix() {
    let java = JavaLogins::start().await;
    let (server, _) = serve(config(&java.redis));
    let token = java.login(1);
    let good: &[(&str, &str)] = &[("Authorization", &format!("Bearer {token}"))];
    admits(&server, "", good).await;
    admits(&server, "Authorization=", good).await;
    admits(&server, &format!("Authorization=Bearer+{token}"), &[("Authorization", "Bearer x")]).await;

    let no_prefix = "token has no Bearer prefix";
    for query in [token.clone(), format!("bearer%20{token}"), format!("Bearer{token}"), "null".into()] {
        assert_eq!(refusal(&server, &format!("Authorization={query}"), good).await, no_prefix, "{query}");
    }
    for header in [token.clone(), format!("bearer {token}"), format!("Basic {token}")] {
        assert_eq!(refusal(&server, "", &[("Authorization", &header)]).await, no_prefix, "{header}");
    }
    let two_spaces = format!("Bearer  {token}");
    assert_eq!(refusal(&server, "", &[("Authorization", &two_spaces)]).await, "token is malformed");
    assert_eq!(refusal(&server, "", &[]).await, "Authorization is missing");
}

#[actix_web::test]
async fn the_client_id_is_the_tokens() {
    let java = JavaLogins::start().await;
    let (server, _) = serve(config(&java.redis));
    let query = format!("Authorization=Bearer%20{}", java.login(1));
    let (web, app): (&[_], &[_]) = (&[("clientid", "web")], &[("clientid", "app")]);
    let mismatch = "clientid does not match the token";
    admits(&server, &query, &[]).await;
    admits(&server, &query, web).await;
    admits(&server, &format!("{query}&clientid=web"), &[]).await;
    admits(&server, &format!("{query}&clientid=web"), app).await;
    assert_eq!(refusal(&server, &query, app).await, mismatch);
    assert_eq!(refusal(&server, &format!("{query}&clientid=app"), &[]).await, mismatch);

    let (strict, _) = serve(config(&java.redis).client_id(ClientIdPolicy::Required));
    admits(&strict, &query, web).await;
    assert_eq!(refusal(&strict, &query, &[]).await, "clientid is missing");
}

#[actix_web::test]
async fn keys_are_found_under_the_prefixes_of_the_java_nodes_and_nowhere_else() {
    let mut java = JavaLogins::start().await;
    let all = [("", true, "global:"), ("", false, ""), ("ry", true, "ry:global:"), ("ry", false, "ry:")];
    for (key_prefix, global_prefix, written) in all {
        let redis = RedisConfig::single(java.redis.url()).key_prefix(key_prefix);
        let (server, _) = serve(config(&java.redis).redis(redis).global_prefix(global_prefix));
        for (.., prefix) in all {
            java.prefix(prefix);
            let token = java.login(1);
            if prefix == written {
                admits(&server, &format!("Authorization=Bearer%20{token}"), &[]).await;
            } else {
                assert!(refusal_of(&server, &token).await.starts_with("token is unknown"));
            }
        }
    }
}

/// A login that nobody can check: a WebSocket gets 503, a stream gets 200 and the time after which to come back.
async fn nobody_can_say(server: &Embedded, token: &str) {
    assert_eq!(Socket::open(server, token, &[], None).await.err(), Some(503));
    let (status, response) = ask(server, &format!("Authorization=Bearer%20{token}"), &[]).await;
    assert_eq!((status, &response.headers()["content-type"]), (200, &"text/event-stream".parse().unwrap()));
    let text = response.text().await.unwrap();
    let retry = text.strip_prefix(":disconnected\nretry:").and_then(|rest| rest.strip_suffix("\n\n"));
    let retry: u64 = retry.unwrap_or_else(|| panic!("{text:?}")).parse().unwrap();
    assert!((1500..=4500).contains(&retry), "around 3 s, and not the same for all: {retry}");
}

#[actix_web::test]
async fn a_redis_that_is_away_refuses_nobody_for_good() {
    let mut java = JavaLogins::start().await;
    let (server, _) = serve(config(&java.redis));
    let (token, query) = (java.login(1), format!("Authorization=Bearer%20{}", java.login(1)));
    admits(&server, &query, &[]).await;
    java.redis.kill();
    nobody_can_say(&server, &token).await;
    // Nothing wrong with Redis is needed to see that this is no token.
    assert_eq!(refusal_of(&server, "abc").await, "token is malformed");
    java.redis.restart().await;
    found_again(&server, &java.login(1)).await;
    let seen = "Handshakes are refused for now, not for good: 503, a stream is told to come back.";
    Fault::new("Redis: cannot be reached", Part::Logins, seen).record();
}

#[actix_web::test]
async fn a_redis_that_hangs_is_away_once_the_time_limit_is_over() {
    let java = JavaLogins::start().await;
    let limit = Duration::from_millis(500);
    let redis = RedisConfig::single(java.redis.url()).command_timeout(limit);
    let (server, _) = serve(config(&java.redis).redis(redis));
    let token = java.login(1);
    admits(&server, &format!("Authorization=Bearer%20{token}"), &[]).await;
    java.redis.pause();
    // The first finds connections that were good, the second has to open them.
    for _ in 0..2 {
        let start = Instant::now();
        nobody_can_say(&server, &token).await;
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
    nobody_can_say(&server, &token).await;
    redis.failed_over_from(old).await;
    // As soon as the pool has found the new master.
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
    let old = redis.master().unwrap();
    redis.isolate(old);
    let new = redis.failed_over_from(old).await;
    // It still answers, and knows nothing of what happens from now on.
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
async fn a_connection_that_was_closed_meanwhile_costs_no_handshake() {
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

/// Writes the keys of a login where the sentinels say. Returns its token.
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
    // The watch asks about all of them at once, and takes nobody for another.
    redis.cli(&["DEL", &logins[2]]);
    assert_eq!(sockets[2].close_code().await, 4401);
    for user in [1, 2, 4, 5, 6] {
        assert_eq!(server.hub.sessions(&user.into()).len(), 1, "{user}");
    }
}

#[actix_web::test]
async fn an_installation_without_an_activity_check_has_no_such_keys_and_needs_none() {
    let java = JavaLogins::start().await;
    let (server, authenticator) = serve(config(&java.redis).dynamic_active_timeout(false).renew(true));
    let _watch = authenticator.watch(server.hub.clone(), PERIOD);
    let token = java.login(1);
    java.redis.cli(&["DEL", &java.last_active_key(&token)]);
    admits(&server, &format!("Authorization=Bearer%20{token}"), &[]).await;
    let mut socket = Socket::open(&server, &token, &[], None).await.unwrap();
    rounds(&java.redis, 2).await;
    server.sockets.send_message(1, "still here").unwrap();
    assert_eq!(socket.text().await, "still here");
    assert_eq!(java.redis.cli(&["EXISTS", &java.last_active_key(&token)]), "0", "nothing is written");
    // How a login was ended counts all the same.
    java.kick_out(&token);
    assert_eq!(socket.close_code().await, 4409);
}

#[actix_web::test]
async fn a_limit_for_all_logins_is_honoured() {
    let java = JavaLogins::start().await;
    let active_timeout = Some(Duration::from_secs(1800));
    let millis = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    for dynamic_active_timeout in [false, true] {
        let config = config(&java.redis).active_timeout(active_timeout);
        let (server, authenticator) = serve(config.dynamic_active_timeout(dynamic_active_timeout));
        let _watch = authenticator.watch(server.hub.clone(), PERIOD);
        let token = java.login(1);
        // As Java writes it for a login without a limit of its own.
        java.set_last_active(&token, &(millis() - 1_700_000).to_string());
        let mut socket = Socket::open(&server, &token, &[], None).await.unwrap();
        java.set_last_active(&token, &(millis() - 1_802_000).to_string());
        assert_eq!(socket.close_code().await, 4401);
        assert_eq!(refusal_of(&server, &token).await, "token is frozen: it was inactive for too long");
    }
}

#[actix_web::test]
async fn a_token_that_says_nothing_is_whose_redis_says() {
    let java = JavaLogins::start().await;
    let config = SaTokenConfig::new(java.redis.url(), "").style(SaTokenStyle::Opaque);
    let (server, authenticator) = serve(config.dynamic_active_timeout(false));
    let _watch = authenticator.watch(server.hub.clone(), PERIOD);
    for (n, token) in [
        "5a8e5cf0-3b0e-4b5c-9f3a-0c2f4c8f5d11",
        "5a8e5cf03b0e4b5c9f3a0c2f4c8f5d11",
        &"aZ09".repeat(32),
        "gr_SwoIN0MC1ewxHX_vfCW3BothWDZMMtx__",
    ]
    .into_iter()
    .enumerate()
    {
        let user = UserId::from(10_001 + i64::try_from(n).unwrap());
        assert!(refusal_of(&server, token).await.starts_with("token is unknown"));
        java.set_login(token, &user.to_string());
        let query = format!("clientid=any&Authorization=Bearer%20{token}");
        admits(&server, &query, &[]).await;
        let mut socket = Socket::open(&server, token, &[], None).await.unwrap();
        rounds(&java.redis, 1).await;
        server.sockets.send_message(user, "yours").unwrap();
        assert_eq!(socket.text().await, "yours");
        // The same token as somebody else's is not the login that was let in.
        java.set_login(token, "sys_user:9");
        assert_eq!(socket.close_code().await, 4401);
        java.kick_out(token);
        assert_eq!(refusal_of(&server, token).await, "token was kicked out");
    }
    java.set_login("text", "sys_user:9");
    let mut socket = Socket::open(&server, "text", &[], None).await.unwrap();
    server.sockets.send_message("sys_user:9".parse::<UserId>().unwrap(), "whole id").unwrap();
    assert_eq!(socket.text().await, "whole id");
    for (token, login, problem) in [
        ("a%20b".to_owned(), "1", "token is malformed"),
        ("x".repeat(513), "1", "token is malformed"),
        ("spaced".to_owned(), "a b", "token is another login's"),
    ] {
        java.set_login(&token, login);
        assert_eq!(refusal(&server, &format!("Authorization=Bearer%20{token}"), &[]).await, problem);
    }
}

#[actix_web::test]
async fn a_token_with_a_header_that_changes_its_meaning_is_refused() {
    let java = JavaLogins::start().await;
    let (server, _) = serve(config(&java.redis));
    let payload = Payload::of(1);
    let key = jsonwebtoken::EncodingKey::from_secret(JAVA_SECRET.as_bytes());
    let header = |change: &dyn Fn(&mut jsonwebtoken::Header)| {
        let mut header = jsonwebtoken::Header::default();
        change(&mut header);
        header
    };
    for header in [
        header(&|header| header.crit = Some(vec!["exp".into()])),
        header(&|header| header.crit = Some(Vec::new())),
        header(&|header| header.extras.insert("b64", false)),
    ] {
        let token = jsonwebtoken::encode(&header, &payload, &key).unwrap();
        java.set_login(&token, &payload.login_id);
        java.set_last_active(&token, "1");
        assert_eq!(refusal_of(&server, &token).await, "token header requires an unsupported extension");
    }
}

#[actix_web::test]
async fn a_renewal_writes_what_java_would_and_keeps_the_time_to_live() {
    let java = JavaLogins::start().await;
    let millis = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let (reader, _) = serve(config(&java.redis));
    let (writer, _) = serve(config(&java.redis).renew(true));
    for limit in [",1800", ",-1", ""] {
        let token = java.login(1);
        let (key, query) = (java.last_active_key(&token), format!("Authorization=Bearer%20{token}"));
        let old = millis() - 60_000;
        java.set_last_active(&token, &format!("{old}{limit}"));
        java.redis.cli(&["EXPIRE", &key, "1000"]);

        admits(&reader, &query, &[]).await;
        assert_eq!(java.redis.cli(&["GET", &key]), format!("\"{old}{limit}\""), "nothing is written unasked");

        let before = millis();
        admits(&writer, &query, &[]).await;
        let value = java.redis.cli(&["GET", &key]);
        let renewed = value.strip_prefix('"').and_then(|rest| rest.strip_suffix(&format!("{limit}\"")));
        let renewed: u128 = renewed.unwrap_or_else(|| panic!("{value}")).parse().unwrap();
        assert!((before..=millis()).contains(&renewed), "{value}");
        let left: u64 = java.redis.cli(&["TTL", &key]).parse().unwrap();
        assert!((900..=1000).contains(&left), "{left} s to live");
    }
    let unlimited = java.login(1);
    java.redis.cli(&["PERSIST", &java.last_active_key(&unlimited)]);
    admits(&writer, &format!("Authorization=Bearer%20{unlimited}"), &[]).await;
    assert_eq!(java.redis.cli(&["TTL", &java.last_active_key(&unlimited)]), "-1");
}

/// How many look-ups Redis has answered.
fn look_ups(redis: &Redis) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_mget:calls="));
    calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
}

/// Waits for whole rounds of the watch, while nobody logs in.
async fn rounds(redis: &Redis, count: u64) {
    // The first may have begun before.
    let goal = look_ups(redis) + count + 1;
    within("the watch to go round", async {
        while look_ups(redis) < goal {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[actix_web::test]
async fn the_watch_ends_the_sessions_of_ended_logins_and_of_no_others() {
    let java = JavaLogins::start().await;
    let (server, authenticator) = serve(config(&java.redis));
    let _watch = authenticator.watch(server.hub.clone(), PERIOD);
    let stays = java.login(1);
    let mut socket = Socket::open(&server, &stays, &[], None).await.unwrap();
    let mut stream = EventStream::open(&server, &stays, None).await.unwrap();
    let own = format!("http://127.0.0.1:{}/own", server.port());
    let _other_kind = reqwest::get(own).await.unwrap();

    let gone = |token: &str| drop(java.redis.cli(&["DEL", &java.last_active_key(token)]));
    type Change<'a> = &'a dyn Fn(&str);
    let changes: [(Change<'_>, u16, CloseReason); 6] = [
        (&|token| java.log_out(token), 4401, CloseReason::Revoked),
        (&|token| java.set_login(token, "sys_user:2"), 4401, CloseReason::Revoked),
        (&|token| java.freeze(token), 4401, CloseReason::TokenExpired),
        (&gone, 4401, CloseReason::TokenExpired),
        (&|token| java.kick_out(token), 4409, CloseReason::Kicked),
        (&|token| java.replace(token), 4409, CloseReason::Kicked),
    ];
    for (change, code, reason) in changes {
        // The same user as the one who stays: it is the login that ends.
        let token = java.login(1);
        let mut sockets = Vec::new();
        for _ in 0..2 {
            sockets.push(Socket::open(&server, &token, &[], None).await.unwrap());
        }
        let mut ending = EventStream::open(&server, &token, None).await.unwrap();
        let mut sessions = server.hub.sessions(&1.into());
        sessions.retain(|session| session.principal().credential == Some(Credential::new(&token)));
        assert_eq!(sessions.len(), 3);
        rounds(&java.redis, 1).await;
        assert!(sessions.iter().all(|session| session.closing().is_none()));

        change(&token);
        let start = Instant::now();
        for mut socket in sockets {
            assert_eq!(socket.close_code().await, code, "{reason:?}");
        }
        assert_eq!(ending.next().await, None);
        assert!(start.elapsed() < PERIOD + Duration::from_secs(1), "{:?}", start.elapsed());
        assert!(sessions.iter().all(|session| session.closing() == Some(reason)), "{reason:?}");
        refusal_of(&server, &token).await;
    }

    rounds(&java.redis, 1).await;
    server.sockets.send_message(1, "still here").unwrap();
    server.emitters.send_message(1, "still here").unwrap();
    assert_eq!((socket.text().await, stream.data().await), ("still here".into(), "still here".into()));
    assert_eq!(server.hub.sessions(&77.into()).len(), 1, "what another login let in is left alone");
}

#[actix_web::test]
async fn the_watch_looks_up_more_logins_than_fit_into_one_question() {
    let java = JavaLogins::start().await;
    let (server, authenticator) = serve(config(&java.redis));
    let payloads: Vec<_> = (1..=1200).map(Payload::of).collect();
    for some in payloads.chunks(100) {
        let mut values = vec!["MSET".to_owned()];
        for payload in some {
            let token = payload.sign();
            values.extend([java.login_key(&token), format!("\"{}\"", payload.login_id)]);
            values.extend([java.last_active_key(&token), "\"1\"".to_owned()]);
        }
        java.redis.cli(&values.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let streams = payloads.iter().map(|payload| {
        let (token, user) = (payload.sign(), payload.user_id.as_i64().unwrap());
        let mut principal = Principal::new(user.into(), &token);
        principal.credential = Some(Credential::new(&token));
        server.emitters.open(principal, None).unwrap()
    });
    let _streams: Vec<_> = streams.collect();
    let _watch = authenticator.watch(server.hub.clone(), PERIOD);
    rounds(&java.redis, 3).await;
    let open = || server.hub.all_sessions().iter().filter(|session| session.closing().is_none()).count();
    assert_eq!(open(), 1200);

    let session = |user: i64| server.hub.sessions(&user.into()).remove(0);
    let (leaves, stays) = (session(101), session(102));
    for payload in payloads.iter().step_by(100) {
        java.log_out(&payload.sign());
    }
    within("the logged out to go", async {
        while open() > 1188 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    rounds(&java.redis, 3).await;
    assert_eq!(open(), 1188);
    assert_eq!((leaves.closing(), stays.closing()), (Some(CloseReason::Revoked), None));
}

#[actix_web::test]
async fn while_redis_is_away_the_watch_ends_nobody() {
    let mut java = JavaLogins::start().await;
    let (server, authenticator) = serve(config(&java.redis));
    let _watch = authenticator.watch(server.hub.clone(), PERIOD);
    let mut socket = Socket::open(&server, &java.login(1), &[], None).await.unwrap();
    let mut stream = EventStream::open(&server, &java.login(2), None).await.unwrap();
    rounds(&java.redis, 1).await;

    java.redis.kill();
    // In Redis' place somebody hangs up on everyone: nobody logs in, so it is the watch that calls.
    let port = java.redis.url().trim_end_matches('/').rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let mute = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let calls = tokio::task::spawn_blocking(move || {
        for _ in 0..4 {
            let (mut call, _) = mute.accept().unwrap();
            call.read_exact(&mut [0; 1]).ok();
        }
    });
    within("four rounds without an answer", calls).await.unwrap();
    server.sockets.send_message(1, "still here").unwrap();
    server.emitters.send_message(2, "still here").unwrap();
    assert_eq!((socket.text().await, stream.data().await), ("still here".into(), "still here".into()));

    // It comes back with nothing in it, and that is an answer.
    java.redis.restart().await;
    assert_eq!(socket.close_code().await, 4401);
    assert_eq!(stream.next().await, None);
}

#[actix_web::test]
async fn a_watch_that_is_dropped_looks_no_more() {
    let java = JavaLogins::start().await;
    let (server, authenticator) = serve(config(&java.redis));
    let watch = authenticator.watch(server.hub.clone(), PERIOD);
    let token = java.login(1);
    let mut socket = Socket::open(&server, &token, &[], None).await.unwrap();
    rounds(&java.redis, 1).await;
    drop(watch);
    java.log_out(&token);
    let seen = look_ups(&java.redis);
    // Nothing happens, and that takes a while to see.
    sleep(3 * PERIOD).await;
    assert_eq!(look_ups(&java.redis), seen);
    socket.send("still here").await;
    assert_eq!(socket.text().await, "STILL HERE");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_takes_the_logins_of_java_nodes_and_lets_them_go() {
    let java = JavaLogins::start().await;
    // The bus may be elsewhere: what is published goes here, logins are looked up there.
    let bus = Redis::start().await;
    let (logins, url) = (java.redis.url(), bus.url());
    let settings = [
        ("REALTIME__AUTH__SATOKEN__REDIS__URL", logins.as_str()),
        ("REALTIME__AUTH__MODE", "sa-token"),
        ("REALTIME__AUTH__SATOKEN__SECRET", JAVA_SECRET),
        ("REALTIME__AUTH__SATOKEN__RECHECK", "1s"),
        ("REALTIME__REDIS__URL", url.as_str()),
        ("REALTIME__REDIS__MODE", "pubsub"),
    ];
    let demo = Demo::start_with(&settings).await;
    within("the node to be ready", async {
        while demo.get("/health/ready").await.0 != 200 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let (stays, leaves) = (java.login(1), java.login(2));
    let mut stream = EventStream::open(&demo, &stays, None).await.unwrap();
    let mut socket = Socket::open(&demo, &leaves, &[], None).await.unwrap();
    // What a Java node publishes reaches them, and nobody else's bytes are needed for it.
    let broadcast = r#"["org.dromara.common.sse.dto.SseMessageDto",{"message":"from Java"}]"#;
    bus.cli(&["publish", "global:sse", broadcast]);
    assert_eq!(stream.data().await, "from Java");
    let list = r#"{"message":"hi","sessionKeys":["java.util.ArrayList",[2,9]]}"#;
    let dto = format!(r#"["org.dromara.common.websocket.dto.WebSocketMessageDto",{list}]"#);
    bus.cli(&["publish", "global:websocket", &dto]);
    assert_eq!(socket.text().await, "hi");
    java.log_out(&leaves);
    assert_eq!(socket.close_code().await, 4401);
    assert_eq!(demo.sessions(1).await, 1);
    let login = reqwest::Client::new()
        .post(demo.url("/auth/login"))
        .json(&json!({ "username": "alice", "password": "demo", "clientId": "web" }));
    let answer = login.send().await.unwrap();
    assert_eq!(answer.status(), 409, "logins are the Java nodes' business");
}

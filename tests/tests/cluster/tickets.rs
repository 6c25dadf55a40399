//! A ticket is made on one node and used once, on any; it is worth what its token is worth when it is used.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use realtime_core::{
    Principal,
    auth::{TicketError, TicketKey, TicketStore},
};
use realtime_redis::{RedisConfig, RedisTickets};
use realtime_tests::{
    Demo, EventStream, JAVA_SECRET, JavaLogins, Proxy, Redis, Server, Socket, conformance::tickets_conform,
    sign, token,
};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use tokio::time::sleep;

async fn node(redis: Option<&Redis>, name: &str) -> Demo {
    let mut settings = vec![("REALTIME__SERVER__NODE", name)];
    let url = redis.map(Redis::url);
    settings.extend(url.as_deref().map(|url| ("REALTIME__REDIS__URL", url)));
    Demo::start_with(&settings).await
}

async fn ask(demo: &Demo, path: &str, token: &str) -> Response {
    let url = format!("http://127.0.0.1:{}{path}", demo.port());
    Client::new().post(url).header("Authorization", format!("Bearer {token}")).send().await.unwrap()
}

async fn ticket(demo: &Demo, token: &str) -> String {
    let answer = ask(demo, "/resource/ticket", token).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let answer: Value = answer.json().await.unwrap();
    let left = answer["data"]["expiresIn"].as_u64().unwrap();
    assert!((1..=30_000).contains(&left), "{answer}");
    answer["data"]["ticket"].as_str().unwrap().to_owned()
}

async fn socket(demo: &Demo, ticket: &str) -> Result<Socket, u16> {
    let path = format!("/resource/websocket?ticket={ticket}");
    Socket::open_at(demo, &path, &[("Sec-WebSocket-Protocol", "realtime.v1")]).await
}

async fn stream(demo: &Demo, ticket: &str) -> u16 {
    let url = format!("http://127.0.0.1:{}/resource/sse?ticket={ticket}", demo.port());
    Client::new().get(url).send().await.unwrap().status().as_u16()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tickets_of_a_cluster_conform() {
    let redis = Redis::start().await;
    tickets_conform(|| RedisTickets::make(RedisConfig::single(redis.url())).unwrap()()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_whose_first_answer_was_lost_is_given_once() {
    let redis = Redis::start().await;
    let store = RedisTickets::make(RedisConfig::single(redis.url())).unwrap()();
    let (key, minute) = (TicketKey::of("a ticket"), Duration::from_secs(60));
    let put = async |user: i64| store.put(key, Principal::new(user.into(), "a token"), minute).await;
    put(7).await.unwrap();
    put(7).await.expect("it was repeated");
    put(8).await.expect_err("another's");
    let login = store.take(key).await.unwrap().unwrap();
    assert_eq!(login.user, 7.into());
    assert_eq!(store.take(key).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_whose_last_answer_was_lost_is_not_refused() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.port()).await;
    let url = format!("redis://127.0.0.1:{}/", proxy.port());
    let store = RedisTickets::make(RedisConfig::single(url)).unwrap()();
    let (key, minute) = (TicketKey::of("a ticket"), Duration::from_secs(60));
    store.put(key, Principal::new(7.into(), "a token"), minute).await.unwrap();
    proxy.lose_the_answer_to("GETDEL");
    let error = store.take(key).await.unwrap_err();
    assert!(matches!(error, TicketError::Unavailable(_)), "{error}");
    assert_eq!(store.take(key).await.unwrap(), None, "it was used");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_one_connection_on_any_node() {
    let redis = Redis::start().await;
    let (a, b) = (node(Some(&redis), "a").await, node(Some(&redis), "b").await);
    for path in ["/resource/ticket", "/resource/websocket/ticket", "/resource/sse/ticket"] {
        let answer: Value = ask(&a, path, &token(7)).await.json().await.unwrap();
        let ticket = answer["data"]["ticket"].as_str().unwrap_or_else(|| panic!("{path}: {answer}"));
        let mut socket = socket(&b, ticket).await.unwrap();
        assert_eq!(socket.json().await["type"], "hello");
        a.publish_to(7, "for the owner of the ticket").await;
        assert_eq!(socket.message().await["data"], "for the owner of the ticket");
        assert_eq!(stream(&a, ticket).await, 401, "it was used");
        assert_eq!(stream(&b, ticket).await, 401, "it was used");
    }
    let one = ticket(&b, &token(7)).await;
    let path = format!("/resource/sse?ticket={one}");
    assert_eq!(a.get(&format!("{path}&clientid=app")).await.0, 401, "of another client");
    let many = ticket(&b, &token(7)).await;
    let all = join_all((0..20).map(|n| socket(if n % 2 == 0 { &a } else { &b }, &many))).await;
    assert_eq!(all.iter().filter(|socket| socket.is_ok()).count(), 1);
    // In Redis is neither the ticket nor the token.
    let (token, kept) = (token(7), ticket(&a, &token(7)).await);
    let keys = redis.cli(&["keys", "{rt/control}:ticket:*"]);
    assert_eq!(keys.lines().count(), 1, "{keys}");
    let value = redis.cli(&["get", keys.trim()]);
    assert!(value.contains("\"user\":") && !value.contains(&kept) && !keys.contains(&kept), "{keys} {value}");
    assert!(!value.contains(&token) && !value.contains(token.rsplit('.').next().unwrap()), "{value}");
    let ttl: i64 = redis.cli(&["pttl", keys.trim()]).trim().parse().unwrap();
    assert!((1..=30_000).contains(&ttl), "{ttl}");
    redis.cli(&["pexpire", keys.trim(), "1"]);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(stream(&b, &kept).await, 401, "it has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kick_or_a_revocation_between_issue_and_use_refuses_the_ticket() {
    let redis = Redis::start().await;
    let (a, b) = (node(Some(&redis), "a").await, node(Some(&redis), "b").await);
    let login = sign(&json!({ "userId": 7, "clientid": "web", "iat": now() - 60, "exp": now() + 600 }));
    let mut open = Socket::open(&a, &login, &[], None).await.unwrap();
    b.until_sessions(7, 1).await;
    let [before, other] = [ticket(&a, &login).await, ticket(&b, &login).await];
    assert_eq!(b.api(Method::DELETE, "/api/online/7", None).await.0, 200);
    assert_eq!(open.close_code().await, 4409);
    assert_eq!(socket(&b, &before).await.err(), Some(401));
    assert_eq!(stream(&a, &other).await, 204, "as its token");
    assert_eq!(ask(&b, "/resource/ticket", &login).await.status(), 401);
    socket(&b, &ticket(&a, &token(7)).await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_ticket_ends_with_its_token_and_a_ticket_without_a_header_is_not_given() {
    // Without Redis the node keeps its tickets itself.
    let demo = node(None, "alone").await;
    let short = sign(&json!({ "userId": 9, "clientid": "web", "exp": now() + 3 }));
    let (used, late) = (ticket(&demo, &short).await, ticket(&demo, &short).await);
    let mut socket_of_it = socket(&demo, &used).await.unwrap();
    assert_eq!(socket_of_it.close_code().await, 4401);
    assert_eq!(socket(&demo, &late).await.err(), Some(401));
    for (path, status) in [
        (format!("/resource/ticket?Authorization={}", token(1)), 400),
        (format!("/resource/sse/ticket?Authorization={}", token(1)), 400),
        ("/resource/ticket".to_owned(), 401),
        ("/resource/websocket/ticket".to_owned(), 401),
    ] {
        let url = format!("http://127.0.0.1:{}{path}", demo.port());
        let answer = Client::new().post(url).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["cache-control"]),
            (status, &"no-store".parse().unwrap())
        );
    }
    assert_eq!(ask(&demo, "/resource/ticket", "x").await.status(), 401);
    let flooded = token(3);
    let mut statuses = Vec::new();
    for _ in 0..100 {
        statuses.push(ask(&demo, "/resource/ticket", &flooded).await.status().as_u16());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 60);
    assert!(statuses[60..].iter().all(|status| *status == 429));
    ticket(&demo, &token(4)).await;
    for unknown in ["x", &"0".repeat(64), "%FF", "%00"] {
        assert_eq!(socket(&demo, unknown).await.err(), Some(401), "{unknown}");
        assert_eq!(stream(&demo, unknown).await, 401, "{unknown}");
    }
    // A ticket is no login of anything else.
    let ticket = ticket(&demo, &token(4)).await;
    let page = demo.get(&format!("/demo/online?ticket={ticket}")).await;
    assert_ne!(page.0, 200, "{page:?}");
    assert_eq!(demo.get(&format!("/resource/sse/close?ticket={ticket}")).await.0, 200);
    socket(&demo, &ticket).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_wait_for_a_redis_that_is_away() {
    let redis = Redis::start().await;
    let demo = node(Some(&redis), "a").await;
    let kept = ticket(&demo, &token(7)).await;
    redis.pause();
    let answer = ask(&demo, "/resource/ticket", &token(7)).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(socket(&demo, &kept).await.err(), Some(503));
    redis.resume();
}

/// A node for the logins of Java nodes, which it checks again at an interval.
async fn java_node(java: &JavaLogins, recheck: &str) -> Demo {
    Demo::start_with(&[
        ("REALTIME__REDIS__URL", &*java.redis.url()),
        ("REALTIME__AUTH__MODE", "sa-token"),
        ("REALTIME__AUTH__SATOKEN__SECRET", JAVA_SECRET),
        ("REALTIME__AUTH__SATOKEN__RECHECK", recheck),
        ("REALTIME__AUTH__COOKIE", "sid"),
    ])
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_of_java_nodes_have_tickets_and_cookies_and_end_with_a_log_out() {
    let java = JavaLogins::start().await;
    let demo = java_node(&java, "1s").await;
    let login = java.login(7);
    let mut by_ticket = socket(&demo, &ticket(&demo, &login).await).await.unwrap();
    let cookie = format!("sid={login}");
    let mut by_cookie =
        Socket::open_at(&demo, "/resource/websocket", &[("Cookie", cookie.as_str())]).await.unwrap();
    let foreign = [("Cookie", cookie.as_str()), ("Origin", "https://evil.example")];
    assert_eq!(Socket::open_at(&demo, "/resource/websocket", &foreign).await.err(), Some(403));
    java.log_out(&login);
    assert_eq!([by_ticket.close_code().await, by_cookie.close_code().await], [4401, 4401]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_of_a_java_login_is_worth_nothing_after_the_log_out() {
    let java = JavaLogins::start().await;
    let demo = java_node(&java, "1h").await;
    let login = java.login(7);
    let (used, late) = (ticket(&demo, &login).await, ticket(&demo, &login).await);
    let _open = socket(&demo, &used).await.unwrap();
    java.log_out(&login);
    assert_eq!(Socket::open(&demo, &login, &[], None).await.err(), Some(401));
    assert_eq!(socket(&demo, &late).await.err(), Some(401), "as its token");
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_can_be_off() {
    let demo = Demo::start_with(&[("REALTIME__AUTH__TICKETS", "false")]).await;
    for path in ["/resource/ticket", "/resource/websocket/ticket", "/resource/sse/ticket"] {
        assert_eq!(ask(&demo, path, &token(1)).await.status(), 404, "{path}");
    }
    let path = format!("/resource/sse?ticket=x&Authorization={}", token(1));
    let url = format!("http://127.0.0.1:{}{path}", demo.port());
    assert_eq!(Client::new().get(url).send().await.unwrap().status(), 200, "the parameter is nothing");
    drop(EventStream::open(&demo, &token(1), None).await.unwrap());
}

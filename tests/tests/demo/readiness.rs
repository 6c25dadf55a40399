//! A node says at its start whether Redis answers, and readiness forgives a blink of it.

use std::time::Duration;

use realtime_tests::{Demo, Redis, free_port, within};
use serde_json::Value;
use tokio::time::sleep;

async fn ready(demo: &Demo) -> (u16, Value) {
    let (status, body) = demo.get("/health/ready").await;
    (status, serde_json::from_str(&body).unwrap())
}

/// Whether a node is ready by `/api/stats` and by `realtime_ready`.
async fn told(demo: &Demo) -> [bool; 2] {
    let (_, stats) = demo.api(reqwest::Method::GET, "/api/stats", None).await;
    let metrics = reqwest::get(demo.api_url("/metrics")).await.unwrap().text().await.unwrap();
    let gauge = metrics.lines().find_map(|line| line.strip_prefix("realtime_ready ")).unwrap();
    assert_eq!(stats["ready"] == true, stats["problem"].is_null(), "{stats}");
    [stats["ready"] == true, gauge == "1"]
}

async fn until(demo: &Demo, what: &str, is: impl Fn(u16, &Value) -> bool) -> Value {
    within(what, async {
        loop {
            let (status, health) = ready(demo).await;
            if is(status, &health) {
                return health;
            }
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blink_of_redis_takes_no_node_out_and_is_named() {
    let redis = Redis::start().await;
    let url = ("REALTIME__REDIS__URL", redis.url());
    let url = (url.0, url.1.as_str());
    let internal = ("REALTIME__SERVER__INTERNAL", "127.0.0.1:0");
    let forgiving = Demo::start_with(&[url, internal]).await;
    let strict = Demo::start_with(&[url, internal, ("REALTIME__HEALTH__GRACE", "0s")]).await;
    let short = Demo::start_with(&[url, ("REALTIME__HEALTH__GRACE", "1s")]).await;
    for demo in [&forgiving, &strict, &short] {
        let health = until(demo, "a node that is ready", |status, _| status == 200).await;
        assert_eq!(health, serde_json::json!({ "status": "up" }));
    }
    redis.pause();
    let down = until(&strict, "the strict node to be unready", |status, _| status == 503).await;
    assert_eq!((&down["status"], &down["reasons"][0]["kind"]), (&"down".into(), &"bus-down".into()));
    assert_eq!(down["reason"], down["reasons"][0]["problem"]);
    // Still ready, and the reason is there for those who look.
    let blink = until(&forgiving, "the outage to be named", |_, health| health["reasons"].is_array()).await;
    assert_eq!((&blink["status"], &blink["reasons"][0]["kind"]), (&"up".into(), &"bus-down".into()));
    assert!(blink["reasons"][0]["graceLeft"].as_u64().unwrap() <= 30, "{blink}");
    assert_eq!(ready(&forgiving).await.0, 200);
    assert_eq!(told(&forgiving).await, [false, true]);
    assert_eq!(told(&strict).await, [false; 2]);
    until(&short, "the grace to be over", |status, _| status == 503).await;
    redis.resume();
    for demo in [&forgiving, &strict, &short] {
        until(demo, "all to be well", |status, health| status == 200 && health["reasons"].is_null()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_never_had_its_bus_is_not_ready() {
    let url = format!("redis://127.0.0.1:{}/", free_port());
    let demo = Demo::start_with(&[("REALTIME__REDIS__URL", &url)]).await;
    let (status, health) = ready(&demo).await;
    assert_eq!(status, 503, "{health}");
    let kinds: Vec<_> = health["reasons"].as_array().unwrap().iter().map(|reason| &reason["kind"]).collect();
    assert_eq!(kinds, ["starting", "bus-down"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_says_whether_redis_answers() {
    let redis = Redis::start().await;
    let port = redis.port();
    let gone = free_port();
    for (url, said) in [
        (redis.url(), format!("redis: reached redis://127.0.0.1:{port}/0 (Redis ")),
        (
            format!("redis://app:hunter2@127.0.0.1:{port}/"),
            format!(
                "redis.url: redis://127.0.0.1:{port}/0 is not reached, and this does not pass by itself: "
            ),
        ),
        (
            format!("redis://:hunter2@127.0.0.1:{gone}/"),
            format!("redis.url: redis://127.0.0.1:{gone}/0 is not reached, and this may pass: "),
        ),
    ] {
        let (mut demo, lines) = Demo::start_recorded(&[("REALTIME__REDIS__URL", &url)]).await;
        demo.terminate();
        within("the end", demo.child().wait()).await.unwrap();
        let lines = lines.await.unwrap();
        assert!(lines.contains(&said) && !lines.contains("hunter2"), "no {said} in {lines}");
        assert!(
            lines.lines().any(|line| line.starts_with("bus: Redis streams over redis://127.0.0.1:")),
            "{lines}"
        );
    }
}

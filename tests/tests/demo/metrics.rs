//! `/metrics` says what happened, in Prometheus' form, names no user, and is what docs/operations.md lists. The files of
//! `apps/demo/deploy` for Prometheus and Grafana ask for nothing else.

mod exposition;
mod files;

use realtime_tests::{Demo, EventStream, Redis, Socket, token, within};
use serde_json::json;
use tokio::time::{Duration, sleep};

use self::exposition::{Exposition, documented};

const INTERNAL: (&str, &str) = ("REALTIME__SERVER__INTERNAL", "127.0.0.1:0");
/// A user whose id is in no other text.
const USER: i64 = 987_654_321;

async fn scrape(demo: &Demo) -> Exposition {
    let response = reqwest::get(demo.api_url("/metrics")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    Exposition::parse(response.text().await.unwrap())
}

/// Waits until a series has a value.
async fn until_value(demo: &Demo, name: &str, labels: &[(&str, &str)], value: f64) -> Exposition {
    within(&format!("{name} {labels:?} to be {value}"), async {
        loop {
            let exposition = scrape(demo).await;
            if exposition.sum(name, labels) == value {
                return exposition;
            }
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_numbers_are_those_of_what_happened() {
    let demo = Demo::start_with(&[INTERNAL, ("REALTIME__LIMITS__MAXCONNECTIONSPERUSER", "3")]).await;
    let tokens = [token(USER), token(USER)];
    let mut socket = Socket::open(&demo, &tokens[0], &[], None).await.unwrap();
    let mut stream = EventStream::open(&demo, &tokens[1], None).await.unwrap();
    let second = demo.socket_v1(USER).await;
    let open = scrape(&demo).await;
    assert_eq!(open.sum("realtime_sessions", &[("transport", "websocket")]), 2.0);
    assert_eq!(open.sum("realtime_sessions", &[("transport", "sse")]), 1.0);
    assert_eq!((open.sum("realtime_users", &[]), open.sum("realtime_presence_users", &[])), (1.0, 1.0));
    // From the first session on, so that the first ones that are cut off are an increase.
    for transport in ["websocket", "sse"] {
        let cut = [("transport", transport), ("reason", "slow-consumer"), ("code", "4429")];
        assert_eq!(open.values("realtime_sessions_closed_total", &cut), [0.0]);
    }
    assert_eq!(open.sum("realtime_bus_up", &[]) + open.sum("realtime_ready", &[]), 2.0);

    demo.publish_to(USER, "hello").await;
    assert_eq!((socket.text().await, stream.data().await), ("hello".into(), "hello".into()));
    socket.send("from the client").await;
    let published = until_value(&demo, "realtime_frames_delivered_total", &[("outcome", "live")], 3.0).await;
    assert_eq!(published.sum("realtime_messages_published_total", &[]), 1.0);
    assert_eq!(published.sum("realtime_publish_seconds_count", &[("outcome", "ok")]), 1.0);
    assert!(published.sum("realtime_sent_bytes_total", &[]) > 100.0);
    within("the client's bytes", async {
        while scrape(&demo).await.sum("realtime_received_bytes_total", &[]) < 15.0 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // A pass records its time when it is over.
    for name in ["realtime_pass_seconds", "realtime_delivery_seconds", "realtime_end_to_end_seconds"] {
        within(name, async {
            while scrape(&demo).await.sum(&format!("{name}_count"), &[]) < 1.0 {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    let fourth = Socket::open(&demo, &token(USER), &[], None).await;
    assert!(fourth.is_err(), "above limits.maxConnectionsPerUser");
    assert!(Socket::open(&demo, "forged", &[], None).await.is_err());
    let too_large = json!({ "broadcast": true, "message": "x".repeat(65 << 10) }).to_string();
    assert_eq!(demo.try_publish(&too_large).await.0, 400);
    drop(second);
    demo.until_sessions(USER, 2).await;
    let mut lost = EventStream::open(&demo, &token(USER), Some("nonsense")).await.unwrap();
    within("the gap", async { while lost.next().await.unwrap().event != "gap" {} }).await;
    demo.api(reqwest::Method::DELETE, &format!("/api/online/{USER}"), None).await;
    assert_eq!(socket.close_code().await, 4409);
    let all =
        until_value(&demo, "realtime_sessions_closed_total", &[("reason", "kicked"), ("code", "4409")], 3.0)
            .await;
    assert_eq!(all.sum("realtime_sessions_closed_total", &[("reason", "gone"), ("code", "1006")]), 1.0);
    for (name, label, expected) in [
        ("realtime_connections_refused_total", ("reason", "user"), 1.0),
        ("realtime_connections_refused_total", ("reason", "login"), 1.0),
        ("realtime_publish_errors_total", ("reason", "limit"), 1.0),
        ("realtime_gaps_total", ("reason", "cursor"), 1.0),
        ("realtime_recoveries_total", ("outcome", "gap"), 1.0),
        ("realtime_recoveries_total", ("outcome", "no_cursor"), 3.0),
        ("realtime_sessions_opened_total", ("transport", "websocket"), 2.0),
        ("realtime_sessions", ("transport", "websocket"), 0.0),
        ("realtime_sessions", ("transport", "sse"), 0.0),
    ] {
        assert_eq!(all.sum(name, &[label]), expected, "{name} {label:?}");
    }
    all.check();
    let text = &all.text;
    for secret in [&USER.to_string(), &tokens[0], &tokens[1], realtime_tests::API_KEY, realtime_tests::SECRET]
    {
        assert!(!text.contains(secret), "{secret}");
    }
    assert!(!text.contains("realtime_redis"), "there is no Redis");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_redis_all_that_is_exported_is_documented_and_all_that_is_documented_is_exported() {
    let mut redis = Redis::start().await;
    let demo = Demo::start_with(&[INTERNAL, ("REALTIME__REDIS__URL", &redis.url())]).await;
    let (mut socket, mut stream) = (demo.socket(USER).await, demo.stream(USER).await);
    for text in ["one", "two"] {
        demo.publish_to(USER, text).await;
        assert_eq!((socket.text().await, stream.data().await), (text.into(), text.into()));
    }
    drop(stream);
    demo.until_sessions(USER, 1).await;
    let all = until_value(&demo, "realtime_sessions_closed_total", &[], 1.0).await;
    all.check();
    assert!(all.sum("realtime_redis_command_seconds_count", &[("part", "bus"), ("outcome", "ok")]) >= 2.0);
    for part in ["presence", "control"] {
        assert!(all.sum("realtime_redis_command_seconds_count", &[("part", part)]) > 0.0, "{part}");
        assert!(all.sum("realtime_redis_connections_total", &[("part", part)]) > 0.0, "{part}");
    }
    let [exported, documented] = [all.metrics(), documented()];
    for (name, documented) in &documented {
        assert_eq!(exported.get(name), Some(documented), "{name}: docs/operations.md, and what is exported");
    }
    for name in exported.keys() {
        assert!(documented.contains_key(name), "{name} is missing in docs/operations.md");
    }

    redis.kill();
    until_value(&demo, "realtime_bus_up", &[], 0.0).await;
    let down = until_value(&demo, "realtime_presence_up", &[], 0.0).await;
    assert!(down.sum("realtime_presence_users", &[]).is_nan());
    down.check();
    assert_eq!(demo.try_publish(r#"{"broadcast":true,"message":"x"}"#).await.0, 503);
    let failed = scrape(&demo).await;
    assert!(failed.sum("realtime_publish_errors_total", &[("reason", "unavailable")]) >= 1.0);
    assert!(failed.sum("realtime_redis_command_seconds_count", &[("outcome", "error")]) >= 1.0);
    assert_eq!(failed.sum("realtime_sessions", &[("transport", "websocket")]), 1.0, "sessions stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_at_the_internal_address_and_nowhere_else() {
    let (with, without) = (Demo::start_with(&[INTERNAL]).await, Demo::start().await);
    assert_eq!((with.get("/metrics").await.0, without.get("/metrics").await.0), (404, 404));
    let exposition = scrape(&with).await;
    assert!(exposition.sum("process_resident_memory_bytes", &[]) > 1e6);
    assert_eq!(exposition.sum("realtime_users", &[]), 0.0);
}

//! Messages, beside entries and keys of the bus that are none.

use std::time::Duration;

use realtime_core::bus::{Bus, BusEvent};
use realtime_redis::{RedisConfig, RedisStreamsBus};
use realtime_tests::{
    Proxy, Redis,
    conformance::{Subscriber, envelope},
    within,
};
use tokio::time::sleep;

use super::check;

/// A script that adds messages of the event of text streams.
fn stream(texts: &[&str]) -> String {
    let add = |text: &&str| {
        format!(
            "call('xadd', rt .. 'log', call('hget', rt .. 'epoch', 'epoch') .. '-*', 'v', '1', 'e', cjson.encode({{
                   topics = {{ 'all' }}, event = 'realtime.stream', data = '{text}', at = call('time')[1] * 1000 }}))\n"
        )
    };
    texts.iter().map(add).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_the_log_is_skipped() {
    check(&[
        (
            "no text",
            "call('xadd', rt .. 'log', call('hget', rt .. 'epoch', 'epoch') .. '-*', bad, bad, 'v', bad)",
        ),
        (
            "no envelope",
            "call('xadd', rt .. 'log', call('hget', rt .. 'epoch', 'epoch') .. '-*', 'v', '1', 'e', bad)",
        ),
        (
            "no fields of ours",
            "call('xadd', rt .. 'log', call('hget', rt .. 'epoch', 'epoch') .. '-*', 'x', 'y')",
        ),
        (
            "heartbeats of nobody",
            "call('xadd', rt .. 'log', call('hget', rt .. 'epoch', 'epoch') .. '-*',
                  'v', '1', 'b', bad, 'n', '18446744073709551615', 't', '18446744073709551615')",
        ),
        (
            "numbers at the end",
            r#"call('xadd', rt .. 'log', call('hget', rt .. 'epoch', 'epoch') .. '-*', 'v', '1', 'e',
                  '{"topics":["all"],"data":"x","at":18446744073709551615,"ttl":18446744073709551615}')"#,
        ),
        (
            "a text stream that ends within a character",
            &stream(&[
                r#"{"stream":"s","run":1,"at":0,"text":"ä"}"#,
                r#"{"stream":"s","run":1,"at":1,"state":"done"}"#,
            ]),
        ),
        (
            "a text stream at the end of all numbers",
            &stream(
                &[r#"{"stream":"t","run":18446744073709551615,"at":18446744073709551615,"text":"x"}"#; 2],
            ),
        ),
        ("a hole", "call('xadd', rt .. 'log', call('hget', rt .. 'epoch', 'epoch') .. '-999999', 'x', 'y')"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_at_the_end_of_time_is_begun_anew() {
    check(&[
        (
            "the last offset",
            "call('xadd', rt .. 'log', call('hget', rt .. 'epoch', 'epoch') .. '-18446744073709551615', 'x', 'y')",
        ),
        ("the last id", "call('xadd', rt .. 'log', '18446744073709551615-18446744073709551615', 'x', 'y')"),
        ("the last epoch", "call('xadd', rt .. 'log', '18446744073709551615-5', 'x', 'y')"),
        ("the last id without an entry", "call('xsetid', rt .. 'log', '18446744073709551615-18446744073709551615')"),
        ("an epoch that Lua cannot count", "call('xadd', rt .. 'log', '9007199254740993-1', 'x', 'y')"),
        ("the last epoch that it can", "call('xadd', rt .. 'log', '9007199254740991-1', 'x', 'y')"),
        ("one before", "call('xadd', rt .. 'log', '9007199254740990-1', 'x', 'y')"),
        ("two before", "call('xadd', rt .. 'log', '9007199254740989-1', 'x', 'y')"),
        (
            "the last offset of the last epoch",
            "call('xadd', rt .. 'log', call('hget', rt .. 'epoch', 'epoch') .. '-18446744073709551615', 'x', 'y')",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_begun_anew_is_not_trimmed_by_what_was_before() {
    const WINDOW: usize = 1 << 20;
    let redis = Redis::start().await;
    let bus = RedisStreamsBus::new(RedisConfig::single(redis.url()).max_bytes(WINDOW)).unwrap();
    let mut events = Subscriber::up(&bus).await;
    redis.cli(&["xadd", "{rt}:log", "9007199254740990-1", "x", "y"]);
    events.until(|event| matches!(event, BusEvent::Down(_))).await;
    events.until(|event| matches!(event, BusEvent::Up(_))).await;
    let text = envelope("x".repeat(1024));
    for _ in 0..WINDOW / 1024 * 9 / 10 {
        bus.publish(&text).await.unwrap();
    }
    // The window fills up, and is trimmed once a second.
    for n in 0..160 {
        bus.publish(&text).await.unwrap_or_else(|error| panic!("{n}: {error}"));
        let length: usize = redis.cli(&["xlen", "{rt}:log"]).parse().unwrap();
        assert!(length > WINDOW / 2 / 1024, "{length} entries after {n}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_keys_of_the_bus_are_begun_anew() {
    check(&[
        ("epoch: no number", "call('hset', rt .. 'epoch', 'epoch', bad, 'replid', bad)"),
        ("epoch: less than none", "call('hset', rt .. 'epoch', 'epoch', '-5') call('del', rt .. 'log')"),
        ("epoch: no integer", "call('hset', rt .. 'epoch', 'epoch', '1.5') call('del', rt .. 'log')"),
        ("epoch: not a number", "call('hset', rt .. 'epoch', 'epoch', 'nan') call('del', rt .. 'log')"),
        (
            "epoch: the last number",
            "call('hset', rt .. 'epoch', 'epoch', '18446744073709551615') call('del', rt .. 'log')",
        ),
        ("epoch: no end", "call('hset', rt .. 'epoch', 'epoch', '1e300') call('del', rt .. 'log')"),
        ("epoch: another type", "call('set', rt .. 'epoch', 'x') call('del', rt .. 'log')"),
        ("log: another type", "call('set', rt .. 'log', 'x')"),
        ("retained: another type", "call('set', rt .. 'retained', 'x')"),
        ("retained: no messages", "call('hset', rt .. 'retained', bad, bad, 'x', '1-1 {', '', bad)"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_does_not_arrive_in_time_is_skipped_with_a_gap() {
    let redis = Redis::start().await;
    // An entry of 40 MiB takes 5 s.
    let proxy = Proxy::start_at(redis.port(), 8 << 20).await;
    let config = RedisConfig::single(format!("redis://127.0.0.1:{}/", proxy.port()));
    let slow = RedisStreamsBus::new(config).unwrap();
    let publisher = RedisStreamsBus::new(RedisConfig::single(redis.url())).unwrap();
    let mut events = Subscriber::up(&slow).await;
    publisher.publish(&envelope("before")).await.unwrap();
    assert_eq!(events.message().await.1, "before");
    let script = "return redis.call('xadd', '{rt}:log', redis.call('hget', '{rt}:epoch', 'epoch') .. '-*', 'v', '1', 'e',
                  string.rep('x', 40 * 1048576))";
    redis.cli(&["eval", script, "0"]);
    within("the entry", async {
        while publisher.publish(&envelope("after")).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let (mut gap, mut after) = (false, false);
    while !after {
        match events.next().await {
            BusEvent::Gap => gap = true,
            BusEvent::Message { envelope, .. } => after = envelope.message().data.to_string() == "after",
            _ => {}
        }
    }
    assert!(gap, "it is announced");
    assert!(slow.metrics().undecodable >= 1);
    events.until(|event| matches!(event, BusEvent::CaughtUp(_))).await;
    tokio::time::timeout(Duration::from_secs(5), slow.publish(&envelope("x"))).await.unwrap().unwrap();
}

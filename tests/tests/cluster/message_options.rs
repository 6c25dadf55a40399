//! Over Redis streams a ttl, a collapse key and `retain` hold on every node, also on one that starts when a retained message
//! has left the stream, or that was cut off meanwhile.

use std::{sync::Arc, time::Duration};

use realtime_core::{
    CollapseKey, Envelope, Hub, Message, Principal, Scope, Settings, Topic, Transport,
    bus::{Bus, BusEvent},
    testkit::{TestEvent, TestSession, ready},
};
use realtime_redis::{RedisConfig, RedisStreamsBus};
use realtime_tests::{Demo, Proxy, Redis, Socket, conformance::Subscriber, sign, within};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

fn topic() -> Topic {
    Topic::new("prices").unwrap()
}

fn to_topic(text: impl Into<String>) -> Envelope {
    Envelope::to_topic(topic(), Scope::Both, Message::text(text.into()))
}

fn price(key: &str, text: impl Into<String>) -> Envelope {
    to_topic(text).collapse(CollapseKey::new(key).unwrap())
}

async fn node(config: RedisConfig) -> Hub {
    let hub = Hub::builder().bus(RedisStreamsBus::new(config).unwrap()).start().unwrap();
    ready(&hub).await;
    hub
}

fn config(redis: &Redis) -> RedisConfig {
    RedisConfig::single(redis.url())
}

fn principal() -> Principal {
    let mut principal = Principal::new(1.into(), "a token");
    principal.topics = [topic()].into();
    principal
}

async fn session(hub: &Hub, cursor: Option<&str>) -> TestSession {
    TestSession::open(hub, principal(), Transport::new("websocket"), cursor).await.unwrap()
}

/// The texts that a session is sent of what was published before this call.
async fn texts(session: &mut TestSession) -> Vec<String> {
    let text = |event| match event {
        TestEvent::Message(message) => message.data.to_string(),
        TestEvent::Gap { reason, .. } => format!("gap: {}", reason.name()),
        other => panic!("{other:?}"),
    };
    session.received().await.into_iter().map(text).collect()
}

/// Waits until the node has taken everything that was published.
async fn taken(hub: &Hub) {
    texts(&mut TestSession::connect(hub, 99.into()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_options_of_a_message_hold_on_another_node() {
    const TTL: Duration = Duration::from_millis(300);
    let redis = Redis::start().await;
    let (a, b) = (node(config(&redis)).await, node(config(&redis)).await);
    let mut on_b = session(&b, None).await;
    a.publish(to_topic("first")).await.unwrap();
    assert_eq!(on_b.text().await, "first");
    let cursor = on_b.cursor().unwrap().to_string();
    let end = Instant::now() + TTL;
    a.publish(to_topic("in time").with_ttl(TTL)).await.unwrap();
    assert_eq!(on_b.text().await, "in time");
    for n in 0..100 {
        a.publish(price("XAU", n.to_string())).await.unwrap();
    }
    a.publish(to_topic("kept").retain()).await.unwrap();
    let seen = texts(&mut on_b).await;
    assert_eq!(seen[seen.len() - 2..], ["99", "kept"]);
    // It has to be over.
    sleep_until(end + Duration::from_millis(50)).await;
    for hub in [&a, &b] {
        let mut back = session(hub, Some(&cursor)).await;
        assert_eq!(back.recovered(), Some(true));
        assert_eq!(texts(&mut back).await, ["99", "kept"]);
        assert_eq!(
            texts(&mut session(hub, None).await).await,
            ["kept"],
            "who comes new gets what is retained"
        );
        assert!(hub.metrics().expired >= 1 && hub.metrics().collapsed >= 99, "{:?}", hub.metrics());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_a_message_counts_on_a_node_that_starts() {
    const TTL: Duration = Duration::from_millis(300);
    let redis = Redis::start().await;
    let bus = RedisStreamsBus::new(config(&redis)).unwrap();
    let before = bus.publish(&Arc::new(to_topic("before"))).await.unwrap().position.unwrap();
    let end = Instant::now() + TTL;
    bus.publish(&Arc::new(to_topic("too late").with_ttl(TTL).retain())).await.unwrap();
    bus.publish(&Arc::new(price("long", "long").with_ttl(Duration::from_secs(60)).retain())).await.unwrap();
    sleep_until(end + Duration::from_millis(50)).await;
    let hub = node(config(&redis)).await;
    assert_eq!(texts(&mut session(&hub, Some(&before.to_string())).await).await, ["long"]);
    assert_eq!(texts(&mut session(&hub, None).await).await, ["long"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_knows_what_is_retained_and_has_left_the_stream() {
    let redis = Redis::start().await;
    let first = node(config(&redis)).await;
    first.publish(price("XAU", "old").retain()).await.unwrap();
    first.publish(price("XAU", "new").retain()).await.unwrap();
    first.publish(price("XAG", "cleared").retain()).await.unwrap();
    first.publish(price("XAG", "").retain()).await.unwrap();
    first.publish(to_topic("of no key").retain()).await.unwrap();
    redis.cli(&["xtrim", "{rt}:log", "maxlen", "0"]);
    let late = node(config(&redis)).await;
    let mut newcomer = session(&late, None).await;
    assert_eq!(texts(&mut newcomer).await, ["new", "of no key"]);
    first.publish(price("XAU", "newest").retain()).await.unwrap();
    assert_eq!(texts(&mut newcomer).await, ["newest"]);
    assert_eq!(texts(&mut session(&late, None).await).await, ["of no key", "newest"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_slow_network_starts_beside_many_large_retained_messages() {
    const MESSAGES: usize = 200;
    let redis = Redis::start().await;
    let publisher = RedisStreamsBus::new(config(&redis)).unwrap();
    for n in 0..MESSAGES {
        let message = price(&n.to_string(), "x".repeat(60 << 10)).retain();
        publisher.publish(&Arc::new(message)).await.unwrap();
    }
    // They have left the stream, but for some.
    redis.cli(&["xtrim", "{rt}:log", "maxlen", "10"]);
    let proxy = Proxy::start_at(redis.port(), 4 << 20).await;
    let slow = RedisConfig::single(format!("redis://127.0.0.1:{}/", proxy.port()));
    let mut events = Subscriber::start(&RedisStreamsBus::new(slow).unwrap());
    within("a start", async {
        let kept = events.until(|event| matches!(event, BusEvent::Retained(_))).await;
        assert!(matches!(kept, BusEvent::Retained(kept) if kept.len() == MESSAGES));
        events.until(|event| matches!(event, BusEvent::Up(_))).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_retains_is_bounded_and_the_oldest_goes_first() {
    let redis = Redis::start().await;
    let mut settings = Settings::default();
    settings.retained.max_messages = 3;
    let bus = RedisStreamsBus::new(config(&redis).retained(&settings.retained)).unwrap();
    let publish = async |envelope: Envelope| bus.publish(&Arc::new(envelope.retain())).await.unwrap();
    for n in 0..10 {
        publish(price(&format!("k{n}"), n.to_string())).await;
    }
    publish(price("k8", "again")).await;
    let order = || redis.cli(&["zrange", "{rt}:retained:order", "0", "-1"]);
    assert_eq!(order(), "prices k7\nprices k9\nprices k8");
    assert_eq!(redis.cli(&["hlen", "{rt}:retained"]), "4", "and their size");
    // What has ended makes room.
    publish(price("short", "x").with_ttl(Duration::from_millis(1))).await;
    within("the end of a message", async {
        loop {
            publish(price("k8", "once more")).await;
            if redis.cli(&["zcard", "{rt}:retained:ends"]) == "0" {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(order(), "prices k9\nprices k8");
    let hub = node(config(&redis)).await;
    assert_eq!(texts(&mut session(&hub, None).await).await, ["9", "once more"]);
    // By size.
    settings.retained.max_bytes = 1000;
    let small = RedisStreamsBus::new(config(&redis).retained(&settings.retained)).unwrap();
    small.publish(&Arc::new(price("large", "x".repeat(750)).retain())).await.unwrap();
    assert_eq!(order(), "prices large");
    for key in ["k8", "k9", "large"] {
        publish(price(key, "")).await;
    }
    assert_eq!(redis.cli(&["hgetall", "{rt}:retained"]), "0", "the size was counted down to nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_many_keys_takes_no_room_from_others_in_redis() {
    let redis = Redis::start().await;
    let mut settings = Settings::default();
    (settings.retained.max_messages, settings.retained.max_per_topic) = (5, 2);
    let bounded = config(&redis).retained(&settings.retained);
    let bus = RedisStreamsBus::new(bounded.clone()).unwrap();
    let publish = async |bus: &RedisStreamsBus, envelope: Envelope| {
        bus.publish(&Arc::new(envelope.retain())).await.unwrap();
    };
    // Their names are next to those of `prices`.
    for other in ["price", "prices!", "prices-of-gold"] {
        let topic = Topic::new(other).unwrap();
        publish(&bus, Envelope::to_topic(topic, Scope::Both, Message::text("other"))).await;
    }
    let others = "price\nprices!\nprices-of-gold";
    let order = || redis.cli(&["zrange", "{rt}:retained:order", "0", "-1"]);
    publish(&bus, to_topic("of no key")).await;
    for n in 0..100 {
        publish(&bus, price(&format!("k{n}"), n.to_string())).await;
        if n == 0 {
            assert_eq!(order(), format!("{others}\nprices\nprices k0"), "two are allowed");
        }
    }
    assert_eq!(order(), format!("{others}\nprices k98\nprices k99"));
    // One that is published again is the newest of them.
    publish(&bus, price("k98", "again")).await;
    publish(&bus, price("new", "new")).await;
    assert_eq!(order(), format!("{others}\nprices k98\nprices new"));
    assert_eq!(redis.cli(&["zcard", "{rt}:retained:topics"]), "5");
    // A node that starts when they have left the stream has the same.
    redis.cli(&["xtrim", "{rt}:log", "maxlen", "0"]);
    let hub = Hub::builder().settings(settings).bus(RedisStreamsBus::new(bounded).unwrap()).start().unwrap();
    ready(&hub).await;
    assert_eq!(texts(&mut session(&hub, None).await).await, ["again", "new"]);
    assert_eq!(hub.metrics().retained_dropped, 0);
    // What a publisher without bounds has added goes with the next message of the topic.
    let unbounded = RedisStreamsBus::new(config(&redis).without_trimming()).unwrap();
    for n in 0..10 {
        publish(&unbounded, price(&format!("u{n}"), "x")).await;
    }
    assert_eq!(redis.cli(&["zcard", "{rt}:retained:order"]), "15");
    publish(&bus, price("u9", "last")).await;
    assert_eq!(order(), format!("{others}\nprices u8\nprices u9"));
    for key in ["u8", "u9"] {
        publish(&bus, price(key, "")).await;
    }
    assert_eq!(redis.cli(&["zcard", "{rt}:retained:topics"]), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_message_with_an_idempotency_key_is_published_once() {
    let redis = Redis::start().await;
    let hub = node(config(&redis)).await;
    let id = realtime_core::EnvelopeId::random();
    let first = hub.publish(to_topic("one").with_id(id.clone()).retain()).await.unwrap();
    hub.publish(to_topic("two").retain()).await.unwrap();
    assert_eq!(hub.publish(to_topic("one").with_id(id).retain()).await.unwrap(), first);
    taken(&hub).await;
    assert_eq!(texts(&mut session(&hub, None).await).await, ["two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_of_redis_is_a_loss_of_what_it_retained() {
    let redis = Redis::start().await;
    let hub = node(config(&redis)).await;
    hub.publish(to_topic("lost").retain()).await.unwrap();
    let mut witness = session(&hub, None).await;
    assert_eq!(texts(&mut witness).await, ["lost"]);
    redis.cli(&["flushall"]);
    within("the gap", async { while !matches!(witness.next().await, TestEvent::Gap { .. }) {} }).await;
    hub.publish(price("XAU", "kept").retain()).await.unwrap();
    taken(&hub).await;
    assert_eq!(texts(&mut session(&hub, None).await).await, ["kept"], "all nodes have the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_stopped_meanwhile_knows_what_is_retained() {
    let redis = Redis::start().await;
    let url = redis.url();
    let variables = [("REALTIME__REDIS__URL", url.as_str()), ("REALTIME__HISTORY__MAXMESSAGES", "300")];
    let (runs, stops) = (Demo::start_with(&variables).await, Demo::start_with(&variables).await);
    for demo in [&runs, &stops] {
        demo.until_ready().await;
    }
    runs.publish(json!({ "topics": ["prices"], "message": "before", "retain": true })).await;
    stops.pause();
    runs.publish(json!({ "topics": ["prices"], "message": "meanwhile", "retain": true })).await;
    for n in 0..2000 {
        runs.publish_to(7, &n.to_string()).await;
    }
    stops.resume();
    within("the node to be ready again", async {
        while stops.get("/health/ready").await.0 != 200 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // It has read to the end when its own message comes.
    let mut reader = stops.socket(8).await;
    stops.publish_to(8, "read").await;
    assert_eq!(reader.text().await, "read");
    let claims = json!({ "userId": 1, "clientid": "web", "exp": 4_000_000_000_u64, "topics": ["prices"] });
    let mut newcomer = Socket::open(&stops, &sign(&claims), &[], None).await.unwrap();
    assert_eq!(newcomer.text().await, "meanwhile");
}

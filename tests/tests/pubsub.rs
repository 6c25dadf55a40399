//! The bus in RuoYi's bytes over a real redis-server, beside nodes that are not ours, in good days and bad ones.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use realtime_core::{
    Envelope, EventName, Hub, Message, Scope, Topic, Transport, UserId,
    bus::{Bus, BusError, BusEvent},
    ruoyi::{SSE_TOPIC, WEBSOCKET_TOPIC},
};
use realtime_redis::{PubSubMetrics, RedisConfig, RedisPubSubBus};
use realtime_tests::{
    Embedded, EventStream, Fault, Part, Redis, Socket,
    conformance::{Subscriber, Terms, bus_conforms, envelope},
    free_port, token, within,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{sleep, sleep_until},
};

const SSE: &str = r#"["org.dromara.common.sse.dto.SseMessageDto","#;
const WEBSOCKET: &str = r#"["org.dromara.common.websocket.dto.WebSocketMessageDto","#;

fn bus(redis: &Redis) -> RedisPubSubBus {
    RedisPubSubBus::new(RedisConfig::single(redis.url())).unwrap()
}

fn only(transport: &str) -> Scope {
    Scope::Only(Transport::parse(transport).unwrap())
}

fn to_sse(text: &str) -> Arc<Envelope> {
    Arc::new(Envelope::broadcast(only("sse"), Message::text(text)))
}

fn to_users(users: &[i64], scope: Scope, text: &str) -> Envelope {
    let users: Vec<_> = users.iter().copied().map(UserId::from).collect();
    Envelope::to_users(&users, scope, Message::text(text)).unwrap()
}

/// Publishes until Redis takes it.
async fn insist(bus: &impl Bus, envelope: &Arc<Envelope>) {
    within("Redis to take an envelope", async {
        while let Err(error) = bus.publish(envelope).await {
            assert!(matches!(error, BusError::Unavailable(_)), "{error}");
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Waits until the bus is away; why it is.
async fn down(events: &mut Subscriber) -> String {
    match events.until(|event| matches!(event, BusEvent::Down(_))).await {
        BusEvent::Down(problem) => problem,
        _ => unreachable!(),
    }
}

/// What comes after: a gap, and the bus is there again.
async fn gap_and_up(events: &mut Subscriber) {
    let back = events.until(|event| !matches!(event, BusEvent::Down(_))).await;
    assert_eq!(back, BusEvent::Gap);
    assert_eq!(events.next().await, BusEvent::Up(None));
}

/// A plain subscriber: redis-cli.
struct Bystander {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Bystander {
    async fn on(redis: &Redis, channels: &[&str]) -> Self {
        let mut child = Command::new("redis-cli")
            .args(["-u", &redis.url(), "subscribe"])
            .args(channels)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut bystander = Self { lines, _child: child };
        for _ in channels {
            while bystander.line().await != "subscribe" {}
        }
        bystander
    }

    async fn line(&mut self) -> String {
        within("a line of redis-cli", self.lines.next_line()).await.unwrap().expect("redis-cli goes on")
    }

    /// The next message's channel and payload.
    async fn message(&mut self) -> (String, String) {
        while self.line().await != "message" {}
        (self.line().await, self.line().await)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pubsub_bus_conforms_on_both_channels() {
    let redis = Redis::start().await;
    for transport in ["websocket", "sse"] {
        bus_conforms(|| bus(&redis), &Terms::ruoyi(transport)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn others_see_the_bytes_of_a_java_node() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let mut bystander = Bystander::on(&redis, &[WEBSOCKET_TOPIC, SSE_TOPIC]).await;
    for (envelope, messages) in [
        (
            to_users(&[1, 2], only("sse"), "hi"),
            vec![(SSE_TOPIC, format!(r#"{SSE}{{"message":"hi","userIds":["java.util.ArrayList",[1,2]]}}]"#))],
        ),
        (
            Envelope::broadcast(only("websocket"), Message::text("你好 😀\n\"/\u{1}")),
            vec![(WEBSOCKET_TOPIC, format!(r#"{WEBSOCKET}{{"message":"你好 \uD83D\uDE00\n\"/\u0001"}}]"#))],
        ),
        (
            // A user who is named twice gets it once.
            to_users(&[1_925_000_000_000_000_001, 7, 1_925_000_000_000_000_001], Scope::Both, "both"),
            vec![
                (
                    WEBSOCKET_TOPIC,
                    format!(
                        r#"{WEBSOCKET}{{"message":"both","sessionKeys":["java.util.ArrayList",[1925000000000000001,7]]}}]"#
                    ),
                ),
                (
                    SSE_TOPIC,
                    format!(
                        r#"{SSE}{{"message":"both","userIds":["java.util.ArrayList",[1925000000000000001,7]]}}]"#
                    ),
                ),
            ],
        ),
    ] {
        assert_eq!(bus.publish(&Arc::new(envelope)).await.unwrap().position, None);
        for (channel, payload) in messages {
            assert_eq!(bystander.message().await, (channel.to_owned(), payload));
        }
    }
}

#[actix_web::test]
async fn what_java_nodes_publish_reaches_the_sessions_it_is_for() {
    let redis = Redis::start().await;
    let server = Embedded::start(Hub::builder().bus(bus(&redis)).start().unwrap());
    within("the bus", async {
        while server.hub.ready().is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let mut one = Socket::open(&server, &token(1), &[], None).await.unwrap();
    let mut two = Socket::open(&server, &token(2), &[], None).await.unwrap();
    let mut stream = EventStream::open(&server, &token(1), None).await.unwrap();
    for (channel, payload) in [
        (
            WEBSOCKET_TOPIC,
            format!(r#"{WEBSOCKET}{{"message":"to one","sessionKeys":["java.util.ArrayList",[1]]}}]"#),
        ),
        (WEBSOCKET_TOPIC, format!(r#"{WEBSOCKET}{{"message":"to all \uD83D\uDE00"}}]"#)),
        (
            SSE_TOPIC,
            format!(
                r#"{SSE}{{"message":"to one","userIds":["java.util.ImmutableCollections$List12",["1"]]}}]"#
            ),
        ),
        (SSE_TOPIC, format!(r#"{SSE}{{"message":"to two","userIds":["java.util.Arrays$ArrayList",[2]]}}]"#)),
        (SSE_TOPIC, format!(r#"{SSE}{{"userIds":["java.util.ArrayList",[]],"message":"to all"}}]"#)),
    ] {
        redis.cli(&["publish", channel, &payload]);
    }
    assert_eq!(one.text().await, "to one");
    for socket in [&mut one, &mut two] {
        assert_eq!(socket.text().await, "to all 😀");
    }
    assert_eq!(stream.data().await, "to one");
    assert_eq!(stream.data().await, "to all");
    // What this node publishes takes the same way, to both kinds of sessions.
    server.hub.publish(to_users(&[1], Scope::Both, "from here")).await.unwrap();
    assert_eq!(one.text().await, "from here");
    assert_eq!(stream.data().await, "from here");
    assert_eq!(stream.last_id, "", "without positions there is no id to come back with");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_those_bytes_cannot_say_is_refused_by_name() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let topics = |names: &[&str]| {
        let topics: Vec<_> = names.iter().map(|name| Topic::new(name).unwrap()).collect();
        Envelope::to_topics(topics, Scope::Both, Message::text("x")).unwrap()
    };
    let order = Message::new(EventName::new("order").unwrap(), "x");
    for (envelope, what) in [
        (topics(&["user:u-7"]), "user `u-7`, only users whose id is a number"),
        (topics(&["user:1", "user:007"]), "user `007`, only users whose id is a number"),
        (topics(&["role:admin"]), "topic `role:admin`, only users and `all`"),
        (topics(&["user:1", "order:42"]), "topic `order:42`, only users and `all`"),
        (topics(&["user:1", "all"]), "`all` together with other topics"),
        (topics(&["all", "role:admin"]), "`all` together with other topics"),
        (Envelope::broadcast(Scope::Both, order), "event `order`, only `message`"),
        (
            Envelope::broadcast(only("carrier-pigeon"), Message::text("x")),
            "transport `carrier-pigeon`, only `websocket` and `sse`",
        ),
    ] {
        let error = bus.publish(&Arc::new(envelope)).await.unwrap_err();
        assert!(matches!(error, BusError::Unsupported(_)));
        assert_eq!(error.to_string(), format!("this bus cannot carry {what}"));
    }
    assert_eq!(bus.metrics().connects, 0, "Redis was not even asked");
    bus.publish(&Arc::new(topics(&["all", "all"]))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_users_are_one_command() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let users: Vec<_> = (0..1000).collect();
    bus.publish(&Arc::new(to_users(&users, only("sse"), "x"))).await.unwrap();
    let stats = redis.cli(&["info", "commandstats"]);
    assert!(stats.contains("cmdstat_publish:calls=1,"), "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_read_is_counted_and_skipped() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let mut events = Subscriber::up(&bus).await;
    for payload in ["secret", r#"{"message":"secret"}"#, &format!("{SSE}{{}}]"), &format!("{WEBSOCKET}{{}}]")]
    {
        redis.cli(&["publish", SSE_TOPIC, payload]);
    }
    bus.publish(&to_sse("after")).await.unwrap();
    assert_eq!(events.message().await.1, "after", "no gap comes before it");
    // One connection publishes and one listens.
    assert_eq!(bus.metrics(), PubSubMetrics { connects: 2, undecodable: 4 });
    Fault::new("Message: cannot be read", Part::PubSub, "Counted and skipped, no gap.").record();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_prefix_comes_before_every_channel_and_is_not_doubled() {
    let redis = Redis::start().await;
    for (prefix, channel) in [("app", "app:global:sse"), ("global", "global:sse"), ("a:b", "a:b:global:sse")]
    {
        let mut config = RedisConfig::single(redis.url());
        config.key_prefix = prefix.to_owned();
        let bus = RedisPubSubBus::new(config).unwrap();
        let mut events = Subscriber::up(&bus).await;
        let mut bystander = Bystander::on(&redis, &[channel]).await;
        bus.publish(&to_sse("x")).await.unwrap();
        assert_eq!(bystander.message().await.1, format!(r#"{SSE}{{"message":"x"}}]"#));
        assert_eq!(events.message().await.1, "x");
        let canary = format!("{prefix}:realtime:canary:*");
        assert_eq!(redis.cli(&["pubsub", "channels", &canary]).lines().count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_publishing_is_an_error_at_once() {
    let port = free_port();
    let bus = RedisPubSubBus::new(RedisConfig::single(format!("redis://127.0.0.1:{port}/"))).unwrap();
    let asked = Instant::now();
    assert!(matches!(bus.publish(&envelope("x")).await, Err(BusError::Unavailable(_))));
    let refused = asked.elapsed();
    assert!(refused < Duration::from_secs(2));
    let mut events = bus.subscribe();
    use futures_util::StreamExt;
    assert!(matches!(within("an event", events.next()).await, Some(BusEvent::Down(_))));
    let seen = "Publishing fails in less than 2 s.";
    Fault::new("Redis: cannot be reached", Part::PubSub, seen)
        .figures(format_args!("{refused:.1?}"))
        .record();
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_restarted_20_times_is_a_gap_each_time_and_delivery_goes_on() {
    let mut redis = Redis::start().await;
    let (node, other) = (bus(&redis), bus(&redis));
    let mut events = Subscriber::up(&node).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        redis.kill();
        let killed = Instant::now();
        down(&mut events).await;
        assert!(killed.elapsed() < Duration::from_secs(1), "took {:?}", killed.elapsed());
        assert!(matches!(other.publish(&to_sse("lost")).await, Err(BusError::Unavailable(_))));
        redis.restart().await;
        let back = Instant::now();
        gap_and_up(&mut events).await;
        insist(&other, &to_sse("after")).await;
        assert_eq!(events.message().await.1, "after");
        assert!(back.elapsed() < Duration::from_secs(2), "took {:?}", back.elapsed());
        slowest = slowest.max(back.elapsed());
    }
    let seen = "A gap each time; delivery goes on within 2 s.";
    Fault::new("Redis: killed and restarted, empty, 20 times under a publisher", Part::PubSub, seen)
        .figures(format_args!("at most {slowest:.1?}"))
        .record();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_redis_changes_nothing() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let mut events = Subscriber::up(&bus).await;
    redis.cli(&["flushall"]);
    bus.publish(&to_sse("after")).await.unwrap();
    assert_eq!(events.message().await.1, "after", "no gap comes before it");
    Fault::new("Redis: emptied (FLUSHALL)", Part::PubSub, "Nothing: channels hold nothing.").record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_is_noticed_within_three_seconds() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let mut events = Subscriber::up(&bus).await;
    redis.pause();
    let hung = tokio::time::Instant::now();
    let publish = bus.publish(&to_sse("meanwhile")).await;
    assert!(matches!(publish, Err(BusError::Unavailable(_))), "{publish:?}");
    assert!(hung.elapsed() < Duration::from_millis(2500), "took {:?}", hung.elapsed());
    down(&mut events).await;
    let noticed = hung.elapsed();
    assert!(noticed < Duration::from_secs(3), "took {noticed:?}");
    sleep_until(hung + Duration::from_secs(10)).await;
    redis.resume();
    let back = Instant::now();
    gap_and_up(&mut events).await;
    insist(&bus, &to_sse("after")).await;
    // Redis may have found the one that it did not answer in its buffer.
    let is_after = |event: &BusEvent| matches!(event, BusEvent::Message(_, it) if *it == to_sse("after"));
    events.until(is_after).await;
    let back = back.elapsed();
    assert!(back < Duration::from_secs(2), "took {back:?}");
    let seen = "Publishing fails within 2.5 s, the bus is down within 3 s. When Redis goes on: a gap, and delivery \
                within 2 s. What failed may arrive all the same.";
    Fault::new("Redis: hangs for 10 s (SIGSTOP)", Part::PubSub, seen)
        .figures(format_args!("down after {noticed:.1?}, delivery {back:.1?} after it goes on"))
        .record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_cut_is_noticed_at_once() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let mut events = Subscriber::up(&bus).await;
    let mut slowest = Duration::ZERO;
    for round in 0..3 {
        assert_eq!(redis.cli(&["client", "kill", "type", "pubsub"]), "1");
        let cut = Instant::now();
        down(&mut events).await;
        assert!(cut.elapsed() < Duration::from_secs(1), "took {:?}", cut.elapsed());
        gap_and_up(&mut events).await;
        let text = round.to_string();
        bus.publish(&to_sse(&text)).await.unwrap();
        assert_eq!(events.message().await.1, text);
        assert!(cut.elapsed() < Duration::from_secs(2), "took {:?}", cut.elapsed());
        slowest = slowest.max(cut.elapsed());
    }
    let seen = "Noticed at once: a gap, delivery within 2 s.";
    Fault::new("Redis: subscriptions are cut (CLIENT KILL TYPE pubsub)", Part::PubSub, seen)
        .figures(format_args!("at most {slowest:.1?}"))
        .record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_is_cut_leaves_the_subscription_alone() {
    let redis = Redis::start().await;
    let (node, other) = (bus(&redis), bus(&redis));
    let mut events = Subscriber::up(&node).await;
    for round in 0..3 {
        redis.cli(&["client", "kill", "type", "normal", "skipme", "yes"]);
        let text = round.to_string();
        insist(&other, &to_sse(&text)).await;
        assert_eq!(events.message().await.1, text);
    }
    let seen = "Subscriptions stay: no gap.";
    Fault::new("Redis: connections are cut (CLIENT KILL TYPE normal)", Part::PubSub, seen).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_lives_but_hears_nothing_is_down() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let mut events = Subscriber::up(&bus).await;
    // The connections stay as they are, but nobody may publish any more.
    redis.cli(&["acl", "setuser", "default", "-publish"]);
    let muted = Instant::now();
    let problem = down(&mut events).await;
    assert!(problem.contains("heartbeat"), "{problem}");
    assert!(muted.elapsed() < Duration::from_secs(3), "took {:?}", muted.elapsed());
    let refused = bus.publish(&to_sse("x")).await;
    assert!(matches!(refused, Err(BusError::Refused(_))), "never Ok when Redis did not take it");
    redis.cli(&["acl", "setuser", "default", "+publish"]);
    gap_and_up(&mut events).await;
    let seen = "Noticed within 3 s; publishing never says yes to what Redis refused. Then a gap.";
    Fault::new("Redis: connections live, but nothing comes through", Part::PubSub, seen).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_nothing_gets_a_gap_and_holds_no_memory() {
    let redis = Redis::start().await;
    let (slow, fast) = (bus(&redis), bus(&redis));
    let mut events = Subscriber::up(&slow).await;
    let subscriptions = || redis.cli(&["pubsub", "numsub", SSE_TOPIC]);
    // More than waits for a subscriber who takes nothing.
    for n in 0..5000 {
        fast.publish(&to_sse(&n.to_string())).await.unwrap();
    }
    within("the connection to be given up", async {
        while subscriptions() != format!("{SSE_TOPIC}\n0") {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let mut heard = 0;
    loop {
        match events.next().await {
            BusEvent::Message(None, envelope) => {
                assert_eq!(envelope.message().data.to_string(), heard.to_string());
                heard += 1;
            }
            BusEvent::Down(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!((1000..5000).contains(&heard), "{heard}");
    gap_and_up(&mut events).await;
    fast.publish(&to_sse("after")).await.unwrap();
    assert_eq!(events.message().await.1, "after");
    let seen = "What waits for it stays bounded; then a gap, and what is published then.";
    Fault::new("Node: reads more slowly than others publish", Part::PubSub, seen).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_ends_with_its_stream() {
    let redis = Redis::start().await;
    let bus = bus(&redis);
    let events = Subscriber::up(&bus).await;
    assert_eq!(redis.cli(&["pubsub", "numsub", SSE_TOPIC]), format!("{SSE_TOPIC}\n1"));
    drop(events);
    within("the connection to be closed", async {
        while redis.cli(&["pubsub", "numsub", SSE_TOPIC]) != format!("{SSE_TOPIC}\n0") {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

//! In pubsub mode Java nodes and these exchange messages in RuoYi's bytes; what these cannot carry is refused by name.

use std::{process::Stdio, sync::Arc, time::Duration};

use realtime_core::{
    CollapseKey, Envelope, EnvelopeId, EventName, Hub, Message, Scope, Topic, UserId,
    bus::{Bus, BusError},
    ruoyi::{SSE_TOPIC, WEBSOCKET_TOPIC},
};
use realtime_redis::{PubSubMetrics, RedisConfig, RedisPubSubBus};
use realtime_tests::{
    Embedded, EventStream, Fault, Part, Redis, Socket,
    conformance::{Subscriber, Terms, bus_conforms},
    token, within,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::sleep,
};

use super::{bus, only, to_sse};

const SSE: &str = r#"["org.dromara.common.sse.dto.SseMessageDto","#;
const WEBSOCKET: &str = r#"["org.dromara.common.websocket.dto.WebSocketMessageDto","#;

fn to_users(users: &[i64], scope: Scope, text: &str) -> Envelope {
    let users: Vec<_> = users.iter().copied().map(UserId::from).collect();
    Envelope::to_users(&users, scope, Message::text(text)).unwrap()
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
async fn envelopes_that_those_bytes_cannot_express_are_refused_by_name() {
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
            topics(&["all"]).with_id(EnvelopeId::random()),
            "an idempotency key: RuoYi's messages have no room for it",
        ),
        (topics(&["all"]).with_ttl(Duration::from_secs(1)), "a ttl: RuoYi's messages have no room for it"),
        (
            topics(&["all"]).collapse(CollapseKey::new("a-key").unwrap()),
            "a collapse key: RuoYi's messages have no room for it",
        ),
        (topics(&["order:42"]).retain(), "retain: RuoYi's messages have no room for it"),
        (
            Envelope::broadcast(only("carrier-pigeon"), Message::text("x")),
            "transport `carrier-pigeon`, only `websocket` and `sse`",
        ),
    ] {
        let error = bus.publish(&Arc::new(envelope)).await.unwrap_err();
        assert!(matches!(error, BusError::Unsupported(_)));
        assert_eq!(error.to_string(), format!("unsupported by this bus: {what}"));
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
    let PubSubMetrics { connects, undecodable, .. } = bus.metrics();
    assert_eq!((connects, undecodable), (2, 4));
    Fault::new("Message: cannot be read", Part::PubSub, "Counted and skipped, no gap.").record();
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_know_no_database() {
    let redis = Redis::start().await;
    let url = redis.url();
    let [zero, three] = ["0", "3"]
        .map(|database| RedisPubSubBus::new(RedisConfig::single(format!("{url}{database}"))).unwrap());
    let mut node = Subscriber::up(&three).await;
    zero.publish(&to_users(&[1], Scope::Both, "over databases").into()).await.unwrap();
    assert_eq!(node.message().await.1, "over databases");
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

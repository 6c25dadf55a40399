//! A user with sessions on several nodes receives each message once per session, also after moving to another node.

use std::time::{Duration, Instant};

use realtime_tests::{Demo, EventStream, Fault, Part, Redis, Socket, token, within};
use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

async fn node(redis: &Redis) -> Demo {
    node_with(redis, &[]).await
}

async fn node_with(redis: &Redis, variables: &[(&str, &str)]) -> Demo {
    let url = redis.url();
    let mut all = vec![("REALTIME__REDIS__URL", url.as_str())];
    all.extend(variables);
    let demo = Demo::start_with(&all).await;
    ready(&demo).await;
    demo
}

async fn ready(demo: &Demo) {
    demo.until_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_on_three_nodes_gets_every_message_once_per_session() {
    let redis = Redis::start().await;
    for mode in ["streams", "pubsub"] {
        let variables = [("REALTIME__REDIS__MODE", mode), ("REALTIME__REDIS__KEYPREFIX", mode)];
        let nodes = [
            node_with(&redis, &variables).await,
            node_with(&redis, &variables).await,
            node_with(&redis, &variables).await,
        ];
        let (mut sockets, mut streams) = (Vec::new(), Vec::new());
        for node in &nodes {
            sockets.push(node.socket(1).await);
            streams.push(node.stream(1).await);
            // Two of a kind on one node.
            streams.push(node.stream(1).await);
        }
        for n in 0..60 {
            let body = json!({ "userIds": [1], "message": n.to_string() }).to_string();
            let (status, answer) = nodes[n % 3].try_publish(&body).await;
            assert_eq!(status, 200, "{answer}");
        }
        // Each next one is the next number: nothing comes twice, and nothing is missing.
        for n in 0..60 {
            for socket in &mut sockets {
                assert_eq!(socket.text().await, n.to_string(), "{mode}");
            }
            for stream in &mut streams {
                assert_eq!(stream.data().await, n.to_string(), "{mode}");
            }
        }
        // The last one did not come twice either.
        for socket in &mut sockets {
            socket.send("ping").await;
            assert_eq!(socket.text().await, "pong", "{mode}");
        }
        for stream in &mut streams {
            let more = tokio::time::timeout(Duration::from_millis(200), stream.next()).await;
            assert!(more.is_err(), "{mode}: {more:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_stopped_while_the_stream_overruns_it_tells_a_gap_and_the_rest() {
    const MESSAGES: usize = 3000;
    let redis = Redis::start().await;
    let variables = [("REALTIME__HISTORY__MAXMESSAGES", "300")];
    let (runs, stops) = (node_with(&redis, &variables).await, node_with(&redis, &variables).await);
    let mut socket = stops.socket_v1(1).await;
    assert_eq!(socket.json().await["type"], "hello");
    let mut stream = stops.stream(1).await;
    runs.publish_to(1, "0").await;
    assert_eq!(socket.message().await["data"], "0");
    assert_eq!(stream.data().await, "0");
    let signal = |signal: &str| {
        let pid = stops.pid().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
    };
    signal("-STOP");
    for n in 1..=MESSAGES {
        runs.publish_to(1, &n.to_string()).await;
    }
    let kept: usize = redis.cli(&["xlen", "{rt}:log"]).parse().unwrap();
    assert!(kept < MESSAGES / 2, "{kept} entries are kept, so nothing overran the node");
    signal("-CONT");
    // Numbers that are missing have a gap before the next one.
    let mut seen = Seen { last: 0, missing: 0, gap: false };
    while seen.last < MESSAGES {
        let event = stream.next().await.expect("the stream goes on");
        seen.take((event.event == "message").then_some(event.data.as_str()));
    }
    let missing = seen.missing;
    assert!((1..MESSAGES).contains(&missing), "{missing}");
    let mut seen = Seen { last: 0, missing: 0, gap: false };
    while seen.last < MESSAGES {
        let frame = socket.json().await;
        match frame["type"].as_str().unwrap() {
            "message" => seen.take(frame["data"].as_str()),
            "gap" => seen.take(None),
            "ping" => {}
            other => panic!("{other}"),
        }
    }
    assert!((1..MESSAGES).contains(&seen.missing), "{}", seen.missing);
    let words = "Its clients are told a gap where entries were trimmed away, and get all that is left.";
    Fault::new("Node: stopped (SIGSTOP) until the stream has overrun it (MAXLEN)", Part::Streams, words)
        .figures(format_args!("{missing} of {MESSAGES} were trimmed away and announced"))
        .record();
}

/// Numbers and gaps that a client has received.
struct Seen {
    last: usize,
    missing: usize,
    /// A gap came after the last number.
    gap: bool,
}

impl Seen {
    /// Takes a number, or a gap.
    fn take(&mut self, number: Option<&str>) {
        let Some(number) = number.map(|number| number.parse::<usize>().unwrap()) else {
            self.gap = true;
            return;
        };
        assert!(number > self.last, "{number} after {}", self.last);
        assert!(number == self.last + 1 || self.gap, "{number} after {} without a gap", self.last);
        self.missing += number - self.last - 1;
        (self.last, self.gap) = (number, false);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_to_another_node_misses_nothing() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis).await, node(&redis).await);
    let token = token(1);
    let mut stream = EventStream::open(&a, &token, None).await.unwrap();
    a.publish_to(1, "seen").await;
    assert_eq!(stream.data().await, "seen");
    let cursor = stream.last_id.clone();
    drop((stream, a));
    b.publish_to(1, "missed").await;
    let mut back = Socket::open(&b, &token, &["realtime.v1"], Some(&cursor)).await.unwrap();
    assert_eq!(back.json().await["recovered"], true);
    assert_eq!(back.message().await["data"], "missed");
    // A node that has just started has read the window too.
    let c = node(&redis).await;
    let mut on_c = EventStream::open(&c, &token, Some(&cursor)).await.unwrap();
    assert_eq!(on_c.data().await, "missed");
    let seen = "A client that comes back to another node, or to one that has just started, misses nothing.";
    Fault::new("Node: killed", Part::Streams, seen).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_nodes_serve_and_report_it_and_recover() {
    let mut redis = Redis::start().await;
    let at_once = [("REALTIME__HEALTH__GRACE", "0s")];
    let (a, b) = (node_with(&redis, &at_once).await, node_with(&redis, &at_once).await);
    let mut socket = b.socket(1).await;
    let mut v1 = b.socket_v1(1).await;
    assert_eq!(v1.json().await["type"], "hello");
    redis.kill();
    let killed = Instant::now();
    let body = json!({ "userIds": [1], "message": "lost" }).to_string();
    let (status, answer) = a.try_publish(&body).await;
    assert_eq!(status, 503, "{answer}");
    assert!(
        answer["msg"].as_str().unwrap().starts_with("failed to publish to `user:1`: the bus is unavailable")
    );
    within("both nodes to be unready", async {
        while a.get("/health/ready").await.0 != 503 || b.get("/health/ready").await.0 != 503 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let unready = killed.elapsed();
    assert!(unready < Duration::from_secs(2), "took {unready:?}");
    // Connections stay, and new ones are admitted.
    socket.send("ping").await;
    assert_eq!(socket.text().await, "pong");
    let late = b.socket(2).await;
    drop(late);

    redis.restart().await;
    let back = Instant::now();
    within("publishing to work", async {
        while a.try_publish(&json!({ "userIds": [1], "message": "back" }).to_string()).await.0 != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(socket.text().await, "back");
    let delivery = back.elapsed();
    assert!(delivery < Duration::from_secs(2), "took {delivery:?}");
    // The history is another one, so a gap comes before what follows.
    let gap = v1.json().await;
    assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("bus")));
    assert_eq!(v1.message().await["data"], "back");
    ready(&b).await;
    let seen = "Publishing fails, nodes without a grace are unready within 2 s, connections stay and new ones are taken in. Publishing \
                works within 2 s of the start; a gap comes before what follows.";
    Fault::new("Redis: killed, and started again, empty", Part::Streams, seen)
        .figures(format_args!("unready after {unready:.1?}, delivery {delivery:.1?} after the start"))
        .record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_redis_and_admits_no_client_before_it_has_read_the_kicks() {
    let mut redis = Redis::start().await;
    redis.kill();
    let demo = Demo::start_with(&[("REALTIME__REDIS__URL", &redis.url())]).await;
    assert_eq!(Socket::open(&demo, &token(1), &[], None).await.err(), Some(503));
    let (status, answer) = demo.get("/health/ready").await;
    assert_eq!(status, 503, "{answer}");
    // Without Redis the node doesn't know who is online in the cluster, and answers with an error.
    let (status, answer) = demo.api(Method::GET, "/api/online/1", None).await;
    assert_eq!(status, 503);
    assert!(answer["msg"].as_str().unwrap().starts_with("presence is unavailable"), "{answer}");
    Fault::new("Redis: cannot be reached", Part::Presence, "An error, from the demo 503.").record();
    redis.restart().await;
    // The handshake waits until the node has started.
    let mut socket = demo.socket(1).await;
    socket.send("ping").await;
    assert_eq!(socket.text().await, "pong");
}

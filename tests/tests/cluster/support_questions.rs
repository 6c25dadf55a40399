//! The ten support questions of docs/operations.md, each in its situation on two nodes: the answers hold what the page reads
//! off them.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use realtime_tests::{API_KEY, Demo, EventStream, Proxy, Redis, Server, Socket, Traced, sign, token, within};
use reqwest::Method;
use serde_json::{Value, json};

async fn node(redis: &str, name: &str, variables: &[(&str, &str)]) -> Demo {
    let own = [
        ("REALTIME__REDIS__URL", redis),
        ("REALTIME__SERVER__NODE", name),
        // There are metrics only at an address of its own.
        ("REALTIME__SERVER__INTERNAL", "127.0.0.1:0"),
    ];
    Demo::start_with(&[&own, variables].concat()).await
}

/// Two nodes that know each other; `b` reaches Redis by an address of its own.
async fn cluster_by(redis: &Redis, way_of_b: &str, variables: &[(&str, &str)]) -> (Demo, Demo) {
    let (a, b) = (node(&redis.url(), "a", variables).await, node(way_of_b, "b", variables).await);
    within("the leases of both", async {
        while each(&explain(&a, 42).await["nodes"], "node") != ["a", "b"] {}
    })
    .await;
    (a, b)
}

async fn cluster(redis: &Redis, variables: &[(&str, &str)]) -> (Demo, Demo) {
    cluster_by(redis, &redis.url(), variables).await
}

async fn explain(demo: &Demo, user: i64) -> Value {
    let (status, answer) = demo.api(Method::GET, &format!("/api/explain/{user}"), None).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// The explanation as soon as it is as it has to be.
async fn explained(demo: &Demo, user: i64, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    within(what, async {
        loop {
            let answer = explain(demo, user).await;
            if holds(&answer) {
                return answer;
            }
        }
    })
    .await
}

/// Field of each element of a list.
fn each<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|element| element[field].as_str().unwrap_or("null")).collect()
}

/// A token with topics.
fn granted(user: i64, topics: &[&str]) -> String {
    sign(&json!({ "userId": user, "clientid": "web", "exp": 4_000_000_000_u64, "topics": topics }))
}

/// An event stream of a client that reads nothing, with little room in its socket.
async fn stalled(demo: &Demo, user: i64) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", demo.port())).unwrap();
    socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 10).unwrap();
    let path = format!("/resource/sse?Authorization={}&clientid=web", token(user));
    write!(socket, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", demo.port()).unwrap();
    demo.until_sessions(user, 1).await;
    socket
}

/// Publishes large messages until the session of a client that reads nothing waits for its socket.
async fn until_behind(demo: &Demo, user: i64) -> Value {
    let large = "x".repeat(60 << 10);
    within("a client that is behind", async {
        loop {
            demo.publish(json!({ "userIds": [user], "message": large, "event": "report" })).await;
            let answer = explain(demo, user).await;
            if answer["sessions"][0]["mode"] == "catchingUp" {
                return answer;
            }
        }
    })
    .await
}

async fn ready(demo: &Demo) -> Value {
    let response = reqwest::get(demo.api_url("/health/ready")).await.unwrap();
    response.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn question_1_a_notice_that_never_came_is_found_by_its_publishers_id() {
    let redis = Redis::start().await;
    let (a, b) = cluster(&redis, &[]).await;
    let mut stream = b.stream(42).await;
    let body = json!({ "userIds": [42], "message": "texts are secret", "event": "notice", "idempotencyKey": "order-7" });
    let position = a.publish(body).await;
    assert_eq!(stream.next().await.unwrap().event, "notice");
    let answer = explained(&a, 42, "the written notice", |answer| {
        answer["messages"][0]["sessions"][0]["state"] == "written"
    })
    .await;
    let message = &answer["messages"][0];
    assert_eq!((&message["id"], &message["position"]), (&json!("order-7"), &json!(position)));
    assert_eq!(each(&answer["sessions"], "node"), ["b"]);
    assert!(!answer.to_string().contains("secret"));
    drop(stream);
    let answer = explained(&a, 42, "a user who is offline", |answer| answer["online"] == false).await;
    assert_eq!((&answer["sessions"], &answer["messages"][0]["sessions"]), (&json!([]), &json!([])));
    let mut later = a.stream(42).await;
    let second = a.publish(json!({ "userIds": [42], "message": "second" })).await;
    assert_eq!(later.data().await, "second");
    let answer = explain(&a, 42).await;
    let states: Vec<_> = answer["messages"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|one| each(&one["sessions"], "state"))
        .collect();
    assert_eq!(states, ["written", "before"], "no cursor, so that it began behind the notice: {answer}");
    assert_eq!(answer["messages"][0]["position"], second);
}

#[tokio::test(flavor = "multi_thread")]
async fn question_2_an_end_is_told_with_its_reason_and_the_refusals_since() {
    let redis = Redis::start().await;
    let (a, b) = cluster(&redis, &[]).await;
    let login = token(42);
    let mut socket = Socket::open(&b, &login, &[], None).await.unwrap();
    a.until_sessions(42, 1).await;
    a.api(Method::DELETE, "/api/online/42", None).await;
    assert_eq!(socket.close_code().await, 4409);
    assert_eq!(Socket::open(&a, &login, &[], None).await.unwrap_err(), 401);
    let answer = explained(&a, 42, "the end", |answer| answer["closes"] != json!([])).await;
    let (end, refusal) = (&answer["closes"][0], &answer["refusals"][0]);
    assert_eq!((&end["node"], &end["reason"], &end["code"]), (&json!("b"), &json!("kicked"), &json!(4409)));
    assert_eq!(
        (&refusal["node"], &refusal["reason"], &refusal["error"]),
        (&json!("a"), &json!("kicked"), &json!("this login was ended by an administrator"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn question_3_a_login_that_is_none_is_found_by_address_and_time() {
    let redis = Redis::start().await;
    let (a, b) = cluster(&redis, &[]).await;
    assert_eq!(EventStream::open(&b, "nonsense", None).await.unwrap_err(), 401);
    let answer = explain(&a, 42).await;
    assert_eq!(answer["refusals"], json!([]), "it names no user");
    let refusal = &answer["unknownRefusals"][0];
    assert_eq!((&refusal["node"], &refusal["address"]), (&json!("b"), &json!("127.0.0.1")));
    assert_eq!((&refusal["status"], &refusal["error"]), (&json!(401), &json!("token is malformed")));
    assert!(refusal["at"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn question_4_a_client_that_takes_too_little_is_told_from_a_node_that_gets_nothing() {
    let redis = Redis::start().await;
    let way = Proxy::start(redis.port()).await;
    let way_of_b = format!("redis://127.0.0.1:{}/", way.port());
    let (a, b) = cluster_by(&redis, &way_of_b, &[("REALTIME__OUTBOX__MAXSTALL", "60s")]).await;
    let _slow = stalled(&b, 42).await;
    let slow = until_behind(&a, 42).await;
    let session = &slow["sessions"][0];
    assert!(
        session["behind"].as_u64() > Some(0) && session["outbox"]["bytes"].as_u64() > Some(0),
        "{session}"
    );
    assert_eq!(each(&slow["messages"][0]["sessions"], "state"), ["waiting"]);
    assert!(slow["nodes"].as_array().unwrap().iter().all(|node| node["busDownSince"].is_null()), "{slow}");
    // Another user's page on the same node, which is cut off from Redis.
    let mut stream = b.stream(43).await;
    a.publish_to(43, "before").await;
    assert_eq!(stream.data().await, "before");
    a.until_sessions(43, 1).await;
    drop(way);
    within("a node that knows it", async { while ready(&b).await["reasons"][0]["kind"] != "bus-down" {} })
        .await;
    let position = a.publish_to(43, "late").await;
    let from_a =
        explained(&a, 43, "the message at a", |answer| answer["messages"][0]["position"] == position).await;
    assert_eq!(from_a["nodes"][1], json!({ "node": "b", "answered": false }));
    assert_eq!(each(&from_a["messages"][0]["sessions"], "state"), ["unknown"]);
    let from_b = explain(&b, 43).await;
    assert!(from_b["nodes"][0]["busDownSince"].is_string(), "{from_b}");
    assert_eq!((&from_b["online"], each(&from_b["sessions"], "mode")), (&json!(null), vec!["live"]));
    assert_ne!(from_b["messages"][0]["position"], position);
    let problems = from_b["problems"].as_array().unwrap();
    assert!(problems[0].as_str().unwrap().starts_with("only this node has been asked: "), "{problems:?}");
    let metrics = reqwest::get(b.api_url("/metrics")).await.unwrap().text().await.unwrap();
    for line in ["realtime_bus_up 0", "realtime_sessions_behind 1"] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn question_5_users_of_a_node_that_is_cut_off_look_offline_and_the_node_itself_says_why() {
    let redis = Redis::start().await;
    let way = Proxy::start(redis.port()).await;
    let (a, b) = cluster_by(&redis, &format!("redis://127.0.0.1:{}/", way.port()), &[]).await;
    let (_one, _two) = (a.stream(41).await, b.stream(42).await);
    a.until_sessions(41, 1).await;
    a.until_sessions(42, 1).await;
    let online = async || a.api(Method::GET, "/api/online?size=1", None).await.1;
    assert_eq!(online().await["total"], 2);
    drop(way);
    within("the lease of b to end", async { while online().await["total"] != 1 {} }).await;
    let answer = explain(&a, 42).await;
    assert_eq!(
        (&answer["online"], &answer["closes"]),
        (&json!(false), &json!([])),
        "nothing has ended: {answer}"
    );
    assert_eq!(each(&answer["nodes"], "node"), ["a"]);
    assert_eq!(ready(&a).await, json!({ "status": "up" }));
    let reason = &ready(&b).await["reasons"][0];
    assert_eq!(reason["kind"], "bus-down");
    let itself = explain(&b, 42).await;
    assert_eq!(each(&itself["sessions"], "mode"), ["live"], "the page is connected: {itself}");
    let (status, nodes) = a.api(Method::GET, "/api/nodes", None).await;
    assert_eq!((status, each(&nodes["nodes"], "node")), (200, vec!["a"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn question_6_what_came_on_the_phone_alone_has_the_reason_at_the_browsers_session() {
    let redis = Redis::start().await;
    let (a, b) = cluster(&redis, &[]).await;
    let mut phone = EventStream::open(&a, &granted(42, &["role:seller"]), None).await.unwrap();
    let mut browser = Socket::open(&b, &granted(42, &["role:buyer"]), &["realtime.v1"], None).await.unwrap();
    let id = browser.json().await["session"].clone();
    a.until_sessions(42, 2).await;
    a.publish(json!({ "userIds": [42], "message": "1", "transport": "sse" })).await;
    a.publish(json!({ "topics": ["role:seller"], "message": "2" })).await;
    a.publish(json!({ "userIds": [42], "message": "3", "exceptSession": id })).await;
    a.publish(json!({ "userIds": [42], "message": "4" })).await;
    for text in ["1", "2", "3", "4"] {
        assert_eq!(phone.data().await, text);
    }
    assert_eq!(browser.message().await["data"], "4");
    let answer = explained(&a, 42, "all of it written", |answer| {
        each(&answer["messages"][0]["sessions"], "state") == ["written", "written"]
    })
    .await;
    assert_eq!(each(&answer["sessions"], "transport"), ["sse", "websocket"]);
    assert_eq!(answer["sessions"][1]["topics"], json!(["user:42", "role:buyer"]));
    let states: Vec<_> =
        answer["messages"].as_array().unwrap().iter().map(|one| each(&one["sessions"], "state")).collect();
    let apart = |state| vec!["written", state];
    let expected = [apart("written"), apart("excluded"), apart("otherTopics"), apart("otherTransport")];
    assert_eq!(states, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn question_7_what_was_left_out_is_told_from_what_was_sent() {
    let redis = Redis::start().await;
    let (a, b) = cluster(&redis, &[("REALTIME__OUTBOX__MAXSTALL", "60s")]).await;
    let mut slow = stalled(&b, 42).await;
    until_behind(&a, 42).await;
    for n in 0..8 {
        a.publish(json!({ "userIds": [42], "message": format!("price {n}"), "collapseKey": "price" })).await;
    }
    for n in 0..3 {
        let body = json!({ "userIds": [42], "message": format!("tick {n}"), "dropOldest": { "class": "cpu", "keep": 2 } });
        a.publish(body).await;
    }
    a.publish(json!({ "userIds": [42], "message": "soon over", "ttl": 1 })).await;
    let last = a.publish(json!({ "userIds": [42], "message": "the end" })).await;
    explained(&a, 42, "the end of the ttl", |answer| answer["messages"][1]["state"] == "expired").await;
    let (mut trace, _) = Traced::begin(&a, &json!({ "userId": 42, "seconds": 60 })).await;
    slow.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let (mut text, mut buffer) = (Vec::new(), [0; 16 << 10]);
        while !text.windows(7).any(|part| part == b"the end") {
            let count = slow.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "the stream goes on");
            text.extend_from_slice(&buffer[..count]);
        }
        (slow, String::from_utf8(text).unwrap())
    });
    let (_slow, text) = read.await.unwrap();
    let got = ["price 7", "tick 1", "tick 2", "the end"];
    assert!(got.iter().all(|one| text.contains(one)), "the newest of each");
    assert!(["price 6", "tick 0", "soon over"].iter().all(|one| !text.contains(one)), "no older ones");
    let mut reasons = Vec::new();
    while reasons.len() < 9 {
        reasons.push(trace.until("dropped").await.0["reason"].as_str().unwrap().to_owned());
    }
    assert_eq!(reasons, [vec!["collapsed"; 7], vec!["droppedOldest", "expired"]].concat());
    let answer = explained(&a, 42, "a session that has caught up", |answer| {
        answer["sessions"][0]["mode"] == "live" && answer["sessions"][0]["outbox"]["bytes"] == 0
    })
    .await;
    assert_eq!(answer["sessions"][0]["leftOut"], 9);
    assert_eq!(answer["messages"][0]["position"], last);
    let both: Vec<_> = answer["messages"].as_array().unwrap()[..13]
        .iter()
        .map(|one| (one["state"].as_str().unwrap(), each(&one["sessions"], "state")[0]))
        .collect();
    let (sent, over) = (("current", "written"), |state| (state, "servedOrLeftOut"));
    let mut expected = vec![sent, over("expired"), sent, sent, over("droppedOldest"), sent];
    expected.extend([over("collapsed"); 7]);
    assert_eq!(both, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn question_8_a_gap_is_told_with_its_reason_at_the_session_and_one_of_the_bus_among_the_messages() {
    let mut redis = Redis::start().await;
    let (a, b) = cluster(&redis, &[("REALTIME__HISTORY__MAXMESSAGES", "20")]).await;
    let first = a.publish_to(42, "0").await;
    for n in 1..=30 {
        a.publish_to(42, &n.to_string()).await;
    }
    let end = a.publish_to(42, "31").await;
    explained(&b, 42, "all of it at b", |answer| answer["messages"][0]["position"] == end).await;
    let mut open = Vec::new();
    for cursor in [first.as_str(), "123456.7", "nonsense"] {
        let mut stream = EventStream::open(&b, &token(42), Some(cursor)).await.unwrap();
        assert_eq!(stream.next().await.unwrap().event, "gap");
        a.until_sessions(42, open.len() + 1).await;
        open.push(stream);
    }
    let answer = explain(&a, 42).await;
    let told: Vec<_> = answer["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|session| (session["recovered"].as_bool(), session["gap"]["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(told, ["history", "bus", "cursor"].map(|reason| (Some(false), reason)));
    assert!(answer["sessions"][0]["gap"]["at"].is_string());
    redis.kill();
    redis.restart().await;
    let answer = explained(&a, 42, "the gap of the bus", |answer| {
        answer["messages"].as_array().unwrap().iter().any(|message| message["gap"] == "bus")
    })
    .await;
    assert!(each(&answer["messages"], "gap").contains(&"bus"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn question_9_a_click_is_followed_over_the_nodes() {
    let redis = Redis::start().await;
    let (a, b) = cluster(&redis, &[]).await;
    let (mut trace, nodes) = Traced::begin(&a, &json!({ "userId": 42, "seconds": 60 })).await;
    assert_eq!(nodes["answered"], json!(["a", "b"]));
    let login = token(42);
    let _stream = EventStream::open(&b, &login, None).await.unwrap();
    assert_eq!(trace.until("connect").await.0["node"], "b");
    let position = a.publish(json!({ "userIds": [42], "message": "x", "event": "notice" })).await;
    let (written, before) = trace.until("written").await;
    assert_eq!((&written["position"], &written["transport"]), (&json!(position), &json!("sse")));
    assert!(before.iter().any(|event| event["kind"] == "received" && event["node"] == "b"), "{before:?}");
    a.api(Method::DELETE, "/api/online/42", None).await;
    assert_eq!(trace.until("close").await.0["reason"], "kicked");
    assert_eq!(EventStream::open(&a, &login, None).await.unwrap_err(), 204);
    assert_eq!(trace.until("refused").await.0["detail"], "this login was ended by an administrator");
}

#[tokio::test(flavor = "multi_thread")]
async fn question_10_a_topic_without_anybody_is_told_from_one_with_readers() {
    let redis = Redis::start().await;
    let (a, b) = cluster(&redis, &[]).await;
    let publish = async || {
        let body = json!({ "topics": ["role:seller"], "message": "x", "confirm": 5000 });
        let (status, answer) = a.try_publish(&body.to_string()).await;
        assert_eq!((status, &answer["missing"]), (200, &json!([])), "{answer}");
        let of =
            |node: &Value| (node["node"].as_str().unwrap().to_owned(), node["sessions"].as_u64().unwrap());
        let mut nodes: Vec<_> = answer["nodes"].as_array().unwrap().iter().map(of).collect();
        nodes.sort_unstable();
        nodes
    };
    let (mut trace, _) = Traced::begin(&a, &json!({ "topic": "role:seller", "seconds": 60 })).await;
    assert_eq!(publish().await, [("a".to_owned(), 0), ("b".to_owned(), 0)]);
    let mut socket = Socket::open(&b, &granted(43, &["role:seller"]), &[], None).await.unwrap();
    let (connect, before) = trace.until("connect").await;
    assert_eq!((&connect["node"], &connect["topics"]), (&json!("b"), &json!(["user:43", "role:seller"])));
    assert_eq!(before.iter().filter(|event| event["kind"] == "received").count(), 2, "{before:?}");
    assert!(before.iter().all(|event| event["kind"] != "fanout"), "{before:?}");
    a.until_sessions(43, 1).await;
    assert_eq!(publish().await, [("a".to_owned(), 0), ("b".to_owned(), 1)]);
    assert_eq!(socket.text().await, "x");
    let (fanout, _) = trace.until("fanout").await;
    assert_eq!((&fanout["node"], &fanout["sessions"]), (&json!("b"), &json!(1)));
    let key = reqwest::Client::new().get(a.api_url("/api/stats")).header("X-API-Key", API_KEY);
    let stats: Value = key.send().await.unwrap().json().await.unwrap();
    assert_eq!(stats["metrics"]["delivered"], 0, "of node a");
}

//! What earlier versions have written into Redis is read, what a later one may add is ignored, and today's nodes write what
//! earlier ones expect.

mod recording;

use std::{
    env,
    num::NonZeroU16,
    time::{Duration, SystemTime},
};

use realtime_core::{
    CloseReason, CollapseKey, Envelope, EnvelopeId, EventName, Hub, Message, Principal, Scope, Settings,
    SlowPolicy, Topic, TraceContext, Transport, UserId,
    auth::{TicketKey, TicketStore, TokenHash, TopicPattern},
    streams::{Outcome, StreamEnd, StreamId},
    testkit::{TestEvent, TestSession, ready},
};
use realtime_redis::{RedisCluster, RedisConfig, RedisTickets};
use realtime_tests::{Demo, EventStream, Redis, Socket, sign, within};
use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

use recording::Recording;

const HOUR: Duration = Duration::from_secs(3600);
const TICKET: &str = "a ticket";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// The id of a session that is on no node.
const SOME_SESSION: &str = "00112233445566778899aabbccddeeff";

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn websocket() -> Transport {
    Transport::new("websocket")
}

async fn node(redis: &Redis, name: &str) -> Hub {
    let mut settings = Settings::default();
    settings.drain.window = Duration::from_millis(50);
    let cluster = RedisCluster::streams(RedisConfig::single(redis.url()), name).unwrap();
    let hub = Hub::builder().settings(settings).cluster(cluster).start().unwrap();
    ready(&hub).await;
    hub
}

fn login(user: i64, token: &str) -> Principal {
    let mut principal = Principal::new(user.into(), token);
    principal.client_id = Some("web".into());
    principal.issued_at = Some(SystemTime::now() - HOUR);
    principal.expires_at = Some(SystemTime::now() + HOUR);
    principal
}

async fn open(hub: &Hub, login: Principal, cursor: Option<&str>) -> TestSession {
    TestSession::open(hub, login, websocket(), cursor).await.unwrap()
}

/// Waits until a check holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Has two nodes write everything that they keep in Redis, each form of it once.
async fn write_everything(redis: &Redis) {
    let (a, b) = (node(redis, "a").await, node(redis, "b").await);
    let key = |text| CollapseKey::new(text).unwrap();
    let seven = open(&a, login(7, "token of 7"), None).await;
    let user = Topic::user(&7.into());
    let event = Message::new(EventName::new("order").unwrap(), r#"{"text":"Größe 漢字 😀"}"#);
    let ticks = SlowPolicy::DropOldest { class: key("ticks"), keep: NonZeroU16::new(20).unwrap() };
    for envelope in [
        Envelope::to_users([7], Scope::Both, Message::text("plain")).unwrap(),
        Envelope::to_topics([user.clone(), topic("role:seller")], Scope::Only(websocket()), event)
            .unwrap()
            .except(SOME_SESSION.parse().unwrap())
            .with_id(EnvelopeId::new("an-id").unwrap())
            .with_ttl(HOUR),
        Envelope::to_users([7], Scope::Only(websocket()), Message::binary(vec![0, 255, 1])).unwrap(),
        Envelope::to_users([7], Scope::Both, Message::text("collapsing")).unwrap().collapse(key("XAU")),
        Envelope::to_users([7], Scope::Both, Message::text("a tick")).unwrap().when_slow(ticks),
        Envelope::to_topic(topic("prices"), Scope::Both, Message::text("kept"))
            .retain()
            .collapse(key("XAU"))
            .with_ttl(HOUR),
        Envelope::to_users([7], Scope::Both, Message::text("traced"))
            .unwrap()
            .with_trace_context(TraceContext::parse(TRACEPARENT, Some("vendor=value")).unwrap()),
    ] {
        a.publish(envelope).await.unwrap();
    }
    let confirmed = Envelope::to_users([7], Scope::Both, Message::text("confirmed")).unwrap();
    let confirmation = a.publish_and_confirm(confirmed, Duration::from_secs(5)).await.unwrap();
    assert_eq!(confirmation.missing, [""; 0]);

    let answers = topic("answers");
    a.stream(&answers, "ended").await.unwrap().finish(Outcome::Done).await.unwrap();
    let stream = a.stream(&answers, "open").await.unwrap();
    stream.append("Größe ").await.unwrap();
    let open_id = StreamId::new("open").unwrap();
    until("the text", async || b.stream_text(&answers, &open_id).is_some_and(|it| it.text == "Größe ")).await;

    let eight = open(&a, login(8, "token of 8"), None).await;
    b.kick(&8.into()).await.unwrap();
    b.kick_session(&7.into(), SOME_SESSION.parse().unwrap()).await.unwrap();
    b.revoke_token(TokenHash::of("stolen"), Some(SystemTime::now() + HOUR)).await.unwrap();
    b.revoke_user(&9.into(), SystemTime::now() - HOUR / 2).await.unwrap();
    let mut renewed = login(7, "another token of 7");
    renewed.topics = vec![topic("role:seller")];
    b.renew_session(seven.handle().id(), renewed).await.unwrap();
    b.stop_stream(&answers, &StreamId::new("ended").unwrap()).await.unwrap();

    let mut full = login(7, "token of 7");
    full.topics = vec![topic("role:seller")];
    full.grants = vec![TopicPattern::new("order:*").unwrap()];
    full.history_after = a.cursor();
    let tickets = RedisTickets::make(RedisConfig::single(redis.url())).unwrap()();
    tickets.put(TicketKey::of(TICKET), full, Duration::from_secs(60)).await.unwrap();

    // Its user is expected back.
    let mut leaving = open(&b, login(11, "token of 11"), None).await;
    until("all users", async || a.presence().count().await.is_ok_and(|it| it.users >= 2)).await;
    until("a heartbeat", async || redis.cli(&["xrange", "{rt}:log", "-", "+"]).contains("\nb\n")).await;
    until("a search for streams", async || redis.cli(&["exists", "{rt}:stream-sweep"]) == "1").await;
    let drained = tokio::spawn({
        let b = b.clone();
        async move { b.drain().await }
    });
    assert!(matches!(leaving.closed().await, CloseReason::Drain { .. }));
    drop(leaving);
    drained.await.unwrap();
    until("a user who is expected", async || redis.cli(&["exists", "{rt/presence}:left"]) == "1").await;
    // The question of the first confirmation has been removed with the node's next command.
    let asked = tokio::spawn({
        let a = a.clone();
        let confirmed = Envelope::to_users([7], Scope::Both, Message::text("confirmed")).unwrap();
        async move { a.publish_and_confirm(confirmed, Duration::from_secs(5)).await }
    });
    let commands = || redis.cli(&["xrange", "{rt/control}:commands", "-", "+"]);
    until("a question", async || commands().contains("report")).await;
    let recording = Recording::of(redis);
    if let Ok(name) = env::var("REALTIME_TESTS_RECORD") {
        recording.save(&name);
    }
    asked.abort();
    check_shape(&recording);
    drop((stream, seven, eight));
}

/// What nodes write today has all parts that the newest recording has, and no others.
fn check_shape(today: &Recording) {
    let all = Recording::all();
    let (name, newest) = all.last().expect("there is a recording");
    let (today, recorded) = (today.shape(), newest.shape());
    let lost: Vec<_> = recorded.difference(&today).collect();
    assert!(lost.is_empty(), "nodes of the version of {name} read what is not written any more: {lost:#?}");
    let new: Vec<_> = today.difference(&recorded).collect();
    assert!(
        new.is_empty(),
        "more is written than {name} has: record it beside that (docs/compatibility.md): {new:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_has_the_form_of_the_newest_recording() {
    let redis = Redis::start().await;
    write_everything(&redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_earlier_versions_have_written_is_read() {
    for (name, recording) in Recording::all() {
        println!("{name}");
        read_everything(&recording).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_later_versions_may_add_is_ignored() {
    for (name, recording) in Recording::all() {
        println!("{name}");
        let additions = recording.with_additions();
        assert!(additions.shape().len() > recording.shape().len());
        read_everything(&additions).await;
    }
}

/// Starts a node on a recording, and checks that it has understood all of it.
async fn read_everything(recording: &Recording) {
    let redis = Redis::start().await;
    recording.load(&redis);
    let hub = node(&redis, "new").await;

    // A client comes back from a node of that version.
    let begin = begin_of(&redis);
    let mut principal = login(7, "a token of today");
    principal.topics = vec![topic("prices"), topic("role:seller")];
    let mut session = open(&hub, principal.clone(), Some(&begin)).await;
    assert_eq!(session.recovered(), Some(true));
    let received = session.received().await;
    let seen = received.iter().map(|event| match event {
        TestEvent::Message(message) => (message.event.clone(), message.data.as_bytes().to_vec()),
        other => panic!("{other:?}"),
    });
    let message = |event: &str, data: &[u8]| (event.to_owned(), data.to_vec());
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [
            message("message", b"plain"),
            message("order", r#"{"text":"Größe 漢字 😀"}"#.as_bytes()),
            message("message", &[0, 255, 1]),
            message("message", b"collapsing"),
            message("message", b"a tick"),
            message("message", b"kept"),
            message("message", b"traced"),
            message("message", b"confirmed"),
        ]
    );
    // What is retained comes to whoever is new to the topic.
    principal = login(7, "another token of today");
    principal.topics = vec![topic("prices")];
    assert_eq!(open(&hub, principal, None).await.text().await, "kept");
    // An id counts over versions.
    let again = Envelope::to_users([7], Scope::Both, Message::text("again")).unwrap();
    let again = again.with_id(EnvelopeId::new("an-id").unwrap());
    let position = hub.publish(again).await.unwrap().position.unwrap().to_string();
    assert_eq!(position.replace('.', "-"), redis.cli(&["get", "{rt}:id:an-id"]));

    let answers = topic("answers");
    let text = |id: &str| hub.stream_text(&answers, &StreamId::new(id).unwrap());
    assert!(text("ended").is_some_and(|it| it.end == Some(StreamEnd::Done)), "{:?}", text("ended"));
    assert!(text("open").is_some_and(|it| it.text == "Größe "), "{:?}", text("open"));
    // Its writer's node is gone.
    until("the end of the text", async || {
        text("open").is_some_and(|it| it.end == Some(StreamEnd::Interrupted))
    })
    .await;

    for (user, token) in [(8, "token of 8"), (3, "stolen"), (9, "a token of 9")] {
        assert!(hub.is_refused(&login(user, token)), "user {user}");
    }
    for (user, token) in [(8, "another token of 8"), (7, "token of 7")] {
        assert!(!hub.is_refused(&login(user, token)), "user {user}");
    }
    let tickets = RedisTickets::make(RedisConfig::single(redis.url())).unwrap()();
    let ticket = tickets.take(TicketKey::of(TICKET)).await.unwrap().expect("the ticket is there");
    assert_eq!((ticket.user, ticket.token), (UserId::from(7), TokenHash::of("token of 7")));
    assert_eq!(ticket.topics, [topic("role:seller")]);
    assert_eq!(ticket.grants, [TopicPattern::new("order:*").unwrap()]);
    assert!(ticket.client_id.is_some() && ticket.expires_at.is_some() && ticket.history_after.is_some());
    assert_eq!(hub.metrics().unreadable, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_online_on_a_node_of_another_version_is_known_until_it_stops() {
    for (name, recording) in Recording::all() {
        for recording in [recording.with_additions(), recording] {
            println!("{name}");
            let redis = Redis::start().await;
            recording.load(&redis);
            let hub = node(&redis, "new").await;
            let presence = hub.presence();
            let _here = open(&hub, login(5, "token of 5"), None).await;
            until("the user of this node", async || presence.is_online(&[5.into()]).await.unwrap() == [true])
                .await;
            let online = presence.is_online(&[7.into(), 6.into()]).await.unwrap();
            assert_eq!(online, [true, false]);
            let sessions = presence.sessions(&7.into()).await.unwrap();
            let [session] = sessions.as_slice() else { panic!("{sessions:?}") };
            assert_eq!((session.node.as_str(), session.transport.as_str()), ("a", "websocket"));
            assert_eq!(session.client_id.as_deref(), Some("web"));
            // The other node does not renew its lease.
            until("the end of the other node", async || {
                presence.is_online(&[7.into(), 5.into()]).await.unwrap() == [false, true]
            })
            .await;
            assert_eq!(hub.metrics().unreadable, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_other_versions_are_carried_out_and_confirmed() {
    for (name, recording) in Recording::all() {
        let recorded = recording.shape();
        for recording in [recording.with_additions(), recording] {
            println!("{name}");
            let redis = Redis::start().await;
            let hub = node(&redis, "new").await;
            let mut eight = open(&hub, login(8, "token of 8"), None).await;
            let mut nine = open(&hub, login(9, "a token of 9"), None).await;
            let mut thief = open(&hub, login(3, "stolen"), None).await;
            let mut other = open(&hub, login(4, "token of 4"), None).await;
            let commands = recording.of_key("{rt/control}:commands").field("c");
            assert!(commands.len() >= 8, "{commands:?}");
            for command in &commands {
                let id =
                    redis.cli(&["xadd", "{rt/control}:commands", "*", "v", "1", "c", command, "later", "x"]);
                let receipt = format!("{{rt/control}}:receipts:{id}");
                until(command, async || redis.cli(&["hlen", &receipt]) == "1").await;
            }
            assert!(matches!(eight.closed().await, CloseReason::Kicked));
            for session in [&mut nine, &mut thief] {
                assert!(matches!(session.closed().await, CloseReason::Revoked), "{session:?}");
            }
            assert_eq!(other.received().await, []);
            assert_eq!(hub.metrics().unreadable, 0);
            // Nodes of that version read the receipts. Nobody was counted for a report on an envelope of another history.
            let written = Recording::of(&redis).shape();
            let receipts = recorded.iter().filter(|it| it.starts_with("{rt/control}:receipts:"));
            let mut receipts = receipts.filter(|it| !it.contains("delivery"));
            assert!(receipts.all(|part| written.contains(part)), "{recorded:#?} {written:#?}");
        }
    }
}

/// The position behind which a recording's log begins.
fn begin_of(redis: &Redis) -> String {
    let first = redis.cli(&["xrange", "{rt}:log", "-", "+", "count", "1"]);
    first.lines().next().unwrap().replace('-', ".")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_serves_clients_among_what_earlier_versions_have_written_and_go_on_writing() {
    for (name, recording) in Recording::all() {
        for recording in [recording.with_additions(), recording] {
            println!("{name}");
            serve_clients(&recording).await;
        }
    }
}

/// Starts the demo on a recording, has clients come back to it, and writes on as a node of the recording's version.
async fn serve_clients(recording: &Recording) {
    let redis = Redis::start().await;
    recording.load(&redis);
    let begin = begin_of(&redis);
    let demo = Demo::start_with(&[("REALTIME__REDIS__URL", &redis.url())]).await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let token = |user: i64, issued: u64| {
        let topics = ["prices", "role:seller"];
        sign(
            &json!({ "userId": user, "clientid": "web", "iat": issued, "exp": now + 3600, "topics": topics }),
        )
    };
    let back = token(7, now);
    let mut socket = Socket::open(&demo, &back, &["realtime.v1"], Some(&begin)).await.unwrap();
    let hello = socket.json().await;
    assert_eq!(hello["recovered"], true, "{hello}");
    let mut stream = EventStream::open(&demo, &back, Some(&begin)).await.unwrap();
    let order = r#"{"text":"Größe 漢字 😀"}"#;
    for text in ["plain", order, "AP8B", "collapsing", "a tick", "kept", "traced", "confirmed"] {
        let message = socket.message().await;
        let data = message["data"].as_str().or(message["base64"].as_str());
        assert_eq!(data, Some(text), "{message}");
    }
    for text in ["plain", "collapsing", "a tick", "kept", "traced", "confirmed"] {
        assert_eq!(stream.data().await, text);
    }
    // The user was revoked half an hour before the recording.
    assert_eq!(Socket::open(&demo, &token(9, now - 7200), &[], None).await.unwrap_err(), 401);
    let mut nine = Socket::open(&demo, &token(9, now), &[], None).await.unwrap();
    // The other version goes on.
    let epoch = redis.cli(&["hget", "{rt}:epoch", "epoch"]);
    let at = now * 1000;
    let envelope =
        format!(r#"{{"topics":["user:7","role:seller"],"event":"message","data":"later","at":{at}}}"#);
    redis.cli(&["xadd", "{rt}:log", &format!("{epoch}-*"), "v", "1", "e", &envelope]);
    let message = socket.message().await;
    assert_eq!(message["data"], "later", "{message}");
    assert_eq!(stream.data().await, "later");
    let kick = format!(r#"{{"command":"kick","user":9,"after":"{begin}"}}"#);
    redis.cli(&["xadd", "{rt/control}:commands", "*", "v", "1", "c", &kick]);
    assert_eq!(nine.close_code().await, 4409);
    // What the process publishes is on both, and with an id that counts over versions.
    let body = json!({ "userIds": [7], "message": "again", "idempotencyKey": "an-id" });
    let position = demo.publish(body).await;
    assert_eq!(position.replace('.', "-"), redis.cli(&["get", "{rt}:id:an-id"]));
    demo.publish_to(7, "the last").await;
    assert_eq!(
        (socket.message().await["data"].as_str(), stream.data().await.as_str()),
        (Some("the last"), "the last")
    );
    let (_, stats) = demo.api(Method::GET, "/api/stats", None).await;
    assert_eq!(stats["metrics"]["unreadable"], 0, "{stats}");
}

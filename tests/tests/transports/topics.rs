//! A client subscribes to the topics that it may be in, is told which others it may not, and misses nothing of them from the answer on.

use std::sync::Arc;

use futures_util::{
    StreamExt,
    future::{join, join3},
};
use realtime_core::{
    BoxFuture, Envelope, Hub, Position, Principal, Scope, Topic,
    auth::{TopicGrant, TopicPolicy, TopicRefusal},
};
use realtime_tests::{Demo, Embedded, EventStream, RawClient, Server, Socket, sign, token, until, within};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
};

const PUBLIC: &[(&str, &str)] = &[("REALTIME__TOPICS__PUBLIC", "news, room:*")];

async fn subscribe(socket: &mut Socket, topics: &[&str]) -> Value {
    socket.send(&json!({ "type": "subscribe", "topics": topics }).to_string()).await;
    socket.message().await
}

async fn unsubscribe(socket: &mut Socket, topics: &[&str]) -> Value {
    socket.send(&json!({ "type": "unsubscribe", "topics": topics }).to_string()).await;
    socket.message().await
}

async fn hello_at(server: &impl Server, token: &str, query: &str) -> (Socket, Value) {
    let path = format!("/resource/websocket?Authorization={token}{query}");
    let protocol = [("Sec-WebSocket-Protocol", "realtime.v1")];
    let mut socket = Socket::open_at(server, &path, &protocol).await.unwrap();
    let hello = socket.json().await;
    assert_eq!(hello["type"], "hello");
    (socket, hello)
}

fn to_topic(topic: &str, text: &str) -> Value {
    json!({ "topics": [topic], "message": text })
}

fn not_allowed(topic: &str) -> Value {
    json!({ "topic": topic, "reason": "not allowed" })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_names_what_is_refused_and_messages_name_their_topic() {
    let demo = Demo::start_with(PUBLIC).await;
    let mut socket = demo.socket_v1(1).await;
    socket.json().await;
    demo.publish(to_topic("news", "before")).await;
    // A worker delivers what was published up to some milliseconds after the answer.
    let before = demo.publish_to(1, "moves the cursor on").await;
    assert_eq!(socket.message().await["data"], "moves the cursor on");
    let answer = subscribe(&mut socket, &["news", "secret", "user:2", "all", "room:7", "a b", "news"]).await;
    let refused = answer["refused"].as_array().unwrap();
    assert_eq!(refused[..3], [not_allowed("secret"), not_allowed("user:2"), not_allowed("all")]);
    assert_eq!((refused.len(), &refused[3]["topic"]), (4, &json!("a b")));
    assert_eq!(answer["type"], "subscribed");
    assert_eq!(answer["topics"], json!(["news", "room:7"]));
    assert_eq!(answer["cursor"], json!(before));
    let id = demo.publish(to_topic("news", "one")).await;
    let message = json!({ "type": "message", "id": id, "event": "message", "topic": "news", "data": "one" });
    assert_eq!(socket.message().await, message);
    demo.publish(json!({ "topics": ["news", "room:7"], "message": "once" })).await;
    let message = socket.message().await;
    assert_eq!((&message["data"], message.get("topic")), (&json!("once"), None), "it has two topics");
    demo.publish_to(1, "mine").await;
    let message = socket.message().await;
    assert_eq!((&message["data"], message.get("topic")), (&json!("mine"), None));

    let answer = unsubscribe(&mut socket, &["news", "all", "never was in it"]).await;
    assert_eq!(answer, json!({ "type": "unsubscribed", "topics": ["news"] }));
    demo.publish(to_topic("news", "not any more")).await;
    demo.publish(to_topic("room:7", "still")).await;
    assert_eq!(socket.message().await["data"], "still");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_may_name_topics_on_both_transports() {
    let demo = Demo::start_with(PUBLIC).await;
    let (mut socket, hello) = hello_at(&demo, &token(1), "&topics=news%2Csecret").await;
    assert_eq!(
        (&hello["subscribed"], &hello["refused"]),
        (&json!(["news"]), &json!([not_allowed("secret")]))
    );
    for none in ["", "&topics="] {
        let (_other, hello) = hello_at(&demo, &token(1), none).await;
        assert_eq!((hello.get("subscribed"), hello.get("refused")), (None, None));
    }
    let mut raw =
        Socket::open_at(&demo, &format!("/resource/websocket?Authorization={}&topics=news", token(1)), &[])
            .await
            .unwrap();
    let mut stream =
        EventStream::open_query(&demo, &token(1), "&hello=1&topics=news,secret", None).await.unwrap();
    let hello = stream.next().await.unwrap();
    assert_eq!(hello.event, "realtime.hello");
    let hello: Value = serde_json::from_str(&hello.data).unwrap();
    assert_eq!(hello["session"].as_str().unwrap().len(), 32);
    assert_eq!((&hello["recovered"], &hello["pingInterval"]), (&json!(null), &json!(20_000)));
    assert!((3_590_000..=3_600_000).contains(&hello["expiresIn"].as_u64().unwrap()), "{hello}");
    assert_eq!(
        (&hello["subscribed"], &hello["refused"]),
        (&json!(["news"]), &json!([not_allowed("secret")]))
    );
    let mut refused = EventStream::open_query(&demo, &token(1), "&topics=news,secret", None).await.unwrap();
    let event = refused.next().await.unwrap();
    assert_eq!(event.event, "realtime.refused");
    assert_eq!(event.data, r#"{"refused":[{"topic":"secret","reason":"not allowed"}]}"#);
    let mut quiet = EventStream::open_query(&demo, &token(1), "&topics=news", None).await.unwrap();

    demo.publish(to_topic("news", "one")).await;
    assert_eq!(socket.message().await["data"], "one");
    assert_eq!(raw.text().await, "one", "a bare text has nothing but the message");
    for stream in [&mut stream, &mut refused, &mut quiet] {
        assert_eq!(stream.data().await, "one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_has_the_topic_as_a_field_and_no_other_bytes_change() {
    let demo = Demo::start_with(PUBLIC).await;
    let url = |query: &str| demo.url(&format!("/resource/sse?Authorization={}{query}", token(1)));
    for (query, greeting) in [("&topics=news", ""), ("&hello=1", "event:realtime.hello\ndata:")] {
        let response = reqwest::get(url(query)).await.unwrap();
        let (mut bytes, mut text) = (response.bytes_stream(), String::new());
        let topic = demo.publish(to_topic("news", "one")).await;
        let own = demo.publish_to(1, "two").await;
        let end = format!("event:message\nid:{own}\ndata:two\n\n");
        while !text.ends_with(&end) {
            let more = within("the stream to go on", bytes.next()).await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&more).unwrap());
        }
        let (head, rest) = text.split_once("\n\n").unwrap();
        assert!(head.starts_with(":connected\nretry:"), "{head}");
        let named = format!("event:message\nid:{topic}\ntopic:news\ndata:one\n\n");
        if greeting.is_empty() {
            assert_eq!(rest, named + &end);
        } else {
            let (hello, rest) = rest.split_once("\n\n").unwrap();
            assert!(hello.starts_with(greeting) && !hello.contains("subscribed"), "{hello}");
            assert_eq!(rest, end);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_with_its_topics_is_replayed_them_on_both_transports() {
    let demo = Demo::start_with(PUBLIC).await;
    let token = token(1);
    let mut socket = Socket::open(&demo, &token, &["realtime.v1"], None).await.unwrap();
    socket.json().await;
    subscribe(&mut socket, &["room:1"]).await;
    let cursor = demo.publish(to_topic("room:1", "a")).await;
    assert_eq!(socket.message().await["data"], "a");
    drop(socket);
    for topic in ["room:1", "room:2", "news"] {
        demo.publish(to_topic(topic, topic)).await;
    }
    let query = format!("&topics=room:1,news&cursor={cursor}");
    let (mut socket, hello) = hello_at(&demo, &token, &query).await;
    assert_eq!((&hello["recovered"], &hello["cursor"]), (&json!(true), &json!(cursor)));
    let mut stream =
        EventStream::open_query(&demo, &token, "&topics=room:1,news", Some(&cursor)).await.unwrap();
    for topic in ["room:1", "news"] {
        let message = socket.message().await;
        assert_eq!((&message["topic"], &message["data"]), (&json!(topic), &json!(topic)));
        assert_eq!(stream.data().await, topic);
    }
    demo.publish(to_topic("news", "live")).await;
    assert_eq!(socket.message().await["data"], "live");
    assert_eq!(stream.data().await, "live");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_grants_topics_and_patterns_of_them_up_to_the_limit() {
    let demo = Demo::start_with(&[("REALTIME__LIMITS__MAXTOPICSPERSESSION", "3")]).await;
    let claims =
        json!({ "userId": 1, "exp": 9_999_999_999_u64, "topics": ["role:a"], "grants": ["order:*"] });
    let (mut socket, _) = hello_at(&demo, &sign(&claims), "").await;
    assert_eq!(unsubscribe(&mut socket, &["role:a", "user:1"]).await["topics"], json!(["role:a", "user:1"]));
    demo.publish(to_topic("role:a", "not heard")).await;
    demo.publish_to(1, "not heard").await;
    demo.publish(to_topic("all", "passed")).await;
    assert_eq!(socket.message().await["data"], "passed");
    let answer = subscribe(&mut socket, &["order:1", "order:2", "user:1", "role:a", "order:3"]).await;
    assert_eq!(answer["topics"], json!(["order:1", "order:2", "user:1", "role:a"]));
    assert_eq!(answer["refused"], json!([{ "topic": "order:3", "reason": "too many topics" }]));
    demo.publish(to_topic("role:a", "heard again")).await;
    assert_eq!(socket.message().await["data"], "heard again");
    demo.publish_to(1, "mine again").await;
    assert_eq!(socket.message().await["data"], "mine again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_frame_of_topics_ends_the_connection() {
    let demo = Demo::start().await;
    for bad in [r#"{"type":"subscribe"}"#, r#"{"type":"subscribe","topics":"a"}"#] {
        let mut socket = demo.socket_v1(1).await;
        socket.json().await;
        socket.send(bad).await;
        assert_eq!(socket.close_code().await, 1007, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_newer_clients_frames_are_ignored() {
    let demo = Demo::start().await;
    let mut socket = demo.socket_v1(1).await;
    socket.json().await;
    socket.send(r#"{"type":"subscribe","topics":["news"],"later":{"x":1}}"#).await;
    assert_eq!(socket.json().await["topics"], json!(["news"]));
    socket.send(r#"{"type":"ping","later":1}"#).await;
    assert_eq!(socket.json().await["type"], "pong");
}

/// Decides when it has a permit.
struct Slow(Arc<Semaphore>);

impl TopicPolicy for Slow {
    fn may_subscribe<'a>(
        &'a self,
        _: &'a Principal,
        topic: &'a Topic,
    ) -> BoxFuture<'a, Result<TopicGrant, TopicRefusal>> {
        Box::pin(async move {
            self.0.acquire().await.unwrap().forget();
            if topic.as_str() == "other" {
                Err(TopicRefusal::new("not yours"))
            } else {
                Ok(TopicGrant::default())
            }
        })
    }
}

#[actix_web::test]
async fn the_frames_behind_a_subscription_wait_until_the_policy_has_decided() {
    let permits = Arc::new(Semaphore::new(0));
    let hub = Hub::builder().topic_policy(Slow(Arc::clone(&permits))).start().unwrap();
    let server = Embedded::start(hub.clone());
    let (mut socket, _) = hello_at(&server, &token(1), "").await;
    socket.send(r#"{"type":"subscribe","topics":["slow","other"]}"#).await;
    socket.send(r#"{"type":"message","data":"x"}"#).await;
    // What is published meanwhile is delivered.
    hub.publish_to_user(1, "published").await.unwrap();
    assert_eq!(socket.message().await["data"], "published");
    permits.add_permits(1);
    hub.publish_to_user(1, "still undecided").await.unwrap();
    assert_eq!(socket.message().await["data"], "still undecided");
    permits.add_permits(1);
    let answer = socket.message().await;
    assert_eq!(answer["topics"], json!(["slow"]));
    assert_eq!(answer["refused"], json!([{ "topic": "other", "reason": "not yours" }]));
    assert_eq!(socket.message().await["data"], "X");
    // A client that leaves while the policy decides leaves nothing behind.
    socket.send(r#"{"type":"subscribe","topics":["slow 2","slower"]}"#).await;
    drop(socket);
    until("the session to end", || hub.all_sessions().is_empty()).await;
}

#[actix_web::test]
async fn from_the_answer_on_nothing_of_a_burst_is_missing_and_nothing_comes_twice() {
    const MESSAGES: u64 = 10_000;
    let hub = Hub::builder().topic_policy(|_: &Principal, _: &Topic| true).start().unwrap();
    let server = Embedded::start(hub.clone());
    let topic = Topic::new("burst").unwrap();
    let (mut first, _) = hello_at(&server, &token(1), "").await;
    let (mut second, _) = hello_at(&server, &token(2), "").await;
    let (publisher, subscribed) = (hub.clone(), Arc::new(Semaphore::new(0)));
    let is_subscribed = Arc::clone(&subscribed);
    let publishing = async move {
        let mut last = None;
        for number in 0..MESSAGES {
            if number == MESSAGES / 2 {
                // Both subscribe while it publishes, however slow they are.
                is_subscribed.acquire_many(2).await.unwrap().forget();
            }
            let envelope = Envelope::to_topic(topic.clone(), Scope::Both, number.to_string().into());
            last = publisher.publish(envelope).await.unwrap().position;
            if number % 16 == 0 {
                tokio::task::yield_now().await;
            }
        }
        last.unwrap()
    };
    // Each message has the position behind the one before it, from the answer's cursor to the next `unsubscribed`.
    let read_some = async |socket: &mut Socket, limit: Option<u64>| {
        let answer = subscribe(socket, &["burst"]).await;
        assert_eq!(answer["type"], "subscribed");
        subscribed.add_permits(1);
        let mut cursor: Position = answer["cursor"].as_str().unwrap().parse().unwrap();
        let (mut count, mut leaves) = (0, false);
        loop {
            // No other position is used, so this one is the last message's.
            if !leaves && (limit == Some(count) || cursor.offset == MESSAGES) {
                leaves = true;
                socket.send(r#"{"type":"unsubscribe","topics":["burst"]}"#).await;
            }
            let frame = socket.message().await;
            match frame["type"].as_str().unwrap() {
                "message" => {
                    let id: Position = frame["id"].as_str().unwrap().parse().unwrap();
                    assert_eq!(id, Position { offset: cursor.offset + 1, ..cursor });
                    (cursor, count) = (id, count + 1);
                }
                "unsubscribed" => return (cursor, count),
                _ => panic!("{frame}"),
            }
        }
    };
    let again_and_again = async {
        let (mut rounds, mut read) = (0, 0);
        for _ in 0..40 {
            let (_, count) = read_some(&mut first, Some(20)).await;
            (rounds, read) = (rounds + 1, read + count);
        }
        (rounds, read)
    };
    let (last, (rounds, read), (end, count)) =
        join3(publishing, again_and_again, read_some(&mut second, None)).await;
    println!("{rounds} subscriptions read {read} messages, and another one {count}");
    assert!(end == last, "{end} {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_not_queued_for_a_client_that_asks_faster_than_it_reads() {
    const FRAMES: usize = 200;
    let demo = Demo::start_with(&[("REALTIME__LIMITS__MAXINBOUNDRATE", "0")]).await;
    let request =
        RawClient::websocket(1).replace("Host: x", "Host: x\r\nSec-WebSocket-Protocol: realtime.v1");
    let mut client = RawClient::connect(&demo).await;
    client.write(&request).await;
    client.head().await;
    // Ten times as large as the frame is its answer.
    let names = vec!["a"; 15_000];
    let frame = client_frame(&json!({ "type": "subscribe", "topics": names }).to_string());
    let before = demo.peak_memory();
    let RawClient { mut tcp, bytes } = client;
    let (mut from, mut to) = tcp.split();
    let ask = async {
        for _ in 0..FRAMES {
            to.write_all(&frame).await.unwrap();
        }
    };
    let read = async {
        let (mut buffer, mut seen, mut total) = (bytes, 0, 0);
        let answer = br#"{"type":"subscribed""#;
        while seen < FRAMES {
            total += within("an answer", from.read_buf(&mut buffer)).await.unwrap();
            seen += buffer.windows(answer.len()).filter(|bytes| bytes == answer).count();
            // The begin of an answer may be cut.
            buffer.drain(..buffer.len().saturating_sub(answer.len() - 1));
        }
        total
    };
    let ((), total) = join(ask, read).await;
    let grown = demo.peak_memory() - before;
    println!("{} KiB of answers, {grown} KiB of memory", total >> 10);
    assert!(total > 100 << 20, "{total}");
    assert!(grown < 32 << 10, "{grown} KiB");
}

/// A text frame of a client, with a mask of zeros.
fn client_frame(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).unwrap();
    [&[0x81, 0x80 | 126], &len.to_be_bytes()[..], &[0; 4], text.as_bytes()].concat()
}

//! An operator watches what happens to a user or topic, as it happens.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use realtime_tests::{API_KEY, Demo, EventStream, Server, Socket, Traced, sign, token, within};
use reqwest::Method;
use serde_json::{Value, json};

fn user(user: i64) -> Value {
    json!({ "userId": user, "seconds": 60 })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_session_is_told_on_both_transports() {
    let demo = Demo::start().await;
    let (mut trace, nodes) = Traced::begin(&demo, &user(1)).await;
    assert_eq!(
        (nodes["answered"].as_array().unwrap().len(), &nodes["missing"]),
        (1, &json!(null)),
        "{nodes}"
    );
    for transport in ["websocket", "sse"] {
        let token = token(1);
        let (mut socket, mut stream) = (None, None);
        if transport == "websocket" {
            socket = Some(Socket::open(&demo, &token, &[], None).await.unwrap());
        } else {
            stream = Some(EventStream::open(&demo, &token, None).await.unwrap());
        }
        let connect = trace.next().await.unwrap();
        assert_eq!((&connect["kind"], &connect["transport"]), (&json!("connect"), &json!(transport)));
        assert_eq!((&connect["userId"], &connect["topics"]), (&json!(1), &json!(["user:1"])));
        let begin = trace.next().await.unwrap();
        assert_eq!((&begin["kind"], &begin["sessionId"]), (&json!("begin"), &connect["sessionId"]));
        demo.publish_to(2, "another's").await;
        let position = demo.publish_to(1, "a secret").await;
        let (written, before) = trace.until("written").await;
        // Its bytes may have waited for the body.
        assert_eq!(before[0]["kind"], "received");
        assert!(before[1..].iter().all(|event| event["kind"] == "queued"), "{before:?}");
        for event in [&before[0], &written] {
            assert_eq!((&event["position"], &event["bytes"]), (&json!(position), &json!(8)));
            assert_eq!((&event["event"], &event["topics"]), (&json!("message"), &json!(["user:1"])));
        }
        assert_eq!(written["sessionId"], connect["sessionId"]);
        demo.api(Method::DELETE, "/api/online/1", None).await;
        let (close, _) = trace.until("close").await;
        let code = if transport == "websocket" { json!(4409) } else { json!(null) };
        assert_eq!((&close["reason"], &close["code"]), (&json!("kicked"), &code));
        drop((socket, stream));
        let refused = if transport == "websocket" {
            Socket::open(&demo, &token, &[], None).await.unwrap_err()
        } else {
            EventStream::open(&demo, &token, None).await.unwrap_err()
        };
        assert!([401, 204].contains(&refused));
        let refused = trace.next().await.unwrap();
        assert_eq!((&refused["kind"], &refused["reason"]), (&json!("refused"), &json!("kicked")));
        assert!(!format!("{connect}{begin}{written}{close}{refused}").contains("a secret"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_is_followed_until_it_has_caught_up() {
    let demo = Demo::start_with(&[("REALTIME__OUTBOX__MAXSTALL", "60s")]).await;
    let (mut trace, _) = Traced::begin(&demo, &user(1)).await;
    let mut stalled = TcpStream::connect(("127.0.0.1", demo.port())).unwrap();
    socket2::SockRef::from(&stalled).set_recv_buffer_size(4 << 10).unwrap();
    let path = format!("/resource/sse?Authorization={}&clientid=web", token(1));
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", demo.port());
    stalled.write_all(request.as_bytes()).unwrap();
    trace.until("begin").await;
    let large = "x".repeat(60 << 10);
    let gauge = json!({ "userIds": [1], "message": large, "collapseKey": "gauge" });
    let (mut queued, mut replaced) = (None, json!(null));
    within("a client that is behind", async {
        loop {
            let position = demo.publish(gauge.clone()).await;
            let event = loop {
                let event = trace.next().await.unwrap();
                if event["position"] == position && event["kind"] != "received" {
                    break event;
                }
            };
            match event["kind"].as_str().unwrap() {
                "behind" => {
                    replaced = json!(position);
                    return;
                }
                "queued" => queued = Some(event),
                kind => assert_eq!(kind, "written"),
            }
        }
    })
    .await;
    let queued = queued.expect("it waits for the socket before it has no room");
    assert!(queued["waiting"].as_u64() >= Some(60 << 10), "{queued}");
    let newest = demo.publish(gauge).await;
    std::thread::spawn(move || while stalled.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {});
    let (_, before) = trace.until("live").await;
    let of = |kind: &str, position: &Value| {
        before.iter().find(|event| event["kind"] == kind && event["position"] == *position)
    };
    assert_eq!(of("dropped", &replaced).unwrap()["reason"], "collapsed");
    assert_eq!(of("queued", &json!(newest)).or(of("written", &json!(newest))).unwrap()["replayed"], true);
    if of("written", &queued["position"]).is_none() {
        // That is noticed a little later.
        while trace.until("written").await.0["position"] != queued["position"] {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reconnecting_client_is_not_sent_is_told() {
    let demo = Demo::start_with(&[("REALTIME__HISTORY__MAXMESSAGES", "4")]).await;
    let first = demo.publish_to(1, "0").await;
    let expired = demo.publish(json!({ "userIds": [1], "message": "x", "ttl": 1 })).await;
    demo.publish_to(1, "2").await;
    let (mut trace, _) = Traced::begin(&demo, &user(1)).await;
    let mut stream = EventStream::open(&demo, &token(1), Some(&first)).await.unwrap();
    assert_eq!(stream.data().await, "2");
    let (begin, _) = trace.until("begin").await;
    assert_eq!((&begin["position"], &begin["count"]), (&json!(first), &json!(2)));
    let (dropped, _) = trace.until("dropped").await;
    assert_eq!((&dropped["position"], &dropped["reason"]), (&json!(expired), &json!("expired")));
    for n in 0..5 {
        demo.publish(json!({ "topics": ["others"], "message": n.to_string() })).await;
    }
    let mut late = Socket::open(&demo, &token(1), &["realtime.v1"], Some(&first)).await.unwrap();
    assert_eq!(late.json().await["recovered"], false);
    let (begin, _) = trace.until("begin").await;
    assert_eq!(begin["reason"], "history");
    let (gap, _) = trace.until("gap").await;
    assert_eq!((&gap["reason"], &gap["transport"]), (&json!("history"), &json!("websocket")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_followed_by_its_messages_and_its_sessions() {
    let demo = Demo::start_with(&[("REALTIME__TOPICS__PUBLIC", "news")]).await;
    let claims = |user: i64| {
        sign(
            &json!({ "userId": user, "clientid": "web", "exp": 4_000_000_000_u64, "topics": ["role:seller"] }),
        )
    };
    let (mut trace, _) = Traced::begin(&demo, &json!({ "topic": "role:seller" })).await;
    let mut socket = Socket::open(&demo, &claims(1), &[], None).await.unwrap();
    let _other = demo.socket(3).await;
    let connect = trace.next().await.unwrap();
    assert_eq!((&connect["kind"], &connect["userId"]), (&json!("connect"), &json!(1)));
    let position = demo.publish(json!({ "topics": ["role:seller"], "message": "x" })).await;
    assert_eq!(socket.text().await, "x");
    let (fanout, before) = trace.until("fanout").await;
    assert_eq!(before[0]["kind"], "received");
    assert_eq!((&fanout["position"], &fanout["sessions"]), (&json!(position), &json!(1)), "{fanout}");
    drop(socket);
    let (close, _) = trace.until("close").await;
    assert_eq!((&close["userId"], &close["reason"]), (&json!(1), &json!("gone")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_counted_and_a_trace_ends() {
    let demo = Demo::start().await;
    let (mut trace, _) = Traced::begin(&demo, &json!({ "userId": 1, "seconds": 60 })).await;
    let body = json!({ "userIds": [1], "message": "x" });
    let flood = async {
        loop {
            futures_util::future::join_all((0..300).map(|_| demo.publish(body.clone()))).await;
        }
    };
    let (lost, before) = tokio::select! {
        found = trace.until("lost") => found,
        () = flood => unreachable!("it has no end"),
    };
    assert!(lost["count"].as_u64() > Some(0) && before.len() >= 200, "{lost}");
    drop(trace);
    let (mut trace, _) = Traced::begin(&demo, &json!({ "userId": 2, "seconds": 1 })).await;
    let (end, _) = trace.until("end").await;
    assert_eq!(end["reason"], "time");
    assert_eq!(trace.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_are_bounded_and_a_drain_ends_them() {
    let mut demo = Demo::start().await;
    let mut traces = Vec::new();
    for n in 0..4 {
        traces.push(Traced::begin(&demo, &user(n)).await.0);
    }
    let (status, answer) = demo.api(Method::POST, "/api/trace", Some(&user(5).to_string())).await;
    assert_eq!((status, &answer["msg"]), (429, &json!("4 traces run already")));
    traces.pop();
    within("room for another", async {
        loop {
            let request =
                reqwest::Client::new().post(demo.api_url("/api/trace")).header("X-API-Key", API_KEY);
            if request.body(user(5).to_string()).send().await.unwrap().status() == 200 {
                return;
            }
        }
    })
    .await;
    for (body, expected) in [
        ("{}", "one of userId and topic"),
        (r#"{"userId":1,"topic":"a"}"#, "one of userId and topic"),
        (r#"{"userId":1,"seconds":0}"#, "seconds: must be from 1 to 600"),
        (r#"{"userId":1,"seconds":601}"#, "seconds: must be from 1 to 600"),
        (r#"{"topic":"a b"}"#, "topic: topic"),
        (r#"{"user":1}"#, "unknown field `user`"),
    ] {
        let (status, answer) = demo.api(Method::POST, "/api/trace", Some(body)).await;
        assert_eq!(status, 400, "{body}");
        assert!(answer["msg"].as_str().unwrap().contains(expected), "{answer}");
    }
    let unknown = reqwest::Client::new().post(demo.api_url("/api/trace")).body(user(5).to_string());
    assert_eq!(unknown.send().await.unwrap().status(), 401);
    let _session = demo.stream(0).await;
    demo.terminate();
    let (close, _) = traces[0].until("close").await;
    assert_eq!(close["reason"], "drain");
    let (end, _) = traces[0].until("end").await;
    assert_eq!(end["reason"], "drain");
    assert!(within("an exit", demo.child().wait()).await.unwrap().success());
}

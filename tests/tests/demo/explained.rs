//! An operator learns why a user got a message or did not, from one node.

use std::{net::TcpStream, time::Duration};

use realtime_tests::{Demo, EventStream, Server, ServerKind, Socket, sign, token, within};
use reqwest::Method;
use serde_json::{Value, json};

async fn explain(demo: &Demo, user: i64) -> Value {
    let (status, answer) = demo.api(Method::GET, &format!("/api/explain/{user}"), None).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["problems"], json!([]));
    answer
}

/// The state of a message in each session.
fn states(message: &Value) -> Vec<&str> {
    let sessions = message["sessions"].as_array().unwrap();
    sessions.iter().map(|session| session["state"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_told_with_what_reached_them_on_both_transports() {
    let demo = Demo::start().await;
    let before = demo.publish_to(1, "before").await;
    // It is acknowledged before it is in the history: a session that begins in between gets it.
    within("the message in the history", async { while explain(&demo, 1).await["messages"] == json!([]) {} })
        .await;
    let (mut socket, mut stream) = (demo.socket(1).await, demo.stream(1).await);
    let id = json!({ "userIds": [1], "message": "a secret", "event": "order", "idempotencyKey": "order-7" });
    let both = demo.publish(id).await;
    demo.publish(json!({ "userIds": [1], "message": "one", "transport": "sse" })).await;
    demo.publish(json!({ "userIds": [2], "message": "another's" })).await;
    demo.publish(json!({ "broadcast": true, "message": "all" })).await;
    assert_eq!((socket.text().await.as_str(), socket.text().await.as_str()), ("a secret", "all"));
    assert_eq!(stream.next().await.unwrap().data, "a secret");
    assert_eq!((stream.data().await.as_str(), stream.data().await.as_str()), ("one", "all"));
    let answer = explain(&demo, 1).await;
    assert_eq!((&answer["userId"], &answer["online"]), (&json!(1), &json!(true)));
    let sessions = answer["sessions"].as_array().unwrap();
    let transports: Vec<_> = sessions.iter().map(|session| session["transport"].as_str().unwrap()).collect();
    assert_eq!(transports, ["websocket", "sse"]);
    let lane = if ServerKind::of_run() == ServerKind::Realtime { "takenOver" } else { "body" };
    for session in sessions {
        assert_eq!((&session["mode"], &session["lane"]), (&json!("live"), &json!(lane)));
        assert_eq!((&session["behind"], &session["outbox"]["frames"]), (&json!(0), &json!(0)));
        assert!(session["outbox"]["written"].as_u64() > Some(0) && session["clientId"] == "web", "{session}");
        assert_eq!(session["topics"], json!(["user:1"]));
        assert_eq!(
            (&session["from"], &session["servedUpTo"]),
            (&json!(before), &answer["nodes"][0]["position"])
        );
    }
    let messages = answer["messages"].as_array().unwrap();
    let seen: Vec<_> =
        messages.iter().map(|message| (message["topic"].as_str().unwrap(), states(message))).collect();
    assert_eq!(
        seen,
        [
            ("all", vec!["written", "written"]),
            ("user:1", vec!["otherTransport", "written"]),
            ("user:1", vec!["written", "written"]),
            ("user:1", vec!["before", "before"]),
        ]
    );
    let order = &messages[2];
    assert_eq!((&order["position"], &order["id"]), (&json!(both), &json!("order-7")));
    assert_eq!(
        (&order["event"], &order["bytes"], &order["state"]),
        (&json!("order"), &json!(8), &json!("current"))
    );
    assert!(!answer.to_string().contains("a secret"), "no text of a message");
    let (_, two) = demo.api(Method::GET, "/api/explain/1?last=2", None).await;
    assert_eq!(two["messages"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offline_user_is_told_with_how_the_last_sessions_ended() {
    let demo = Demo::start().await;
    let (mut socket, mut stream) = (demo.socket(1).await, demo.stream(1).await);
    let kicked = token(1);
    let mut third = Socket::open(&demo, &kicked, &[], None).await.unwrap();
    demo.api(Method::DELETE, "/api/online/1", None).await;
    assert_eq!((socket.close_code().await, third.close_code().await), (4409, 4409));
    assert!(stream.next().await.is_none());
    assert_eq!(Socket::open(&demo, &kicked, &[], None).await.unwrap_err(), 401);
    assert_eq!(Socket::open(&demo, "no-token", &[], None).await.unwrap_err(), 401);
    within("three ends", async { while explain(&demo, 1).await["closes"].as_array().unwrap().len() < 3 {} })
        .await;
    demo.publish(json!({ "userIds": [1], "message": "x", "ttl": 1 })).await;
    let mut answer = explain(&demo, 1).await;
    within("the message's end", async {
        while answer["messages"][0]["state"] != "expired" {
            answer = explain(&demo, 1).await;
        }
    })
    .await;
    assert_eq!((&answer["sessions"], &answer["messages"][0]["sessions"]), (&json!([]), &json!([])));
    let codes: Vec<_> = answer["closes"].as_array().unwrap().iter().map(|end| end["code"].as_u64()).collect();
    assert_eq!(codes.iter().filter(|code| **code == Some(4409)).count(), 2, "an event stream has no code");
    assert!(answer["closes"].as_array().unwrap().iter().all(|end| end["reason"] == "kicked"), "{answer}");
    let refusal = &answer["refusals"][0];
    assert_eq!((&refusal["reason"], &refusal["status"]), (&json!("kicked"), &json!(401)));
    assert_eq!((&refusal["transport"], &refusal["address"]), (&json!("websocket"), &json!("127.0.0.1")));
    let unknown = &answer["unknownRefusals"][0];
    assert_eq!((&unknown["reason"], &unknown["status"]), (&json!("login"), &json!(401)));
    assert!(!answer.to_string().contains("no-token"), "no token is told: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_is_told_as_behind_and_what_was_replaced_as_left_out() {
    let demo = Demo::start_with(&[("REALTIME__OUTBOX__MAXSTALL", "60s")]).await;
    let mut stalled = TcpStream::connect(("127.0.0.1", demo.port())).unwrap();
    socket2::SockRef::from(&stalled).set_recv_buffer_size(4 << 10).unwrap();
    let path = format!("/resource/sse?Authorization={}&clientid=web", token(1));
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", demo.port());
    std::io::Write::write_all(&mut stalled, request.as_bytes()).unwrap();
    demo.until_sessions(1, 1).await;
    let large = "x".repeat(60 << 10);
    let session = within("a client that is behind", async {
        loop {
            demo.publish(json!({ "userIds": [1], "message": large, "collapseKey": "gauge" })).await;
            let session = explain(&demo, 1).await["sessions"][0].clone();
            if session["mode"] == "catchingUp" {
                return session;
            }
        }
    })
    .await;
    assert!(
        session["behind"].as_u64() > Some(0) && session["outbox"]["bytes"].as_u64() > Some(0),
        "{session}"
    );
    demo.publish(json!({ "userIds": [1], "message": large, "collapseKey": "gauge" })).await;
    let answer = explain(&demo, 1).await;
    assert_eq!(states(&answer["messages"][0]), ["waiting"]);
    assert_eq!(
        (&answer["messages"][0]["state"], &answer["messages"][1]["state"]),
        (&json!("current"), &json!("collapsed"))
    );
    assert_eq!(states(&answer["messages"][1]), ["waiting"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_and_a_replay_are_told() {
    let demo = Demo::start_with(&[("REALTIME__HISTORY__MAXMESSAGES", "4")]).await;
    let first = demo.publish_to(1, "0").await;
    for n in 1..=3 {
        demo.publish_to(1, &n.to_string()).await;
    }
    let mut replayed = EventStream::open(&demo, &token(1), Some(&first)).await.unwrap();
    assert_eq!(replayed.data().await, "1");
    for n in 4..=9 {
        demo.publish_to(1, &n.to_string()).await;
    }
    let mut late = EventStream::open(&demo, &token(1), Some(&first)).await.unwrap();
    assert_eq!(late.next().await.unwrap().event, "gap");
    let answer = explain(&demo, 1).await;
    let [replayed, late] = &answer["sessions"].as_array().unwrap()[..] else { panic!("{answer}") };
    assert_eq!((&replayed["recovered"], &replayed["gap"]), (&json!(true), &json!(null)));
    assert_eq!((&late["recovered"], &late["gap"]["reason"]), (&json!(false), &json!("history")));
}

#[tokio::test(flavor = "multi_thread")]
async fn named_topics_are_followed_and_an_excluded_session_is_told() {
    let demo = Demo::start().await;
    let claims =
        json!({ "userId": 1, "clientid": "web", "exp": 4_000_000_000_u64, "topics": ["role:seller"] });
    let mut socket = Socket::open(&demo, &sign(&claims), &["realtime.v1"], None).await.unwrap();
    let id = socket.json().await["session"].clone();
    demo.publish(json!({ "topics": ["role:seller", "role:admin"], "message": "x", "exceptSession": id }))
        .await;
    demo.publish(json!({ "topics": ["role:seller"], "message": "y" })).await;
    assert_eq!(socket.message().await["data"], "y");
    let answer = explain(&demo, 1).await;
    let messages = answer["messages"].as_array().unwrap();
    assert_eq!(messages.iter().map(states).collect::<Vec<_>>(), [["written"], ["excluded"]]);
    assert_eq!((&messages[1]["topic"], &messages[1]["topics"]), (&json!("role:seller"), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_questions_get_the_problem() {
    let demo = Demo::start().await;
    for (path, expected) in [
        ("/api/explain/1?last=0", "last: must be from 1 to 200"),
        ("/api/explain/1?last=201", "last: must be from 1 to 200"),
        ("/api/explain/1?lost=1", "lost"),
        ("/api/explain/a%20b", "userId: "),
    ] {
        let (status, answer) = demo.api(Method::GET, path, None).await;
        assert_eq!(status, 400, "{path}");
        assert!(answer["msg"].as_str().unwrap().contains(expected), "{answer}");
    }
    let response =
        reqwest::Client::new().get(demo.api_url("/api/explain/1")).timeout(Duration::from_secs(20));
    assert_eq!(response.send().await.unwrap().status(), 401);
}

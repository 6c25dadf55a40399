//! The HTTP API publishes, lists who is online, kicks and logs in; a wrong request gets an error that names the field.

use realtime_tests::{Demo, EventStream, Socket, sign, token, within};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_the_problem_and_its_place() {
    let demo = Demo::start().await;
    let long = json!({ "broadcast": true, "message": "x".repeat(65_537) }).to_string();
    for (body, expected) in [
        ("", "body: EOF"),
        ("nonsense", "body: expected a JSON object"),
        ("[]", "body: expected a JSON object"),
        (r#"{"message""#, "body: EOF"),
        (r#"{"broadcast":true,"message":"x"} trailing"#, "body: trailing"),
        (r#"{"broadcast":true}"#, "missing field `message`"),
        (r#"{"message":"x"}"#, "a target is missing"),
        (r#"{"message":"x","broadcast":false}"#, "a target is missing"),
        (r#"{"message":"x","userIds":[]}"#, "userIds: the list of targets is empty"),
        (r#"{"message":"x","topics":[]}"#, "topics: the list of targets is empty"),
        (r#"{"message":"x","userIds":[1],"broadcast":true}"#, "only one of"),
        (r#"{"message":"x","userIds":[1],"topics":["a"]}"#, "only one of"),
        (
            r#"{"message":"x","broadcast":true,"dropOldest":{"class":"a","keep":0}}"#,
            "dropOldest.keep: must be from",
        ),
        (
            r#"{"message":"x","broadcast":true,"dropOldest":{"class":"","keep":1}}"#,
            "dropOldest.class: a collapse key",
        ),
        (
            r#"{"message":"x","broadcast":true,"collapseKey":"a","dropOldest":{"class":"a","keep":1}}"#,
            "only one of collapseKey and dropOldest",
        ),
        (r#"{"message":"x","userIds":[1],"user":2}"#, "unknown field `user`"),
        (r#"{"message":"x","userIds":[1,null]}"#, "userIds[1]: invalid type: null"),
        (r#"{"message":"x","userIds":"1"}"#, "userIds: invalid type: string"),
        (r#"{"message":5,"userIds":[1]}"#, "message: invalid type: integer"),
        (r#"{"message":"x","topics":["a b"]}"#, "topics[0]: topic"),
        (r#"{"message":"x","broadcast":true,"event":"a\nb"}"#, "event: event name"),
        (r#"{"message":"x","broadcast":true,"event":"gap"}"#, "is reserved"),
        (r#"{"message":"x","broadcast":true,"transport":"carrier-pigeon"}"#, "transport: unknown variant"),
        (&long, "message: the message has 65537 bytes, 65536 are allowed"),
    ] {
        let (status, answer) = demo.try_publish(body).await;
        let msg = answer["msg"].as_str().unwrap();
        assert_eq!((status, &answer["code"]), (400, &json!(400)), "{msg}");
        assert!(msg.contains(expected), "{msg} should say {expected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_api_works_without_the_key() {
    let demo = Demo::start().await;
    let client = reqwest::Client::new();
    for (method, path) in [
        (Method::POST, "/api/publish"),
        (Method::GET, "/api/online"),
        (Method::GET, "/api/online/1"),
        (Method::DELETE, "/api/online/1"),
    ] {
        for key in [None, Some("wrong"), Some("")] {
            let mut request = client.request(method.clone(), demo.url(path));
            if let Some(key) = key {
                request = request.header("X-API-Key", key);
            }
            let response = request.body("{}").send().await.unwrap();
            assert_eq!(response.status(), 401, "{method} {path}");
            assert_eq!(response.json::<Value>().await.unwrap()["code"], 401);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_transports_and_topics_choose_who_gets_it() {
    let demo = Demo::start().await;
    let (mut socket, mut stream) = (demo.socket(1).await, demo.stream(1).await);
    let login = json!({ "username": "bob", "password": "demo", "clientId": "web" });
    let answer = reqwest::Client::new().post(demo.url("/auth/login")).json(&login).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    let seller = answer["data"]["access_token"].as_str().unwrap();
    let mut seller = Socket::open(&demo, seller, &[], None).await.unwrap();
    demo.publish(json!({ "topics": ["role:seller"], "message": "sellers" })).await;
    demo.publish(json!({ "userIds": ["1", 2], "message": "both", "transport": "websocket" })).await;
    demo.publish(json!({ "userIds": [1], "message": "stream", "transport": "sse" })).await;
    assert_eq!(socket.text().await, "both");
    assert_eq!(stream.data().await, "stream");
    loop {
        // The seller also sees who comes and goes.
        let text = seller.text().await;
        if !text.contains(r#""type":"presence""#) {
            assert_eq!(text, "sellers");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_lists_users_and_their_sessions() {
    let demo = Demo::start().await;
    let _open = (demo.socket(5).await, demo.stream(5).await, demo.socket(6).await);
    let (_, page) = demo.api(Method::GET, "/api/online?page=1&size=1", None).await;
    assert_eq!(page, json!({ "total": 2, "sessions": 3, "items": [{ "userId": 5, "sessions": 2 }] }));
    let (_, page) = demo.api(Method::GET, "/api/online?page=2&size=1", None).await;
    assert_eq!(page["items"], json!([{ "userId": 6, "sessions": 1 }]));
    let (_, user) = demo.api(Method::GET, "/api/online/5", None).await;
    assert_eq!((&user["userId"], &user["online"]), (&json!(5), &json!(true)));
    let sessions = user["sessions"].as_array().unwrap();
    let transports: Vec<_> = sessions.iter().map(|session| session["transport"].as_str().unwrap()).collect();
    assert_eq!(transports, ["websocket", "sse"]);
    assert!(sessions.iter().all(|session| session["clientId"] == "web" && session["node"].is_string()));
    assert!(sessions[0]["since"].as_str().unwrap().ends_with('Z'));
    let (_, nobody) = demo.api(Method::GET, "/api/online/7", None).await;
    assert_eq!(nobody, json!({ "userId": 7, "online": false, "sessions": [] }));
    for (query, expected) in
        [("page=0", "page"), ("size=0", "size"), ("size=1001", "size"), ("pages=1", "pages")]
    {
        let (status, answer) = demo.api(Method::GET, &format!("/api/online?{query}"), None).await;
        assert_eq!(status, 400);
        assert!(answer["msg"].as_str().unwrap().contains(expected), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kicked_is_final_for_the_token_and_a_new_login_works() {
    let demo = Demo::start().await;
    let token_before = token(1);
    let mut socket = Socket::open(&demo, &token_before, &["realtime.v1"], None).await.unwrap();
    let mut stream = EventStream::open(&demo, &token_before, None).await.unwrap();
    let mut other = demo.socket(2).await;
    assert_eq!(socket.json().await["type"], "hello");
    let (_, answer) = demo.api(Method::DELETE, "/api/online/1", None).await;
    assert_eq!(answer, json!({ "closed": 2 }));
    assert_eq!(socket.json().await, json!({ "type": "bye", "reason": "kicked", "retry": null }));
    assert_eq!(socket.close_code().await, 4409);
    assert!(stream.next().await.is_none());
    assert_eq!(Socket::open(&demo, &token_before, &[], None).await.unwrap_err(), 401);
    assert_eq!(EventStream::open(&demo, &token_before, None).await.unwrap_err(), 204, "an EventSource stops");
    let mut fresh = demo.socket(1).await;
    demo.publish(json!({ "broadcast": true, "message": "x" })).await;
    assert_eq!(fresh.text().await, "x");
    assert_eq!(other.text().await, "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_can_be_kicked_alone() {
    let demo = Demo::start().await;
    let (mut first, mut second) = (demo.socket_v1(1).await, demo.socket_v1(1).await);
    let id = first.json().await["session"].as_str().unwrap().to_owned();
    second.json().await;
    let (status, answer) = demo.api(Method::DELETE, "/api/online/1?sessionId=nobody", None).await;
    assert_eq!(
        (status, &answer["msg"]),
        (400, &json!("sessionId: a session's id has 32 hexadecimal digits"))
    );
    let nobody = "/api/online/1?sessionId=00112233445566778899aabbccddeeff";
    let (_, answer) = demo.api(Method::DELETE, nobody, None).await;
    assert_eq!(answer, json!({ "closed": 0 }));
    let (_, answer) = demo.api(Method::DELETE, &format!("/api/online/2?sessionId={id}"), None).await;
    assert_eq!(answer, json!({ "closed": 0 }), "a session is its own user's");
    let (_, answer) = demo.api(Method::DELETE, &format!("/api/online/1?sessionId={id}"), None).await;
    assert_eq!(answer, json!({ "closed": 1 }));
    assert_eq!(first.close_code().await, 4409);
    demo.publish_to(1, "still here").await;
    assert_eq!(second.message().await["data"], "still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_needs_the_right_password() {
    let demo = Demo::start().await;
    let login = async |body: Value| {
        let response = reqwest::Client::new().post(demo.url("/auth/login")).json(&body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let (status, answer) = login(json!({ "username": "alice", "password": "demo", "clientId": "web" })).await;
    assert_eq!((status, &answer["code"], &answer["data"]["client_id"]), (200, &json!(200), &json!("web")));
    assert_eq!(answer["data"]["expire_in"], 3600);
    for (username, password) in [("alice", "wrong"), ("nobody", "demo"), ("alice", "")] {
        let body = json!({ "username": username, "password": password, "clientId": "web" });
        let (status, answer) = login(body).await;
        assert_eq!((status, &answer["data"]), (401, &json!(null)));
    }
    assert_eq!(login(json!({ "username": "alice" })).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_logins_at_once_take_the_memory_of_a_few() {
    let demo = Demo::start().await;
    let client = reqwest::Client::new();
    let login = async || {
        let body = json!({ "username": "alice", "password": "wrong", "clientId": "web" });
        client.post(demo.url("/auth/login")).json(&body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(login().await, 401);
    let before = demo.peak_memory();
    let statuses = within("all logins", futures_util::future::join_all((0..150).map(|_| login()))).await;
    // Logins that wait too long, and those behind too many wrong passwords, are answered with 429.
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    let grown = demo.peak_memory() - before;
    assert!(grown < 120 * 1024, "8 MiB each, and the node grew by {grown} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_has_a_ttl_a_collapse_key_and_is_retained() {
    let demo = Demo::start().await;
    let of_topic = |user: u64| {
        sign(&json!({ "userId": user, "clientid": "web", "exp": 4_000_000_000_u64, "topics": ["prices"] }))
    };
    let price = |message: &str| json!({ "topics": ["prices"], "message": message, "collapseKey": "XAU", "ttl": 60_000, "retain": true });
    let mut reader = Socket::open(&demo, &of_topic(1), &[], None).await.unwrap();
    demo.publish(price("1")).await;
    demo.publish(json!({ "topics": ["prices"], "message": "of no key", "retain": true })).await;
    demo.publish(price("2")).await;
    while reader.text().await != "2" {}
    let mut newcomer = Socket::open(&demo, &of_topic(2), &["realtime.v1"], None).await.unwrap();
    assert_eq!(newcomer.json().await["type"], "hello");
    for data in ["of no key", "2"] {
        let frame = newcomer.message().await;
        assert_eq!((&frame["data"], &frame["id"]), (&json!(data), &json!(null)));
    }
    demo.publish(price("")).await;
    while !reader.text().await.is_empty() {}
    let mut stream = EventStream::open(&demo, &of_topic(3), None).await.unwrap();
    assert_eq!(stream.data().await, "of no key", "the other one was cleared");
    for (field, value, problem) in [
        ("collapseKey", json!("a b"), "collapseKey: a collapse key has 1 to 64"),
        ("ttl", json!(0), "ttl: must be at least 1"),
        ("ttl", json!(-1), "ttl: invalid value: integer `-1`"),
        ("topics", json!(["prices", "others"]), "a retained message needs exactly one topic"),
        ("topics", json!(["user:1"]), "a retained message needs exactly one topic"),
    ] {
        let mut body = price("x");
        body[field] = value;
        let (status, answer) = demo.try_publish(&body.to_string()).await;
        let msg = answer["msg"].as_str().unwrap();
        assert!(status == 400 && msg.starts_with(problem), "{status} {msg}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_with_the_same_key_is_one_and_a_session_can_be_left_out() {
    let demo = Demo::start().await;
    let mut left_out = Socket::open(&demo, &token(1), &["realtime.v1"], None).await.unwrap();
    let session = left_out.json().await["session"].clone();
    let mut other = Socket::open(&demo, &token(1), &[], None).await.unwrap();
    let order = json!({ "userIds": [1], "message": "paid", "idempotencyKey": "order-7-paid" });
    let first = demo.publish(order.clone()).await;
    assert_eq!(demo.publish(order).await, first);
    demo.publish(json!({ "userIds": [1], "message": "not to all", "exceptSession": session })).await;
    let last = demo.publish_to(1, "last").await;
    assert_eq!((other.text().await, other.text().await), ("paid".into(), "not to all".into()));
    assert_eq!(other.text().await, "last");
    assert_eq!(left_out.message().await["id"], first.as_str());
    assert_eq!(left_out.message().await["id"], last.as_str());
    for (field, value, problem) in [
        ("idempotencyKey", "a b", "idempotencyKey: an envelope's id has 1 to 64"),
        ("exceptSession", "me", "exceptSession: a session's id has 32 hexadecimal digits"),
    ] {
        let mut body = json!({ "userIds": [1], "message": "x" });
        body[field] = value.into();
        let (status, answer) = demo.try_publish(&body.to_string()).await;
        let msg = answer["msg"].as_str().unwrap();
        assert!(status == 400 && msg.starts_with(problem), "{status} {msg}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_topic_may_be_followed_by_everybody_who_can_log_in() {
    let demo = Demo::start().await;
    let mut stream = EventStream::open_query(&demo, &token(1), "&topics=news,others", None).await.unwrap();
    let refused = stream.next().await.unwrap();
    assert_eq!(refused.event, "realtime.refused");
    assert_eq!(refused.data, r#"{"refused":[{"topic":"others","reason":"not allowed"}]}"#);
    demo.publish(json!({ "topics": ["others"], "message": "not for it" })).await;
    demo.publish(json!({ "topics": ["news"], "message": "for everybody" })).await;
    assert_eq!(stream.data().await, "for everybody");
    let body = json!({ "broadcast": true, "message": "x", "event": "realtime.of-tomorrow" });
    assert_eq!(demo.try_publish(&body.to_string()).await.0, 400, "only the server says hello");
}

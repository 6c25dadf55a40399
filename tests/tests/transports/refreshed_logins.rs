//! A client is told before its login ends, and refreshes it on its open connection, with another token of its user only.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use realtime_core::{Envelope, Hub, Message, Principal, Scope, SessionHandle, Topic, auth::TokenHash};
use realtime_sse::SseEmitters;
use realtime_tests::{Demo, Embedded, EventStream, Server, Socket, session, sign, token, until};
use reqwest::Client;
use serde_json::{Value, json};

/// A token of a user that ends in so many seconds, with topics.
fn short(user: i64, seconds: u64, topics: &[&str]) -> String {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + seconds;
    let jti = rand::random::<u64>().to_string();
    sign(&json!({ "userId": user, "clientid": "web", "exp": exp, "jti": jti, "topics": topics }))
}

fn refresh(token: &str) -> String {
    json!({ "type": "refresh", "token": token }).to_string()
}

/// Asks for the refresh of a stream; returns the status and the answer.
async fn refresh_stream(server: &impl Server, session: &str, token: &str) -> (u16, Value) {
    let url = format!("http://127.0.0.1:{}/resource/sse/refresh?session={session}", server.port());
    let request = Client::new().post(url).header("Authorization", format!("Bearer {token}"));
    let response = request.header("clientid", "web").send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// Milliseconds in a frame, which are a little less than these seconds.
fn is_about(millis: &Value, seconds: u64) {
    let millis = millis.as_u64().unwrap_or_else(|| panic!("{millis} is no time"));
    assert!((seconds * 1000 - 2500..=seconds * 1000).contains(&millis), "{millis} ms, not {seconds} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_outlives_the_token_that_it_was_opened_with() {
    let demo = Demo::start().await;
    let first = short(9, 3, &[]);
    let mut kept = Socket::open(&demo, &first, &["realtime.v1"], None).await.unwrap();
    let mut ended = Socket::open(&demo, &first, &["realtime.v1"], None).await.unwrap();
    for socket in [&mut kept, &mut ended] {
        let hello = socket.json().await;
        assert_eq!(hello["type"], "hello");
        is_about(&hello["expiresIn"], 3);
        let expiring = socket.json().await;
        assert_eq!(expiring["type"], "expiring", "{expiring}");
        is_about(&expiring["in"], 3);
    }
    // Others' tokens and bad ones change nothing.
    for (token, reason) in [
        (token(8), "the token is another user's"),
        (sign(&json!({ "userId": 9, "exp": 1 })), "token has expired"),
        ("x".to_owned(), "token is malformed"),
        (
            sign(&json!({ "userId": 9, "clientid": "app", "exp": 4_102_444_800_u64 })),
            "clientid does not match the token",
        ),
    ] {
        kept.send(&refresh(&token)).await;
        assert_eq!(kept.json().await, json!({ "type": "refresh-refused", "reason": reason }));
    }
    kept.send(&refresh(&format!("Bearer {}", short(9, 5, &[])))).await;
    let refreshed = kept.json().await;
    assert_eq!(refreshed["type"], "refreshed", "{refreshed}");
    is_about(&refreshed["expiresIn"], 5);
    assert_eq!(kept.json().await["type"], "expiring", "it is told once for each token");

    assert_eq!(ended.json().await, json!({ "type": "bye", "reason": "token-expired", "retry": null }));
    assert_eq!(ended.close_code().await, 4401);
    kept.send(r#"{"type":"ping"}"#).await;
    assert_eq!(kept.json().await, json!({ "type": "pong" }));
    assert_eq!(kept.json().await, json!({ "type": "bye", "reason": "token-expired", "retry": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_has_given_its_client_id_before() {
    let demo = Demo::start_with(&[("REALTIME__AUTH__REQUIRECLIENTID", "true")]).await;
    for claim in [json!(null), json!("web")] {
        let token = |jti: u8| {
            sign(&json!({ "userId": 9, "clientid": claim, "exp": 4_102_444_800_u64, "jti": jti.to_string() }))
        };
        let mut socket = Socket::open(&demo, &token(1), &["realtime.v1"], None).await.unwrap();
        assert_eq!(socket.json().await["type"], "hello");
        socket.send(&refresh(&token(2))).await;
        assert_eq!(socket.json().await["type"], "refreshed", "{claim}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_the_token_that_it_was_opened_with() {
    let demo = Demo::start().await;
    let first = short(9, 3, &[]);
    let mut kept = EventStream::open(&demo, &first, None).await.unwrap();
    let (_, online) = demo.api(reqwest::Method::GET, "/api/online/9", None).await;
    let id = online["sessions"][0]["sessionId"].as_str().unwrap().to_owned();
    let mut ended = EventStream::open(&demo, &first, None).await.unwrap();
    for stream in [&mut kept, &mut ended] {
        let expiring = stream.next().await.unwrap();
        assert_eq!(
            (expiring.event.as_str(), expiring.id.as_str()),
            ("realtime.expiring", stream.last_id.as_str())
        );
        is_about(&serde_json::from_str::<Value>(&expiring.data).unwrap()["in"], 3);
    }
    assert_eq!(refresh_stream(&demo, &id, "x").await.0, 401);
    assert_eq!(refresh_stream(&demo, "x", &token(9)).await.0, 400);
    let unknown = "0".repeat(32);
    assert_eq!(refresh_stream(&demo, &unknown, &token(9)).await.0, 404);
    assert_eq!(refresh_stream(&demo, &id, &token(8)).await.0, 404, "another user has no such session");
    let (status, answer) = refresh_stream(&demo, &id, &token(9)).await;
    assert_eq!((status, &answer["code"]), (200, &json!(200)));
    is_about(&answer["data"]["expiresIn"], 3600);
    assert!(ended.next().await.is_none());
    demo.publish_to(9, "goes on").await;
    assert_eq!(kept.data().await, "goes on");
}

#[actix_web::test]
async fn a_refreshed_session_belongs_to_its_new_token_alone() {
    let server = Embedded::start(Hub::builder().start().unwrap());
    let open = async |user: i64, token: &str| {
        let mut socket = Socket::open(&server, token, &["realtime.v1"], None).await.unwrap();
        assert_eq!(socket.json().await["type"], "hello");
        (socket, session(&server.hub, user).await)
    };
    let renew = async |socket: &mut Socket, token: &str| {
        socket.send(&refresh(token)).await;
        let answer = socket.json().await;
        assert_eq!(answer["type"], "refreshed", "{answer}");
    };
    let (old, new) = (token(1), token(1));
    let (mut socket, handle) = open(1, &old).await;
    renew(&mut socket, &new).await;
    assert_eq!(handle.token(), TokenHash::of(&new));
    assert_eq!(server.hub.revoke_token(TokenHash::of(&old), None).await.unwrap().closed, 0);
    socket.send(&refresh(&old)).await;
    let refused = json!({ "type": "refresh-refused", "reason": "the token is refused" });
    assert_eq!(socket.json().await, refused);
    assert_eq!(server.hub.revoke_token(TokenHash::of(&new), None).await.unwrap().closed, 1);
    assert_eq!(socket.json().await["reason"], "revoked");

    // A kick refuses the new token; the old one is not that of a session any more.
    let (old, new) = (token(2), token(2));
    let (mut socket, _) = open(2, &old).await;
    renew(&mut socket, &new).await;
    assert_eq!(server.hub.kick(&2.into()).await.unwrap().closed, 1);
    assert_eq!(socket.json().await["reason"], "kicked");
    assert_eq!(Socket::open(&server, &new, &["realtime.v1"], None).await.err(), Some(401));
    let _back = open(2, &old).await;
}

#[actix_web::test]
async fn a_refreshed_session_is_in_the_topics_of_its_new_token_and_in_those_it_was_put_into() {
    let server = Embedded::start(Hub::builder().start().unwrap());
    let mut socket = Socket::open(&server, &short(1, 60, &["a", "b"]), &["realtime.v1"], None).await.unwrap();
    assert_eq!(socket.json().await["type"], "hello");
    let handle = session(&server.hub, 1).await;
    handle.subscribe(Topic::new("granted").unwrap());
    socket.send(&refresh(&short(1, 60, &["b", "c"]))).await;
    assert_eq!(socket.json().await["type"], "refreshed");
    let topics = |handle: &SessionHandle| {
        let mut topics: Vec<_> = handle.topics().iter().map(|topic| topic.as_str().to_owned()).collect();
        topics.sort();
        topics
    };
    assert_eq!(topics(&handle), ["b", "c", "granted", "user:1"]);
    for topic in ["a", "b", "c", "granted"] {
        let envelope = Envelope::to_topic(Topic::new(topic).unwrap(), Scope::Both, Message::text(topic));
        server.hub.publish(envelope).await.unwrap();
    }
    for topic in ["b", "c", "granted"] {
        assert_eq!(socket.message().await["data"], topic);
    }
}

#[actix_web::test]
async fn an_application_renews_logins_of_its_own() {
    struct Role(&'static str);

    let hub = Hub::builder().start().unwrap();
    let login = |user: i64, token: &str, role: &'static str, left: Option<Duration>| {
        let mut principal = Principal::new(user.into(), token);
        principal.extensions.insert(Role(role));
        principal.expires_at = left.map(|left| SystemTime::now() + left);
        principal
    };
    let emitters = SseEmitters::new(hub.clone());
    let hour = Some(Duration::from_secs(3600));
    let stream = emitters.open(login(1, "first", "guest", hour), None).unwrap();
    let handle = stream.handle();
    assert!(handle.expires_in() <= hour && handle.get::<Role>().unwrap().0 == "guest");
    hub.renew(&handle, login(1, "second", "member", None)).unwrap();
    assert_eq!((handle.expires_in(), handle.get::<Role>().unwrap().0), (None, "member"));
    assert_eq!(handle.token(), TokenHash::of("second"));
    let error = hub.renew(&handle, login(2, "third", "member", None)).unwrap_err();
    assert_eq!((error.status(), handle.token()), (403, TokenHash::of("second")));
    hub.renew_session(handle.id(), login(1, "third", "member", None)).await.unwrap();
    assert_eq!(handle.token(), TokenHash::of("third"));
    assert_eq!(emitters.disconnect(1, "second"), 0);
    assert_eq!(hub.kick(&1.into()).await.unwrap().closed, 1);
    let error = hub.renew(&handle, login(1, "fourth", "member", None)).unwrap_err();
    assert_eq!(error.status(), 404, "a session that ends keeps its login");
    assert!(hub.is_refused(&login(1, "third", "member", None)));
    drop(stream);
    until("its end", || hub.all_sessions().is_empty()).await;
}

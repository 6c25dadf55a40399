//! A refused login is answered in RuoYi's form, under the configured status, on both transports.

use std::sync::Arc;

use realtime_core::{
    Authenticator, BoxFuture, Hub, Principal,
    auth::{AuthError, Handshake},
    ruoyi::ErrorStatus,
};
use realtime_tests::{Demo, Embedded, Server, sign, token, within};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn refused_logins_are_answered_in_ruoyis_form() {
    let demo = Demo::start().await;
    let expired = sign(&json!({ "userId": 1, "exp": 1 }));
    let wrong_client = format!("?Authorization={}&clientid=app", token(1));
    for (query, msg) in [
        (String::new(), "Authorization is missing"),
        ("?Authorization=x".to_owned(), "token is malformed"),
        (format!("?Authorization={expired}"), "token has expired"),
        (wrong_client, "clientid does not match the token"),
    ] {
        let (status, body) = demo.get(&format!("/resource/sse{query}")).await;
        assert_eq!(status, 401);
        assert_eq!(body, format!(r#"{{"code":401,"msg":"{msg}","data":null}}"#));
    }
}

const TRANSPORTS: [&str; 2] = ["websocket", "sse"];

/// Refuses every login, with the error that the token names.
struct Door;

impl Authenticator for Door {
    fn authenticate<'a>(&'a self, handshake: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
        let error = match handshake.token() {
            Some("forbidden") => AuthError::Forbidden("you may not".to_owned()),
            Some("unavailable") => AuthError::Unavailable("db-7.internal: connection refused".to_owned()),
            _ => AuthError::Unauthorized("who are you?".to_owned()),
        };
        Box::pin(async move { Err(error) })
    }
}

#[actix_web::test]
async fn a_refused_login_is_answered_with_401_or_403_or_always_200_and_the_same_body() {
    for (error_status, statuses) in [(ErrorStatus::Http, [401, 403]), (ErrorStatus::Always200, [200, 200])] {
        let hub = Hub::builder().start().unwrap();
        let server = Embedded::start_telling(hub, Arc::new(Door), error_status);
        for transport in TRANSPORTS {
            let unauthorized = ask(&server, transport, "unknown").await;
            is_refusal(unauthorized, statuses[0], 401, "who are you?").await;
            let forbidden = ask(&server, transport, "forbidden").await;
            is_refusal(forbidden, statuses[1], 403, "you may not").await;
        }
        // A condition that passes is not a refusal of the login.
        let unavailable = ask(&server, "websocket", "unavailable").await;
        is_refusal(unavailable, 503, 503, "the login cannot be checked now").await;
        let stream = ask(&server, "sse", "unavailable").await;
        assert_eq!((stream.status().as_u16(), content_type(&stream)), (200, "text/event-stream"));
        let text = stream.text().await.unwrap();
        let retry = text.strip_prefix(":disconnected\nretry:").and_then(|rest| rest.strip_suffix("\n\n"));
        let retry: u64 = retry.unwrap_or_else(|| panic!("{text:?}")).parse().unwrap();
        assert!((1500..=4500).contains(&retry), "around 3 s, and not the same for all: {retry}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kicked_login_is_answered_with_204_or_with_200_and_a_body() {
    let ended = "this login was ended by an administrator";
    for (setting, status, on_a_stream) in [("401", 401, 204), ("200", 200, 200)] {
        let demo = Demo::start_with(&[("REALTIME__AUTH__ERRORSTATUS", setting)]).await;
        let token = token(1);
        let stream = ask(&demo, "sse", &token).await;
        assert_eq!(content_type(&stream), "text/event-stream");
        assert_eq!(demo.api(Method::DELETE, "/api/online/1", None).await, (200, json!({ "closed": 1 })));

        let refused = ask(&demo, "websocket", &token).await;
        assert_eq!((refused.status().as_u16(), content_type(&refused)), (status, "application/json"));
        let refusal: Value = refused.json().await.unwrap();
        assert_eq!((&refusal["code"], &refusal["data"]), (&json!(401), &Value::Null));
        let refused = ask(&demo, "sse", &token).await;
        if on_a_stream == 204 {
            assert_eq!((refused.status().as_u16(), refused.text().await.unwrap().as_str()), (204, ""));
        } else {
            assert_eq!((refused.status().as_u16(), content_type(&refused)), (200, "application/json"));
            assert_eq!(refused.json::<Value>().await.unwrap()["code"], 401);
        }
        let own = get(&demo, &format!("/demo/online?Authorization={token}")).await;
        is_refusal(own, status, 401, ended).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_tells_of_every_refused_login_as_it_is_configured_and_of_nothing_else() {
    for (setting, status) in [("401", 401), ("200", 200)] {
        let demo = Demo::start_with(&[("REALTIME__AUTH__ERRORSTATUS", setting)]).await;
        for transport in TRANSPORTS {
            is_refusal(ask(&demo, transport, "abc").await, status, 401, "token is malformed").await;
        }
        let own = get(&demo, "/demo/online").await;
        is_refusal(own, status, 401, "Authorization is missing").await;
        let login = json!({ "username": "alice", "password": "wrong", "clientId": "web" });
        let login = Client::new().post(demo.url("/auth/login")).json(&login).send().await.unwrap();
        is_refusal(login, status, 401, "wrong user name or password").await;

        // A missing key is not a refused login, and neither is an origin or a path.
        is_refusal(get(&demo, "/api/online").await, 401, 401, "header X-API-Key is missing").await;
        is_refusal(get(&demo, "/nowhere").await, 404, 404, "nothing at /nowhere").await;
        let page = upgrade(&demo, &token(1)).header("Origin", "http://elsewhere");
        let refused = within("an answer", page.send()).await.unwrap();
        is_refusal(refused, 403, 403, "origin \"http://elsewhere\" is not allowed").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_not_text_or_is_one_of_two_admits_no_foreign_page() {
    let demo = Demo::start().await;
    let own = format!("http://127.0.0.1:{}", demo.port());
    let open = async |origins: &[&[u8]]| {
        let mut request = upgrade(&demo, &token(1));
        for origin in origins {
            request = request.header("Origin", reqwest::header::HeaderValue::from_bytes(origin).unwrap());
        }
        within("an answer", request.send()).await.unwrap().status().as_u16()
    };
    let (own, strange) = (own.as_bytes(), b"http://elsewhere".as_slice());
    for (origins, status) in [
        (vec![], 101),
        (vec![own], 101),
        (vec![own, own], 101),
        (vec![b"http://\xff".as_slice()], 403),
        (vec![own, strange], 403),
        (vec![strange, own], 403),
    ] {
        assert_eq!(open(&origins).await, status, "{origins:?}");
    }
}

/// Asks one of the transports for a connection.
async fn ask(server: &impl Server, transport: &str, token: &str) -> Response {
    let request = match transport {
        "websocket" => upgrade(server, token),
        _ => Client::new().get(at(server, &format!("/resource/sse?Authorization={token}"))),
    };
    within("an answer", request.send()).await.unwrap()
}

/// A WebSocket's handshake by a client that wants to read the refusal.
fn upgrade(server: &impl Server, token: &str) -> reqwest::RequestBuilder {
    Client::new()
        .get(at(server, &format!("/resource/websocket?Authorization={token}")))
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

async fn get(server: &impl Server, path: &str) -> Response {
    within("an answer", Client::new().get(at(server, path)).send()).await.unwrap()
}

fn at(server: &impl Server, path: &str) -> String {
    format!("http://127.0.0.1:{}{path}", server.port())
}

async fn is_refusal(response: Response, status: u16, code: u16, msg: &str) {
    assert_eq!((response.status().as_u16(), content_type(&response)), (status, "application/json"), "{msg}");
    let bytes = format!(r#"{{"code":{code},"msg":{},"data":null}}"#, json!(msg));
    assert_eq!(response.text().await.unwrap(), bytes);
}

fn content_type(response: &Response) -> &str {
    response.headers().get("content-type").map_or("", |value| value.to_str().unwrap())
}

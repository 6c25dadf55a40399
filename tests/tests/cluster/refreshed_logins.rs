//! The login of an event stream is refreshed by a request to any node, and by another token of its user only.

use std::time::Duration;

use realtime_core::{
    Hub, Principal, Topic,
    auth::{TokenHash, TopicPattern},
    error::RenewError,
    testkit::ready,
};
use realtime_redis::{RedisCluster, RedisConfig};
use realtime_sse::SseEmitters;
use realtime_tests::{Demo, Redis, Server, token, within};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_reaches_the_stream_wherever_it_is() {
    let redis = Redis::start().await;
    let url = redis.url();
    let start = async |name: &str| {
        Demo::start_with(&[("REALTIME__REDIS__URL", url.as_str()), ("REALTIME__SERVER__NODE", name)]).await
    };
    let (a, b) = (start("a").await, start("b").await);
    let mut stream = a.stream(7).await;
    b.until_sessions(7, 1).await;
    let (_, online) = b.api(Method::GET, "/api/online/7", None).await;
    let id = online["sessions"][0]["sessionId"].as_str().unwrap().to_owned();
    let refresh = async |token: &str| {
        let url = format!("http://127.0.0.1:{}/resource/sse/refresh?session={id}", b.port());
        let response = Client::new().post(url).header("Authorization", token).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    assert_eq!(refresh(&token(8)).await.0, 404);
    let new = token(7);
    let (status, answer) = refresh(&new).await;
    assert_eq!((status, &answer["code"]), (200, &json!(200)), "{answer}");
    assert!(answer["data"]["expiresIn"].as_u64().unwrap() > 3_590_000, "{answer}");
    // It belongs to the new token: a page that leaves ends the streams of its token, on the stream's node.
    b.publish_to(7, "goes on").await;
    assert_eq!(stream.data().await, "goes on");
    within("the stream to be old enough to be ended", async {
        loop {
            let (status, _) = a.get(&format!("/resource/sse/close?Authorization={new}")).await;
            assert_eq!(status, 200);
            if a.sessions(7).await == 0 {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(stream.next().await.is_none());
}

#[actix_web::test]
async fn a_login_is_renewed_on_another_node_with_everything_that_can_be_sent() {
    let redis = Redis::start().await;
    let node = async |name: &str| {
        let cluster = RedisCluster::streams(RedisConfig::single(redis.url()), name).unwrap();
        let hub = Hub::builder().cluster(cluster).start().unwrap();
        ready(&hub).await;
        hub
    };
    let (a, b) = (node("a").await, node("b").await);
    let login = |token: &str, topics: &[&str]| {
        let mut principal = Principal::new(7.into(), token);
        principal.topics = topics.iter().map(|topic| Topic::new(topic).unwrap()).collect();
        principal.grants =
            topics.iter().map(|topic| TopicPattern::new(&format!("{topic}:*")).unwrap()).collect();
        principal.client_id = Some("web".into());
        principal
    };
    let stream = SseEmitters::new(a.clone()).open(login("first", &["x"]), None).unwrap();
    let handle = stream.handle();
    b.renew_session(handle.id(), login("second", &["y"])).await.unwrap();
    let renewed = handle.principal();
    assert_eq!((renewed.token, renewed.client_id.as_deref()), (TokenHash::of("second"), Some("web")));
    assert_eq!(renewed.grants, [TopicPattern::new("y:*").unwrap()]);
    assert_eq!(handle.topics(), ["user:7", "y"].map(|topic| topic.parse().unwrap()));

    let mut with_data = login("third", &[]);
    with_data.extensions.insert(1_u8);
    assert_eq!(b.renew_session(handle.id(), with_data.clone()).await, Err(RenewError::Elsewhere));
    a.renew_session(handle.id(), with_data).await.unwrap();
    assert_eq!(handle.get::<u8>().as_deref(), Some(&1));

    b.revoke_token(TokenHash::of("second"), None).await.unwrap();
    assert_eq!(handle.closing(), None, "it belongs to another token");
    assert_eq!(b.renew_session(handle.id(), login("second", &[])).await, Err(RenewError::Refused));
    b.kick(&7.into()).await.unwrap();
    assert!(handle.closing().is_some());
    assert_eq!(b.renew_session(handle.id(), login("fourth", &[])).await, Err(RenewError::NoSession));
    within("the other node's refusal", async {
        while !b.is_refused(&login("third", &[])) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

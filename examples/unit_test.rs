//! Unit tests of an application's handlers, without sockets: `cargo test -p realtime-examples --test unit_test`.
//!
//! `testkit` is a feature of `realtime-core`, for an application's dev-dependencies.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::error::Error;

use actix_web::{
    App, test,
    web::{self, Data, Path},
};
use realtime_core::testkit::{self, TestSession};
use realtime_websocket::{
    ByteString, CloseReason, Envelope, Hub, Message, Scope, SessionHandle, Topic, UserId,
};

/// The application's handler of `POST /orders/{user}/{order}/ship`.
async fn ship(hub: Data<Hub>, path: Path<(UserId, u64)>) -> Result<&'static str, Box<dyn Error>> {
    let (user, order) = path.into_inner();
    let message = Message::text(format!(r#"{{"type":"shipped","order":{order}}}"#));
    hub.publish(Envelope::to_users([&user], Scope::Both, message)?).await?;
    Ok("ok")
}

/// The application's handler of clients' texts: see `InboundHandler`.
async fn on_text(session: SessionHandle, text: ByteString) -> Option<ByteString> {
    match text.strip_prefix("follow ").map(|name| Topic::new(&format!("order:{name}"))) {
        Some(Ok(topic)) => {
            session.subscribe(topic);
            Some("ok".into())
        }
        Some(Err(error)) => Some(error.to_string().into()),
        None => Some("follow <order>".into()),
    }
}

#[actix_web::test]
async fn a_shipped_order_is_told_to_its_user_alone() {
    let hub = testkit::hub().await;
    let app = App::new()
        .app_data(Data::new(hub.clone()))
        .route("/orders/{user}/{order}/ship", web::post().to(ship));
    let app = test::init_service(app).await;
    let mut alice = TestSession::connect(&hub, "alice".parse().unwrap()).await;
    let mut bob = TestSession::connect(&hub, "bob".parse().unwrap()).await;

    let request = test::TestRequest::post().uri("/orders/alice/7/ship").to_request();
    assert_eq!(test::call_and_read_body(&app, request).await, "ok");

    assert_eq!(alice.text().await, r#"{"type":"shipped","order":7}"#);
    assert_eq!(bob.received().await, []);
}

#[actix_web::test]
async fn a_client_that_was_away_gets_what_it_missed() {
    let hub = testkit::hub().await;
    let alice = TestSession::connect(&hub, 42.into()).await;
    hub.publish(Envelope::broadcast(Scope::Both, Message::text("missed"))).await.unwrap();

    let mut alice = alice.reconnect(&hub).await.unwrap();
    assert_eq!(alice.recovered(), Some(true));
    assert_eq!(alice.text().await, "missed");
}

#[actix_web::test]
async fn a_client_follows_the_orders_that_it_names() {
    let hub = testkit::hub().await;
    let mut session = TestSession::connect(&hub, 42.into()).await;
    let text = |text: &'static str| on_text(session.handle().clone(), text.into());
    assert_eq!(text("hello").await.unwrap(), "follow <order>");
    assert_eq!(text("follow 7").await.unwrap(), "ok");

    let topic = Topic::new("order:7").unwrap();
    hub.publish(Envelope::to_topics([topic], Scope::Both, Message::text("packed")).unwrap()).await.unwrap();
    assert_eq!(session.text().await, "packed");

    hub.kick(&42.into()).await.unwrap();
    assert_eq!(session.closed().await, CloseReason::Kicked);
}

//! The testkit as an application's tests use it.

use std::time::Duration;

use super::*;
use crate::{
    CloseReason, Envelope, EventName, Message, Principal, Scope, Settings, Topic, Transport, wire::GapReason,
};

fn broadcast(text: &str) -> Envelope {
    Envelope::broadcast(Scope::Both, Message::text(text.to_owned()))
}

#[tokio::test]
async fn a_session_reads_what_it_is_sent_and_nothing_else() {
    let hub = hub().await;
    let mut session = TestSession::connect(&hub, 1.into()).await;
    assert_eq!(session.received().await, []);
    let sse = Envelope::broadcast(Scope::Only(Transport::new("sse")), Message::text("none of its own"));
    hub.publish(sse).await.unwrap();
    let event = EventName::new("order").unwrap();
    let topic = Topic::new("role:admin").unwrap();
    let named = Message::new(event, "a \"text\"\nof two lines");
    session.handle().subscribe(topic.clone());
    let at = hub.publish(Envelope::to_topics([topic], Scope::Both, named).unwrap()).await.unwrap().position;
    let message = session.message().await;
    assert_eq!((message.event.as_str(), message.data.as_text()), ("order", Some("a \"text\"\nof two lines")));
    assert_eq!((message.position, session.cursor()), (at, at));
    session.handle().send_local("a local send").unwrap();
    assert_eq!(session.message().await.position, None);
    assert_eq!(session.handle().topics(), [Topic::user(&1.into()), Topic::new("role:admin").unwrap()]);
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_it_missed_or_a_gap() {
    let mut settings = Settings::default();
    settings.history.max_messages = 10;
    settings.outbox.max_messages = 5;
    let hub = Hub::builder().settings(settings).start().unwrap();
    let mut session = TestSession::connect(&hub, 1.into()).await;
    hub.publish(broadcast("seen")).await.unwrap();
    assert_eq!(session.text().await, "seen");
    hub.publish(broadcast("missed")).await.unwrap();
    let mut session = session.reconnect(&hub).await.unwrap();
    assert_eq!(session.recovered(), Some(true));
    assert_eq!(session.text().await, "missed");
    for n in 0..100 {
        hub.publish(broadcast(&n.to_string())).await.unwrap();
    }
    let mut session = session.reconnect(&hub).await.unwrap();
    let TestEvent::Gap { reason: GapReason::History, .. } = session.next().await else { panic!("no gap") };
    let rest = session.received().await;
    let last = rest.last();
    assert!(matches!(last, Some(TestEvent::Message(message)) if message.data == *"99"), "{rest:?}");
}

#[tokio::test]
async fn an_end_says_its_reason_and_the_user_is_gone() {
    let hub = hub().await;
    let mut session = TestSession::connect(&hub, 1.into()).await;
    hub.kick_with(&1.into(), "the last word").await.unwrap();
    assert_eq!(session.text().await, "the last word");
    assert_eq!(session.closed().await, CloseReason::Kicked);
    assert_eq!(session.next().await, TestEvent::Closed(CloseReason::Kicked));
    assert_eq!(session.received().await, [TestEvent::Closed(CloseReason::Kicked)]);
    assert!(hub.sessions(&1.into()).is_empty());
    session.reconnect(&hub).await.map(drop).expect_err("its token is refused");
    drop(TestSession::connect(&hub, 1.into()).await);
    assert!(hub.sessions(&1.into()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn time_can_be_made_to_pass() {
    let hub = hub().await;
    let mut session = TestSession::connect(&hub, 1.into()).await;
    sleep(hub.settings().heartbeat.interval + Duration::from_secs(1)).await;
    assert!(matches!(session.next().await, TestEvent::Heartbeat { bus_up: true, .. }));
    drop(session);
    assert_eq!(hub.presence().is_online(&[1.into()]).await, Ok(vec![true]));
    sleep(hub.settings().presence.grace + Duration::from_millis(10)).await;
    assert_eq!(hub.presence().is_online(&[1.into()]).await, Ok(vec![false]));
}

#[tokio::test]
async fn a_refusal_is_an_error() {
    let hub = hub().await;
    hub.drain().await;
    let principal = Principal::new(1.into(), "a token");
    TestSession::open(&hub, principal, Transport::new("sse"), None).await.map(drop).unwrap_err();
}

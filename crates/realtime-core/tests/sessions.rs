//! Access of an application to the sessions of its node.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use realtime_core::{
    CloseCode, CloseReason, Envelope, Hub, Message, Position, Principal, Scope, Session, SessionHandle,
    Topic, Transport,
    error::{NotText, PublishError, SendError},
    wire::{BusState, GapReason, Outbound, WireFormat},
};

const SOCKET: Transport = Transport::new("socket");
const STREAM: Transport = Transport::new("stream").text_only();

/// A wire format with a line for each message.
#[derive(Debug)]
struct Lines;

impl WireFormat for Lines {
    fn name(&self) -> &'static str {
        "lines"
    }

    fn message(&self, message: &Message, _: Option<&Topic>, _: Option<Position>) -> Bytes {
        format!("{}\n", message.data).into()
    }

    fn gap(
        &self,
        reason: GapReason,
        _: Option<Position>,
        _: Option<SystemTime>,
        _: Duration,
    ) -> Option<Bytes> {
        Some(format!("gap {}\n", reason.name()).into())
    }

    fn heartbeat(&self, _: Option<Position>, _: BusState) -> Bytes {
        Bytes::new()
    }

    fn answers_heartbeat(&self) -> bool {
        false
    }
}

fn connect(hub: &Hub, transport: Transport, principal: Principal) -> Session {
    let wire: Arc<dyn WireFormat> = Arc::new(Lines);
    hub.connect(principal, transport, &wire, None).unwrap()
}

fn login(user: i64) -> Principal {
    Principal::new(user.into(), &format!("token of {user}"))
}

/// The text that is written to the session's socket, up to a line.
async fn until(session: &mut Session, line: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(&format!("{line}\n")) {
        match poll_fn(|cx| session.poll_next(cx)).await {
            Outbound::Bytes(bytes) => text += str::from_utf8(&bytes).unwrap(),
            other => panic!("{other:?} after {text:?}"),
        }
    }
    text
}

#[tokio::test]
async fn hooks_see_every_session_once_and_messages_sent_on_opening_come_first() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let note = |log: &Arc<Mutex<Vec<String>>>, line: String| {
        log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    };
    let (opened, closed) = (Arc::clone(&log), Arc::clone(&log));
    let hub = Hub::builder()
        .on_open(move |session| {
            session.send_local("welcome").unwrap();
            note(&opened, format!("{} opened", session.user()));
        })
        .on_close(move |session, reason| {
            note(&closed, format!("{} ended: {}", session.user(), reason.name()));
            assert_ne!(session.user(), &3.into(), "a hook that panics");
        })
        .start()
        .unwrap();
    let mut first = connect(&hub, SOCKET, login(1));
    first.begun().await.unwrap();
    hub.publish_all("to all").await.unwrap();
    assert_eq!(until(&mut first, "to all").await, "welcome\nto all\n");
    drop(first);
    let second = connect(&hub, STREAM, login(2));
    second.handle().close(CloseReason::Application { code: CloseCode::new(4000).unwrap(), name: "moved" });
    drop(second);
    drop(connect(&hub, SOCKET, login(3)));
    assert_eq!(
        *log.lock().unwrap(),
        ["1 opened", "1 ended: gone", "2 opened", "2 ended: moved", "3 opened", "3 ended: gone"]
    );
    assert!(hub.all_sessions().is_empty(), "a hook that panics breaks nothing");
}

#[tokio::test]
#[allow(clippy::mutable_key_type, reason = "its id does not change")]
async fn a_session_has_the_data_of_its_login_and_is_found_by_its_id() {
    #[derive(Debug, PartialEq)]
    struct Tenant(u32);

    let hub = Hub::builder().start().unwrap();
    let mut principal = login(1);
    principal.extensions.insert(Tenant(7));
    let session = connect(&hub, SOCKET, principal);
    let other = connect(&hub, SOCKET, login(2));
    assert_eq!(session.handle().get().as_deref(), Some(&Tenant(7)));
    assert_eq!(other.handle().get::<Tenant>(), None);
    let id = session.handle().id();
    let found = hub.session(id.to_string().parse().unwrap()).unwrap();
    assert_eq!(found, session.handle());
    assert_ne!(found, other.handle());
    let set: std::collections::HashSet<SessionHandle> = hub.all_sessions().into_iter().collect();
    assert_eq!((set.len(), set.contains(&found)), (2, true));
    drop(session);
    assert!(hub.session(id).is_none());
}

#[tokio::test]
async fn the_sessions_in_a_topic_are_counted() {
    let hub = Hub::builder().start().unwrap();
    let room = Topic::new("room:1").unwrap();
    let sessions = [1, 1, 2].map(|user| connect(&hub, SOCKET, login(user)));
    sessions[0].handle().subscribe(room.clone());
    sessions[2].handle().subscribe(room.clone());
    sessions[2].handle().subscribe(Topic::user(&1.into()));
    let count = |topic: &Topic| hub.subscribers(topic);
    assert_eq!((count(&room), count(&Topic::all())), (2, 3));
    assert_eq!((count(&Topic::user(&1.into())), count(&Topic::user(&2.into()))), (3, 1));
    drop(sessions);
    assert_eq!((count(&room), count(&Topic::all()), count(&Topic::user(&1.into()))), (0, 0, 0));
}

#[tokio::test]
async fn a_message_leaves_one_session_out_published_sent_and_replayed() {
    let hub = Hub::builder().start().unwrap();
    let mut sessions = [1, 1].map(|user| connect(&hub, SOCKET, login(user)));
    for session in &sessions {
        session.begun().await.unwrap();
    }
    let left_out = sessions[0].handle().id();
    let envelope = |text: &str| {
        Envelope::to_users([1], Scope::Both, Message::text(text.to_owned())).unwrap().except(left_out)
    };
    for n in 0..3 {
        hub.publish(envelope(&format!("published {n}"))).await.unwrap();
    }
    hub.send_local(envelope("sent")).unwrap();
    hub.publish_to_user(1, "last").await.unwrap();
    assert_eq!(until(&mut sessions[0], "last").await, "last\n");
    let other = until(&mut sessions[1], "last").await;
    let mut lines: Vec<&str> = other.lines().collect();
    // Local sends have no order relative to the others.
    lines.sort_unstable();
    assert_eq!(lines, ["last", "published 0", "published 1", "published 2", "sent"]);
}

#[tokio::test]
async fn a_session_that_reads_the_log_itself_is_left_out_too() {
    let mut settings = realtime_core::Settings::default();
    settings.outbox.max_messages = 1;
    let hub = Hub::builder().settings(settings).start().unwrap();
    let mut session = connect(&hub, SOCKET, login(1));
    session.begun().await.unwrap();
    let id = session.handle().id();
    for n in 0..20 {
        let envelope = Envelope::broadcast(Scope::Both, Message::text(n.to_string()));
        hub.publish(if n % 2 == 0 { envelope.except(id) } else { envelope }).await.unwrap();
    }
    let odd: String = (0..20).filter(|n| n % 2 == 1).map(|n| format!("{n}\n")).collect();
    assert_eq!(until(&mut session, "19").await, odd);
}

#[tokio::test]
async fn bytes_go_only_where_they_can() {
    let hub = Hub::builder().start().unwrap();
    let mut socket = connect(&hub, SOCKET, login(1));
    socket.begun().await.unwrap();
    let stream = connect(&hub, STREAM, login(1));
    for scope in [Scope::Both, Scope::Only(STREAM)] {
        let envelope = || Envelope::broadcast(scope, Message::binary(vec![0, 1]));
        assert_eq!(hub.publish(envelope()).await, Err(PublishError::NotText(NotText)));
        assert_eq!(hub.send_local(envelope()), Err(SendError::NotText(NotText)));
    }
    assert_eq!(stream.handle().send_local(Message::binary(vec![0])), Err(SendError::NotText(NotText)));
    hub.publish(Envelope::broadcast(Scope::Only(SOCKET), Message::binary(vec![0, 1]))).await.unwrap();
    assert_eq!(until(&mut socket, "2 bytes").await, "2 bytes\n");
    socket.handle().send_local(Message::binary(vec![0])).unwrap();
    assert_eq!(until(&mut socket, "1 bytes").await, "1 bytes\n");
    assert_eq!(SOCKET, Transport::new("socket").text_only(), "it is no part of the label");
}

#[tokio::test]
async fn a_kick_refuses_the_token_that_a_session_is_renewed_to_at_the_same_moment() {
    let hub = Hub::builder().start().unwrap();
    while hub.ready().is_err() {
        tokio::task::yield_now().await;
    }
    let (mut renewed, mut refused) = (0, 0);
    for round in 0_i64..500 {
        let with = |token: String| Principal::new(round.into(), &token);
        let session = connect(&hub, SOCKET, with(format!("old {round}")));
        let (handle, new) = (session.handle(), with(format!("new {round}")));
        let renewal = std::thread::spawn({
            let (hub, handle, new) = (hub.clone(), handle.clone(), new.clone());
            move || hub.renew(&handle, new)
        });
        if round % 2 == 0 {
            std::thread::yield_now();
        }
        // A renewal that finds its token kicked ends the session itself, and it does not count.
        assert!(hub.kick(&round.into()).await.unwrap().closed <= 1);
        match renewal.join().unwrap() {
            Ok(()) => {
                renewed += 1;
                assert!(hub.is_refused(&new), "the session had the token when it was kicked");
            }
            Err(_) => refused += 1,
        }
        assert!(handle.closing().is_some());
    }
    println!("{renewed} renewals came before the kick, {refused} after it");
}

//! Tests of a shard's guarantees, pass by pass.

mod history;
mod initial;

use std::{
    collections::HashMap,
    io,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    Envelope, Message, Scope, Session, Settings,
    log::{Content, tally::LONGEST},
    outbox::WRITE_BUDGET,
    renewal::renew,
    revocation_list::RevocationList,
    session::catch_up::CATCH_UP_ENTRIES,
    settings::{History, Limits, OnExceeded, OutboxLimits},
    wire::{Begin, DirectWrite, GapReason, Outbound, WireFormat},
};

mod message_options;

const TRANSPORT: Transport = Transport::new("test");

/// WireFormat format for tests, with a line for each frame: `m<epoch>.<offset> <text>`, `g<cursor>`, `h<cursor>`, or
/// `r<cursor>` once the bus is back.
#[derive(Debug)]
struct PlainWire;

fn cursor_text(cursor: Option<Position>) -> String {
    cursor.map_or_else(|| "-".to_owned(), |cursor| cursor.to_string())
}

impl WireFormat for PlainWire {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn message(&self, message: &Message, _: Option<&Topic>, position: Option<Position>) -> Bytes {
        format!("m{} {}\n", cursor_text(position), message.data).into()
    }

    fn gap(
        &self,
        _: GapReason,
        cursor: Option<Position>,
        _: Option<SystemTime>,
        _: Duration,
    ) -> Option<Bytes> {
        Some(format!("g{}\n", cursor_text(cursor)).into())
    }

    fn heartbeat(&self, cursor: Option<Position>, bus: BusState) -> Bytes {
        let kind = if bus == BusState::Restored { 'r' } else { 'h' };
        format!("{kind}{}\n", cursor_text(cursor)).into()
    }

    fn answers_heartbeat(&self) -> bool {
        true
    }
}

fn new_node(settings: Settings) -> (Arc<Node>, Arc<Shard>) {
    let node = Arc::new(Node::new(settings));
    node.log.begin(Some(Position { epoch: 1, offset: 0 }));
    let shard = Shard::new(Arc::clone(&node));
    (node, shard)
}

fn connect(shard: &Arc<Shard>, user: i64, cursor: Option<Position>) -> Session {
    let wire: Arc<dyn WireFormat> = Arc::new(PlainWire);
    let wire = shard.node.wire(&wire).unwrap();
    let principal = Principal::new(user.into(), &user.to_string());
    Session::new(shard.register(principal, TRANSPORT, wire, cursor.map(Ok)).unwrap())
}

fn drain(session: &mut Session) -> Vec<String> {
    drain_text(session).lines().map(str::to_owned).collect()
}

fn drain_text(session: &mut Session) -> String {
    let mut text = String::new();
    let mut cx = Context::from_waker(Waker::noop());
    // A session that read many entries in vain, or has returned many bytes, asks to be polled again.
    for _ in 0..1000 {
        match session.poll_next(&mut cx) {
            Poll::Ready(Outbound::Bytes(bytes)) => text += str::from_utf8(&bytes).unwrap(),
            Poll::Ready(Outbound::Close(reason)) => {
                text += &format!("c{}\n", reason.name());
                break;
            }
            Poll::Ready(Outbound::Abort(reason)) => {
                text += &format!("!{}\n", reason.name());
                break;
            }
            Poll::Pending => {}
        }
    }
    text
}

fn publish(node: &Node, offset: u64, envelope: Envelope) {
    node.log.push(Some(Position { epoch: 1, offset }), Arc::new(envelope), None);
}

fn to_user(user: i64, text: &str) -> Envelope {
    Envelope::to_users([user], Scope::Both, Message::text(text.to_owned())).unwrap()
}

fn to_all(text: &str) -> Envelope {
    Envelope::broadcast(Scope::Both, Message::text(text.to_owned()))
}

#[test]
fn a_session_in_two_of_the_topics_gets_the_message_once() {
    let (node, shard) = new_node(Settings::default());
    let mut session = connect(&shard, 1, None);
    session.handle().subscribe(Topic::new("role:admin").unwrap());
    let topics = [Topic::all(), Topic::user(&1.into()), Topic::new("role:admin").unwrap()];
    let envelope = Envelope::to_topics(topics, Scope::Both, Message::text("x")).unwrap();
    publish(&node, 1, envelope.clone());
    shard.send_local(Arc::new(Entry::new(None, Content::Envelope(Arc::new(envelope))))).unwrap();
    while shard.pass().more {}
    assert_eq!(drain(&mut session), ["m- x", "m1.1 x"]);
}

#[test]
fn targets_that_are_not_here_take_their_part_of_a_pass() {
    let (node, shard) = new_node(Settings::default());
    let _session = connect(&shard, 0, None);
    let envelope =
        |text: &str| Envelope::to_users(1..=20_000_i64, Scope::Both, Message::text(text.to_owned())).unwrap();
    for offset in 1..=10 {
        publish(&node, offset, envelope("x"));
        shard.send_local(Arc::new(Entry::new(None, Content::Envelope(Arc::new(envelope("y")))))).unwrap();
    }
    let mut passes = 1;
    while shard.pass().more {
        passes += 1;
    }
    assert!(passes >= 2, "{passes} passes looked up 400,000 users");
}

#[test]
fn consecutive_entries_go_to_each_session_from_its_own_position() {
    let (node, shard) = new_node(Settings::default());
    let mut early = connect(&shard, 1, None);
    shard.pass();
    publish(&node, 1, to_all("a"));
    publish(&node, 2, to_all("b"));
    // It got the first two from another node, and is ahead of the shard.
    let mut ahead = connect(&shard, 2, Some(at(1, 2)));
    for (offset, envelope) in (3..).zip([to_all("c"), to_user(2, "d"), to_user(2, "e"), to_all("f")]) {
        publish(&node, offset, envelope);
    }
    while shard.pass().more {}
    assert_eq!(drain(&mut early), ["m1.1 a", "m1.2 b", "m1.3 c", "m1.6 f"]);
    assert_eq!(drain(&mut ahead), ["m1.3 c", "m1.4 d", "m1.5 e", "m1.6 f"]);
    assert_eq!(node.metrics.delivered.value(), 8);
}

#[test]
fn a_scope_and_a_topic_select_the_recipients() {
    let (node, shard) = new_node(Settings::default());
    let (mut one, mut two) = (connect(&shard, 1, None), connect(&shard, 2, None));
    let topic = Topic::new("order:42").unwrap();
    publish(&node, 1, to_user(1, "mine"));
    let other = Scope::Only(Transport::new("other"));
    publish(&node, 2, Envelope::broadcast(other, Message::text("not for us")));
    shard.pass();
    two.handle().subscribe(topic.clone());
    publish(&node, 3, Envelope::to_topics([topic.clone()], Scope::Both, Message::text("order")).unwrap());
    shard.pass();
    two.handle().unsubscribe(&topic);
    publish(&node, 4, Envelope::to_topics([topic], Scope::Both, Message::text("late")).unwrap());
    shard.pass();
    assert_eq!(drain(&mut one), ["m1.1 mine"]);
    assert_eq!(drain(&mut two), ["m1.3 order"]);
}

#[test]
fn a_dropped_session_leaves_no_trace_and_touches_no_other() {
    let (node, shard) = new_node(Settings::default());
    let first = connect(&shard, 1, None);
    let late = first.handle();
    drop(first);
    // The second session gets the first one's slot.
    let mut second = connect(&shard, 1, None);
    late.close(CloseReason::Kicked);
    late.subscribe(Topic::new("role:admin").unwrap());
    publish(&node, 1, to_user(1, "x"));
    publish(
        &node,
        2,
        Envelope::to_topics([Topic::new("role:admin").unwrap()], Scope::Both, Message::text("y")).unwrap(),
    );
    shard.pass();
    assert_eq!(drain(&mut second), ["m1.1 x"]);
    drop(second);
    assert_eq!(node.directory.all().len(), 0);
    let members = shard.lock();
    assert!(members.topics.is_empty() && members.users.is_empty() && members.sessions.is_empty());
}

#[test]
fn limits_refuse_the_newcomer_and_spare_the_others() {
    let limits = Limits { max_connections: 3, max_connections_per_user: 2, ..Limits::default() };
    let (_, shard) = new_node(Settings { limits, ..Settings::default() });
    let wire: Arc<dyn WireFormat> = Arc::new(PlainWire);
    let wire = shard.node.wire(&wire).unwrap();
    let try_connect = |user: i64| {
        shard
            .register(Principal::new(user.into(), "t"), TRANSPORT, wire.clone(), None)
            .map_err(|e| e.to_string())
    };
    let _kept = (try_connect(1).unwrap(), try_connect(1).unwrap());
    assert_eq!(try_connect(1).unwrap_err(), "user 1 has reached the limit of 2 connections");
    let _third = try_connect(2).unwrap();
    assert_eq!(try_connect(3).unwrap_err(), "this node has reached its limit of 3 connections");
}

#[test]
fn sessions_that_are_ending_count_up_to_as_many_as_may_be_open() {
    let limits =
        Limits { max_connections_per_user: 2, on_exceeded: OnExceeded::EndOldest, ..Limits::default() };
    let (node, shard) = new_node(Settings { limits, ..Settings::default() });
    let wire: Arc<dyn WireFormat> = Arc::new(PlainWire);
    let wire = shard.node.wire(&wire).unwrap();
    let try_connect =
        || shard.register(Principal::new(1.into(), "t"), TRANSPORT, wire.clone(), None).map(Session::new);
    // None of them is read, so none of them ends.
    let mut sessions: Vec<Session> = (0..4).map(|_| try_connect().unwrap()).collect();
    let closing = |sessions: &[Session]| -> Vec<bool> {
        sessions.iter().map(|session| session.closing() == Some(CloseReason::TooManySessions)).collect()
    };
    assert_eq!(closing(&sessions), [true, true, false, false], "the oldest end");
    assert!(matches!(try_connect(), Err(ConnectError::TooManyOfUser(..))));
    assert_eq!(closing(&sessions), [true, true, false, false], "a refused one ends nothing");
    drop(sessions.remove(0));
    sessions.push(try_connect().unwrap());
    assert_eq!(closing(&sessions), [true, true, false, false]);
    assert_eq!(node.directory.of(&1.into()).len(), 4);
}

fn ticks() -> Ticks {
    Ticks {
        period: Duration::from_secs(1),
        per_heartbeat: 1,
        max_stall: 1000,
        timeout: 1000,
        max_closing: 1000,
        max_hold: 3,
    }
}

#[test]
fn a_tick_ends_only_expired_stalled_and_silent_sessions() {
    let (_, shard) = new_node(Settings::default());
    let ticks = Ticks { max_stall: 2, timeout: 4, ..ticks() };
    let mut healthy = connect(&shard, 1, None);
    let mut silent = connect(&shard, 2, None);
    let stalled = connect(&shard, 3, None);
    let mut expired = shard
        .register(
            Principal { expires_at: Some(SystemTime::now()), ..Principal::new(4.into(), "t") },
            TRANSPORT,
            silent.handle().0.wire().clone(),
            None,
        )
        .map(Session::new)
        .unwrap();
    for tick in 1..=6 {
        shard.tick(tick, ticks);
        healthy.record_activity();
        assert_eq!(drain(&mut healthy), ["h1.0"]);
        if tick == 1 {
            assert_eq!(drain(&mut expired), ["ctoken-expired"]);
            assert_eq!(drain(&mut silent), ["h1.0"]);
        }
        if tick == 6 {
            assert_eq!(drain(&mut silent).last().map(String::as_str), Some("cno-pong"));
        } else if tick > 1 {
            drain(&mut silent);
        }
    }
    assert_eq!(stalled.handle().closing(), Some(CloseReason::SlowConsumer));
    assert!(!shard.node.directory.any(&3.into(), |_| true), "a stalled session is removed");
    assert_eq!(healthy.handle().closing(), None);
}

#[test]
fn a_worker_that_missed_the_window_announces_a_gap() {
    let history = History { max_messages: 2, ..History::default() };
    let (node, shard) = new_node(Settings { history, ..Settings::default() });
    let mut session = connect(&shard, 1, None);
    for offset in 1..=5 {
        publish(&node, offset, to_all("x"));
    }
    while shard.pass().more {}
    assert_eq!(drain(&mut session), ["g1.3", "m1.4 x", "m1.5 x"]);
}

fn at(epoch: u64, offset: u64) -> Position {
    Position { epoch, offset }
}

/// A node whose bus has yet to come up.
fn starting_node() -> (Arc<Node>, Arc<Shard>) {
    let node = Arc::new(Node::new(Settings::default()));
    let shard = Shard::new(Arc::clone(&node));
    (node, shard)
}

#[test]
fn history_is_replayed_after_a_cursor_and_never_sent_as_new() {
    let (node, shard) = starting_node();
    let (mut fresh, mut back) = (connect(&shard, 1, None), connect(&shard, 1, Some(at(1, 3))));
    let (mut early, mut bogus) = (connect(&shard, 1, Some(at(1, 1))), connect(&shard, 1, Some(at(1, 99))));
    for offset in 3..=5 {
        publish(&node, offset, to_user(1, "old"));
        shard.pass();
    }
    assert_eq!((drain(&mut fresh), fresh.begin(), back.begin()), (vec![], None, None));
    node.log.begin(Some(at(1, 5)));
    publish(&node, 6, to_user(1, "new"));
    shard.pass();
    assert_eq!(drain(&mut fresh), ["m1.6 new"]);
    assert_eq!(fresh.begin(), Some(Begin { cursor: Some(at(1, 5)), recovered: None }));
    assert_eq!(drain(&mut back), ["m1.4 old", "m1.5 old", "m1.6 new"]);
    assert_eq!(back.begin(), Some(Begin { cursor: Some(at(1, 3)), recovered: Some(true) }));
    // It begins at its own cursor: an id before a gap that has yet to be sent would hide the gap.
    assert_eq!(early.begin(), Some(Begin { cursor: Some(at(1, 1)), recovered: Some(false) }));
    assert_eq!(drain(&mut early), ["g1.2", "m1.3 old", "m1.4 old", "m1.5 old", "m1.6 new"]);
    assert_eq!((drain(&mut bogus), bogus.begin()), (vec![], None));
}

#[test]
fn a_cursor_ahead_of_a_lagging_node_is_waited_for_and_gets_nothing_twice() {
    let (node, shard) = new_node(Settings::default());
    let mut session = connect(&shard, 1, Some(at(1, 3)));
    for offset in 1..=5 {
        publish(&node, offset, to_user(1, "x"));
        shard.pass();
        if offset < 3 {
            // Before the session connected, so it proves nothing about the session's cursor.
            node.log.set_caught_up(Instant::now() - Duration::from_secs(1));
            assert_eq!((drain(&mut session), session.begin()), (vec![], None));
        }
    }
    assert_eq!(session.begin(), Some(Begin { cursor: Some(at(1, 3)), recovered: Some(true) }));
    assert_eq!(drain(&mut session), ["m1.4 x", "m1.5 x"]);
}

#[test]
fn a_cursor_that_is_still_ahead_when_the_node_has_caught_up_is_a_gap() {
    let (node, shard) = new_node(Settings::default());
    let mut session = connect(&shard, 1, Some(at(1, u64::MAX)));
    let mut of_later = connect(&shard, 1, Some(at(9, 4)));
    publish(&node, 1, to_user(1, "x"));
    shard.pass();
    node.log.set_caught_up(Instant::now());
    shard.pass();
    publish(&node, 2, to_user(1, "y"));
    shard.pass();
    for session in [&mut session, &mut of_later] {
        assert_eq!(session.recovered(), Some(false));
        assert_eq!(drain(session), ["g1.1", "m1.2 y"]);
    }
}

#[test]
fn a_new_epoch_that_reaches_past_a_cursor_lets_it_begin() {
    let (node, shard) = new_node(Settings::default());
    let (mut lost, mut kept) = (connect(&shard, 1, Some(at(1, 7))), connect(&shard, 1, Some(at(2, 2))));
    publish(&node, 1, to_user(1, "x"));
    shard.pass();
    for offset in 0..=3 {
        node.log.push(Some(at(2, offset)), Arc::new(to_user(1, "y")), None);
        shard.pass();
    }
    assert_eq!(drain(&mut lost), ["g2.0", "m2.0 y", "m2.1 y", "m2.2 y", "m2.3 y"]);
    assert_eq!(drain(&mut kept), ["m2.3 y"], "it came from a node that has read further");
}

#[test]
fn a_heartbeat_never_moves_a_cursor_back() {
    let (node, shard) = new_node(Settings::default());
    for offset in 1..=4 {
        publish(&node, offset, to_user(1, "x"));
    }
    // The log is ahead of the shard's pass.
    let mut session = connect(&shard, 1, Some(at(1, 3)));
    shard.tick(1, ticks());
    assert_eq!(drain(&mut session), Vec::<String>::new());
    shard.pass();
    shard.tick(2, ticks());
    assert_eq!(drain(&mut session), ["m1.4 x", "h1.4"]);
}

#[test]
fn an_end_comes_between_messages_acknowledged_before_and_after_it() {
    let (node, shard) = new_node(Settings::default());
    let (mut live, mut behind) = (connect(&shard, 1, None), connect(&shard, 1, None));
    // The bus has acknowledged two messages, of which this node has read none.
    behind.handle().0.outbox.catch_up_from(0);
    shard.lock().sessions[1].set_live(false);
    for session in [&live, &behind] {
        session.handle().0.close_after(CloseReason::Kicked, Some(at(1, 2)));
        assert_eq!(session.closing(), Some(CloseReason::Kicked));
    }
    assert_eq!(drain(&mut live), Vec::<String>::new());
    for offset in 1..=3 {
        publish(&node, offset, to_user(1, "x"));
    }
    shard.pass();
    for session in [&mut live, &mut behind] {
        assert_eq!(drain(session), ["m1.1 x", "m1.2 x", "ckicked"]);
    }
}

/// A worker that read the same entry again and again would serve nobody else.
#[test]
fn an_end_within_a_gap_or_a_skipped_range_comes_behind_it() {
    for skips in [false, true] {
        let (sender, drained) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let (node, shard) = new_node(Settings::default());
            let mut session = connect(&shard, 1, None);
            session.handle().0.close_after(CloseReason::Kicked, Some(at(1, 5)));
            publish(&node, 1, to_user(1, "x"));
            if skips {
                node.log.push_skip(at(1, 2), at(1, 9));
            }
            publish(&node, 10, to_user(1, "later"));
            shard.pass();
            sender.send(drain(&mut session)).ok();
        });
        let drained = drained.recv_timeout(Duration::from_secs(10)).expect("it comes to an end");
        let gap = (!skips).then(|| "g1.9".to_owned());
        let expected: Vec<_> =
            ["m1.1 x".to_owned()].into_iter().chain(gap).chain(["ckicked".into()]).collect();
        assert_eq!(drained, expected, "skips: {skips}");
    }
}

#[test]
fn an_end_without_a_position_waits_until_the_node_has_caught_up() {
    let (node, shard) = new_node(Settings::default());
    let mut session = connect(&shard, 1, None);
    session.handle().0.close_after(CloseReason::Kicked, None);
    publish(&node, 1, to_user(1, "why"));
    node.log.set_caught_up(Instant::now() - Duration::from_secs(1));
    shard.pass();
    assert_eq!(drain(&mut session), ["m1.1 why"], "that was written before the end was decided");
    node.log.set_caught_up(Instant::now());
    shard.pass();
    assert_eq!(drain(&mut session), ["ckicked"]);
}

#[test]
fn an_end_waits_for_a_limited_time_only() {
    let (_, shard) = new_node(Settings::default());
    let mut session = connect(&shard, 1, None);
    session.handle().0.close_after(CloseReason::Kicked, Some(at(1, 2)));
    for tick in 1..=4 {
        assert_eq!(drain(&mut session), Vec::<String>::new());
        shard.tick(tick, ticks());
    }
    assert_eq!(drain(&mut session), ["ckicked"]);
}

#[test]
fn a_close_comes_after_the_messages_that_this_node_has_published() {
    let (node, shard) = new_node(Settings::default());
    let mut session = connect(&shard, 1, None);
    node.acknowledge(Some(at(1, 1)));
    session.handle().close(CloseReason::Normal);
    publish(&node, 1, to_user(1, "why"));
    shard.pass();
    assert_eq!(drain(&mut session), ["m1.1 why", "cnormal"]);
}

#[test]
fn a_client_that_is_being_served_is_not_closed_for_silence() {
    let outbox = OutboxLimits { max_messages: 1, ..OutboxLimits::default() };
    let (node, shard) = new_node(Settings { outbox, ..Settings::default() });
    let ticks = Ticks { per_heartbeat: 20, timeout: 10, ..ticks() };
    let mut session = connect(&shard, 1, None);
    let mut tick = 0;
    let mut turn = |session: &mut Session, answers: bool| {
        tick += 1;
        shard.tick(tick, ticks);
        let got = drain(session);
        if answers && got.iter().any(|line| line.starts_with('h')) {
            session.record_activity();
        }
        got.last().is_some_and(|line| line == "cno-pong")
    };
    // The heartbeat of tick 20 finds the outbox full, or its session reading the log.
    (1..=19).for_each(|_| assert!(!turn(&mut session, true)));
    publish(&node, 1, to_user(1, "x"));
    publish(&node, 2, to_user(1, "x"));
    shard.pass();
    (20..=59).for_each(|_| assert!(!turn(&mut session, true)));
    // From the heartbeat of tick 60 on, the client does not answer any more.
    let closed = (60..=100).find(|_| turn(&mut session, false));
    assert_eq!(closed, Some(71));
}

#[test]
fn a_subscription_that_meets_its_session_half_registered_touches_no_other() {
    for _ in 0..200 {
        let (_, shard) = new_node(Settings::default());
        let first = connect(&shard, 1, None);
        let topic = Topic::new("order:42").unwrap();
        let held = shard.lock();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| connect(&shard, 2, None));
            let subscribed = scope.spawn(|| {
                loop {
                    if let Some(state) = shard.node.directory.of(&2.into()).pop() {
                        return SessionHandle(state).subscribe(topic.clone());
                    }
                    std::thread::yield_now();
                }
            });
            drop(held);
            let second = second.join().unwrap();
            subscribed.join().unwrap();
            assert!(!first.handle().topics().contains(&topic));
            assert!(second.handle().topics().contains(&topic));
            let slot = second.handle().0.slot();
            assert_eq!(shard.lock().topics[&topic], [slot]);
        });
        let members = shard.lock();
        assert!(members.topics.is_empty(), "what the second was in is gone with it");
        assert_eq!(members.users.len(), 1);
    }
}

/// A wire format like [`PlainWire`] that panics on one text, and whose clients may say nothing.
#[derive(Debug)]
struct OddWire {
    answers: bool,
}

impl WireFormat for OddWire {
    fn name(&self) -> &'static str {
        "odd"
    }

    fn message(&self, message: &Message, _: Option<&Topic>, position: Option<Position>) -> Bytes {
        assert!(message.data != *"bad", "this text has no frame");
        PlainWire.message(message, None, position)
    }

    fn gap(
        &self,
        reason: GapReason,
        cursor: Option<Position>,
        since: Option<SystemTime>,
        spread: Duration,
    ) -> Option<Bytes> {
        PlainWire.gap(reason, cursor, since, spread)
    }

    fn heartbeat(&self, cursor: Option<Position>, bus: BusState) -> Bytes {
        PlainWire.heartbeat(cursor, bus)
    }

    fn answers_heartbeat(&self) -> bool {
        self.answers
    }
}

#[tokio::test]
async fn a_pass_that_panics_ends_only_the_session_of_the_faulty_frame() {
    let node = Arc::new(Node::new(Settings::default()));
    node.log.begin(Some(at(1, 0)));
    let shard = Shard::spawn(Arc::clone(&node));
    let wire: Arc<dyn WireFormat> = Arc::new(OddWire { answers: true });
    let wire = node.wire(&wire).unwrap();
    let faulty = |user: i64| {
        shard
            .register(Principal::new(user.into(), "t"), TRANSPORT, wire.clone(), None)
            .map(Session::new)
            .unwrap()
    };
    let (mut victim, mut other) = (faulty(1), faulty(2));
    for (offset, user, text) in [(1, 2, "a"), (2, 1, "bad"), (3, 2, "b"), (4, 2, "c")] {
        publish(&node, offset, to_user(user, text));
    }
    shard.wake();
    let mut got = Vec::new();
    while got.len() < 3 {
        timeout(
            Duration::from_secs(5),
            std::future::poll_fn(|cx| {
                other.poll_next(cx).map(|out| match out {
                    Outbound::Bytes(bytes) => {
                        got.extend(str::from_utf8(&bytes).unwrap().lines().map(str::to_owned))
                    }
                    other => panic!("{other:?}"),
                })
            }),
        )
        .await
        .expect("the others are served");
    }
    assert_eq!(got, ["m1.1 a", "m1.3 b", "m1.4 c"]);
    assert_eq!(node.metrics.panics.value(), 1);
    let poll = AssertUnwindSafe(|| drain(&mut victim));
    assert!(catch_unwind(poll).is_err(), "it ends with its own connection");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_begin_ends_alone() {
    let node = Arc::new(Node::new(Settings::default()));
    let shard = Shard::spawn(Arc::clone(&node));
    let wire: Arc<dyn WireFormat> = Arc::new(OddWire { answers: true });
    let wire = node.wire(&wire).unwrap();
    let parked = |user: i64, topic: &str| {
        let mut principal = Principal::new(user.into(), "t");
        principal.topics = vec![Topic::new(topic).unwrap()];
        Session::new(shard.register(principal, TRANSPORT, wire.clone(), None).unwrap())
    };
    let (before, victim, after) = (parked(1, "good"), parked(2, "bad"), parked(3, "good"));
    for (offset, topic) in [(1, "good"), (2, "bad")] {
        let topic = Topic::new(topic).unwrap();
        let envelope =
            Envelope::to_topic(topic.clone(), Scope::Both, Message::text(topic.as_str().to_owned()));
        node.log.push(Some(at(1, offset)), Arc::new(envelope.retain()), None);
    }
    // What is kept is history when the bus comes up.
    node.log.begin(Some(at(1, 2)));
    shard.wake();
    for other in [&before, &after] {
        timeout(Duration::from_secs(5), other.begun()).await.expect("it begins");
    }
    assert_eq!([&before, &victim, &after].map(Session::closing), [None, Some(CloseReason::Internal), None]);
    assert_eq!(node.metrics.panics.value(), 1);
}

/// Waits until the delivery task has done everything that it can do without time passing.
async fn settled(shard: &Shard, seq: u64) -> bool {
    for _ in 0..100 {
        if shard.lock().seq == seq {
            return true;
        }
        yield_now().await;
    }
    false
}

#[tokio::test(start_paused = true)]
async fn the_next_pass_waits_for_the_bodies_that_the_last_one_woke() {
    let node = Arc::new(Node::new(Settings::default()));
    node.log.begin(Some(at(1, 0)));
    let shard = Shard::spawn(Arc::clone(&node));
    let mut session = connect(&shard, 1, None);
    assert_eq!(drain(&mut session), Vec::<String>::new());
    let send = |offset| {
        publish(&node, offset, to_user(1, "x"));
        shard.wake();
    };
    send(1);
    assert!(settled(&shard, 1).await, "what comes alone does not wait");
    send(2);
    send(3);
    assert!(!settled(&shard, 3).await, "the body has yet to write");
    assert_eq!(drain(&mut session), ["m1.1 x"]);
    assert!(settled(&shard, 3).await, "now it has");
    send(4);
    assert!(!settled(&shard, 4).await);
    let began = tokio::time::Instant::now();
    while !settled(&shard, 4).await {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(
        began.elapsed() <= Duration::from_millis(10),
        "a body that does not pull is not waited for any longer"
    );
    send(5);
    assert!(settled(&shard, 5).await, "nor again");
    drop(session);
    assert_eq!(shard.outboxes.woken(), 0);
}

#[test]
fn an_evicted_session_counts_until_its_connection_has_ended() {
    let limits = Limits { max_connections_per_user: 1, ..Limits::default() };
    let (node, shard) = new_node(Settings { limits, ..Settings::default() });
    let stalled = connect(&shard, 1, None);
    stalled.handle().send_local("x").unwrap();
    let ticks = Ticks { max_stall: 2, ..ticks() };
    (1..=4).for_each(|tick| shard.tick(tick, ticks));
    assert_eq!(stalled.closing(), Some(CloseReason::SlowConsumer));
    assert_eq!((node.directory.count().1, node.directory.connections()), (0, 1));
    let wire = stalled.handle().0.wire().clone();
    let again = || shard.register(Principal::new(1.into(), "t"), TRANSPORT, wire.clone(), None);
    assert!(matches!(again(), Err(ConnectError::TooManyOfUser(..))));
    drop(stalled);
    assert_eq!(node.directory.connections(), 0);
    again().unwrap();
}

#[test]
fn a_connection_that_ends_before_its_eviction_is_recorded_is_counted_once() {
    let (node, shard) = new_node(Settings::default());
    let (session, _other) = (connect(&shard, 1, None), connect(&shard, 1, None));
    let state = Arc::clone(&session.handle().0);
    // The tick on one thread, and the drop of the connection between its two steps on another.
    assert!(shard.unregister(&state));
    drop(session);
    node.directory.evict(&state);
    assert_eq!((node.directory.count().1, node.directory.connections()), (1, 1));
}

#[test]
fn a_heartbeat_that_nobody_answers_is_not_waited_for() {
    let (node, shard) = new_node(Settings::default());
    let wire = node.wire(&(Arc::new(OddWire { answers: false }) as Arc<dyn WireFormat>)).unwrap();
    let registered = shard.register(Principal::new(1.into(), "t"), TRANSPORT, wire, None);
    let mut session = Session::new(registered.unwrap());
    shard.tick(1, ticks());
    assert_eq!(drain(&mut session), ["h1.0"]);
    shard.tick(2, Ticks { per_heartbeat: 1000, ..ticks() });
    assert!(shard.outboxes.take_watched().is_empty());
}

#[test]
fn a_tick_checks_sessions_in_turn_and_those_with_unfinished_work() {
    let (node, shard) = new_node(Settings::default());
    let ticks = Ticks { per_heartbeat: 1000, max_stall: 2, ..ticks() };
    let mut sessions: Vec<_> = (0..100).map(|user| connect(&shard, user, None)).collect();
    shard.tick(1, ticks);
    assert_eq!(drain(&mut sessions[1]), ["h1.0"], "it was its turn");
    assert_eq!(shard.outboxes.take_watched(), [1], "and it has yet to answer");
    publish(&node, 1, to_user(7, "x"));
    shard.pass();
    sessions[9].close(CloseReason::Normal);
    for tick in 2..=3 {
        shard.tick(tick, ticks);
        assert_eq!(sessions[7].closing(), None);
        assert_eq!(drain(&mut sessions[tick as usize]).len(), 1);
    }
    shard.tick(4, ticks);
    assert_eq!(sessions[7].closing(), Some(CloseReason::SlowConsumer), "its turn would be tick 7");
    assert!(!node.directory.any(&9.into(), |_| true), "nor did the close frame leave");
}

#[test]
fn sessions_of_one_user_and_topic_leave_in_any_order_and_the_others_are_still_found() {
    for user in ["7", "u-7"] {
        let (node, shard) = new_node(Settings::default());
        let group = Topic::new("role:admin").unwrap();
        let user: crate::UserId = user.parse().unwrap();
        let wire: Arc<dyn WireFormat> = Arc::new(PlainWire);
        let wire = node.wire(&wire).unwrap();
        let connect = || {
            let topics = vec![group.clone(), Topic::all(), Topic::user(&user), Topic::new("b").unwrap()];
            let principal = Principal { topics, ..Principal::new(user.clone(), "t") };
            Session::new(shard.register(principal, TRANSPORT, wire.clone(), None).unwrap())
        };
        let mut sessions: Vec<_> = (0..40).map(|_| connect()).collect();
        let mut offset = 0;
        for step in 0..60 {
            offset += 2;
            let (own, named) = (Topic::user(&user), group.clone());
            for (offset, topic) in [(offset - 1, own), (offset, named)] {
                let envelope = Envelope::to_topics([topic], Scope::Both, Message::text("x")).unwrap();
                publish(&node, offset, envelope);
            }
            assert!(!shard.pass().more);
            for session in &mut sessions {
                assert_eq!(drain(session).len(), 2);
            }
            let index = (step * 7919) % sessions.len();
            match step % 3 {
                0 => sessions.push(connect()),
                1 => drop(sessions.swap_remove(index)),
                _ => {
                    let handle = sessions[index].handle();
                    handle.unsubscribe(&group);
                    handle.unsubscribe(&Topic::user(&user));
                    assert_eq!(handle.topics(), [Topic::new("b").unwrap()]);
                    handle.subscribe(Topic::user(&user));
                    handle.subscribe(group.clone());
                    assert_eq!(handle.topics().len(), 3);
                }
            }
        }
        drop(sessions);
        let members = shard.lock();
        assert!(members.topics.is_empty() && members.users.is_empty());
    }
}

#[test]
fn another_users_topic_may_be_subscribed_to() {
    let (node, shard) = new_node(Settings::default());
    let (mut own, mut other) = (connect(&shard, 1, None), connect(&shard, 2, None));
    other.handle().subscribe(Topic::user(&1.into()));
    publish(&node, 1, to_user(1, "x"));
    shard.pass();
    assert_eq!((drain(&mut own), drain(&mut other)), (vec!["m1.1 x".to_owned()], vec!["m1.1 x".to_owned()]));
}

#[test]
fn a_login_gives_neither_another_users_topic_nor_all() {
    let (node, shard) = new_node(Settings::default());
    let wire: Arc<dyn WireFormat> = Arc::new(PlainWire);
    let wire = shard.node.wire(&wire).unwrap();
    let topics = |names: &[&str]| names.iter().map(|name| Topic::new(name).unwrap()).collect::<Vec<_>>();
    let login = |token: &str, names: &[&str]| {
        let mut principal = Principal::new(7.into(), token);
        principal.topics = topics(names);
        principal
    };
    let first = login("first", &["user:8", "a", "user:7", "all"]);
    let mut session = Session::new(shard.register(first, TRANSPORT, wire, None).unwrap());
    assert_eq!(session.handle().topics(), topics(&["user:7", "a"]));
    publish(&node, 1, to_user(8, "not for 7"));
    shard.pass();
    assert!(drain(&mut session).is_empty());
    let (revoked, second) = (RevocationList::default(), login("second", &["user:8", "user:9", "b", "all"]));
    renew(&node, &revoked, &session.handle().0, second).unwrap();
    assert_eq!(session.handle().topics(), topics(&["user:7", "b"]));
    // It leaves no topic that the login did not give.
    session.handle().subscribe(Topic::user(&8.into()));
    renew(&node, &revoked, &session.handle().0, login("third", &[])).unwrap();
    assert_eq!(session.handle().topics(), topics(&["user:7", "user:8"]));
}

#[test]
fn the_sessions_of_a_confirmed_message_are_let_go_of_though_nobody_asks() {
    let (node, shard) = new_node(Settings::default());
    let session = connect(&shard, 1, None);
    publish(&node, 1, to_user(1, "x").with_confirmation());
    shard.pass();
    let handle = session.handle();
    let state = Arc::downgrade(&handle.0);
    assert!(handle.0.outbox.backlog().bytes > 0, "its socket has taken nothing");
    drop(session);
    assert_eq!(handle.0.outbox.backlog().bytes, 0, "nothing pulls it any more");
    drop(handle);
    let almost = Instant::now() + LONGEST - Duration::from_secs(5);
    node.log.end_counts(almost);
    assert!(state.upgrade().is_some(), "somebody may yet ask");
    node.log.end_counts(almost + Duration::from_secs(5));
    assert!(state.upgrade().is_none());
    let (_, entry) = node.log.find(at(1, 1)).unwrap();
    let (delivery, is_final) = entry.tally().unwrap().count();
    assert_eq!((delivery.sessions, delivery.queued, delivery.written, is_final), (1, 1, 0, true));
}

#[test]
fn a_pass_ends_behind_an_entry_when_it_has_met_many_sessions() {
    let outbox = OutboxLimits { max_messages: 1000, ..OutboxLimits::default() };
    let (node, shard) = new_node(Settings { outbox, ..Settings::default() });
    let mut sessions: Vec<_> = (0..1000).map(|user| connect(&shard, user, None)).collect();
    (1..=120).for_each(|offset| publish(&node, offset, to_all("x")));
    assert!(shard.pass().more, "120,000 deliveries are too many for one");
    assert_eq!(shard.lock().seq, 100);
    let expected = |offsets: std::ops::RangeInclusive<u64>| -> Vec<_> {
        offsets.map(|offset| format!("m1.{offset} x")).collect()
    };
    assert_eq!(drain(&mut sessions[999]), expected(1..=100));
    assert!(!shard.pass().more);
    assert_eq!(drain(&mut sessions[999]), expected(101..=120));
    assert_eq!(drain(&mut sessions[0]), expected(1..=120));
}

#[test]
fn a_new_session_of_a_lagging_shard_does_not_get_earlier_messages() {
    let (node, shard) = new_node(Settings::default());
    publish(&node, 1, to_all("before"));
    let mut session = connect(&shard, 1, None);
    publish(&node, 2, to_all("after"));
    shard.pass();
    assert_eq!(drain(&mut session), ["m1.2 after"]);
    assert_eq!(session.cursor(), Some(at(1, 1)));
}

#[test]
fn one_message_to_many_sockets_is_written_in_several_passes() {
    let (node, shard) = new_node(Settings::default());
    let mut clients: Vec<_> =
        (0..10_000).map(|user| Client::open(connect(&shard, user, None), user, 0)).collect();
    for client in &clients {
        client.socket.0.lock().unwrap().1 = 1000;
        client.session.open_direct();
    }
    let written = |clients: &[Client]| -> usize {
        clients.iter().filter(|client| client.socket.0.lock().unwrap().0 == "m1.1 x\n").count()
    };
    publish(&node, 1, to_all("x"));
    assert!(shard.pass().more);
    let first = written(&clients);
    assert!(first > 0 && first < 9000, "{first} sockets were written to in one pass");
    // A session whose turn has yet to come ends with the frames it was sent, and another one takes its slot.
    let mut last = clients.pop().unwrap();
    last.session.close(CloseReason::Normal);
    assert_eq!(drain(&mut last.session), ["cnormal"], "the frame itself went straight to the socket");
    drop(last);
    let late = connect(&shard, 9999, None);
    while shard.pass().more {}
    assert_eq!(written(&clients), 9999);
    drop(late);
}

#[test]
fn many_local_sends_leave_in_several_passes_and_in_order() {
    let (_, shard) = new_node(Settings::default());
    let mut sessions: Vec<_> = (0..1000).map(|user| connect(&shard, user, None)).collect();
    for n in 0..120 {
        let envelope = Arc::new(to_all(&n.to_string()));
        shard.send_local(Arc::new(Entry::new(None, Content::Envelope(envelope)))).unwrap();
    }
    assert!(shard.pass().more);
    assert!(!shard.pass().more);
    let expected: Vec<_> = (0..120).map(|n| format!("m- {n}")).collect();
    assert_eq!(drain(&mut sessions[500]), expected);
}

#[test]
fn a_token_that_ends_before_its_sessions_turn_ends_it_in_time() {
    let (_, shard) = new_node(Settings::default());
    let ticks = Ticks { per_heartbeat: 1_000_000, ..ticks() };
    let end = SystemTime::now() + Duration::from_millis(20);
    let wire = connect(&shard, 1, None).handle().0.wire().clone();
    let soon = Principal { expires_at: Some(end), ..Principal::new(4.into(), "t") };
    let gone = shard.register(soon.clone(), TRANSPORT, wire.clone(), None).unwrap();
    let ending = Session::new(shard.register(soon, TRANSPORT, wire, None).unwrap());
    drop(gone);
    for tick in (500_000..).take_while(|_| SystemTime::now() < end + Duration::from_millis(20)) {
        shard.tick(tick, ticks);
        assert!(SystemTime::now() >= end || ending.closing().is_none());
    }
    shard.tick(499_999, ticks);
    assert_eq!(ending.closing(), Some(CloseReason::TokenExpired));
    assert!(shard.lock().expiring.is_empty());
}

/// One step of the model.
#[derive(Debug, Clone)]
enum Step {
    /// A message to one user, or to all (`None`).
    Publish(Option<i64>),
    /// The bus skips positions.
    Skip(u64),
    Pass,
    /// A client's body pulls up to a number of bytes into the buffer before the socket.
    Read(usize, usize),
    /// A client's buffer is written to its socket.
    Write(usize),
    /// A client's socket accepts a number of bytes, and is written to directly if it can be.
    Direct(usize, usize),
    /// A client disconnects and reconnects with its cursor.
    Reconnect(usize),
    /// A client disconnects and reconnects without a cursor.
    Fresh(usize),
}

const CLIENTS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        6 => proptest::option::of(0..2_i64).prop_map(Step::Publish),
        1 => (1..4_u64).prop_map(Step::Skip),
        4 => Just(Step::Pass),
        5 => (client.clone(), 1..120_usize).prop_map(|(client, bytes)| Step::Read(client, bytes)),
        5 => client.clone().prop_map(Step::Write),
        3 => (client.clone(), 0..60_usize).prop_map(|(client, room)| Step::Direct(client, room)),
        1 => client.clone().prop_map(Step::Reconnect),
        1 => client.prop_map(Step::Fresh),
    ]
}

/// A client of the model, which knows only the frames that it was sent.
struct Client {
    session: Session,
    user: i64,
    /// It has everything up to here, or was sent a gap.
    has: u64,
    buffer: String,
    socket: Socket,
}

/// The text that was written to a socket, and the number of bytes that it accepts past the body.
#[derive(Debug, Clone, Default)]
struct Socket(Arc<Mutex<(String, usize)>>);

impl DirectWrite for Socket {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let (text, room) = &mut *self.0.lock().unwrap();
        let taken = bytes.len().min(*room);
        *room -= taken;
        text.push_str(str::from_utf8(&bytes[..taken]).unwrap());
        Ok(taken)
    }

    fn abort(&self) {
        unreachable!("nobody stalls here");
    }
}

impl Client {
    fn open(mut session: Session, user: i64, has: u64) -> Self {
        let socket = Socket::default();
        session.attach(Arc::new(socket.clone()));
        Self { session, user, has, buffer: String::new(), socket }
    }

    /// The body pulls up to `bytes` bytes.
    fn read(&mut self, bytes: usize) {
        let mut cx = Context::from_waker(Waker::noop());
        self.session.taken = WRITE_BUDGET.saturating_sub(bytes as u32);
        while let Poll::Ready(Outbound::Bytes(bytes)) = self.session.poll_next(&mut cx) {
            self.buffer.push_str(str::from_utf8(&bytes).unwrap());
        }
    }

    /// The pulled bytes are written to the socket.
    fn write(&mut self) {
        self.socket.0.lock().unwrap().0.push_str(&mem::take(&mut self.buffer));
    }

    /// Checks each whole frame that has arrived against the list of published messages.
    fn check(&mut self, published: &HashMap<u64, Option<i64>>) -> Result<(), TestCaseError> {
        let arrived = {
            let text = &mut self.socket.0.lock().unwrap().0;
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            text.drain(..whole).collect::<String>()
        };
        for frame in arrived.lines() {
            let (kind, rest) = frame.split_at(1);
            let offset = rest.split(' ').next().unwrap().parse::<Position>().unwrap().offset;
            match kind {
                "m" => {
                    prop_assert!(offset > self.has, "offset {offset} came after {}", self.has);
                    let mine = |offset: u64| match published.get(&offset) {
                        Some(target) => target.is_none_or(|user| user == self.user),
                        None => true,
                    };
                    prop_assert!(mine(offset), "offset {offset} is for another user");
                    for missing in self.has + 1..offset {
                        prop_assert!(!mine(missing), "offset {missing} is missing without a gap");
                    }
                }
                "g" => prop_assert!(offset >= self.has, "a gap up to {offset} after {}", self.has),
                _ => unreachable!("no other frames here"),
            }
            self.has = offset;
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Compared with a plain list of published messages: each session gets its messages in order, none twice, and none
    /// is missing without a gap, however it stalls, reconnects or falls out of the window.
    #[test]
    fn sessions_see_everything_in_order_or_a_gap(
        steps in proptest::collection::vec(step(), 1..200),
        window in 3..40_usize,
        outbox in 1..6_usize,
    ) {
        let (node, shard) = new_node(Settings {
            history: History { max_messages: window, ..History::default() },
            outbox: OutboxLimits { max_messages: outbox, ..OutboxLimits::default() },
            ..Settings::default()
        });
        let mut published = HashMap::new();
        let mut last = 0;
        let open = |user: i64, cursor: Option<u64>| {
            let cursor = cursor.map(|offset| Position { epoch: 1, offset });
            let session = connect(&shard, user, cursor);
            // A worker that lags behind the window does not know where a session begins: a gap comes first.
            let has = cursor.or(session.cursor()).map_or(0, |cursor| cursor.offset);
            Client::open(session, user, has)
        };
        let mut clients: Vec<Client> = (0..CLIENTS as i64).map(|n| open(n % 2, None)).collect();
        for step in steps {
            match step {
                Step::Publish(target) => {
                    last += 1;
                    published.insert(last, target);
                    let text = last.to_string();
                    publish(&node, last, target.map_or_else(|| to_all(&text), |user| to_user(user, &text)));
                }
                Step::Skip(lost) => last += lost,
                Step::Pass => {
                    shard.pass();
                }
                Step::Read(client, bytes) => clients[client].read(bytes),
                Step::Write(client) => clients[client].write(),
                Step::Direct(client, room) => {
                    clients[client].socket.0.lock().unwrap().1 = room;
                    if clients[client].buffer.is_empty() {
                        clients[client].session.open_direct();
                    }
                }
                Step::Reconnect(client) => {
                    let Client { user, has, .. } = clients[client];
                    clients[client] = open(user, Some(has));
                }
                Step::Fresh(client) => clients[client] = open(clients[client].user, None),
            }
            for client in &mut clients {
                client.check(&published)?;
            }
        }
        // At the end all sockets accept everything.
        while shard.pass().more {}
        for client in &mut clients {
            for _ in 0..CATCH_UP_ENTRIES {
                client.read(1000);
                client.write();
                shard.pass();
            }
            client.check(&published)?;
            let missing: Vec<_> = (client.has + 1..=last)
                .filter(|offset| published.get(offset).is_some_and(|to| to.is_none_or(|user| user == client.user)))
                .collect();
            prop_assert!(missing.is_empty(), "{missing:?} never came");
        }
    }
}

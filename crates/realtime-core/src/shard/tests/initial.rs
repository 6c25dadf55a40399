//! What a session gets first of the topics that it enters.

use std::sync::OnceLock;

use super::*;
use crate::{
    EventName,
    initial::{InitialEntries, InitialSource, StartPoint},
    outbox::INITIAL_BYTES,
    session::hooks::OnOpen,
};

/// A source with entries of one topic, which records the points at which it was asked for them.
#[derive(Debug)]
struct Kept {
    topic: Topic,
    entries: Vec<Arc<Entry>>,
    asked: Mutex<Vec<StartPoint>>,
}

impl InitialSource for Kept {
    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn entries(&self, topic: &Topic, start: StartPoint, entries: &mut InitialEntries) {
        if *topic == self.topic {
            lock(&self.asked).push(start);
            entries.extend(self.entries.iter().cloned());
        }
    }
}

fn order() -> Topic {
    Topic::new("order:7").unwrap()
}

fn to_order(text: &str) -> Envelope {
    Envelope::to_topic(order(), Scope::Both, text.to_owned().into())
}

/// A node whose source keeps these texts of a topic.
fn keeping(settings: Settings, topic: Topic, texts: &[&str]) -> (Arc<Node>, Arc<Shard>, Arc<Kept>) {
    opening(settings, topic, texts, Box::new(|_| ()))
}

/// The same, with a function for sessions that open.
fn opening(
    settings: Settings,
    topic: Topic,
    texts: &[&str],
    on_open: Box<OnOpen>,
) -> (Arc<Node>, Arc<Shard>, Arc<Kept>) {
    let entry = |text: &&str| {
        let envelope = Envelope::to_topic(topic.clone(), Scope::Both, (*text).to_owned().into());
        Arc::new(Entry::new(None, Content::Envelope(Arc::new(envelope))))
    };
    let entries = texts.iter().map(entry).collect();
    let kept = Arc::new(Kept { topic, entries, asked: Mutex::default() });
    let mut node = Node::new(settings);
    node.initial.push(Arc::clone(&kept) as Arc<dyn InitialSource>);
    node.hooks.on_open = Some(on_open);
    node.log.begin(Some(Position { epoch: 1, offset: 0 }));
    let node = Arc::new(node);
    (Arc::clone(&node), Shard::new(node), kept)
}

fn subscribe(session: &Session, topics: &[Topic]) -> Option<Position> {
    let mut at = None;
    let state = &session.handle().0;
    state.host().unwrap().subscribe(state, topics, &mut |position| {
        at = position;
        Some(format!("s{}\n", cursor_text(position)).into())
    });
    at
}

#[test]
fn a_session_that_begins_gets_them_first_and_a_cursor_only_behind_them() {
    let (node, shard, kept) = keeping(Settings::default(), Topic::user(&1.into()), &["a", "b"]);
    publish(&node, 1, to_all("before"));
    let (mut session, mut other) = (connect(&shard, 1, None), connect(&shard, 2, None));
    publish(&node, 2, to_all("after"));
    shard.pass();
    assert_eq!(session.begin(), Some(Begin { cursor: None, recovered: None }));
    assert_eq!(drain(&mut session), ["m- a", "m- b", "h1.1", "m1.2 after"]);
    assert_eq!(other.cursor(), Some(at(1, 1)));
    assert_eq!(drain(&mut other), ["m1.2 after"]);
    assert_eq!(*lock(&kept.asked), [StartPoint { seq: 1, position: Some(at(1, 1)) }]);
}

#[test]
fn a_session_that_gets_everything_since_its_cursor_gets_none_and_one_with_a_gap_does() {
    let history = History { max_messages: 2, ..History::default() };
    let (node, shard, _) = keeping(Settings { history, ..Settings::default() }, Topic::all(), &["a"]);
    for offset in 1..=4 {
        publish(&node, offset, to_all("x"));
    }
    shard.pass();
    let (mut kept, mut lost) = (connect(&shard, 1, Some(at(1, 3))), connect(&shard, 1, Some(at(1, 1))));
    assert_eq!(kept.begin(), Some(Begin { cursor: Some(at(1, 3)), recovered: Some(true) }));
    assert_eq!(drain(&mut kept), ["m1.4 x"]);
    assert_eq!(lost.begin(), Some(Begin { cursor: Some(at(1, 1)), recovered: Some(false) }));
    // A connection that breaks behind the gap comes back with the old cursor.
    assert_eq!(drain(&mut lost), ["g-", "m- a", "h1.2", "m1.3 x", "m1.4 x"]);
}

#[test]
fn a_session_that_is_told_of_an_outage_is_told_of_its_end() {
    let outbox = OutboxLimits { max_messages: 1, ..OutboxLimits::default() };
    let settings = Settings { outbox, ..Settings::default() };
    let (node, shard, _) = keeping(settings, Topic::user(&1.into()), &["state"]);
    shard.pass();
    node.set_bus_down(true);
    let mut session = connect(&shard, 1, None);
    let told = |session: &Session| session.handle().0.told_down.load(Ordering::Relaxed);
    assert!(told(&session), "with the heartbeat behind the initial entries");
    node.set_bus_down(false);
    shard.tick(1, ticks());
    assert!(told(&session), "its outbox had no room");
    assert_eq!(drain(&mut session), ["m- state", "h1.0"]);
    shard.tick(2, ticks());
    assert!(!told(&session));
    assert_eq!(drain(&mut session), ["r1.0"]);
}

#[test]
fn a_session_that_falls_out_of_the_window_is_told_of_an_outages_end() {
    let history = History { max_messages: 2, ..History::default() };
    let settings = Settings { history, ..Settings::default() };
    let (node, shard, _) = keeping(settings, Topic::user(&1.into()), &["state"]);
    let mut session = connect(&shard, 1, None);
    shard.pass();
    drain(&mut session);
    node.set_bus_down(true);
    shard.tick(1, ticks());
    node.set_bus_down(false);
    assert_eq!(drain(&mut session), ["h1.0"]);
    for offset in 1..=4 {
        publish(&node, offset, to_user(1, "x"));
    }
    shard.pass();
    assert_eq!(drain(&mut session), ["g-", "m- state", "r1.2", "m1.3 x", "m1.4 x"]);
    shard.tick(2, ticks());
    assert_eq!(drain(&mut session), ["h1.4"]);
}

#[test]
fn a_session_that_falls_out_of_the_window_while_it_ends_gets_them_then_or_when_it_comes_back() {
    let history = History { max_messages: 2, ..History::default() };
    let outbox = OutboxLimits { max_messages: 1, ..OutboxLimits::default() };
    let settings = Settings { history, outbox, ..Settings::default() };
    // Without a cursor behind what it missed the client comes back with the one before.
    let before = ["m1.1 x", "g-", "ckicked"];
    let behind = ["m1.1 x", "g-", "m- state", "h1.4", "m1.5 x", "m1.6 x", "ckicked"];
    for (end, expected) in [(2, &before[..]), (6, &behind)] {
        let (node, shard, _) = keeping(settings.clone(), order(), &["state"]);
        let mut slow = connect(&shard, 1, None);
        subscribe(&slow, &[order()]);
        drain(&mut slow);
        for offset in 1..=2 {
            publish(&node, offset, to_user(1, "x"));
            shard.pass();
        }
        let handle = slow.handle();
        handle.0.host().unwrap().close_after(&handle.0, CloseReason::Kicked, Some(at(1, end)));
        for offset in 3..=6 {
            publish(&node, offset, to_order("x"));
        }
        shard.pass();
        assert_eq!(drain(&mut slow), expected, "its end is at {end}");
    }
}

#[test]
fn what_is_published_while_a_session_opens_follows() {
    let host: Arc<OnceLock<Arc<Shard>>> = Arc::default();
    let opened = Arc::clone(&host);
    // Its own message comes first; meanwhile another thread publishes, and runs a pass.
    let on_open = move |session: &SessionHandle| {
        session.send_local("welcome").unwrap();
        let shard = opened.get().unwrap();
        publish(&shard.node, 2, to_user(1, "x"));
        shard.pass();
    };
    let (node, shard, _) = opening(Settings::default(), order(), &[], Box::new(on_open));
    publish(&node, 1, to_user(1, "before"));
    shard.pass();
    host.set(Arc::clone(&shard)).unwrap();
    let mut session = connect(&shard, 1, None);
    assert_eq!(session.begin(), Some(Begin { cursor: Some(at(1, 1)), recovered: None }));
    publish(&node, 3, to_user(1, "y"));
    shard.pass();
    assert_eq!(drain(&mut session), ["m- welcome", "m1.2 x", "m1.3 y"]);
}

#[test]
fn a_topic_that_a_session_is_put_into_when_it_opens_is_new_to_its_client() {
    let on_open = |session: &SessionHandle| session.subscribe(order());
    let (node, shard, _) = opening(Settings::default(), order(), &["state"], Box::new(on_open));
    publish(&node, 1, to_all("x"));
    shard.pass();
    publish(&node, 2, to_order("y"));
    let mut session = connect(&shard, 1, Some(at(1, 1)));
    assert_eq!(session.begin(), Some(Begin { cursor: Some(at(1, 1)), recovered: Some(true) }));
    shard.pass();
    assert_eq!(drain(&mut session), ["m- state", "h1.1", "m1.2 y"]);
}

#[test]
fn no_cursor_runs_ahead_of_a_gap_that_is_still_to_come() {
    let (node, shard, _) = keeping(Settings::default(), Topic::user(&1.into()), &["state"]);
    publish(&node, 1, to_all("x"));
    // Entries that cannot be read.
    node.log.push_skip(at(1, 2), at(1, 5));
    node.log.push_gap(GapReason::Bus);
    publish(&node, 6, to_all("y"));
    while shard.pass().more {}
    for offset in 1..=4 {
        let mut session = connect(&shard, 1, Some(at(1, offset)));
        assert_eq!(drain(&mut session), ["m- state", &format!("h1.{offset}"), "g1.5", "m1.6 y"]);
    }
}

#[test]
fn a_session_that_falls_out_of_the_window_gets_them_anew() {
    let history = History { max_messages: 2, ..History::default() };
    let outbox = OutboxLimits { max_messages: 1, ..OutboxLimits::default() };
    let settings = Settings { history, outbox, ..Settings::default() };
    let (node, shard, kept) = keeping(settings, order(), &["state"]);
    let (mut slow, mut late) = (connect(&shard, 1, None), connect(&shard, 2, None));
    for session in [&slow, &late] {
        subscribe(session, &[order()]);
    }
    assert_eq!(drain(&mut slow), drain(&mut late));
    for offset in 1..=2 {
        publish(&node, offset, to_user(1, "x"));
        shard.pass();
    }
    // The other session is live, and its worker late.
    for offset in 3..=6 {
        publish(&node, offset, to_order("x"));
    }
    shard.pass();
    let anew = ["g-", "m- state", "h1.4", "m1.5 x", "m1.6 x"];
    assert_eq!(drain(&mut late), anew);
    assert_eq!(drain(&mut slow)[..], [&["m1.1 x"], &anew[..]].concat());
    assert_eq!(lock(&kept.asked)[2..], [StartPoint { seq: 4, position: Some(at(1, 4)) }; 2]);
}

#[test]
fn a_subscription_is_answered_then_come_the_initial_entries_then_the_topics_messages() {
    let (node, shard, kept) = keeping(Settings::default(), order(), &["state"]);
    let mut session = connect(&shard, 1, None);
    publish(&node, 1, to_order("before"));
    shard.pass();
    assert_eq!(subscribe(&session, &[order()]), Some(at(1, 1)));
    publish(&node, 2, to_order("after"));
    shard.pass();
    assert_eq!(subscribe(&session, &[order()]), Some(at(1, 2)), "it is in the topic already");
    assert_eq!(drain(&mut session), ["s1.1", "m- state", "m1.2 after", "s1.2"]);
    assert_eq!(lock(&kept.asked).len(), 1);
}

#[test]
fn the_entries_that_a_lagging_worker_has_yet_to_deliver_follow_the_answer() {
    let (node, shard, _) = keeping(Settings::default(), order(), &["state"]);
    let mut session = connect(&shard, 1, None);
    shard.pass();
    publish(&node, 1, to_order("not delivered yet"));
    assert_eq!(subscribe(&session, &[order()]), Some(at(1, 0)));
    shard.pass();
    assert_eq!(drain(&mut session), ["s1.0", "m- state", "m1.1 not delivered yet"]);
}

#[test]
fn a_session_that_reads_the_log_enters_a_topic_where_it_reads() {
    let outbox = OutboxLimits { max_messages: 2, ..OutboxLimits::default() };
    let (node, shard, _) = keeping(Settings { outbox, ..Settings::default() }, order(), &["state"]);
    let mut session = connect(&shard, 1, None);
    for offset in 1..=4 {
        publish(&node, offset, if offset < 4 { to_all("x") } else { to_order("y") });
    }
    shard.pass();
    // Its outbox is full, and it continues at the third message.
    assert_eq!(subscribe(&session, &[order()]), Some(at(1, 2)));
    assert_eq!(drain(&mut session), ["m1.1 x", "m1.2 x", "s1.2", "m- state", "m1.3 x", "m1.4 y"]);
}

#[test]
fn a_session_that_enters_a_topic_while_it_reads_reads_again() {
    let outbox = OutboxLimits { max_messages: 1, ..OutboxLimits::default() };
    let (node, shard, _) = keeping(Settings { outbox, ..Settings::default() }, order(), &["state"]);
    let mut session = connect(&shard, 1, None);
    for (offset, envelope) in (1..).zip([to_all("a"), to_all("b"), to_order("y"), to_all("c")]) {
        publish(&node, offset, envelope);
    }
    shard.pass();
    let handle = session.handle();
    let outbox = &handle.0.outbox;
    assert_eq!(outbox.catching_up(), Some(1));
    // It has read the rest for the topics that it is in, when another task puts it into one more.
    outbox.begin_read();
    let read: Vec<_> = [(1, "m1.2 b\n"), (3, "m1.4 c\n")].map(|(seq, text)| (seq, Bytes::from(text))).into();
    assert_eq!(subscribe(&session, &[order()]), Some(at(1, 1)));
    assert_eq!((outbox.refill(&read, 1, 4), outbox.catching_up()), (0, Some(1)));
    assert_eq!(drain(&mut session), ["m1.1 a", "s1.1", "m- state", "m1.2 b", "m1.3 y", "m1.4 c"]);
}

#[test]
fn they_may_exceed_the_outbox_and_what_exceeds_their_own_bound_is_announced() {
    let outbox = OutboxLimits { max_messages: 1, max_bytes: 10, ..OutboxLimits::default() };
    let (half, settings) = ("x".repeat(INITIAL_BYTES / 2), Settings { outbox, ..Settings::default() });
    let (node, shard, _) = keeping(settings, order(), &[&half, "y", "z", &half, &half]);
    let mut session = connect(&shard, 1, None);
    shard.pass();
    subscribe(&session, &[order()]);
    publish(&node, 1, to_order("live"));
    shard.pass();
    // 8 MiB leave in many pieces.
    let pieces = std::iter::repeat_with(|| drain_text(&mut session)).take_while(|text| !text.is_empty());
    let text: String = pieces.collect();
    let kinds: Vec<_> = text.lines().map(|line| &line[..4.min(line.len())]).collect();
    assert_eq!(kinds, ["s1.0", "m- x", "m- y", "m- z", "g-", "m1.1"]);
    assert_eq!((node.metrics.local_dropped.value(), node.metrics.gaps.value()), (2, 1));
}

#[test]
fn the_texts_of_streams_that_a_node_reads_late_have_the_room_of_those_of_a_begin() {
    let outbox = OutboxLimits { max_messages: 1, max_bytes: 10, ..OutboxLimits::default() };
    let (_node, shard, _) = keeping(Settings { outbox, ..Settings::default() }, order(), &[]);
    let mut session = connect(&shard, 1, None);
    shard.pass();
    let text = "x".repeat(20);
    for _ in 0..2 {
        let message = Message::new(EventName::stream(), text.clone());
        let envelope = Envelope::to_topic(Topic::user(&1.into()), Scope::Both, message);
        shard.send_local(Arc::new(Entry::new(None, Content::Envelope(Arc::new(envelope))))).unwrap();
    }
    shard.pass();
    assert_eq!(drain(&mut session), [format!("m- {text}"), format!("m- {text}")]);
}

#[test]
fn one_for_another_transport_is_left_out() {
    let mut node = Node::new(Settings::default());
    let entry = |scope, text: &str| {
        let envelope = Envelope::to_topic(order(), scope, text.to_owned().into());
        Arc::new(Entry::new(None, Content::Envelope(Arc::new(envelope))))
    };
    let other = entry(Scope::Only(Transport::new("other")), "not for us");
    let entries = vec![other, entry(Scope::Both, "x")];
    node.initial.push(Arc::new(Kept { topic: order(), entries, asked: Mutex::default() }));
    node.log.begin(Some(Position { epoch: 1, offset: 0 }));
    let shard = Shard::new(Arc::new(node));
    let mut session = connect_to(&shard, None, &[]);
    shard.pass();
    assert_eq!(drain(&mut session), ["m- x", "h1.0"]);
}

/// Connects a session whose login has the topic; of those in `fresh` its client has had nothing yet.
fn connect_to(shard: &Arc<Shard>, cursor: Option<Position>, fresh: &[Topic]) -> Session {
    let wire: Arc<dyn WireFormat> = Arc::new(PlainWire);
    let wire = shard.node.wire(&wire).unwrap();
    let mut principal = Principal::new(1.into(), "t");
    principal.topics = vec![order()];
    let topics = ConnectTopics::new(&[], fresh);
    let registered = shard.register_in(principal, TRANSPORT, wire, cursor.map(Ok), &topics, 0);
    Session::new(registered.unwrap())
}

#[test]
fn a_topic_that_is_new_for_two_reasons_and_named_many_times_is_asked_for_once() {
    // It is taken out of the topic and put into it again, before it begins.
    let on_open = |session: &SessionHandle| {
        session.unsubscribe(&order());
        session.subscribe(order());
    };
    let (node, shard, kept) = opening(Settings::default(), order(), &["state"], Box::new(on_open));
    publish(&node, 1, to_all("x"));
    shard.pass();
    let fresh = [order(), Topic::new("other").unwrap(), Topic::user(&1.into()), order(), order()];
    let mut session = connect_to(&shard, Some(at(1, 1)), &fresh);
    assert_eq!(session.begin(), Some(Begin { cursor: Some(at(1, 1)), recovered: Some(true) }));
    assert_eq!(drain(&mut session), ["m- state", "h1.1"]);
    assert_eq!(lock(&kept.asked).len(), 1);
}

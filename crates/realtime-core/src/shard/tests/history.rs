//! Topics whose history begins behind a position for a session.

use super::*;
use crate::{auth::TopicDecision, session::state::ConnectTopics};

fn room() -> Topic {
    Topic::new("room:1").unwrap()
}

fn to_room(text: &str) -> Envelope {
    Envelope::to_topic(room(), Scope::Both, text.to_owned().into())
}

fn decided(after: Option<u64>) -> TopicDecision {
    let after = after.map(|offset| (room(), at(1, offset))).into_iter().collect();
    TopicDecision { granted: vec![room()], after, ..TopicDecision::default() }
}

/// A log in which the room has messages at 1, 3 and 5, and user 1 at 2 and 4.
fn filled() -> (Arc<Node>, Arc<Shard>) {
    let (node, shard) = new_node(Settings::default());
    for (offset, envelope) in
        (1..).zip([to_room("a"), to_user(1, "mine"), to_room("b"), to_user(1, "mine too"), to_room("c")])
    {
        publish(&node, offset, envelope);
    }
    while shard.pass().more {}
    (node, shard)
}

fn return_to(shard: &Arc<Shard>, principal: Principal, decision: &TopicDecision, cursor: u64) -> Session {
    let wire: Arc<dyn WireFormat> = Arc::new(PlainWire);
    let wire = shard.node.wire(&wire).unwrap();
    let topics = ConnectTopics::decided(decision, &[]);
    let cursor = Some(Ok(at(1, cursor)));
    Session::new(shard.register_in(principal, TRANSPORT, wire, cursor, &topics, 0).unwrap())
}

fn principal() -> Principal {
    Principal::new(1.into(), "t")
}

#[test]
fn an_old_cursor_reads_no_topic_from_before_its_grant() {
    let (_, shard) = filled();
    let mut whole = return_to(&shard, principal(), &decided(None), 0);
    assert_eq!(drain(&mut whole), ["m1.1 a", "m1.2 mine", "m1.3 b", "m1.4 mine too", "m1.5 c"]);
    for (after, expected) in [
        (0, &["m1.1 a", "m1.2 mine", "m1.3 b", "m1.4 mine too", "m1.5 c"][..]),
        (1, &["m1.2 mine", "m1.3 b", "m1.4 mine too", "m1.5 c"]),
        (3, &["m1.2 mine", "m1.4 mine too", "m1.5 c"]),
        (5, &["m1.2 mine", "m1.4 mine too"]),
    ] {
        let (node, shard) = filled();
        let mut late = return_to(&shard, principal(), &decided(Some(after)), 0);
        // Nothing that is the client's is missing.
        assert_eq!(late.recovered(), Some(true));
        assert_eq!(drain(&mut late), expected, "after {after}");
        publish(&node, 6, to_room("new"));
        while shard.pass().more {}
        assert_eq!(drain(&mut late), ["m1.6 new"], "after {after}");
    }
}

#[test]
fn a_grant_of_an_earlier_history_hides_nothing_of_a_newer_one() {
    let (_, shard) = filled();
    let mut decision = decided(None);
    decision.after = vec![(room(), Position { epoch: 0, offset: 99 })];
    let mut session = return_to(&shard, principal(), &decision, 0);
    assert_eq!(drain(&mut session), ["m1.1 a", "m1.2 mine", "m1.3 b", "m1.4 mine too", "m1.5 c"]);
}

#[test]
fn a_session_that_reads_the_log_subscribes_without_what_was_before_the_grant() {
    for (after, expected) in [
        (None, &["s1.0", "m1.1 a", "m1.2 mine", "m1.3 b", "m1.4 mine too", "m1.5 c"][..]),
        (Some(3), &["s1.0", "m1.2 mine", "m1.4 mine too", "m1.5 c"]),
    ] {
        let (_, shard) = filled();
        let mut session = connect(&shard, 1, Some(at(1, 0)));
        // It has read nothing yet.
        session.subscribe(&decided(after), |position| format!("s{}\n", cursor_text(position)).into());
        assert_eq!(drain(&mut session), expected, "after {after:?}");
    }
}

#[test]
fn a_worker_that_lags_behind_the_log_holds_the_bounds_in_its_passes() {
    let (node, shard) = new_node(Settings::default());
    shard.pass();
    let answer = |_: Option<Position>| Bytes::from_static(b"s\n");
    let mut at_connect = return_to(&shard, principal(), &decided(Some(3)), 0);
    let mut by_frame = connect(&shard, 1, None);
    let mut whole = return_to(&shard, principal(), &decided(None), 0);
    let mut bounded = principal();
    bounded.history_after = Some(at(1, 4));
    let mut of_login = return_to(&shard, bounded, &decided(None), 0);
    for (offset, envelope) in
        (1..).zip([to_room("a"), to_room("b"), to_room("c"), to_room("d"), to_user(1, "mine"), to_room("e")])
    {
        publish(&node, offset, envelope);
    }
    by_frame.subscribe(&decided(Some(3)), answer);
    // Live, and four entries behind.
    while shard.pass().more {}
    assert_eq!(drain(&mut whole), ["m1.1 a", "m1.2 b", "m1.3 c", "m1.4 d", "m1.5 mine", "m1.6 e"]);
    assert_eq!(drain(&mut at_connect), ["m1.4 d", "m1.5 mine", "m1.6 e"]);
    assert_eq!(drain(&mut by_frame), ["s", "m1.4 d", "m1.5 mine", "m1.6 e"]);
    assert_eq!(drain(&mut of_login), ["m1.5 mine", "m1.6 e"]);
    assert!(node.metrics.replayed.value() == 0, "all of it was live");
}

#[test]
fn a_topic_that_is_left_and_granted_again_has_the_new_bound_and_one_that_it_is_in_keeps_its_own() {
    let (_, shard) = filled();
    let answer = |_: Option<Position>| Bytes::from_static(b"s\n");
    let mut session = return_to(&shard, principal(), &decided(Some(3)), 0);
    session.subscribe(&decided(Some(5)), answer);
    assert_eq!(drain(&mut session), ["s", "m1.2 mine", "m1.4 mine too", "m1.5 c"]);
    let mut session = return_to(&shard, principal(), &decided(Some(3)), 0);
    session.unsubscribe(&[room()], &Bytes::from_static(b"u\n"));
    session.subscribe(&decided(Some(5)), answer);
    assert_eq!(drain(&mut session), ["u", "s", "m1.2 mine", "m1.4 mine too"]);
}

#[test]
fn a_login_may_have_a_bound_for_all_topics() {
    let (node, shard) = filled();
    let mut late = principal();
    late.history_after = Some(at(1, 2));
    publish(&node, 6, to_all("to all"));
    // Searched by hashes.
    let many = (1..50).map(|user| Topic::user(&user.into())).chain([room()]);
    publish(&node, 7, Envelope::to_topics(many, Scope::Both, Message::text("to many")).unwrap());
    while shard.pass().more {}
    let mut session = return_to(&shard, late.clone(), &decided(None), 0);
    let rest = ["m1.3 b", "m1.4 mine too", "m1.5 c", "m1.6 to all", "m1.7 to many"];
    assert_eq!(drain(&mut session), rest);
    let mut session = return_to(&shard, late.clone(), &decided(Some(3)), 0);
    assert_eq!(drain(&mut session), rest[1..]);
    late.history_after = Some(at(1, 6));
    let mut session = return_to(&shard, late, &decided(None), 0);
    assert_eq!(drain(&mut session), rest[4..]);
    // The room alone has it from before its grant.
    let mut other = return_to(&shard, Principal::new(99.into(), "t"), &decided(Some(7)), 0);
    assert_eq!(drain(&mut other), ["m1.6 to all"]);
}

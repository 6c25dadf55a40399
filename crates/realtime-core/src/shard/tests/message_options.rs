//! A ttl, a collapse key and `retain` of a message, pass by pass.

use std::num::NonZeroU16;

use super::*;
use crate::{
    CollapseKey, SessionId, SlowPolicy,
    bus::RetainedMessage,
    initial::{InitialEntries, InitialSource},
};

const KEPT: Duration = Duration::from_secs(3600);

fn topic() -> Topic {
    Topic::new("prices").unwrap()
}

fn price(text: &str) -> Envelope {
    let envelope = Envelope::to_topic(topic(), Scope::Both, Message::text(text.to_owned()));
    envelope.collapse(CollapseKey::new("XAU").unwrap())
}

fn connect_to_prices(shard: &Arc<Shard>) -> Session {
    let session = connect(shard, 1, None);
    session.handle().subscribe(topic());
    session
}

/// Publishes an envelope whose time is over when a shard gets to it.
fn publish_expired(node: &Node, offset: u64, envelope: Envelope) {
    let envelope = Arc::new(envelope.with_ttl(Duration::ZERO));
    node.log.push(Some(at(1, offset)), envelope, Some(Instant::now()));
}

fn retained(node: &Node, seq: u64) -> Vec<String> {
    let mut entries = InitialEntries::new();
    let start = StartPoint { seq, position: node.log.cursor_at(seq) };
    node.log.retained().entries(&topic(), start, &mut entries);
    let text = |entry: &Arc<Entry>| match (&entry.content, entry.position) {
        (Content::Envelope(envelope), None) => envelope.message().data.to_string(),
        _ => panic!("{entry:?}"),
    };
    entries.iter().map(text).collect()
}

#[test]
fn an_expired_message_is_sent_neither_live_nor_from_the_log() {
    let (node, shard) = new_node(Settings::default());
    let mut live = connect(&shard, 1, None);
    shard.pass();
    publish(&node, 1, to_all("a").with_ttl(KEPT));
    publish_expired(&node, 2, to_all("late"));
    publish(&node, 3, to_all("b"));
    while shard.pass().more {}
    assert_eq!(drain(&mut live), ["m1.1 a", "m1.3 b"]);
    let mut returned = connect(&shard, 2, Some(at(1, 0)));
    assert_eq!(drain(&mut returned), ["m1.1 a", "m1.3 b"]);
    assert_eq!(node.metrics.expired.value(), 2);
}

#[test]
fn a_message_expires_while_a_session_is_stalled() {
    let outbox = OutboxLimits { max_messages: 1, ..OutboxLimits::default() };
    let (node, shard) = new_node(Settings { outbox, ..Settings::default() });
    let mut stalled = connect(&shard, 1, None);
    shard.pass();
    publish(&node, 1, to_all("in the outbox"));
    shard.pass();
    let end = Instant::now() + Duration::from_millis(20);
    node.log.push(Some(at(1, 2)), Arc::new(to_all("late").with_ttl(KEPT)), Some(end));
    publish(&node, 3, to_all("after"));
    while shard.pass().more {}
    assert_eq!(node.metrics.expired.value(), 0, "it is in time when the session falls behind");
    while Instant::now() < end {
        std::thread::yield_now();
    }
    assert_eq!(drain(&mut stalled), ["m1.1 in the outbox", "m1.3 after"]);
    assert_eq!(node.metrics.expired.value(), 1);
}

#[test]
fn a_local_send_expires_in_the_queue() {
    let (_, shard) = new_node(Settings::default());
    let mut session = connect(&shard, 1, None);
    let entry = Entry::new(None, Content::Envelope(Arc::new(to_all("late")))).with_end(Some(Instant::now()));
    shard.send_local(Arc::new(entry)).unwrap();
    shard.send_local(Arc::new(Entry::new(None, Content::Envelope(Arc::new(to_all("x")))))).unwrap();
    shard.pass();
    assert_eq!(drain(&mut session), ["m- x"]);
}

#[test]
fn messages_of_one_pass_collapse_to_the_newest() {
    let (node, shard) = new_node(Settings::default());
    let mut session = connect_to_prices(&shard);
    shard.pass();
    publish(&node, 1, price("1"));
    shard.pass();
    for offset in 2..=5 {
        publish(&node, offset, price(&offset.to_string()));
    }
    publish(&node, 6, Envelope::to_topic(topic(), Scope::Both, Message::text("other")));
    while shard.pass().more {}
    assert_eq!(drain(&mut session), ["m1.1 1", "m1.5 5", "m1.6 other"], "the positions stay");
    assert_eq!(node.metrics.collapsed.value(), 3);
    let mut returned = connect(&shard, 2, Some(at(1, 0)));
    returned.handle().subscribe(topic());
    assert_eq!(drain(&mut returned), ["m1.5 5", "m1.6 other"]);
}

#[test]
fn a_slow_session_gets_the_newest() {
    let outbox = OutboxLimits { max_messages: 2, ..OutboxLimits::default() };
    let (node, shard) = new_node(Settings { outbox, ..Settings::default() });
    let mut slow = connect_to_prices(&shard);
    let mut fast = connect_to_prices(&shard);
    shard.pass();
    let mut seen = Vec::new();
    for offset in 1..=1000 {
        publish(&node, offset, price(&offset.to_string()));
        while shard.pass().more {}
        seen.extend(drain(&mut fast));
    }
    assert_eq!(seen.len(), 1000);
    assert_eq!(drain(&mut slow), ["m1.1 1", "m1.2 2", "m1.1000 1000"]);
}

fn tick(text: &str, keep: u16) -> Envelope {
    let envelope = Envelope::to_topic(topic(), Scope::Both, Message::text(text.to_owned()));
    let class = CollapseKey::new("ticks").unwrap();
    envelope.when_slow(SlowPolicy::DropOldest { class, keep: NonZeroU16::new(keep).unwrap() })
}

#[test]
fn a_slow_session_gets_the_newest_of_a_class_and_all_of_the_others() {
    let outbox = OutboxLimits { max_messages: 2, ..OutboxLimits::default() };
    let (node, shard) = new_node(Settings { outbox, ..Settings::default() });
    let mut slow = connect_to_prices(&shard);
    let mut fast = connect_to_prices(&shard);
    shard.pass();
    let mut seen = Vec::new();
    for offset in 1..=1000 {
        let text = offset.to_string();
        let order = || Envelope::to_topic(topic(), Scope::Both, Message::text(format!("order {text}")));
        publish(&node, offset, if offset % 250 == 0 { order() } else { tick(&text, 3) });
        while shard.pass().more {}
        seen.extend(drain(&mut fast));
    }
    assert_eq!(seen.len(), 1000, "who keeps up gets all");
    let expected = [
        "m1.1 1",
        "m1.2 2",
        "m1.250 order 250",
        "m1.500 order 500",
        "m1.750 order 750",
        "m1.997 997",
        "m1.998 998",
        "m1.999 999",
        "m1.1000 order 1000",
    ];
    assert_eq!(drain(&mut slow), expected);
    // One that comes back reads the same; nothing of it is a gap.
    let mut returned = connect(&shard, 2, Some(at(1, 900)));
    returned.handle().subscribe(topic());
    assert_eq!(drain(&mut returned), expected[5..]);
    assert_eq!(node.metrics.dropped_oldest.value(), 991 + 96);
    assert_eq!((node.metrics.collapsed.value(), node.metrics.gaps.value()), (0, 0));
}

#[test]
fn the_newest_message_of_a_class_decides_how_many_are_kept() {
    let (node, shard) = new_node(Settings::default());
    let mut session = connect_to_prices(&shard);
    shard.pass();
    for offset in 1..=4 {
        publish(&node, offset, tick(&offset.to_string(), 3));
    }
    // Of a class of the same name, with another policy.
    publish(&node, 5, price("a price").collapse(CollapseKey::new("ticks").unwrap()));
    publish(&node, 6, tick("6", 2));
    while shard.pass().more {}
    assert_eq!(drain(&mut session), ["m1.4 4", "m1.5 a price", "m1.6 6"]);
    publish(&node, 7, tick("7", 9));
    publish(&node, 8, tick("8", 1));
    while shard.pass().more {}
    assert_eq!(drain(&mut session), ["m1.8 8"]);
    publish(&node, 9, tick("9", 1));
    publish(&node, 10, tick("10", 1));
    while shard.pass().more {}
    assert_eq!(drain(&mut session), ["m1.10 10"]);
    let counted = (node.metrics.dropped_oldest.value(), node.metrics.collapsed.value());
    assert_eq!(counted, (5, 0), "the last one of a class is not the last one of a key");
}

#[test]
fn messages_of_a_class_that_have_left_the_window_are_forgotten() {
    let history = History { max_messages: 5, ..Default::default() };
    let (node, shard) = new_node(Settings { history, ..Settings::default() });
    let mut session = connect_to_prices(&shard);
    shard.pass();
    for offset in 1..=100 {
        publish(&node, offset, tick(&offset.to_string(), if offset % 2 == 0 { 50 } else { 10 }));
        if offset % 30 == 0 {
            while node.log.trim() {}
        }
    }
    while shard.pass().more {}
    let seen = drain(&mut session);
    assert_eq!(seen.last().map(String::as_str), Some("m1.100 100"), "{seen:?}");
}

#[test]
fn only_recipients_of_the_newer_message_lose_the_older() {
    let (node, shard) = new_node(Settings::default());
    let mut session = connect_to_prices(&shard);
    shard.pass();
    let other = session.handle().id();
    publish(&node, 1, price("for all"));
    publish(&node, 2, price("for others").except(other));
    publish(&node, 3, price("for another").except(SessionId::random()));
    let key = CollapseKey::new("other").unwrap();
    publish(&node, 4, price("another key").collapse(key));
    while shard.pass().more {}
    assert_eq!(drain(&mut session), ["m1.1 for all", "m1.3 for another", "m1.4 another key"]);
}

#[test]
fn a_replacement_behind_the_end_of_a_session_replaces_nothing_for_it() {
    let outbox = OutboxLimits { max_messages: 1, ..OutboxLimits::default() };
    let (node, shard) = new_node(Settings { outbox, ..Settings::default() });
    let mut session = connect_to_prices(&shard);
    shard.pass();
    publish(&node, 1, to_all("x"));
    publish(&node, 2, price("2"));
    publish(&node, 3, price("3"));
    while shard.pass().more {}
    session.handle().0.close_after(CloseReason::Kicked, Some(at(1, 4)));
    publish(&node, 4, to_all("last"));
    publish(&node, 5, price("5"));
    while shard.pass().more {}
    assert_eq!(drain(&mut session), ["m1.1 x", "m1.3 3", "m1.4 last", "ckicked"]);
}

#[test]
fn a_key_that_has_left_the_window_is_forgotten() {
    let history = History { max_messages: 3, ..History::default() };
    let (node, shard) = new_node(Settings { history, ..Settings::default() });
    for offset in 1..=20 {
        let key = CollapseKey::new(&format!("{}", offset % 7)).unwrap();
        publish(&node, offset, price(&offset.to_string()).collapse(key));
    }
    let mut session = connect(&shard, 2, Some(at(1, 17)));
    session.handle().subscribe(topic());
    while shard.pass().more {}
    assert_eq!(drain(&mut session), ["m1.18 18", "m1.19 19", "m1.20 20"]);
}

#[test]
fn the_last_message_of_each_key_is_retained() {
    let (node, _) = new_node(Settings::default());
    publish(&node, 1, price("old").retain());
    publish(&node, 2, Envelope::to_topic(topic(), Scope::Both, Message::text("plain")).retain());
    publish(&node, 3, price("new").retain());
    publish(&node, 4, price("not retained"));
    assert_eq!(retained(&node, 4), ["plain", "new"]);
    assert_eq!(retained(&node, 2), ["plain"], "what is new to a session at 2 comes as a message");
    publish(&node, 5, price("").retain());
    assert_eq!(retained(&node, 5), ["plain"], "an empty text clears it");
}

#[test]
fn a_retained_message_ends_with_its_time() {
    let (node, shard) = new_node(Settings::default());
    publish_expired(&node, 1, price("late").retain());
    publish(&node, 2, Envelope::to_topic(topic(), Scope::Both, Message::text("x")).with_ttl(KEPT).retain());
    assert_eq!(retained(&node, 2), ["x"]);
    shard.trim();
    assert_eq!(retained(&node, 2), ["x"]);
}

#[test]
fn retained_messages_beyond_the_bounds_go_oldest_first() {
    let mut settings = Settings::default();
    settings.retained.max_per_topic = 2;
    settings.retained.max_messages = 3;
    let (node, _) = new_node(settings);
    let keyed = |text: &str| price(text).collapse(CollapseKey::new(text).unwrap()).retain();
    for (offset, text) in (1..).zip(["a", "b", "c"]) {
        publish(&node, offset, keyed(text));
    }
    assert_eq!(retained(&node, 3), ["b", "c"]);
    assert_eq!(node.log.retained().dropped(), 1);
    for (offset, text) in (4..).zip(["t1", "t2"]) {
        let other = Envelope::to_topic(Topic::new(text).unwrap(), Scope::Both, Message::text(text)).retain();
        publish(&node, offset, other);
    }
    assert_eq!(retained(&node, 5), ["c"]);
    assert_eq!(node.log.retained().dropped(), 2);
}

#[test]
fn what_is_over_takes_no_room_from_what_is_retained() {
    let mut settings = Settings::default();
    settings.retained.max_per_topic = 2;
    let (node, _) = new_node(settings);
    let keyed = |text: &str| price(text).collapse(CollapseKey::new(text).unwrap()).retain();
    publish(&node, 1, keyed("a"));
    let end = Instant::now() + Duration::from_millis(1);
    node.log.push(Some(at(1, 2)), Arc::new(keyed("short").with_ttl(KEPT)), Some(end));
    while Instant::now() <= end {
        std::thread::yield_now();
    }
    publish(&node, 3, keyed("b"));
    publish_expired(&node, 4, keyed("late"));
    assert_eq!(retained(&node, 4), ["a", "b"]);
    assert_eq!(node.log.retained().dropped(), 0);
}

#[test]
fn what_the_bus_retains_counts_from_its_position_on() {
    let node = Arc::new(Node::new(Settings::default()));
    let at_start = |offset, envelope: Envelope| {
        RetainedMessage::new(Some(at(1, offset)), Arc::new(envelope.retain()), Duration::ZERO)
    };
    let old = at_start(2, Envelope::to_topic(topic(), Scope::Both, Message::text("before the window")));
    node.log.retained().replace(vec![at_start(7, price("seven")), old.clone()]);
    node.log.begin(Some(at(1, 4)));
    assert_eq!(retained(&node, 0), ["before the window"], "the other one comes as a message");
    publish(&node, 5, price("five").retain());
    assert_eq!(retained(&node, 1), ["before the window"], "an older message replaces none");
    publish(&node, 6, to_all("six"));
    publish(&node, 7, price("seven").retain());
    assert_eq!(retained(&node, 3), ["before the window", "seven"]);
    // After a loss it is what the bus still has.
    node.log.retained().replace(vec![old]);
    assert_eq!(retained(&node, 3), ["before the window"]);
}

#[test]
fn a_session_that_enters_a_topic_gets_what_is_retained_and_then_what_is_new() {
    let (node, shard) = new_node(Settings::default());
    let mut session = connect(&shard, 1, None);
    while shard.pass().more {}
    publish(&node, 1, price("one").retain());
    while shard.pass().more {}
    publish(&node, 2, price("two").retain());
    session.handle().subscribe(topic());
    while shard.pass().more {}
    assert_eq!(drain(&mut session), ["m1.2 two"], "the shard had not delivered it: it comes once, as new");
    let mut second = connect_to_prices(&shard);
    publish(&node, 3, price("three").retain());
    while shard.pass().more {}
    assert_eq!(drain(&mut second), ["m- two", "m1.3 three"]);
    let other = Scope::Only(Transport::new("other"));
    publish(&node, 4, Envelope::to_topic(topic(), other, Message::text("elsewhere")).retain());
    let excluded = connect_to_prices(&shard);
    publish(&node, 5, price("mine").except(excluded.handle().id()).retain());
    while shard.pass().more {}
    excluded.handle().unsubscribe(&topic());
    let mut excluded = excluded;
    drain(&mut excluded);
    excluded.handle().subscribe(topic());
    assert!(drain(&mut excluded).is_empty(), "of another transport, and of its own");
}

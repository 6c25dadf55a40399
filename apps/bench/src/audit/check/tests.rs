use proptest::prelude::*;

use super::*;
use crate::audit::{
    counts::Counts,
    history::{Cursor, End, Habit, Target, Way},
    rng::Rng,
};

const EPOCH: u64 = 1_800_000_000_000;
const MILLI: u64 = 1_000;
const SECOND: u64 = 1_000_000;

fn at(offset: u64) -> Option<Cursor> {
    Some(Cursor { epoch: EPOCH, offset })
}

/// A history that has nothing wrong in it: three users, each with a client that breaks off now and then.
struct Story {
    records: Vec<Record>,
    now: u64,
}

impl Story {
    fn begin() -> Self {
        let mut story = Self { records: Vec::new(), now: 0 };
        story.push(Event::Run { seed: 0, epoch_ms: EPOCH, window_ms: 20_000, late_ms: 5_000 });
        story
    }

    fn push(&mut self, event: Event) {
        self.now += MILLI;
        self.records.push(Record { at: self.now, event });
    }

    fn dial(&mut self, chain: u32, cursor: Option<Cursor>) {
        self.push(Event::Dial { chain, node: 0, way: Way::Sse, cursor });
        // The hello of a client that comes back has its own cursor: what follows is behind it.
        self.push(Event::Hello { chain, recovered: cursor.map(|_| true), cursor: cursor.or(at(0)) });
    }

    fn acknowledge(&mut self, n: u64, target: Target) {
        let began = self.now;
        self.push(Event::Acknowledged { n, target, began, cursor: at(n) });
    }

    fn message(&mut self, chain: u32, n: u64, target: Target) {
        self.push(Event::Message { chain, n, target, cursor: at(n) });
    }

    fn sound(seed: u64, messages: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut story = Self::begin();
        let mut cursors = [at(0); 3];
        for chain in 0..3 {
            story.push(Event::Chain { chain, user: chain, topics: vec![chain % 2], habit: Habit::Steady });
            story.dial(chain, None);
        }
        let mut waiting: [Vec<(u64, Target)>; 3] = Default::default();
        for n in 1..=messages {
            let target = match rng.index(4) {
                0 => Target::All,
                1 => Target::Topic(rng.index(2) as u32),
                _ => Target::User(rng.index(3) as u32),
            };
            story.acknowledge(n, target.clone());
            for chain in 0..3_usize {
                if targets(chain as u32).contains(&target) {
                    waiting[chain].push((n, target.clone()));
                }
                if rng.one_in(3) {
                    story.deliver(chain, &mut waiting[chain], &mut cursors[chain]);
                    // A heartbeat: everything up to here has come.
                    cursors[chain] = at(n);
                    story.push(Event::Beat { chain: chain as u32, cursor: at(n) });
                }
                if rng.one_in(6) {
                    story.push(Event::End { chain: chain as u32, end: End::Broken });
                    story.dial(chain as u32, cursors[chain]);
                }
            }
        }
        for chain in 0..3_usize {
            story.deliver(chain, &mut waiting[chain], &mut cursors[chain]);
        }
        story.push(Event::Quiet);
        story.push(Event::Finish);
        story
    }

    fn deliver(&mut self, chain: usize, waiting: &mut Vec<(u64, Target)>, cursor: &mut Option<Cursor>) {
        for (n, target) in waiting.drain(..) {
            *cursor = at(n);
            self.message(chain as u32, n, target);
        }
    }

    /// The places of all deliveries.
    fn deliveries(&self) -> Vec<usize> {
        let is_message = |&place: &usize| matches!(self.records[place].event, Event::Message { .. });
        (0..self.records.len()).filter(is_message).collect()
    }

    fn judge(&self) -> Counts {
        check(&self.records).total()
    }
}

fn targets(user: u32) -> [Target; 3] {
    [Target::All, Target::User(user), Target::Topic(user % 2)]
}

/// What is wrong, by name.
fn wrong(counts: &Counts) -> Vec<(&'static str, u64)> {
    counts.violations().into_iter().filter(|(_, count)| *count > 0).collect()
}

proptest! {
    #[test]
    fn a_sound_history_has_nothing_wrong_in_it(seed: u64) {
        let counts = Story::sound(seed, 40).judge();
        prop_assert_eq!(wrong(&counts), []);
        prop_assert_eq!(counts.acknowledged, 40);
        prop_assert!(counts.delivered > 0);
    }

    #[test]
    fn a_delivery_that_is_dropped_is_lost(seed: u64, choice: prop::sample::Index) {
        let mut story = Story::sound(seed, 40);
        let place = *choice.get(&story.deliveries());
        story.records.remove(place);
        prop_assert_eq!(wrong(&story.judge()), [("lost in silence", 1)]);
    }

    #[test]
    fn a_delivery_that_comes_again_is_doubled(seed: u64, choice: prop::sample::Index, later in 1_usize..20) {
        let mut story = Story::sound(seed, 40);
        let deliveries = story.deliveries();
        let which = choice.index(deliveries.len());
        let again = story.records[deliveries[which]].clone();
        let Event::Message { chain, .. } = again.event else { unreachable!() };
        // Somewhere behind, while the client is connected.
        let place = (deliveries[which] + later).min(story.records.len() - 2);
        let end = story.records[deliveries[which]..place].iter().any(
            |record| matches!(&record.event, Event::End { chain: other, .. } if *other == chain));
        let place = if end { deliveries[which] + 1 } else { place };
        let again = Record { at: story.records[place - 1].at, ..again };
        story.records.insert(place, again);
        let counts = story.judge();
        prop_assert_eq!(counts.doubled, 1);
        prop_assert_eq!(counts.lost, 0);
    }

    #[test]
    fn two_deliveries_that_are_exchanged_are_inverted(seed: u64, choice: prop::sample::Index) {
        let mut story = Story::sound(seed, 60);
        let of = |place: usize| match story.records[place].event {
            Event::Message { chain, .. } => chain,
            _ => unreachable!(),
        };
        let pairs: Vec<_> = story.deliveries().windows(2).map(|pair| (pair[0], pair[1]))
            .filter(|&(first, second)| second == first + 1 && of(first) == of(second)).collect();
        prop_assume!(!pairs.is_empty());
        let (first, second) = *choice.get(&pairs);
        let event = story.records[first].event.clone();
        story.records[first].event = story.records[second].event.clone();
        story.records[second].event = event;
        prop_assert_eq!(wrong(&story.judge()), [("inverted", 1)]);
    }

    #[test]
    fn a_delivery_to_another_client_is_to_the_wrong_user(seed: u64) {
        let mut story = Story::sound(seed, 40);
        let theirs = story.records.iter().find_map(|record| match &record.event {
            Event::Message { n, target: Target::User(user), .. } => Some((*n, *user)),
            _ => None,
        });
        let Some((n, user)) = theirs else { return Ok(()) };
        let last = story.records.len() - 2;
        let event = Event::Message { chain: (user + 1) % 3, n, target: Target::User(user), cursor: at(n) };
        let record = Record { at: story.records[last].at, event };
        story.records.insert(last, record);
        prop_assert_eq!(story.judge().wrong_user, 1);
    }

    #[test]
    fn a_gap_where_nothing_happened_is_false_whether_or_not_something_is_missing(seed: u64, drop: bool) {
        let mut story = Story::sound(seed, 40);
        let place = *story.deliveries().last().unwrap();
        let Event::Message { chain, n, .. } = story.records[place].event else { unreachable!() };
        let gap = Event::Gap { chain, reason: "bus".into(), cursor: at(n) };
        if drop {
            story.records[place].event = gap;
        } else {
            story.records.insert(place + 1, Record { at: story.records[place].at, event: gap });
        }
        let counts = story.judge();
        prop_assert_eq!(wrong(&counts), [("false gaps", 1)]);
        prop_assert_eq!(counts.announced, u64::from(drop));
    }
}

/// Client 0 has message 1 and misses 2, which `gap` may announce; message 3 follows.
fn with_a_gap(
    fault: Option<Fault>,
    before: impl FnOnce(&mut Story),
    gap: Option<Cursor>,
    last: Cursor,
) -> Counts {
    let mut story = Story::begin();
    story.push(Event::Chain { chain: 0, user: 0, topics: Vec::new(), habit: Habit::Steady });
    story.dial(0, None);
    story.acknowledge(1, Target::All);
    story.message(0, 1, Target::All);
    if let Some(fault) = fault {
        story.push(Event::FaultBegins { fault, detail: String::new() });
    }
    story.acknowledge(2, Target::All);
    before(&mut story);
    if let Some(fault) = fault {
        story.push(Event::FaultEnds { fault });
    }
    if gap.is_some() {
        story.push(Event::Gap { chain: 0, reason: "bus".into(), cursor: gap });
    }
    let began = story.now;
    story.push(Event::Acknowledged { n: 3, target: Target::All, began, cursor: Some(last) });
    story.push(Event::Message { chain: 0, n: 3, target: Target::All, cursor: Some(last) });
    story.push(Event::Finish);
    story.judge()
}

#[test]
fn a_gap_before_a_new_epoch_is_true_if_something_forced_it() {
    let new = Cursor { epoch: EPOCH + 10, offset: 1 };
    let gap = Some(Cursor { offset: 0, ..new });
    for fault in Fault::ALL {
        let counts = with_a_gap(Some(fault), |_| {}, gap, new);
        let forced = fault.breaks_the_history();
        assert_eq!((counts.true_gaps, counts.false_gaps), (u64::from(forced), u64::from(!forced)), "{fault}");
        assert_eq!((counts.announced, counts.lost), (1, 0));
    }
    assert_eq!(with_a_gap(None, |_| {}, gap, new).false_gaps, 1);
    // It explains nothing of what stands in the new epoch itself.
    let acknowledge = |story: &mut Story| {
        let (began, cursor) = (story.now, Some(new));
        story.push(Event::Acknowledged { n: 9, target: Target::All, began, cursor });
    };
    let beyond = Cursor { offset: 2, ..new };
    let counts = with_a_gap(Some(Fault::RedisKill), acknowledge, Some(new), beyond);
    assert_eq!((counts.true_gaps, counts.false_gaps, counts.announced), (0, 1, 2));
    // Without the gap it is a loss, whatever happened.
    assert_eq!(with_a_gap(Some(Fault::RedisKill), |_| {}, None, new).lost, 1);
}

#[test]
fn a_gap_is_true_where_the_stream_was_trimmed() {
    let trim = |upto| {
        move |story: &mut Story| story.push(Event::Trimmed { upto: Cursor { epoch: EPOCH, offset: upto } })
    };
    let last = Cursor { epoch: EPOCH, offset: 3 };
    let counts = with_a_gap(Some(Fault::RedisTrim), trim(2), at(2), last);
    assert_eq!((counts.true_gaps, counts.announced), (1, 1));
    assert_eq!(wrong(&counts), []);
    let counts = with_a_gap(Some(Fault::RedisTrim), trim(1), at(2), last);
    assert_eq!(wrong(&counts), [("false gaps", 1)], "what was trimmed had come");
}

#[test]
fn a_gap_is_true_where_the_message_has_left_the_window() {
    let last = Cursor { epoch: EPOCH, offset: 3 };
    let wait = |seconds| move |story: &mut Story| story.now += seconds * SECOND;
    assert_eq!(with_a_gap(None, wait(21), at(2), last).true_gaps, 1);
    assert_eq!(with_a_gap(None, wait(15), at(2), last).false_gaps, 1);
}

#[test]
fn a_hello_ahead_of_its_gap_loses_what_is_between_if_the_connection_breaks_there() {
    for breaks in [false, true] {
        let mut story = Story::begin();
        story.push(Event::Chain { chain: 0, user: 0, topics: Vec::new(), habit: Habit::Steady });
        story.dial(0, None);
        story.push(Event::End { chain: 0, end: End::Broken });
        story.acknowledge(1, Target::All);
        story.push(Event::Trimmed { upto: Cursor { epoch: EPOCH, offset: 1 } });
        story.push(Event::Dial { chain: 0, node: 0, way: Way::Sse, cursor: at(0) });
        story.push(Event::Hello { chain: 0, recovered: None, cursor: at(1) });
        if breaks {
            story.push(Event::End { chain: 0, end: End::Broken });
            story.dial(0, at(1));
        } else {
            story.push(Event::Gap { chain: 0, reason: "history".into(), cursor: at(1) });
        }
        story.push(Event::Finish);
        let counts = story.judge();
        assert_eq!((counts.lost, counts.announced), if breaks { (1, 0) } else { (0, 1) });
    }
}

#[test]
fn a_delivery_is_late_after_a_time_and_near_a_fault_after_a_longer_one() {
    for (fault, seconds, late) in [(false, 4, 0), (false, 6, 1), (true, 6, 0), (true, 16, 1)] {
        let mut story = Story::begin();
        story.push(Event::Chain { chain: 0, user: 0, topics: Vec::new(), habit: Habit::Steady });
        story.dial(0, None);
        if fault {
            story.push(Event::FaultBegins { fault: Fault::Stop, detail: String::new() });
            story.push(Event::FaultEnds { fault: Fault::Stop });
        }
        story.acknowledge(1, Target::All);
        story.now += seconds * SECOND;
        story.message(0, 1, Target::All);
        story.push(Event::Finish);
        let counts = story.judge();
        assert_eq!(counts.late, late, "{seconds} s, fault: {fault}");
        assert!(counts.silence >= seconds * SECOND);
    }
}

#[test]
fn old_messages_are_stale_to_a_client_without_a_cursor() {
    let mut story = Story::begin();
    story.acknowledge(1, Target::All);
    story.now += 11 * SECOND;
    story.push(Event::Chain { chain: 0, user: 0, topics: Vec::new(), habit: Habit::Fresh });
    story.push(Event::Dial { chain: 0, node: 0, way: Way::Sse, cursor: None });
    story.push(Event::Hello { chain: 0, recovered: None, cursor: None });
    story.message(0, 1, Target::All);
    story.push(Event::Finish);
    assert_eq!(wrong(&story.judge()), [("old as new", 1)]);
}

#[test]
fn a_cursor_that_goes_back_is_seen_whoever_moves_it() {
    for event in [
        Event::Beat { chain: 0, cursor: at(3) },
        Event::Hello { chain: 0, recovered: Some(true), cursor: at(3) },
    ] {
        let mut story = Story::begin();
        story.push(Event::Chain { chain: 0, user: 0, topics: Vec::new(), habit: Habit::Steady });
        story.dial(0, None);
        story.push(Event::Beat { chain: 0, cursor: at(4) });
        story.push(event);
        story.push(Event::Finish);
        assert_eq!(wrong(&story.judge()), [("cursors that went back", 1)]);
    }
}

#[test]
fn ends_are_judged_by_who_made_them() {
    for (end, habit, stalls, wrongly) in [
        (End::Broken, Habit::Steady, false, false),
        (End::Closed(1012), Habit::Steady, false, false),
        (End::Closed(4408), Habit::Steady, false, true),
        (End::Closed(4408), Habit::Steady, true, false),
        (End::Closed(4429), Habit::Slow, false, false),
        (End::Closed(1007), Habit::Slow, false, true),
        (End::Closed(4409), Habit::Steady, false, true),
        (End::Closed(4409), Habit::Kicked, false, false),
        (End::Refused(401), Habit::Steady, false, true),
    ] {
        let mut story = Story::begin();
        story.push(Event::Chain { chain: 0, user: 0, topics: Vec::new(), habit });
        story.dial(0, None);
        if stalls {
            story.push(Event::Stall { chain: 0 });
        }
        story.push(Event::End { chain: 0, end: end.clone() });
        story.push(Event::Finish);
        assert_eq!(story.judge().ended, u64::from(wrongly), "{end:?} of {habit:?}");
    }
}

/// A user that is told something, kicked, and knocks again.
fn kick(why: bool, lives: u64, missing: &[&str], knock: Option<(bool, bool)>, forgets: bool) -> u64 {
    let mut story = Story::begin();
    let user = 1_000_000;
    story.push(Event::Chain { chain: 0, user, topics: Vec::new(), habit: Habit::Kicked });
    story.dial(0, None);
    story.acknowledge(1, Target::User(user));
    if why {
        story.message(0, 1, Target::User(user));
    }
    let missing = missing.iter().map(|&name| name.to_owned()).collect();
    story.push(Event::Kicked { chains: vec![0], user, missing, why: Some(1) });
    story.now += lives;
    story.push(Event::End { chain: 0, end: End::Closed(4409) });
    story.push(Event::Gone { chain: 0 });
    if forgets {
        story.push(Event::FaultBegins { fault: Fault::RedisFlush, detail: String::new() });
        story.push(Event::FaultEnds { fault: Fault::RedisFlush });
    }
    if let Some((let_in, kept)) = knock {
        let began = story.now;
        story.push(Event::Knocked { user, node: 1, way: Way::Sse, began, let_in, kept });
    }
    story.push(Event::Finish);
    story.judge().kicks
}

#[test]
fn a_kick_is_final_and_comes_behind_what_was_acknowledged_before() {
    assert_eq!(kick(true, MILLI, &[], Some((false, false)), false), 0);
    assert_eq!(kick(false, MILLI, &[], None, false), 1, "the message before it has not come");
    assert_eq!(kick(true, 6 * SECOND, &[], None, false), 1, "the session went on");
    assert_eq!(kick(true, 6 * SECOND, &["node-0"], None, false), 0, "its node was cut off");
    assert_eq!(kick(true, MILLI, &[], Some((true, false)), false), 1, "the token was let in again");
    assert_eq!(
        kick(true, MILLI, &["node-1"], Some((true, false)), false),
        0,
        "that node had not heard of it"
    );
    assert_eq!(kick(true, MILLI, &["node-1"], Some((true, true)), false), 1, "and kept it");
    assert_eq!(kick(true, MILLI, &[], Some((true, true)), true), 0, "Redis has forgotten it");
}

#[test]
fn positions_are_one_order() {
    for (second, began, problems) in [(2, 9, 0), (1, 9, 1), (2, 30, 0)] {
        let mut story = Story::begin();
        story.push(Event::Acknowledged { n: 1, target: Target::All, began: 5, cursor: at(1) });
        story.push(Event::Acknowledged { n: 2, target: Target::All, began, cursor: at(second) });
        assert_eq!(story.judge().problems, problems, "{second} {began}");
    }
    for (early, problems) in [(true, 0), (false, 1)] {
        let mut story = Story::begin();
        story.push(Event::Acknowledged { n: 1, target: Target::All, began: 5, cursor: at(8) });
        let began = if early { 6 } else { story.now + 1 };
        story.push(Event::Acknowledged { n: 2, target: Target::All, began, cursor: at(7) });
        assert_eq!(story.judge().problems, problems, "asked for while the other one was under way: {early}");
    }
}

#[test]
fn what_a_node_is_late_with_is_due_to_whoever_came_with_a_cursor() {
    for with_cursor in [false, true] {
        let mut story = Story::begin();
        story.push(Event::Chain { chain: 0, user: 0, topics: Vec::new(), habit: Habit::Steady });
        if with_cursor {
            story.dial(0, None);
            story.push(Event::End { chain: 0, end: End::Broken });
        }
        story.acknowledge(1, Target::All);
        // This node has not read it yet.
        story.dial(0, with_cursor.then(|| at(0)).flatten());
        story.push(Event::Beat { chain: 0, cursor: at(1) });
        story.push(Event::Finish);
        assert_eq!(story.judge().lost, u64::from(with_cursor));
    }
}

#[test]
fn a_message_from_before_the_first_cursor_is_inverted() {
    let mut story = Story::begin();
    story.push(Event::Chain { chain: 0, user: 0, topics: Vec::new(), habit: Habit::Steady });
    story.push(Event::Dial { chain: 0, node: 0, way: Way::Sse, cursor: None });
    story.push(Event::Hello { chain: 0, recovered: None, cursor: at(5) });
    story.acknowledge(4, Target::All);
    story.message(0, 4, Target::All);
    story.push(Event::Finish);
    assert_eq!(story.judge().inverted, 1);
}

use proptest::prelude::*;

use super::*;
use crate::audit::{
    counts::Counts,
    fault::Fault,
    history::{Behaviour, Cursor, End, Target, Transport},
    rng::Rng,
};

const EPOCH: u64 = 1_800_000_000_000;
const MILLI: u64 = 1_000;
const SECOND: u64 = 1_000_000;

fn at(offset: u64) -> Option<Cursor> {
    Some(Cursor { epoch: EPOCH, offset })
}

/// A history that has nothing wrong in it: three users, each with a client that breaks off now and then.
struct Builder {
    records: Vec<Record>,
    now: u64,
}

impl Builder {
    fn begin() -> Self {
        let mut builder = Self { records: Vec::new(), now: 0 };
        builder.push(Event::Run { seed: 0, epoch_ms: EPOCH, window_ms: 20_000, late_ms: 5_000 });
        builder
    }

    fn push(&mut self, event: Event) {
        self.now += MILLI;
        self.records.push(Record { at: self.now, event });
    }

    fn dial(&mut self, chain: u32, cursor: Option<Cursor>) {
        self.push(Event::Dial { chain, node: 0, transport: Transport::Sse, cursor });
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
        let mut builder = Self::begin();
        let mut cursors = [at(0); 3];
        for chain in 0..3 {
            builder.push(Event::ChainBegins {
                chain,
                user: chain,
                topics: vec![chain % 2],
                behaviour: Behaviour::Steady,
            });
            builder.dial(chain, None);
        }
        let mut waiting: [Vec<(u64, Target)>; 3] = Default::default();
        for n in 1..=messages {
            let target = match rng.index(4) {
                0 => Target::All,
                1 => Target::Topic(rng.index(2) as u32),
                _ => Target::User(rng.index(3) as u32),
            };
            builder.acknowledge(n, target.clone());
            for chain in 0..3_usize {
                if targets(chain as u32).contains(&target) {
                    waiting[chain].push((n, target.clone()));
                }
                if rng.one_in(3) {
                    builder.deliver(chain, &mut waiting[chain], &mut cursors[chain]);
                    // A heartbeat: everything up to here has come.
                    cursors[chain] = at(n);
                    builder.push(Event::Beat { chain: chain as u32, cursor: at(n) });
                }
                if rng.one_in(6) {
                    builder.push(Event::End { chain: chain as u32, end: End::Broken });
                    builder.dial(chain as u32, cursors[chain]);
                }
            }
        }
        for chain in 0..3_usize {
            builder.deliver(chain, &mut waiting[chain], &mut cursors[chain]);
        }
        builder.push(Event::Quiet);
        builder.push(Event::Finish);
        builder
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

/// Violations by name.
fn wrong(counts: &Counts) -> Vec<(&'static str, u64)> {
    counts.violations().into_iter().filter(|(_, count)| *count > 0).collect()
}

#[test]
fn a_run_in_which_nothing_was_acknowledged_has_a_problem() {
    let mut builder = Builder::begin();
    builder.push(Event::ChainBegins { chain: 0, user: 0, topics: vec![], behaviour: Behaviour::Steady });
    builder.dial(0, None);
    let began = builder.now;
    builder.push(Event::Unacknowledged { n: 1, target: Target::All, began, status: 401 });
    builder.push(Event::Quiet);
    // The last message, which is the auditor's own.
    builder.acknowledge(2, Target::All);
    builder.message(0, 2, Target::All);
    builder.push(Event::Finish);
    assert_eq!(builder.judge().problems, 1);
}

proptest! {
    #[test]
    fn a_sound_history_has_nothing_wrong_in_it(seed: u64) {
        let counts = Builder::sound(seed, 40).judge();
        prop_assert_eq!(wrong(&counts), []);
        prop_assert_eq!(counts.acknowledged, 40);
        prop_assert!(counts.delivered > 0);
    }

    #[test]
    fn a_delivery_that_is_dropped_is_lost(seed: u64, choice: prop::sample::Index) {
        let mut builder = Builder::sound(seed, 40);
        let place = *choice.get(&builder.deliveries());
        builder.records.remove(place);
        prop_assert_eq!(wrong(&builder.judge()), [("lost in silence", 1)]);
    }

    #[test]
    fn a_delivery_that_comes_again_is_doubled(seed: u64, choice: prop::sample::Index, later in 1_usize..20) {
        let mut builder = Builder::sound(seed, 40);
        let deliveries = builder.deliveries();
        let which = choice.index(deliveries.len());
        let again = builder.records[deliveries[which]].clone();
        let Event::Message { chain, .. } = again.event else { unreachable!() };
        // Somewhere behind, while the client is connected.
        let place = (deliveries[which] + later).min(builder.records.len() - 2);
        let end = builder.records[deliveries[which]..place].iter().any(
            |record| matches!(&record.event, Event::End { chain: other, .. } if *other == chain));
        let place = if end { deliveries[which] + 1 } else { place };
        let again = Record { at: builder.records[place - 1].at, ..again };
        builder.records.insert(place, again);
        let counts = builder.judge();
        prop_assert_eq!(counts.doubled, 1);
        prop_assert_eq!(counts.lost, 0);
    }

    #[test]
    fn two_deliveries_that_are_exchanged_are_inverted(seed: u64, choice: prop::sample::Index) {
        let mut builder = Builder::sound(seed, 60);
        let of = |place: usize| match builder.records[place].event {
            Event::Message { chain, .. } => chain,
            _ => unreachable!(),
        };
        let pairs: Vec<_> = builder.deliveries().windows(2).map(|pair| (pair[0], pair[1]))
            .filter(|&(first, second)| second == first + 1 && of(first) == of(second)).collect();
        prop_assume!(!pairs.is_empty());
        let (first, second) = *choice.get(&pairs);
        let event = builder.records[first].event.clone();
        builder.records[first].event = builder.records[second].event.clone();
        builder.records[second].event = event;
        prop_assert_eq!(wrong(&builder.judge()), [("inverted", 1)]);
    }

    #[test]
    fn a_delivery_to_another_client_is_to_the_wrong_user(seed: u64) {
        let mut builder = Builder::sound(seed, 40);
        let theirs = builder.records.iter().find_map(|record| match &record.event {
            Event::Message { n, target: Target::User(user), .. } => Some((*n, *user)),
            _ => None,
        });
        let Some((n, user)) = theirs else { return Ok(()) };
        let last = builder.records.len() - 2;
        let event = Event::Message { chain: (user + 1) % 3, n, target: Target::User(user), cursor: at(n) };
        let record = Record { at: builder.records[last].at, event };
        builder.records.insert(last, record);
        prop_assert_eq!(builder.judge().wrong_user, 1);
    }

    #[test]
    fn a_gap_where_nothing_happened_is_false_whether_or_not_something_is_missing(seed: u64, drop: bool) {
        let mut builder = Builder::sound(seed, 40);
        let place = *builder.deliveries().last().unwrap();
        let Event::Message { chain, n, .. } = builder.records[place].event else { unreachable!() };
        let gap = Event::Gap { chain, reason: "bus".into(), cursor: at(n) };
        if drop {
            builder.records[place].event = gap;
        } else {
            builder.records.insert(place + 1, Record { at: builder.records[place].at, event: gap });
        }
        let counts = builder.judge();
        prop_assert_eq!(wrong(&counts), [("false gaps", 1)]);
        prop_assert_eq!(counts.announced, u64::from(drop));
    }
}

/// Client 0 has message 1 and misses 2, which `gap` may announce; message 3 follows.
fn with_a_gap(
    fault: Option<Fault>,
    before: impl FnOnce(&mut Builder),
    gap: Option<Cursor>,
    last: Cursor,
) -> Counts {
    let mut builder = Builder::begin();
    builder.push(Event::ChainBegins { chain: 0, user: 0, topics: Vec::new(), behaviour: Behaviour::Steady });
    builder.dial(0, None);
    builder.acknowledge(1, Target::All);
    builder.message(0, 1, Target::All);
    if let Some(fault) = fault {
        builder.push(Event::FaultBegins { fault, detail: String::new() });
    }
    builder.acknowledge(2, Target::All);
    before(&mut builder);
    if let Some(fault) = fault {
        builder.push(Event::FaultEnds { fault });
    }
    if gap.is_some() {
        builder.push(Event::Gap { chain: 0, reason: "bus".into(), cursor: gap });
    }
    let began = builder.now;
    builder.push(Event::Acknowledged { n: 3, target: Target::All, began, cursor: Some(last) });
    builder.push(Event::Message { chain: 0, n: 3, target: Target::All, cursor: Some(last) });
    builder.push(Event::Finish);
    builder.judge()
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
    let acknowledge = |builder: &mut Builder| {
        let (began, cursor) = (builder.now, Some(new));
        builder.push(Event::Acknowledged { n: 9, target: Target::All, began, cursor });
    };
    let beyond = Cursor { offset: 2, ..new };
    let counts = with_a_gap(Some(Fault::RedisKill), acknowledge, Some(new), beyond);
    assert_eq!((counts.true_gaps, counts.false_gaps, counts.announced), (0, 1, 2));
    // Without the gap it is a loss, even after a fault.
    assert_eq!(with_a_gap(Some(Fault::RedisKill), |_| {}, None, new).lost, 1);
}

#[test]
fn a_gap_is_true_where_the_stream_was_trimmed() {
    let trim = |upto| {
        move |builder: &mut Builder| {
            builder.push(Event::Trimmed { upto: Cursor { epoch: EPOCH, offset: upto } })
        }
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
    let wait = |seconds| move |builder: &mut Builder| builder.now += seconds * SECOND;
    assert_eq!(with_a_gap(None, wait(21), at(2), last).true_gaps, 1);
    assert_eq!(with_a_gap(None, wait(15), at(2), last).false_gaps, 1);
}

#[test]
fn a_hello_ahead_of_its_gap_loses_what_is_between_if_the_connection_breaks_there() {
    for breaks in [false, true] {
        let mut builder = Builder::begin();
        builder.push(Event::ChainBegins {
            chain: 0,
            user: 0,
            topics: Vec::new(),
            behaviour: Behaviour::Steady,
        });
        builder.dial(0, None);
        builder.push(Event::End { chain: 0, end: End::Broken });
        builder.acknowledge(1, Target::All);
        builder.push(Event::Trimmed { upto: Cursor { epoch: EPOCH, offset: 1 } });
        builder.push(Event::Dial { chain: 0, node: 0, transport: Transport::Sse, cursor: at(0) });
        builder.push(Event::Hello { chain: 0, recovered: None, cursor: at(1) });
        if breaks {
            builder.push(Event::End { chain: 0, end: End::Broken });
            builder.dial(0, at(1));
        } else {
            builder.push(Event::Gap { chain: 0, reason: "history".into(), cursor: at(1) });
        }
        builder.push(Event::Finish);
        let counts = builder.judge();
        assert_eq!((counts.lost, counts.announced), if breaks { (1, 0) } else { (0, 1) });
    }
}

#[test]
fn a_delivery_is_late_after_a_time_and_near_a_fault_after_a_longer_one() {
    for (fault, seconds, late) in [(false, 4, 0), (false, 6, 1), (true, 6, 0), (true, 16, 1)] {
        let mut builder = Builder::begin();
        builder.push(Event::ChainBegins {
            chain: 0,
            user: 0,
            topics: Vec::new(),
            behaviour: Behaviour::Steady,
        });
        builder.dial(0, None);
        if fault {
            builder.push(Event::FaultBegins { fault: Fault::Stop, detail: String::new() });
            builder.push(Event::FaultEnds { fault: Fault::Stop });
        }
        builder.acknowledge(1, Target::All);
        builder.now += seconds * SECOND;
        builder.message(0, 1, Target::All);
        builder.push(Event::Finish);
        let counts = builder.judge();
        assert_eq!(counts.late, late, "{seconds} s, fault: {fault}");
        assert!(counts.silence >= seconds * SECOND);
    }
}

#[test]
fn old_messages_are_stale_to_a_client_without_a_cursor() {
    let mut builder = Builder::begin();
    builder.acknowledge(1, Target::All);
    builder.now += 11 * SECOND;
    builder.push(Event::ChainBegins { chain: 0, user: 0, topics: Vec::new(), behaviour: Behaviour::Fresh });
    builder.push(Event::Dial { chain: 0, node: 0, transport: Transport::Sse, cursor: None });
    builder.push(Event::Hello { chain: 0, recovered: None, cursor: None });
    builder.message(0, 1, Target::All);
    builder.push(Event::Finish);
    assert_eq!(wrong(&builder.judge()), [("old as new", 1)]);
}

#[test]
fn a_cursor_that_goes_back_is_seen_whoever_moves_it() {
    for event in [
        Event::Beat { chain: 0, cursor: at(3) },
        Event::Hello { chain: 0, recovered: Some(true), cursor: at(3) },
    ] {
        let mut builder = Builder::begin();
        builder.push(Event::ChainBegins {
            chain: 0,
            user: 0,
            topics: Vec::new(),
            behaviour: Behaviour::Steady,
        });
        builder.dial(0, None);
        builder.push(Event::Beat { chain: 0, cursor: at(4) });
        builder.push(event);
        builder.push(Event::Finish);
        assert_eq!(wrong(&builder.judge()), [("cursors that went back", 1)]);
    }
}

#[test]
fn ends_are_judged_by_who_made_them() {
    for (end, behaviour, stalls, wrongly) in [
        (End::Broken, Behaviour::Steady, false, false),
        (End::Closed(1012), Behaviour::Steady, false, false),
        (End::Closed(4408), Behaviour::Steady, false, true),
        (End::Closed(4408), Behaviour::Steady, true, false),
        (End::Closed(4429), Behaviour::Slow, false, false),
        (End::Closed(1007), Behaviour::Slow, false, true),
        (End::Closed(4409), Behaviour::Steady, false, true),
        (End::Closed(4409), Behaviour::Kicked, false, false),
        (End::Refused(401), Behaviour::Steady, false, true),
    ] {
        let mut builder = Builder::begin();
        builder.push(Event::ChainBegins { chain: 0, user: 0, topics: Vec::new(), behaviour });
        builder.dial(0, None);
        if stalls {
            builder.push(Event::Stall { chain: 0 });
        }
        builder.push(Event::End { chain: 0, end: end.clone() });
        builder.push(Event::Finish);
        assert_eq!(builder.judge().ended, u64::from(wrongly), "{end:?} of {behaviour:?}");
    }
}

/// A user that is sent a message, kicked, and whose token is tried again.
fn kick(why: bool, lives: u64, missing: &[&str], probe: Option<(bool, bool)>, forgets: bool) -> u64 {
    let mut builder = Builder::begin();
    let user = 1_000_000;
    builder.push(Event::ChainBegins { chain: 0, user, topics: Vec::new(), behaviour: Behaviour::Kicked });
    builder.dial(0, None);
    builder.acknowledge(1, Target::User(user));
    if why {
        builder.message(0, 1, Target::User(user));
    }
    let missing = missing.iter().map(|&name| name.to_owned()).collect();
    builder.push(Event::Kicked { chains: vec![0], user, missing, why: Some(1) });
    builder.now += lives;
    builder.push(Event::End { chain: 0, end: End::Closed(4409) });
    builder.push(Event::ChainEnds { chain: 0 });
    if forgets {
        builder.push(Event::FaultBegins { fault: Fault::RedisFlush, detail: String::new() });
        builder.push(Event::FaultEnds { fault: Fault::RedisFlush });
    }
    if let Some((let_in, kept)) = probe {
        let began = builder.now;
        builder.push(Event::TokenProbed { user, node: 1, transport: Transport::Sse, began, let_in, kept });
    }
    builder.push(Event::Finish);
    builder.judge().kicks
}

#[test]
fn a_kick_is_final_and_comes_behind_what_was_acknowledged_before() {
    assert_eq!(kick(true, MILLI, &[], Some((false, false)), false), 0);
    assert_eq!(kick(false, MILLI, &[], None, false), 1, "the message before it has not come");
    assert_eq!(kick(true, 6 * SECOND, &[], None, false), 1, "the session went on");
    assert_eq!(kick(true, 6 * SECOND, &["node-0"], None, false), 0, "its node was cut off");
    assert_eq!(kick(true, MILLI, &[], Some((true, false)), false), 1, "the token was let in again");
    for missing in ["node-1", "node-0"] {
        // The second one knows the token, and has not told it to the node that is asked.
        assert_eq!(kick(true, MILLI, &[missing], Some((true, false)), false), 0, "{missing} was cut off");
    }
    assert_eq!(kick(true, MILLI, &["node-1"], Some((true, true)), false), 1, "and kept it");
    assert_eq!(kick(true, MILLI, &[], Some((true, true)), true), 0, "Redis has forgotten it");
}

#[test]
fn positions_are_one_order() {
    for (second, began, problems) in [(2, 9, 0), (1, 9, 1), (2, 30, 0)] {
        let mut builder = Builder::begin();
        builder.push(Event::Acknowledged { n: 1, target: Target::All, began: 5, cursor: at(1) });
        builder.push(Event::Acknowledged { n: 2, target: Target::All, began, cursor: at(second) });
        assert_eq!(builder.judge().problems, problems, "{second} {began}");
    }
    for (early, problems) in [(true, 0), (false, 1)] {
        let mut builder = Builder::begin();
        builder.push(Event::Acknowledged { n: 1, target: Target::All, began: 5, cursor: at(8) });
        let began = if early { 6 } else { builder.now + 1 };
        builder.push(Event::Acknowledged { n: 2, target: Target::All, began, cursor: at(7) });
        assert_eq!(
            builder.judge().problems,
            problems,
            "asked for while the other one was under transport: {early}"
        );
    }
}

#[test]
fn what_a_node_is_late_with_is_due_to_whoever_came_with_a_cursor() {
    for with_cursor in [false, true] {
        let mut builder = Builder::begin();
        builder.push(Event::ChainBegins {
            chain: 0,
            user: 0,
            topics: Vec::new(),
            behaviour: Behaviour::Steady,
        });
        if with_cursor {
            builder.dial(0, None);
            builder.push(Event::End { chain: 0, end: End::Broken });
        }
        builder.acknowledge(1, Target::All);
        // This node has not read it yet.
        builder.dial(0, with_cursor.then(|| at(0)).flatten());
        builder.push(Event::Beat { chain: 0, cursor: at(1) });
        builder.push(Event::Finish);
        assert_eq!(builder.judge().lost, u64::from(with_cursor));
    }
}

#[test]
fn a_message_from_before_the_first_cursor_is_inverted() {
    let mut builder = Builder::begin();
    builder.push(Event::ChainBegins { chain: 0, user: 0, topics: Vec::new(), behaviour: Behaviour::Steady });
    builder.push(Event::Dial { chain: 0, node: 0, transport: Transport::Sse, cursor: None });
    builder.push(Event::Hello { chain: 0, recovered: None, cursor: at(5) });
    builder.acknowledge(4, Target::All);
    builder.message(0, 4, Target::All);
    builder.push(Event::Finish);
    assert_eq!(builder.judge().inverted, 1);
}

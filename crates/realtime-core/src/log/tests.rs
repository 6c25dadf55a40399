use std::time::{Duration, SystemTime};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    Message, Scope, SessionId, Topic, Transport,
    wire::{WireFormat, WireFormatId},
};

fn envelope(text: &str) -> Arc<Envelope> {
    Arc::new(Envelope::broadcast(Scope::Both, Message::text(text)))
}

fn at(epoch: u64, offset: u64) -> Position {
    Position { epoch, offset }
}

fn log(max_messages: usize) -> Log {
    Log::new(History { max_messages, ..History::default() }, RetainedLimits::default())
}

fn fill(log: &Log, epoch: u64, offsets: std::ops::RangeInclusive<u64>) {
    for offset in offsets {
        log.push(Some(at(epoch, offset)), envelope("x"), None);
    }
}

fn from(seq: u64) -> Resume {
    Resume::At(Start { seq, gap: None, recovered: true })
}

/// The gap is an entry, which is delivered in its turn.
fn into_gap(seq: u64) -> Resume {
    Resume::At(Start { seq, gap: None, recovered: false })
}

fn recovers(log: &Log, cursor: Position) -> bool {
    matches!(log.resume(cursor), Resume::At(Start { gap: None, recovered: true, .. }))
}

fn is_gap(read: &Read, index: usize) -> bool {
    matches!(read.entries[index].content, Content::Gap(_))
}

#[test]
fn a_known_cursor_resumes_right_after_itself() {
    let log = log(10);
    log.begin(Some(at(1, 0)));
    assert_eq!(log.resume(at(1, 0)), from(0));
    fill(&log, 1, 1..=4);
    assert_eq!(log.resume(at(1, 2)), from(2));
    assert_eq!(log.resume(at(1, 4)), from(4));
    assert_eq!(log.cursor_at(0), Some(at(1, 0)));
    assert_eq!(log.cursor_at(4), Some(at(1, 4)));
}

/// The times since when messages may be missing at the gaps of a log.
fn sinces(log: &Log) -> Vec<Option<Instant>> {
    let read = log.read(0, usize::MAX);
    read.entries
        .iter()
        .filter(|entry| matches!(entry.content, Content::Gap(_)))
        .map(|entry| entry.since())
        .collect()
}

#[test]
fn a_gap_knows_since_when_messages_may_be_missing() {
    let log = log(100);
    fill(&log, 1, 1..=1);
    fill(&log, 1, 3..=3);
    log.begin(Some(at(1, 3)));
    let before = Instant::now();
    fill(&log, 1, 4..=4);
    let after = Instant::now();
    fill(&log, 1, 6..=6);
    log.set_caught_up(before);
    fill(&log, 2, 1..=1);
    let [history, arrived, caught_up] = sinces(&log)[..] else { panic!("{:?}", sinces(&log)) };
    assert_eq!(history, None, "what was read at the start may be of any age");
    assert!(arrived.is_some_and(|since| before <= since && since <= after), "the last entry before it");
    assert_eq!(caught_up, Some(before), "everything from before that time was here");
}

#[test]
fn an_outage_without_earlier_messages_is_a_gap_since_its_begin() {
    let log = log(100);
    log.begin(None);
    let before = Instant::now();
    log.set_down();
    let after = Instant::now();
    log.set_down();
    log.push_gap(GapReason::Bus);
    assert!(sinces(&log)[0].is_some_and(|since| before <= since && since <= after));
}

#[test]
fn the_times_of_entries_that_left_the_window_are_known_for_a_while() {
    let log = log(1);
    log.begin(Some(at(1, 0)));
    let before = Instant::now();
    fill(&log, 1, 1..=5);
    for since in [log.since(0), log.since(3), log.since_cursor(at(1, 2))] {
        assert!(since.is_some_and(|since| before <= since && since <= Instant::now()));
    }
    assert_eq!(log.since_cursor(at(0, 2)), None, "another history");
}

#[test]
fn entries_that_left_the_window_are_a_gap() {
    let log = log(3);
    log.begin(Some(at(1, 0)));
    fill(&log, 1, 1..=10);
    let resume = log.resume(at(1, 2));
    assert_eq!(resume, Resume::At(Start::lost(7, GapReason::History)));
    assert!(recovers(&log, at(1, 7)));
    let read = log.read(0, 100);
    assert_eq!((read.first, read.entries.len()), (7, 3));
}

#[test]
fn an_older_history_is_a_gap_and_a_later_one_may_still_come() {
    let log = log(10);
    log.begin(Some(at(5, 0)));
    fill(&log, 5, 1..=2);
    let older = Resume::At(Start::lost(0, GapReason::Bus));
    assert_eq!(log.resume(at(4, 9)), older, "all entries are new to it");
    for ahead in [at(6, 1), at(5, 3), at(5, u64::MAX), at(u64::MAX, u64::MAX)] {
        assert_eq!(log.resume(ahead), Resume::Ahead, "{ahead}: this node may lag");
    }
}

#[test]
fn skipped_positions_are_announced_as_a_gap_at_their_place() {
    let log = log(10);
    log.begin(Some(at(1, 0)));
    fill(&log, 1, 1..=2);
    fill(&log, 1, 5..=6);
    let read = log.read(0, 10);
    assert_eq!(read.entries.len(), 5);
    assert!(is_gap(&read, 2));
    assert_eq!(read.entries[2].position, Some(at(1, 4)), "a client that got the gap is past it");
    assert_eq!(log.resume(at(1, 1)), into_gap(1));
    assert_eq!(log.resume(at(1, 3)), into_gap(2));
    assert_eq!(log.resume(at(1, 4)), from(3));
}

#[test]
fn a_position_that_the_bus_uses_for_itself_is_no_gap() {
    let log = log(10);
    log.begin(Some(at(1, 0)));
    fill(&log, 1, 1..=1);
    log.push_skip(at(1, 2), at(1, 2));
    fill(&log, 1, 3..=3);
    assert_eq!(log.end(), 3);
    assert_eq!(log.read_window().segments.len(), 1, "one position costs no segment");
    assert!(recovers(&log, at(1, 1)) && recovers(&log, at(1, 2)));
}

#[test]
fn a_skipped_range_is_no_gap_and_one_entry() {
    let log = log(10);
    log.begin(Some(at(1, 0)));
    fill(&log, 1, 1..=2);
    log.push_skip(at(1, 3), at(1, 1_000_000));
    fill(&log, 1, 1_000_001..=1_000_002);
    assert_eq!(log.end(), 5);
    let read = log.read(0, 10);
    assert!(!(0..5).any(|index| is_gap(&read, index)));
    assert_eq!(log.resume(at(1, 0)), from(0));
    assert_eq!(log.resume(at(1, 1)), from(1));
    for behind in [2, 3, 500, 999_999, 1_000_000] {
        assert_eq!(log.resume(at(1, behind)), from(3), "{behind}: the next message follows");
    }
    assert_eq!(log.resume(at(1, 1_000_001)), from(4));
    assert_eq!(log.resume(at(1, 1_000_003)), Resume::Ahead);
    assert_eq!((log.cursor_at(2), log.cursor_at(3)), (Some(at(1, 2)), Some(at(1, 1_000_000))));
    assert_eq!(log.cursor_at(4), Some(at(1, 1_000_001)));
}

#[test]
fn a_cursor_in_a_skipped_range_outlives_the_ranges_entry() {
    let log = log(2);
    log.begin(Some(at(1, 0)));
    fill(&log, 1, 1..=1);
    log.push_skip(at(1, 2), at(1, 9));
    fill(&log, 1, 10..=11);
    assert_eq!(log.resume(at(1, 5)), from(2));
    assert_eq!(log.resume(at(1, 1)), from(2), "nothing lies between");
    assert_eq!(log.resume(at(1, 0)), Resume::At(Start::lost(2, GapReason::History)));
}

#[test]
fn a_gap_before_and_behind_a_skipped_range_is_announced() {
    let log = log(20);
    log.begin(Some(at(1, 0)));
    fill(&log, 1, 1..=1);
    log.push_skip(at(1, 3), at(1, 9));
    let read = log.read(0, 10);
    assert!(is_gap(&read, 1), "2 is missing");
    assert_eq!(log.resume(at(1, 1)), into_gap(1));
    assert_eq!(log.resume(at(1, 4)), from(3));
    fill(&log, 1, 11..=11);
    assert!(is_gap(&log.read(0, 10), 3), "10 is missing");
    assert_eq!(log.resume(at(1, 4)), into_gap(3));
    // A new epoch may begin with a range, and is a gap.
    log.push_skip(at(2, 1), at(2, 4));
    assert_eq!(log.resume(at(1, 11)), into_gap(5));
    assert_eq!(log.resume(at(2, 2)), from(7));
    // A range that is none may hide anything.
    log.push_skip(at(2, 9), at(2, 5));
    assert!(is_gap(&log.read(7, 10), 0));
}

#[test]
fn ranges_one_behind_the_other_are_one_way_through() {
    let log = log(20);
    log.begin(Some(at(1, 0)));
    for n in 0..4 {
        log.push_skip(at(1, n * 10 + 1), at(1, n * 10 + 9));
        fill(&log, 1, n * 10 + 10..=n * 10 + 10);
    }
    for offset in 0..40 {
        let read = log.resume(at(1, offset));
        let Resume::At(Start { seq, gap: None, recovered: true }) = read else { panic!("{read:?}") };
        let next = log.read(seq, 20).entries.into_iter().find_map(|entry| match entry.content {
            Content::Envelope(_) => entry.position,
            _ => None,
        });
        assert_eq!(next, Some(at(1, (offset / 10 + 1) * 10)), "behind {offset}");
    }
}

#[test]
fn a_bus_that_comes_back_where_it_was_loses_nothing() {
    let log = log(10);
    log.begin(Some(at(1, 0)));
    fill(&log, 1, 1..=2);
    log.begin(Some(at(1, 2)));
    assert_eq!(log.end(), 2);
    log.begin(Some(at(2, 0)));
    assert_eq!(log.end(), 3, "a new epoch is a gap");
    fill(&log, 2, 1..=1);
    assert_eq!(log.resume(at(1, 2)), into_gap(2));
    assert!(recovers(&log, at(2, 0)));
}

#[test]
fn a_bus_without_positions_has_no_cursor() {
    let log = log(10);
    log.begin(None);
    log.push(None, envelope("x"), None);
    assert_eq!(log.cursor_at(1), None);
    assert_eq!(log.resume(at(1, 1)), Resume::At(Start::lost(1, GapReason::Cursor)));
    log.push_gap(GapReason::Bus);
    assert_eq!(log.end(), 2);
}

#[test]
fn the_window_is_bounded_by_bytes_and_age() {
    let entry = Entry::new(None, Content::Envelope(envelope("x"))).footprint;
    let by_bytes =
        Log::new(History { max_bytes: entry * 2, ..History::default() }, RetainedLimits::default());
    fill(&by_bytes, 1, 1..=5);
    assert_eq!(by_bytes.read(0, 10).entries.len(), 2);

    let by_age =
        Log::new(History { max_age: Duration::ZERO, ..History::default() }, RetainedLimits::default());
    by_age.begin(Some(at(1, 0)));
    by_age.push(Some(at(1, 1)), envelope("x"), None);
    while by_age.trim() {}
    assert_eq!(by_age.read(0, 10).entries.len(), 0);
    assert_eq!(by_age.cursor_at(1), Some(at(1, 1)), "an empty window keeps its position");
    assert!(recovers(&by_age, at(1, 1)));
}

#[test]
fn a_cursor_of_a_missing_epoch_resumes_at_the_gap_in_its_place() {
    let log = log(20);
    log.begin(Some(at(1, 0)));
    fill(&log, 1, 1..=2);
    log.begin(Some(at(5, 0)));
    fill(&log, 5, 1..=2);
    assert_eq!(log.resume(at(3, 7)), into_gap(2));
    assert_eq!(log.resume(at(1, u64::MAX)), into_gap(2), "no arithmetic overflows");
}

#[test]
fn a_sequence_number_whose_history_was_removed_has_no_cursor() {
    let log = log(2);
    log.begin(Some(at(1, 0)));
    fill(&log, 1, 1..=2);
    fill(&log, 2, 1..=3);
    assert_eq!((log.cursor_at(1), log.cursor_at(2)), (None, None), "a later one would hide the gap");
    assert_eq!(log.cursor_at(6), Some(at(2, 3)));
}

#[test]
fn history_ends_where_the_bus_was_first_up() {
    let log = log(10);
    fill(&log, 1, 4..=6);
    assert_eq!(log.up(), None);
    log.begin(Some(at(1, 6)));
    fill(&log, 1, 7..=8);
    log.begin(Some(at(1, 8)));
    assert_eq!(log.up(), Some(3));
    assert!(recovers(&log, at(1, 3)) && !recovers(&log, at(1, 2)));
}

#[test]
fn encodings_count_for_as_long_as_their_entry_is_kept() {
    let slot = WireFormatId { wire: Arc::new(Upper), index: 0 };
    let plain = Entry::new(None, Content::Envelope(envelope("x"))).footprint;
    let log = Log::new(History { max_bytes: plain * 10, ..History::default() }, RetainedLimits::default());
    for offset in 1..=200 {
        log.push(Some(at(1, offset)), envelope("x"), None);
        for entry in log.read(0, 1000).entries {
            assert_eq!(entry.encode(&slot).unwrap().len(), plain);
        }
    }
    let kept = log.read(0, 1000).entries;
    assert!((5..=6).contains(&kept.len()), "{} entries of twice the size", kept.len());
    assert_eq!(log.encoded.load(Ordering::Relaxed), plain * kept.len());
}

/// Operations of a bus on positions.
#[derive(Debug, Clone, Copy)]
enum Step {
    Message,
    Skip(u64),
    /// This number of positions is lost.
    Hole(u64),
    Epoch,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Message),
        3 => (1_u64..5).prop_map(Step::Skip),
        1 => (1_u64..3).prop_map(Step::Hole),
        1 => Just(Step::Epoch),
    ]
}

proptest! {
    /// From every position on, a client gets what came behind it, in order, and a gap wherever something is missing.
    #[test]
    fn every_cursor_is_followed_by_all_that_came_behind_it(steps in prop::collection::vec(step(), 1..40)) {
        let log = log(1000);
        let mut next = at(1, 1);
        log.begin(Some(at(1, 0)));
        // `None` stands for what is missing.
        let mut history: Vec<Option<Position>> = Vec::new();
        // Each position, and how much of the history is before it.
        let mut cursors = vec![(at(1, 0), 0)];
        let mut missing = false;
        for step in steps {
            let count = match step {
                Step::Message | Step::Epoch => 1,
                Step::Skip(count) | Step::Hole(count) => count,
            };
            match step {
                Step::Hole(_) => missing = true,
                Step::Epoch => (missing, next) = (true, at(next.epoch + 1, 1)),
                Step::Message | Step::Skip(_) => {}
            }
            let through = at(next.epoch, next.offset + count - 1);
            if !matches!(step, Step::Hole(_)) {
                history.extend(std::mem::take(&mut missing).then_some(None));
            }
            match step {
                Step::Message | Step::Epoch => {
                    log.push(Some(next), envelope("x"), None);
                    history.push(Some(next));
                }
                Step::Skip(_) => {
                    log.push_skip(next, through);
                }
                Step::Hole(_) => {}
            }
            let seen = history.len();
            if !matches!(step, Step::Hole(_)) {
                cursors.extend((next.offset..=through.offset).map(|offset| (at(next.epoch, offset), seen)));
            }
            next = through.next();
        }
        for (cursor, seen) in cursors {
            let Resume::At(start) = log.resume(cursor) else { panic!("{cursor} is known") };
            let rest: Vec<_> = log.read(start.seq, 1000).entries.into_iter().filter_map(|entry| {
                match entry.content {
                    Content::Envelope(_) => Some(entry.position),
                    Content::Gap(_) => Some(None),
                    Content::Skip => None,
                }
            }).collect();
            prop_assert_eq!(&rest, &history[seen..], "behind {}", cursor);
            prop_assert_eq!(start.gap, None);
            prop_assert_eq!(start.recovered, !rest.contains(&None), "behind {}", cursor);
        }
    }
}

/// Encodes everything to as many bytes as an entry takes.
#[derive(Debug)]
struct Upper;

impl WireFormat for Upper {
    fn name(&self) -> &'static str {
        "upper"
    }

    fn message(&self, _: &Message, _: Option<&Topic>, _: Option<Position>) -> Bytes {
        vec![b'X'; Entry::new(None, Content::Envelope(envelope("x"))).footprint].into()
    }

    fn gap(&self, _: GapReason, _: Option<Position>, _: Option<SystemTime>, _: Duration) -> Option<Bytes> {
        None
    }

    fn heartbeat(&self, _: Option<Position>, _: crate::wire::BusState) -> Bytes {
        Bytes::new()
    }

    fn answers_heartbeat(&self) -> bool {
        false
    }
}

#[test]
fn many_targets_are_found_as_few_are() {
    let session = [Topic::user(&7.into()), Topic::new("role:admin").unwrap()];
    let own = OwnTopics::new(session.to_vec());
    let entry = |topics: Vec<Topic>| {
        let envelope = Envelope::to_topics(topics, Scope::Both, Message::text("x")).unwrap();
        Entry::new(None, Content::Envelope(Arc::new(envelope)))
    };
    let others = || (100..1000_i64).map(|user| Topic::user(&user.into()));
    let (id, transport) = (SessionId::random(), Transport::new("test"));
    assert!(!entry(others().collect()).is_for(id, transport, &own));
    assert!(entry(others().chain([Topic::user(&7.into())]).collect()).is_for(id, transport, &own));
    assert!(entry(others().chain([Topic::all()]).collect()).is_for(id, transport, &own));
    assert!(entry(vec![session[1].clone()]).is_for(id, transport, &own));
}

#[test]
fn an_entry_is_found_by_its_position_while_it_is_in_the_window() {
    let log = log(6);
    log.begin(Some(at(1, 0)));
    fill(&log, 1, 1..=3);
    log.push_skip(at(1, 4), at(1, 9));
    fill(&log, 1, 10..=11);
    fill(&log, 2, 1..=1);
    let found = |position| log.find(position).map(|(seq, entry)| (seq, entry.position.unwrap()));
    // The first entry has left, and the gap before the second epoch is an entry of its own.
    for (position, seq) in [(at(1, 3), 2), (at(1, 10), 4), (at(1, 11), 5), (at(2, 1), 7)] {
        assert_eq!(found(position), Some((seq, position)));
    }
    for absent in
        [at(1, 0), at(1, 1), at(1, 2), at(1, 5), at(1, 12), at(2, 0), at(2, 2), at(3, 1), at(1, u64::MAX)]
    {
        assert_eq!(found(absent), None, "{absent}");
    }
    assert_eq!(log.cursor(), Some(at(2, 1)));
}

//! [`StreamTable`]: the text streams that a node knows, with their text.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use super::{
    entry::{StreamEnd, StreamEntry, prefix},
    id::{StreamId, StreamKey},
};
use crate::{
    Topic,
    bus::StreamHead,
    log::{Content, Entry},
    settings::Streams,
};

/// The text streams that a node knows, with their text: filled by the bus's messages, in their order.
#[derive(Debug)]
pub(super) struct StreamTable {
    /// Number of streams, read without the lock.
    count: AtomicUsize,
    state: Mutex<State>,
    limits: Streams,
}

#[derive(Debug, Default)]
struct State {
    topics: HashMap<Topic, HashMap<StreamId, Known>>,
    count: usize,
    /// Bytes of all streams, and of the texts that are being written.
    bytes: usize,
    live: usize,
    /// Streams that have ended, oldest first; some may have begun anew.
    ended: VecDeque<(Instant, StreamKey, u64)>,
    /// Streams whose prefix messages were made in the last second.
    prefixed: Vec<StreamKey>,
}

/// Bytes that a stream takes besides its text and its names: its places in the maps and among the ended ones.
const OVERHEAD: usize = 512;

#[derive(Debug)]
struct Known {
    run: u64,
    len: u64,
    /// `None` if its beginning is not known.
    text: Option<String>,
    end: Option<StreamEnd>,
    /// The message with the text so far, made for the first session that gets it and kept for a second.
    prefix: Option<Arc<Entry>>,
}

/// Effect of an entry on the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    /// The stream has changed.
    Taken,
    /// The table had it already, or something newer.
    Known,
    /// Something before it is missing.
    Missed,
}

/// A text stream as a node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamText {
    /// The stream.
    pub key: StreamKey,
    /// Number of its newest writer.
    pub run: u64,
    /// The text so far.
    pub text: String,
    /// The end, unless it is being written.
    pub end: Option<StreamEnd>,
}

impl Known {
    /// Bytes of its text.
    fn bytes(&self) -> usize {
        self.text.as_ref().map_or(0, String::len)
    }

    /// Bytes that it takes.
    fn footprint(&self, key: &StreamKey) -> usize {
        self.bytes() + OVERHEAD + key.topic.as_str().len() + key.id.as_str().len()
    }
}

impl StreamTable {
    pub(super) fn new(limits: Streams) -> Self {
        Self { count: AtomicUsize::new(0), state: Mutex::default(), limits }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Takes an entry. Returns its effect, and the number of texts that were dropped early to make room.
    pub(super) fn apply(&self, entry: &StreamEntry, now: Instant) -> (Applied, usize) {
        let mut state = self.state();
        let text = entry.change.text();
        let after = entry.at.saturating_add(text.len() as u64);
        let known = state.topics.get_mut(&entry.key.topic).and_then(|ids| ids.get_mut(&entry.key.id));
        match known {
            Some(known) if entry.run < known.run => return (Applied::Known, 0),
            Some(known) if entry.run == known.run => {
                if known.end.is_some() {
                    return (Applied::Known, 0);
                }
                // An end decides about the length: what a bus has lost behind it is not part of the text.
                if entry.at < known.len && entry.change.end().is_none() {
                    return (Applied::Known, 0);
                }
                let before = known.bytes();
                (known.prefix, known.end) = (None, entry.change.end());
                // Within the known text, and not within a character: what is not of our making may be anywhere.
                let at = usize::try_from(entry.at).unwrap_or(usize::MAX);
                let fits = |known: &String| known.is_char_boundary(at);
                let missed = entry.at > known.len || known.text.as_ref().is_some_and(|known| !fits(known));
                match &mut known.text {
                    _ if missed => known.text = None,
                    Some(known) => {
                        known.truncate(at);
                        known.push_str(text);
                    }
                    None => {}
                }
                known.len = after;
                let (after, ended) = (known.bytes(), known.end.is_some());
                state.bytes = state.bytes + after - before;
                state.live = state.live + after - before;
                if ended {
                    state.live -= after;
                    state.ended.push_back((now, entry.key.clone(), entry.run));
                }
                let dropped = self.make_room(&mut state);
                return (if missed { Applied::Missed } else { Applied::Taken }, dropped);
            }
            _ => {}
        }
        let begins = entry.at == 0;
        let known = Known {
            run: entry.run,
            len: after,
            text: begins.then(|| text.to_owned()),
            end: entry.change.end(),
            prefix: None,
        };
        state.replace(&entry.key, known, now);
        let dropped = self.make_room(&mut state);
        (if begins { Applied::Taken } else { Applied::Missed }, dropped)
    }

    /// Returns `true` if a store's state of a stream is newer than the table's.
    pub(super) fn is_behind(&self, head: &StreamHead) -> bool {
        let state = self.state();
        let Some(known) = state.get(&head.key) else { return true };
        let state = |run, len, ended: bool| (run, len, ended);
        state(head.run, head.len, head.end.is_some()) > state(known.run, known.len, known.end.is_some())
            || (head.run == known.run && known.text.is_none())
    }

    /// Takes a stream from a store, if it is newer than the table's. Returns `true` if it has changed.
    pub(super) fn restore(&self, head: &StreamHead, text: String, now: Instant) -> bool {
        if text.len() as u64 != head.len || !self.is_behind(head) {
            return false;
        }
        let known = Known { run: head.run, len: head.len, text: Some(text), end: head.end, prefix: None };
        let mut state = self.state();
        state.replace(&head.key, known, now);
        self.make_room(&mut state);
        true
    }

    /// The prefix messages of a topic's streams.
    pub(super) fn prefixes(&self, topic: &Topic) -> Vec<Arc<Entry>> {
        let State { topics, prefixed, .. } = &mut *self.state();
        let Some(ids) = topics.get_mut(topic) else { return Vec::new() };
        ids.iter_mut().filter_map(|(id, known)| known.prefix(topic, id, prefixed)).collect()
    }

    /// The prefix message of one stream.
    pub(super) fn prefix(&self, key: &StreamKey) -> Option<Arc<Entry>> {
        let State { topics, prefixed, .. } = &mut *self.state();
        topics.get_mut(&key.topic)?.get_mut(&key.id)?.prefix(&key.topic, &key.id, prefixed)
    }

    pub(super) fn text(&self, key: &StreamKey) -> Option<StreamText> {
        let state = self.state();
        let known = state.get(key)?;
        Some(StreamText { key: key.clone(), run: known.run, text: known.text.clone()?, end: known.end })
    }

    /// The newest run of a stream; 0 if there is none.
    pub(super) fn run(&self, key: &StreamKey) -> u64 {
        self.state().get(key).map_or(0, |known| known.run)
    }

    /// The streams that are being written: key, run and length.
    pub(super) fn live(&self) -> Vec<(StreamKey, u64, u64)> {
        let state = self.state();
        let live = state
            .topics
            .iter()
            .flat_map(|(topic, ids)| ids.iter().map(move |(id, known)| (topic, id, known)));
        let live = live.filter(|(.., known)| known.end.is_none());
        live.map(|(topic, id, known)| {
            (StreamKey { topic: topic.clone(), id: id.clone() }, known.run, known.len)
        })
        .collect()
    }

    /// Returns `true` if more bytes of streams that are being written fit.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.state().live + bytes <= self.limits.max_node_bytes
    }

    /// Forgets the streams that ended long ago, and prefixes, whose memory is bounded by nothing else. Called once a second.
    pub(super) fn expire(&self, now: Instant) {
        let mut state = self.state();
        for key in mem::take(&mut state.prefixed) {
            if let Some(known) = state.topics.get_mut(&key.topic).and_then(|ids| ids.get_mut(&key.id)) {
                known.prefix = None;
            }
        }
        while let Some((at, ..)) = state.ended.front()
            && now.saturating_duration_since(*at) >= self.limits.keep
        {
            state.drop_oldest();
        }
        self.count.store(state.count, Ordering::Release);
    }

    /// Forgets ended streams, oldest first, until the others fit. Returns their number.
    fn make_room(&self, state: &mut State) -> usize {
        let mut dropped = 0;
        while state.bytes > self.limits.max_node_bytes && !state.ended.is_empty() {
            dropped += usize::from(state.drop_oldest());
        }
        self.count.store(state.count, Ordering::Release);
        dropped
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Its prefix message, which is noted in `made` if it was not there.
    fn prefix(&mut self, topic: &Topic, id: &StreamId, made: &mut Vec<StreamKey>) -> Option<Arc<Entry>> {
        let text = self.text.as_ref()?;
        let prefix = self.prefix.get_or_insert_with(|| {
            let key = StreamKey { topic: topic.clone(), id: id.clone() };
            let envelope = prefix(&key, self.run, text, self.end);
            made.push(key);
            Arc::new(Entry::new(None, Content::Envelope(Arc::new(envelope))))
        });
        Some(Arc::clone(prefix))
    }
}

impl State {
    fn get(&self, key: &StreamKey) -> Option<&Known> {
        self.topics.get(&key.topic)?.get(&key.id)
    }

    fn replace(&mut self, key: &StreamKey, known: Known, now: Instant) {
        self.bytes += known.footprint(key);
        if known.end.is_none() {
            self.live += known.bytes();
        } else {
            self.ended.push_back((now, key.clone(), known.run));
        }
        let old = self.topics.entry(key.topic.clone()).or_default().insert(key.id.clone(), known);
        match old {
            Some(old) => self.forget(key, &old),
            None => self.count += 1,
        }
    }

    /// Takes the bytes of a stream off the counts.
    fn forget(&mut self, key: &StreamKey, known: &Known) {
        self.bytes -= known.footprint(key);
        if known.end.is_none() {
            self.live -= known.bytes();
        }
    }

    /// Removes the stream that ended first. Returns `false` if it has begun anew since.
    fn drop_oldest(&mut self) -> bool {
        let Some((_, key, run)) = self.ended.pop_front() else { return false };
        if self.get(&key).is_none_or(|known| known.run != run || known.end.is_none()) {
            return false;
        }
        let Some(ids) = self.topics.get_mut(&key.topic) else { return false };
        let Some(known) = ids.remove(&key.id) else { return false };
        if ids.is_empty() {
            self.topics.remove(&key.topic);
        }
        self.forget(&key, &known);
        self.count -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::streams::StreamChange;

    fn key(id: &str) -> StreamKey {
        StreamKey { topic: Topic::user(&7.into()), id: StreamId::new(id).unwrap() }
    }

    fn text(id: &str, run: u64, at: u64, text: &str) -> StreamEntry {
        StreamEntry { key: key(id), run, at, change: StreamChange::Text(text.to_owned().into()) }
    }

    fn end(id: &str, run: u64, at: u64) -> StreamEntry {
        StreamEntry { key: key(id), run, at, change: StreamChange::End(StreamEnd::Done) }
    }

    impl StreamTable {
        /// The bytes of all texts, and of those that are being written.
        fn bytes(&self) -> (usize, usize) {
            let state = self.state();
            let names = state
                .topics
                .iter()
                .flat_map(|(topic, ids)| ids.keys().map(|id| topic.as_str().len() + id.as_str().len()));
            (state.bytes - state.count * OVERHEAD - names.sum::<usize>(), state.live)
        }
    }

    fn table(max_node_bytes: usize) -> StreamTable {
        let limits = Streams { max_node_bytes, ..Streams::default() };
        StreamTable::new(limits)
    }

    #[test]
    fn entries_are_ordered_by_run_and_length() {
        let (table, now) = (table(1000), Instant::now());
        let apply = |entry: StreamEntry| table.apply(&entry, now).0;
        assert_eq!(apply(text("a", 2, 0, "Hel")), Applied::Taken);
        assert_eq!(apply(text("a", 2, 3, "lo")), Applied::Taken);
        assert_eq!(apply(text("a", 2, 3, "lo")), Applied::Known, "twice");
        assert_eq!(apply(text("a", 1, 5, "!")), Applied::Known, "of an earlier writer");
        assert_eq!(table.text(&key("a")).unwrap().text, "Hello");
        assert_eq!(apply(end("a", 2, 5)), Applied::Taken);
        assert_eq!(apply(text("a", 2, 5, "!")), Applied::Known, "after the end");
        assert_eq!(apply(text("a", 3, 0, "")), Applied::Taken);
        let now = table.text(&key("a")).unwrap();
        assert_eq!((now.run, now.text.as_str(), now.end), (3, "", None));
    }

    #[test]
    fn a_stream_that_has_missed_something_has_no_text_until_it_is_restored() {
        let (table, now) = (table(1000), Instant::now());
        for begin in [0, 1] {
            let id = format!("a{begin}");
            if begin == 1 {
                table.apply(&text(&id, 1, 0, "He"), now);
            }
            assert_eq!(table.apply(&text(&id, 1, 3, "lo"), now).0, Applied::Missed);
            assert_eq!(table.apply(&text(&id, 1, 5, "!"), now).0, Applied::Taken, "said once");
            assert_eq!(table.text(&key(&id)), None);
            assert!(table.prefix(&key(&id)).is_none());
            let head = StreamHead { key: key(&id), run: 1, writer: String::new(), len: 6, end: None };
            assert!(table.is_behind(&head));
            assert!(!table.restore(&head, "Hello".into(), now), "a text of another length");
            assert!(table.restore(&head, "Hello!".into(), now));
            assert!(!table.restore(&head, "Hello!".into(), now));
            assert_eq!(table.apply(&text(&id, 1, 6, "?"), now).0, Applied::Taken);
            assert_eq!(table.text(&key(&id)).unwrap().text, "Hello!?");
        }
    }

    #[test]
    fn an_end_decides_about_the_length() {
        let (table, now) = (table(1000), Instant::now());
        table.apply(&text("a", 1, 0, "Hello"), now);
        assert_eq!(table.apply(&end("a", 1, 3), now).0, Applied::Taken);
        assert_eq!(table.text(&key("a")).unwrap().text, "Hel");
        assert_eq!(table.bytes(), (3, 0));
    }

    #[test]
    fn an_entry_that_cannot_be_of_this_stream_costs_its_text_and_nothing_else() {
        let (table, now) = (table(1000), Instant::now());
        table.apply(&text("a", 1, 0, "ä"), now);
        assert_eq!(table.apply(&end("a", 1, 1), now).0, Applied::Missed, "within a character");
        assert_eq!((table.text(&key("a")), table.bytes()), (None, (0, 0)));
        table.apply(&text("b", u64::MAX, u64::MAX, "Hello"), now);
        assert_eq!(table.apply(&text("b", u64::MAX, u64::MAX, "Hello"), now).0, Applied::Taken);
        assert_eq!((table.text(&key("b")), table.bytes()), (None, (0, 0)));
    }

    #[test]
    fn ended_streams_make_room_oldest_first_and_live_ones_stay() {
        // Two streams fit with ten bytes of text.
        let each = OVERHEAD + key("a").topic.as_str().len() + 1;
        let (table, now) = (table(2 * each + 10), Instant::now());
        for id in ["a", "b"] {
            table.apply(&text(id, 1, 0, "1234"), now);
            table.apply(&end(id, 1, 4), now);
        }
        assert!(table.has_room(2 * each + 10), "ended ones give way");
        assert_eq!(table.apply(&text("c", 1, 0, "12345"), now), (Applied::Taken, 1));
        assert!(table.text(&key("a")).is_none() && table.text(&key("b")).is_some());
        assert!(table.has_room(2 * each + 5) && !table.has_room(2 * each + 6));
        assert_eq!(table.apply(&text("c", 1, 5, "12345678"), now), (Applied::Taken, 1));
        assert_eq!(table.text(&key("c")).unwrap().text.len(), 13);
        assert!(table.text(&key("b")).is_none());
    }

    #[test]
    fn streams_with_short_texts_are_bounded_by_what_they_take() {
        let (table, now) = (table(1 << 20), Instant::now());
        let mut dropped = 0;
        for id in 0..10_000 {
            dropped += table.apply(&text(&id.to_string(), 1, 0, "x"), now).1;
            dropped += table.apply(&end(&id.to_string(), 1, 1), now).1;
        }
        let left = table.prefixes(&key("a").topic).len();
        assert!((1_900..2_100).contains(&left), "{left}");
        assert_eq!(left + dropped, 10_000);
    }

    #[test]
    fn prefixes_are_kept_for_a_second() {
        let (table, now) = (table(1 << 20), Instant::now());
        for id in ["a", "b"] {
            table.apply(&text(id, 1, 0, "x"), now);
        }
        let first = table.prefix(&key("a")).unwrap();
        assert!(Arc::ptr_eq(&first, &table.prefix(&key("a")).unwrap()));
        assert_eq!(table.prefixes(&key("a").topic).len(), 2);
        assert_eq!(Arc::strong_count(&first), 2);
        table.expire(now);
        assert_eq!(Arc::strong_count(&first), 1);
        assert!(!Arc::ptr_eq(&first, &table.prefix(&key("a")).unwrap()));
    }

    #[test]
    fn an_ended_stream_is_kept_for_its_time_and_a_new_run_stays() {
        let (table, now) = (table(2000), Instant::now());
        let keep = table.limits.keep;
        for id in ["a", "b"] {
            table.apply(&text(id, 1, 0, "1234"), now);
            table.apply(&end(id, 1, 4), now);
        }
        table.apply(&text("b", 2, 0, "x"), now);
        table.expire(now + keep - Duration::from_millis(1));
        assert!(table.text(&key("a")).is_some());
        table.expire(now + keep);
        assert!(table.text(&key("a")).is_none());
        assert_eq!(table.text(&key("b")).unwrap().text, "x");
        assert_eq!(table.live(), [(key("b"), 2, 1)]);
        assert_eq!(table.bytes(), (1, 1));
        table.apply(&end("b", 2, 1), now + keep);
        table.expire(now + keep * 2);
        assert!(table.is_empty());
    }
}

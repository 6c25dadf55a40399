//! [`Retained`]: the last messages of named topics, for sessions that enter them later.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::Arc,
    time::Instant,
};

use smallvec::SmallVec;

use super::entry::{Content, Entry};
use crate::{
    CollapseKey, Envelope, Position, Topic,
    bus::RetainedMessage,
    initial::{InitialEntries, InitialSource, StartPoint},
    settings::RetainedLimits,
    sync::{Mutex, lock},
};

/// The last message of each named topic and collapse key that was published to be retained.
///
/// Its messages have entries of their own, since a session that enters gets them without a position: several of them may
/// be older than its cursor, and none moves it.
#[derive(Debug)]
pub(crate) struct Retained {
    table: Mutex<Table>,
    limits: RetainedLimits,
}

#[derive(Debug, Default)]
struct Table {
    topics: HashMap<Topic, HashMap<Option<CollapseKey>, Value>>,
    /// The values in the order in which they were published; the oldest go first.
    order: BTreeMap<u64, (Topic, Option<CollapseKey>)>,
    /// The values with an end, by that.
    ends: BTreeSet<(Instant, u64)>,
    bytes: usize,
    /// The number of the next value.
    next: u64,
    dropped: u64,
}

#[derive(Debug)]
struct Value {
    /// Its number in the table.
    number: u64,
    published: Published,
    end: Option<Instant>,
    bytes: usize,
    entry: Arc<Entry>,
}

/// Place of a value in the order of messages.
#[derive(Debug, Clone, Copy)]
struct Published {
    position: Option<Position>,
    /// The sequence number, if the value came through the log.
    seq: Option<u64>,
}

impl Retained {
    pub(crate) fn new(limits: RetainedLimits) -> Self {
        Self { table: Mutex::default(), limits }
    }

    /// Takes a published envelope that is to be retained.
    pub(super) fn insert(
        &self,
        seq: u64,
        position: Option<Position>,
        envelope: &Arc<Envelope>,
        end: Option<Instant>,
    ) {
        let mut table = lock(&self.table);
        table.insert(Published { position, seq: Some(seq) }, envelope, end, &self.limits);
        table.trim(&self.limits);
    }

    /// Replaces all values by those that the bus retains.
    pub(crate) fn replace(&self, mut messages: Vec<RetainedMessage>) {
        messages.sort_by_key(|message| message.position);
        // Filled outside of the lock, which is held by nobody else who inserts: one task takes what comes from the bus.
        let mut table = Table { dropped: lock(&self.table).dropped, ..Table::default() };
        for RetainedMessage { position, envelope, end } in messages {
            table.insert(Published { position, seq: None }, &envelope, end, &self.limits);
        }
        table.trim(&self.limits);
        let old = mem::replace(&mut *lock(&self.table), table);
        // After the lock is released.
        drop(old);
    }

    /// Drops values whose time is over.
    pub(super) fn trim(&self) {
        let mut table = lock(&self.table);
        if !table.ends.is_empty() {
            table.remove_ended(Instant::now());
        }
    }

    /// Number of messages that were dropped because of the bounds.
    pub(crate) fn dropped(&self) -> u64 {
        lock(&self.table).dropped
    }
}

impl InitialSource for Retained {
    fn is_empty(&self) -> bool {
        lock(&self.table).topics.is_empty()
    }

    /// Adds the messages of a topic. One that was published at or after `start` is not among them: it reaches the session
    /// as new.
    fn entries(&self, topic: &Topic, start: StartPoint, entries: &mut InitialEntries) {
        let table = lock(&self.table);
        let Some(values) = table.topics.get(topic) else { return };
        let now = Instant::now();
        let is_due = |value: &&Value| {
            let is_before = match value.published.seq {
                Some(seq) => seq < start.seq,
                None => value.published.position <= start.position,
            };
            is_before && value.end.is_none_or(|end| end > now)
        };
        let mut values: SmallVec<[&Value; 4]> = values.values().filter(is_due).collect();
        values.sort_unstable_by_key(|value| value.number);
        entries.extend(values.into_iter().map(|value| Arc::clone(&value.entry)));
    }
}

impl Table {
    /// Adds a value, unless it is over already. Values whose time is over go before any other.
    fn insert(
        &mut self,
        published: Published,
        envelope: &Arc<Envelope>,
        end: Option<Instant>,
        limits: &RetainedLimits,
    ) {
        let Some(topic) = envelope.named_topic() else { return };
        let key = envelope.collapse_key().cloned();
        if let Some(old) = self.topics.get(topic).and_then(|values| values.get(&key)) {
            // What the bus retained when this node started may be newer than the entries that it then reads.
            if published.position < old.published.position {
                return;
            }
            self.remove(old.number);
        }
        let now = Instant::now();
        self.remove_ended(now);
        if envelope.message().data.as_bytes().is_empty() || end.is_some_and(|end| end <= now) {
            return;
        }
        let number = self.next;
        self.next += 1;
        let entry = Arc::new(Entry::new(None, Content::Envelope(Arc::clone(envelope))));
        let bytes = entry.footprint + size_of::<Value>();
        self.order.insert(number, (topic.clone(), key.clone()));
        self.ends.extend(end.map(|end| (end, number)));
        self.bytes += bytes;
        let values = self.topics.entry(topic.clone()).or_default();
        values.insert(key, Value { number, published, end, bytes, entry });
        if values.len() > limits.max_per_topic
            && let Some(oldest) = values.values().map(|value| value.number).min()
        {
            self.remove(oldest);
            self.dropped += 1;
        }
    }

    fn remove(&mut self, number: u64) {
        let Some((topic, key)) = self.order.remove(&number) else { return };
        let Some(values) = self.topics.get_mut(&topic) else { return };
        if let Some(value) = values.remove(&key) {
            self.bytes -= value.bytes;
            if let Some(end) = value.end {
                self.ends.remove(&(end, number));
            }
        }
        if values.is_empty() {
            self.topics.remove(&topic);
        }
    }

    /// Removes values whose time is over.
    fn remove_ended(&mut self, now: Instant) {
        while let Some(&(end, number)) = self.ends.first()
            && end <= now
        {
            self.remove(number);
        }
    }

    /// Removes the oldest values beyond the limits.
    fn trim(&mut self, limits: &RetainedLimits) {
        while (self.order.len() > limits.max_messages || self.bytes > limits.max_bytes)
            && let Some((&oldest, _)) = self.order.first_key_value()
        {
            self.remove(oldest);
            self.dropped += 1;
        }
    }
}

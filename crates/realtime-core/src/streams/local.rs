//! [`NodeStreams`]: a node's text streams and their writers on this node.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{
    entry::StreamEntry,
    id::StreamKey,
    table::{Applied, StreamTable, StreamText},
    writer_state::{StreamError, WriterState},
};
use crate::{
    Envelope, EventName, Topic,
    initial::{InitialEntries, InitialSource, StartPoint},
    settings::Streams,
};

/// The text streams that a node knows, and those that are written on it.
#[derive(Debug)]
pub(crate) struct NodeStreams {
    pub(super) table: StreamTable,
    writers: Mutex<HashMap<StreamKey, Weak<WriterState>>>,
    /// Something may be missing in the table.
    doubted: AtomicBool,
    limits: Streams,
}

impl NodeStreams {
    pub(crate) fn new(limits: Streams) -> Self {
        Self {
            table: StreamTable::new(limits.clone()),
            writers: Mutex::default(),
            doubted: AtomicBool::default(),
            limits,
        }
    }

    /// Takes a message of the bus, before it is in the log: so the text is never older than what a session reads there.
    /// Returns the number of ended streams that were dropped early to make room; `None` for a message of a text stream that
    /// this version does not understand.
    pub(crate) fn apply(&self, envelope: &Envelope) -> Option<usize> {
        if envelope.message().event.as_str() != EventName::STREAM {
            return Some(0);
        }
        let entry = StreamEntry::decode(envelope)?;
        let (applied, dropped) = self.table.apply(&entry, Instant::now());
        if applied == Applied::Missed {
            self.doubt();
        }
        // A writer on this node may not know yet that it was fenced.
        if let Some(writer) = self.writer(&entry.key) {
            writer.see(&entry);
        }
        Some(dropped)
    }

    /// Records that something may be missing in the table.
    pub(crate) fn doubt(&self) {
        self.doubted.store(true, Ordering::Release);
    }

    /// Returns `true` if something may be missing in the table.
    pub(crate) fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::Acquire)
    }

    pub(super) fn set_doubted(&self, doubted: bool) {
        self.doubted.store(doubted, Ordering::Release);
    }

    /// A stream and its text so far.
    pub(crate) fn text(&self, key: &StreamKey) -> Option<StreamText> {
        self.table.text(key)
    }

    /// Asks the writer of a stream to stop, if it is on this node. Returns the number of writers that were asked.
    pub(crate) fn stop(&self, key: &StreamKey) -> usize {
        self.writer(key).map_or(0, |writer| usize::from(writer.stop()))
    }

    pub(super) fn limits(&self) -> &Streams {
        &self.limits
    }

    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.table.has_room(bytes)
    }

    /// Registers a writer. Of two of the same stream the one with the lower run is fenced: the later call may be that of the
    /// earlier writer.
    pub(super) fn add(&self, writer: &Arc<WriterState>) {
        let fenced = {
            let mut writers = self.writers();
            match writers.get(&writer.key).and_then(Weak::upgrade) {
                Some(before) if before.lock().run > writer.lock().run => Some(Arc::clone(writer)),
                before => {
                    writers.insert(writer.key.clone(), Arc::downgrade(writer));
                    before
                }
            }
        };
        if let Some(fenced) = fenced {
            fenced.end(Err(StreamError::Fenced(fenced.key.clone())));
        }
    }

    /// Removes a writer that has ended.
    pub(super) fn remove(&self, writer: &Arc<WriterState>) {
        let mut writers = self.writers();
        if writers.get(&writer.key).is_some_and(|known| known.ptr_eq(&Arc::downgrade(writer))) {
            writers.remove(&writer.key);
        }
    }

    /// The writers on this node.
    pub(super) fn all_writers(&self) -> Vec<Arc<WriterState>> {
        self.writers().values().filter_map(Weak::upgrade).collect()
    }

    fn writer(&self, key: &StreamKey) -> Option<Arc<WriterState>> {
        self.writers().get(key).and_then(Weak::upgrade)
    }

    fn writers(&self) -> MutexGuard<'_, HashMap<StreamKey, Weak<WriterState>>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sessions get the texts so far. They may be newer than the point from which on a session reads the log: what it reads
/// again is at a place that its client has already.
impl InitialSource for NodeStreams {
    fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    fn entries(&self, topic: &Topic, _: StartPoint, entries: &mut InitialEntries) {
        entries.extend(self.table.prefixes(topic));
    }
}

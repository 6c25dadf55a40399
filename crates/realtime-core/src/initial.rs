//! [`InitialSource`]: entries that a session gets first when it enters a topic.

use std::{fmt, sync::Arc};

use smallvec::SmallVec;

use crate::{Position, Topic, log::Entry};

/// Source of entries that a session gets before the messages of a topic that it enters: the topic's retained messages,
/// the text so far of its streams.
///
/// It is asked when a session begins, unless the session gets everything since its client's cursor, and when a session
/// is subscribed to a topic later. A hub's sources are the elements of `Node::initial`.
pub(crate) trait InitialSource: fmt::Debug + Send + Sync {
    /// Returns `true` if no topic has entries at the moment: then sessions do not ask for any.
    fn is_empty(&self) -> bool;

    /// Adds the entries of a topic, oldest first, that belong to this topic alone. Each has no position
    /// (`Entry::new(None, ..)`), since that would become the client's cursor. An entry that is shared by all callers is encoded
    /// once.
    ///
    /// The session gets everything in the topic from `start` on, so entries for what is there already are not needed.
    ///
    /// It is called under a shard's lock: it must neither wait nor call the shard, and its own lock may be held only
    /// for short.
    fn entries(&self, topic: &Topic, start: StartPoint, entries: &mut InitialEntries);
}

/// Point of the log from which on a session gets a topic's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StartPoint {
    /// The sequence number of the first entry that it gets.
    pub(crate) seq: u64,
    /// The position before that entry; `None` if it is not known or the bus has no positions.
    pub(crate) position: Option<Position>,
}

/// Entries for one session; most have none.
pub(crate) type InitialEntries = SmallVec<[Arc<Entry>; 1]>;

//! [`Record`]: what the in-memory bus knows of its text streams.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    Position,
    bus::{StreamHead, StreamWrite, StreamWritten, WriteCondition},
    streams::{StreamEnd, StreamKey},
};

/// The text streams of the in-memory bus, by key.
pub(super) type Records = HashMap<StreamKey, Record>;

/// What the bus knows of a text stream. The text itself is with the hubs only: all of them get everything.
#[derive(Debug)]
pub(super) struct Record {
    run: u64,
    writer: String,
    /// Length of the text, and before the last entry.
    len: u64,
    from: u64,
    end: Option<StreamEnd>,
    /// Position of the last entry.
    last: Position,
    /// Time at which the writer's lease was last renewed.
    renewed: Instant,
    /// Time after which it is forgotten.
    until: Option<Instant>,
}

/// Time after which a writer of which nothing was heard has no lease any more: its hub was dropped.
const LEASE: Duration = Duration::from_secs(9);

/// Check of an entry.
pub(super) enum Checked {
    /// It is to be published.
    Continues,
    /// It is not, and this is the answer.
    Answered(StreamWritten),
}

/// Checks an entry against a stream's record, as [`StreamStore::write`] describes.
pub(super) fn check(record: Option<&Record>, write: &StreamWrite<'_>) -> Checked {
    let entry = write.entry;
    let lost = Checked::Answered(StreamWritten::Lost);
    let Some(record) = record.filter(|record| entry.run <= record.run) else {
        let begins = entry.at == 0 && entry.change.end().is_none();
        let is_orphan = record.is_none() && write.condition == WriteCondition::IfAbandoned;
        return if begins || is_orphan { Checked::Continues } else { lost };
    };
    let fenced = Checked::Answered(StreamWritten::Fenced { run: record.run });
    let after = entry.at + entry.change.text().len() as u64;
    if entry.run < record.run || write.writer != record.writer {
        fenced
    } else if record.end == entry.change.end() && record.len == after && record.from == entry.at {
        Checked::Answered(StreamWritten::Added(record.last))
    } else if record.end.is_some() {
        fenced
    } else if record.len < entry.at {
        lost
    } else if record.len > entry.at
        || (write.condition == WriteCondition::IfAbandoned && !record.is_abandoned())
    {
        fenced
    } else {
        Checked::Continues
    }
}

impl Record {
    /// The record after an entry.
    pub(super) fn after(write: &StreamWrite<'_>, last: Position) -> Self {
        let entry = write.entry;
        let end = entry.change.end();
        Self {
            run: entry.run,
            writer: write.writer.to_owned(),
            len: entry.at + entry.change.text().len() as u64,
            from: entry.at,
            end,
            last,
            renewed: Instant::now(),
            until: end.and_then(|_| Instant::now().checked_add(write.keep)),
        }
    }

    pub(super) fn is_kept(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Renews the writer's lease. Returns `false` if the stream has ended.
    pub(super) fn renew(&mut self) -> bool {
        self.renewed = Instant::now();
        self.end.is_none()
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.end.is_none() && self.renewed.elapsed() >= LEASE
    }

    pub(super) fn head(&self, key: &StreamKey) -> StreamHead {
        StreamHead {
            key: key.clone(),
            run: self.run,
            writer: self.writer.clone(),
            len: self.len,
            end: self.end,
        }
    }
}

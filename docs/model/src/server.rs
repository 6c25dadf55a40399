//! [`Server`]: one Redis and its stream.

use crate::{
    position::Position,
    rules::{Claim, Numbering, Rules},
};

/// One Redis and its stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// The replication id.
    pub replication: u8,
    /// Everything that was added, trimmed or not.
    pub history: Vec<Entry>,
    /// Number of entries that are not in the stream any more.
    pub trimmed: usize,
}

/// An entry of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its id.
    pub position: Position,
    /// Its content.
    pub content: Content,
}

/// Content of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// An epoch began; the replication id was stored with it.
    Claim(u8),
    /// A message, by its number.
    Message(u8),
    /// A node's heartbeat.
    Beat(usize),
}

impl Server {
    pub(crate) fn new(replication: u8) -> Self {
        Self { replication, history: Vec::new(), trimmed: 0 }
    }

    /// The replica that lacks what came after the first entries, promoted.
    pub(crate) fn promoted(&self, keep: usize, replication: u8) -> Self {
        let history = self.history[..keep].to_vec();
        Self { replication, history, trimmed: self.trimmed.min(keep) }
    }

    pub(crate) fn last(&self) -> Option<Position> {
        self.history.last().map(|entry| entry.position)
    }

    /// The entries that are in the stream.
    pub(crate) fn stream(&self) -> &[Entry] {
        &self.history[self.trimmed..]
    }

    /// The first entry after a position.
    pub(crate) fn after(&self, last: Option<Position>) -> Option<Entry> {
        self.stream().iter().find(|entry| Some(entry.position) > last).copied()
    }

    /// Adds an entry as `<epoch>-*`. `None`: the stream is gone, or has a newer epoch.
    pub(crate) fn add(&mut self, epoch: u8, content: Content) -> Option<Position> {
        let last = self.last()?;
        if epoch < last.epoch {
            return None;
        }
        let position = if epoch == last.epoch { last.next() } else { Position { epoch, offset: 0 } };
        self.history.push(Entry { position, content });
        Some(position)
    }

    /// The claim script: the last position of an epoch that stands for this server's history. `seen` is the highest
    /// epoch that the node has seen, `clock` the highest that was ever claimed.
    pub(crate) fn claim(&mut self, seen: u8, clock: &mut u8, rules: Rules) -> Position {
        let stored = self.history.iter().rev().find_map(|entry| match entry.content {
            Content::Claim(replication) => Some((entry.position.epoch, replication)),
            _ => None,
        });
        if let (Some((epoch, replication)), Some(last)) = (stored, self.last())
            && (replication == self.replication || rules.claim == Claim::Blind)
            && epoch >= seen
            && epoch == last.epoch
        {
            return last;
        }
        let known = self.last().map_or(0, |last| last.epoch).max(seen);
        let epoch = match rules.numbering {
            Numbering::Clock => *clock + 1,
            Numbering::Counter => known + 1,
        };
        *clock = epoch.max(*clock);
        let position = Position { epoch, offset: 0 };
        self.history.push(Entry { position, content: Content::Claim(self.replication) });
        position
    }
}

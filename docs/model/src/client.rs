//! [`Client`]: one client that moves between nodes, and everything that it has received.

use crate::{log::Log, position::Position};

/// One client that moves between nodes, and everything that it has received.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Client {
    /// Cursor that it brings to the next connection.
    pub cursor: Option<Position>,
    /// Everything after this position is due to it.
    pub since: Option<Position>,
    /// The messages that it got, as bits.
    pub delivered: u16,
    /// The position of the newest message that it got.
    pub newest: Option<Position>,
    /// Announced gaps: behind the first position, up to the second.
    pub gaps: Vec<(Position, Position)>,
    /// Its connection.
    pub session: Option<Session>,
    /// Violations that were observed.
    pub faults: Faults,
}

/// Violations of the properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Faults {
    /// A message came twice.
    pub twice: bool,
    /// A message came behind a later one.
    pub inverted: bool,
    /// An id was before the one that the client had.
    pub went_back: bool,
    /// A gap was announced where nothing is missing, or passed over messages that the log has.
    pub false_gap: bool,
    /// A client without a cursor got what its node read to find its own beginning.
    pub old_as_new: bool,
    /// A session was ended before it had got what was acknowledged before.
    pub ended_early: bool,
}

/// A connection to a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Session {
    /// The node.
    pub node: usize,
    /// Stage of the session.
    pub stage: Stage,
    /// Frames that are sent before anything of the log.
    pub frames: Vec<Frame>,
    /// It was kicked.
    pub end: Option<End>,
}

/// The end of a session that was kicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct End {
    /// After this position.
    pub fence: Position,
    /// The messages that were acknowledged before, as bits.
    pub due: u16,
}

/// Stage of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It waits until the node has read the stream.
    Early,
    /// Its cursor is ahead of the log. It waits for the log, or for the heartbeat that this node wrote next, or for a
    /// message of this node that stands for as much.
    Ahead {
        /// The position of that entry, once it is written.
        heartbeat: Option<Position>,
    },
    /// It gets the entry at this place next.
    Serving {
        /// The place.
        next: usize,
    },
}

/// Frames that are sent before anything of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Frame {
    /// The first block, with an id.
    Head(Option<Position>),
    /// Something is missing up to here.
    Gap {
        /// The id.
        to: Position,
        /// Something is.
        justified: bool,
    },
}

impl Client {
    /// Returns whether a gap up to here is justified: something may be missing, and nothing is passed over that the log
    /// has.
    pub(crate) fn lacks(&self, to: Position, log: &Log) -> bool {
        let Some(from) = self.cursor.or(self.since) else { return false };
        from < to && !log.holds(from, to) && !log.has_message(from, to)
    }

    pub(crate) fn take_id(&mut self, id: Option<Position>) {
        if let Some(id) = id {
            self.faults.went_back |= self.cursor > Some(id);
            self.cursor = Some(id);
        }
    }

    pub(crate) fn take_message(&mut self, number: u8, position: Position) {
        let bit = 1 << number;
        self.faults.twice |= self.delivered & bit != 0;
        self.faults.old_as_new |= self.since.is_none() && self.cursor.is_none();
        self.faults.inverted |= self.newest > Some(position);
        self.delivered |= bit;
        self.newest = self.newest.max(Some(position));
        self.take_id(Some(position));
    }

    pub(crate) fn take_gap(&mut self, to: Position, justified: bool) {
        self.faults.false_gap |= !justified;
        match self.cursor.or(self.since) {
            Some(from) if from < to => self.gaps.push((from, to)),
            // The cursor was none of this history: everything from here on is due.
            _ => self.since = Some(to),
        }
        self.take_id(Some(to));
    }

    /// Returns whether a message was delivered or lies in an announced gap.
    pub(crate) fn knows_of(&self, number: u8, position: Position) -> bool {
        self.delivered & (1 << number) != 0
            || self.gaps.iter().any(|(from, to)| *from < position && position <= *to)
    }
}

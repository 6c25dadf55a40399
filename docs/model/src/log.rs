//! [`Log`]: the window of entries that a node keeps, and how a cursor is looked up in it.

use crate::{
    position::Position,
    rules::{Ahead, Rules, UnknownEpoch},
};

/// The window of entries that a node keeps. A *place* counts all that were ever in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Log {
    /// The place of the oldest entry.
    pub first: usize,
    /// Entries in the window.
    pub entries: Vec<Item>,
    /// From a place on, positions count up from this one.
    pub runs: Vec<Run>,
}

/// An entry of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Item {
    /// A message for the client.
    Message(u8),
    /// A position without a message.
    Marker,
    /// Something is missing up to here.
    Gap(Position),
}

/// From `place` on, entries have the positions `start`, `start.next()`, ...
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Run {
    /// The place of its first entry.
    pub place: usize,
    /// The position of its first entry.
    pub start: Position,
}

/// Continuation of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resume {
    /// Everything from here on is what the client lacks.
    At(usize),
    /// Something is missing before this place.
    Lost(usize),
    /// The log has not come to the cursor.
    Ahead,
}

impl Run {
    fn position_at(&self, place: usize) -> Position {
        Position { offset: self.start.offset + (place - self.place) as u8, ..self.start }
    }
}

impl Log {
    pub(crate) fn end(&self) -> usize {
        self.first + self.entries.len()
    }

    pub(crate) fn get(&self, place: usize) -> Option<Item> {
        self.entries.get(place.checked_sub(self.first)?).copied()
    }

    pub(crate) fn append(&mut self, position: Position, item: Item) {
        let expected = self.runs.last().map(|run| run.position_at(self.end()));
        if expected != Some(position) {
            if expected.is_some() {
                self.entries.push(Item::Gap(position.previous()));
            }
            self.runs.push(Run { place: self.end(), start: position });
        }
        self.entries.push(item);
    }

    /// Begins after this position: what was there is not known.
    pub(crate) fn begin_after(&mut self, position: Position) {
        *self = Self { runs: vec![Run { place: 0, start: position.next() }], ..Self::default() };
    }

    /// Forgets the oldest entry.
    pub(crate) fn trim(&mut self) {
        self.entries.remove(0);
        self.first += 1;
        while self.runs.len() > 1 && self.runs[1].place <= self.first {
            self.runs.remove(0);
        }
    }

    /// The position before a place, in the oldest run when that of the place is gone.
    pub(crate) fn cursor_at(&self, place: usize) -> Option<Position> {
        let run = self.runs.iter().rev().find(|run| run.place <= place).or(self.runs.first())?;
        Some(run.position_at(place.max(run.place)).previous())
    }

    /// The position of the entry at a place.
    pub(crate) fn position_at(&self, place: usize) -> Position {
        let run = self.runs.iter().rev().find(|run| run.place <= place);
        run.expect("an entry is in a run").position_at(place)
    }

    /// Returns whether the window has every entry behind one position, up to and including another.
    pub(crate) fn holds(&self, from: Position, to: Position) -> bool {
        from.epoch == to.epoch
            && (from.offset + 1..=to.offset).all(|offset| {
                (self.first..self.end()).any(|place| {
                    !matches!(self.get(place), Some(Item::Gap(_)))
                        && self.position_at(place) == Position { offset, ..from }
                })
            })
    }

    /// Returns whether the window has a message behind one position, up to and including another.
    pub(crate) fn has_message(&self, from: Position, to: Position) -> bool {
        (self.first..self.end()).any(|place| {
            let within = |position| from < position && position <= to;
            matches!(self.get(place), Some(Item::Message(_))) && within(self.position_at(place))
        })
    }

    /// Continuation of a client that has everything up to and including `cursor`.
    pub(crate) fn resume(&self, cursor: Position, rules: Rules) -> Resume {
        let wanted = cursor.next();
        let ahead = match rules.ahead {
            Ahead::GapAtOnce => Resume::Lost(self.end()),
            Ahead::Wait | Ahead::AnyHeartbeat => Resume::Ahead,
        };
        let Some(index) = self.runs.iter().rposition(|run| run.start <= wanted) else {
            return if self.runs.is_empty() { ahead } else { Resume::Lost(self.first) };
        };
        let run = self.runs[index];
        // A run ends with the gap that comes before the next one.
        let gap = self.runs.get(index + 1).map(|next| next.place - 1);
        let place = if run.start.epoch == wanted.epoch {
            let place = run.place + usize::from(wanted.offset - run.start.offset);
            match gap {
                Some(gap) => place.min(gap),
                None if place > self.end() => return ahead,
                None => place,
            }
        } else {
            match gap {
                Some(_) if rules.unknown_epoch == UnknownEpoch::AtTheEnd => return Resume::Lost(self.end()),
                Some(gap) => gap,
                None => return ahead,
            }
        };
        if place < self.first { Resume::Lost(self.first) } else { Resume::At(place) }
    }
}

//! [`Position`]: where an entry stands in the stream.

/// Position of an entry in the stream. Ordered, epochs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The history that it is in.
    pub epoch: u8,
    /// Dense in one epoch; the claim that began it has 0.
    pub offset: u8,
}

impl Position {
    pub(crate) fn next(self) -> Self {
        Self { offset: self.offset.saturating_add(1), ..self }
    }

    pub(crate) fn previous(self) -> Self {
        Self { offset: self.offset.saturating_sub(1), ..self }
    }
}

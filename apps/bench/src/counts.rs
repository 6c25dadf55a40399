//! [`Counts`]: the connections and messages of a load's clients.

use std::ops::AddAssign;

/// The connections and messages of a load's clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Connections that were opened.
    pub(crate) opened: u64,
    /// Connections that could not be opened.
    pub(crate) failed: u64,
    /// Connections that the server has ended.
    pub(crate) ended: u64,
    /// Messages that have arrived, each counted once.
    pub(crate) delivered: u64,
    /// Messages that have arrived again.
    pub(crate) doubled: u64,
    /// Messages that arrived after a later one.
    pub(crate) late: u64,
    /// Messages that were for another connection.
    pub(crate) misrouted: u64,
    /// Notices that messages may be missing.
    pub(crate) gaps: u64,
    /// The time at which the last message arrived.
    pub(crate) last: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.opened += other.opened;
        self.failed += other.failed;
        self.ended += other.ended;
        self.delivered += other.delivered;
        self.doubled += other.doubled;
        self.late += other.late;
        self.misrouted += other.misrouted;
        self.gaps += other.gaps;
        self.last = self.last.max(other.last);
    }
}

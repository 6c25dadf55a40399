//! [`Counts`]: what the clients of a load have seen.

use std::ops::AddAssign;

/// What the clients of a load have seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Connections that were opened.
    pub(crate) opened: u64,
    /// Connections that could not be opened.
    pub(crate) failed: u64,
    /// Connections that the server has ended.
    pub(crate) ended: u64,
    /// Messages that have come, each counted once.
    pub(crate) delivered: u64,
    /// Messages that have come once more.
    pub(crate) doubled: u64,
    /// Messages that came after a later one.
    pub(crate) late: u64,
    /// Messages that were for somebody else.
    pub(crate) stray: u64,
    /// Notices that messages may be missing.
    pub(crate) gaps: u64,
    /// When the last message came.
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
        self.stray += other.stray;
        self.gaps += other.gaps;
        self.last = self.last.max(other.last);
    }
}

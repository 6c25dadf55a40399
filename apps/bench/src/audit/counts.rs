//! [`Counts`]: what the checker counts.

use std::ops::AddAssign;

/// Figures of the checker; docs/reliability.md defines each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) acknowledged: u64,
    pub(crate) unacknowledged: u64,
    pub(crate) delivered: u64,
    pub(crate) announced: u64,
    pub(crate) true_gaps: u64,
    pub(crate) false_gaps: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) inverted: u64,
    pub(crate) late: u64,
    pub(crate) stale: u64,
    pub(crate) wrong_user: u64,
    pub(crate) malformed: u64,
    pub(crate) cursors_back: u64,
    pub(crate) ended: u64,
    pub(crate) kicks: u64,
    pub(crate) problems: u64,
    /// Microseconds.
    pub(crate) silence: u64,
}

impl Counts {
    /// The violations with their names.
    pub(crate) fn violations(&self) -> [(&'static str, u64); 12] {
        [
            ("lost in silence", self.lost),
            ("doubled", self.doubled),
            ("inverted", self.inverted),
            ("late", self.late),
            ("old as new", self.stale),
            ("to the wrong user", self.wrong_user),
            ("malformed", self.malformed),
            ("false gaps", self.false_gaps),
            ("cursors that went back", self.cursors_back),
            ("ended or refused without cause", self.ended),
            ("kicks that were not final", self.kicks),
            ("problems", self.problems),
        ]
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let Self {
            acknowledged,
            unacknowledged,
            delivered,
            announced,
            true_gaps,
            false_gaps,
            lost,
            doubled,
            inverted,
            late,
            stale,
            wrong_user,
            malformed,
            cursors_back,
            ended,
            kicks,
            problems,
            silence,
        } = other;
        self.acknowledged += acknowledged;
        self.unacknowledged += unacknowledged;
        self.delivered += delivered;
        self.announced += announced;
        self.true_gaps += true_gaps;
        self.false_gaps += false_gaps;
        self.lost += lost;
        self.doubled += doubled;
        self.inverted += inverted;
        self.late += late;
        self.stale += stale;
        self.wrong_user += wrong_user;
        self.malformed += malformed;
        self.cursors_back += cursors_back;
        self.ended += ended;
        self.kicks += kicks;
        self.problems += problems;
        self.silence = self.silence.max(silence);
    }
}

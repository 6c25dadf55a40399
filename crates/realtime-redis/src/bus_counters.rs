//! [`BusCounters`]: what both buses count.

use crate::{content::LoggedKinds, counter::Counter, part::Part};

/// What a bus counts.
#[derive(Debug, Default)]
pub(crate) struct BusCounters {
    pub(crate) connects: Counter,
    pub(crate) undecodable: Counter,
    logged: LoggedKinds,
}

impl BusCounters {
    /// Counts an attempt to connect.
    pub(crate) fn connected(&self) {
        self.connects.increment();
        Part::Bus.connects();
    }

    /// Counts content that could not be read.
    pub(crate) fn skipped(&self) {
        self.undecodable.increment();
        Part::Bus.skips();
    }

    /// Counts content that could not be read. Returns whether it is the first of its kind; only that is logged.
    pub(crate) fn skipped_first(&self, what: &str, problem: &str) -> bool {
        self.skipped();
        self.logged.is_first(what, problem)
    }
}

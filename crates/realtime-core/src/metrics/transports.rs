//! [`TransportCounters`]: the sessions of one transport.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    counter::Counter,
    snapshot::{ClosesSnapshot, TransportSnapshot},
};
use crate::{CloseReason, Transport};

/// The counters of each transport that has had a session.
#[derive(Debug, Default)]
pub(super) struct Transports(Mutex<Vec<Arc<TransportCounters>>>);

/// Counters of the sessions of one transport.
#[derive(Debug)]
pub(crate) struct TransportCounters {
    transport: Transport,
    pub(crate) opened: Counter,
    pub(crate) taken_over: Counter,
    pub(crate) taken_over_ended: Counter,
    /// Sessions that have ended, by reason and code.
    closes: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

/// Pairs of reason and code that are counted; an application could make up any number of them.
const MAX_CLOSES: usize = 64;

/// Reason of closes beyond those that are counted one by one.
const OTHER: (&str, u16) = ("other", 0);

impl Transports {
    pub(super) fn of(&self, transport: Transport) -> Arc<TransportCounters> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().find(|counters| counters.transport == transport).map(Arc::clone);
        found.unwrap_or_else(|| {
            let counters = Arc::new(TransportCounters::new(transport));
            known.push(Arc::clone(&counters));
            counters
        })
    }

    pub(super) fn snapshot(&self) -> Vec<TransportSnapshot> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|counters| counters.snapshot()).collect()
    }
}

impl TransportCounters {
    pub(crate) fn new(transport: Transport) -> Self {
        Self {
            transport,
            opened: Counter::default(),
            taken_over: Counter::default(),
            taken_over_ended: Counter::default(),
            closes: Mutex::default(),
        }
    }

    /// Counts a session that has ended.
    pub(crate) fn closed(&self, reason: CloseReason) {
        let mut closes = self.closes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = reason.counted_as();
        if closes.len() >= MAX_CLOSES && !closes.contains_key(&key) {
            key = OTHER;
        }
        *closes.entry(key).or_default() += 1;
    }

    fn snapshot(&self) -> TransportSnapshot {
        // The ends first, so that no number of open sessions is too small by one that ends now.
        let closes: Vec<_> = {
            let closes = self.closes.lock().unwrap_or_else(PoisonError::into_inner);
            closes
                .iter()
                .map(|((reason, code), count)| ClosesSnapshot { reason, code: *code, count: *count })
                .collect()
        };
        let taken_over_ended = self.taken_over_ended.value();
        TransportSnapshot {
            transport: self.transport,
            closed: closes.iter().map(|closes| closes.count).sum(),
            closes,
            taken_over_ended,
            taken_over: self.taken_over.value(),
            opened: self.opened.value(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CloseCode;

    #[test]
    fn an_application_cannot_make_up_any_number_of_series() {
        let counters = TransportCounters::new(Transport::new("sse"));
        for code in 4000..4999 {
            let code = CloseCode::new(code).unwrap();
            counters.closed(CloseReason::Application { code, name: "made up" });
        }
        counters.closed(CloseReason::Application { code: CloseCode::new(4000).unwrap(), name: "made up" });
        let snapshot = counters.snapshot();
        assert_eq!((snapshot.closed, snapshot.closes.len()), (1000, MAX_CLOSES + 1));
        assert_eq!(snapshot.closes[0], ClosesSnapshot { reason: "made up", code: 4000, count: 2 });
    }
}

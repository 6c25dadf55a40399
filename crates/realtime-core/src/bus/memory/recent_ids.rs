//! [`RecentIds`]: the ids of recently published envelopes.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::{EnvelopeId, Position};

/// Time for which an id is kept.
pub(super) const WINDOW: Duration = Duration::from_secs(300);

/// Maximum number of kept ids. Beyond it the oldest ones are removed early.
const MAX_IDS: usize = 100_000;

/// The positions of the envelopes that were published with an id within [`WINDOW`].
#[derive(Debug, Default)]
pub(super) struct RecentIds {
    positions: HashMap<EnvelopeId, Position>,
    /// Oldest first.
    order: VecDeque<(Instant, EnvelopeId)>,
}

impl RecentIds {
    /// The position of the envelope that was published with the id.
    pub(super) fn get(&mut self, id: &EnvelopeId, now: Instant) -> Option<Position> {
        self.expire(now);
        self.positions.get(id).copied()
    }

    pub(super) fn insert(&mut self, id: EnvelopeId, position: Position, now: Instant) {
        if self.order.len() == MAX_IDS {
            self.remove_oldest();
        }
        self.order.push_back((now, id.clone()));
        self.positions.insert(id, position);
    }

    fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(since, _)| now.duration_since(*since) >= WINDOW) {
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.positions.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_kept_for_the_window_and_within_the_bound() {
        let (mut ids, start) = (RecentIds::default(), Instant::now());
        let id = |n: usize| EnvelopeId::new(&format!("id-{n}")).unwrap();
        let at = |n: usize| Position { epoch: 1, offset: n as u64 };
        ids.insert(id(0), at(0), start);
        ids.insert(id(1), at(1), start + WINDOW / 2);
        assert_eq!(ids.get(&id(0), start + WINDOW - Duration::from_nanos(1)), Some(at(0)));
        assert_eq!((ids.get(&id(0), start + WINDOW), ids.get(&id(1), start + WINDOW)), (None, Some(at(1))));
        for n in 2..MAX_IDS + 2 {
            ids.insert(id(n), at(n), start + WINDOW);
        }
        assert_eq!((ids.positions.len(), ids.order.len()), (MAX_IDS, MAX_IDS));
        assert_eq!((ids.get(&id(1), start + WINDOW), ids.get(&id(2), start + WINDOW)), (None, Some(at(2))));
    }
}

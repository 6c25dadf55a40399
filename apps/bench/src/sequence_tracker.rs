//! [`SequenceTracker`]: the received part of one sequence of messages on one connection.

use std::ops::Range;

/// The set of the messages 0, 1, 2, ... that have arrived.
///
/// A complete stream in order takes a counter only; holes take memory.
#[derive(Debug, Default)]
pub(crate) struct SequenceTracker {
    /// The number after the highest one that has arrived.
    next: u32,
    /// The missing ranges below that, ascending and disjoint.
    #[expect(clippy::box_collection, reason = "nearly all trackers have none, and there may be millions")]
    holes: Option<Box<Vec<Range<u32>>>>,
}

/// Classification of a message on its arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// After all that have arrived before.
    New,
    /// After a later message.
    Late,
    /// Not for the first time.
    Double,
}

impl SequenceTracker {
    /// Enters a message.
    pub(crate) fn enter(&mut self, number: u32) -> Arrival {
        if number == self.next {
            self.next += 1;
            return Arrival::New;
        }
        if number > self.next {
            self.holes.get_or_insert_default().push(self.next..number);
            self.next = number.saturating_add(1);
            return Arrival::New;
        }
        let Some(holes) = &mut self.holes else { return Arrival::Double };
        let at = holes.partition_point(|hole| hole.end <= number);
        let Some(hole) = holes.get(at).filter(|hole| hole.contains(&number)).cloned() else {
            return Arrival::Double;
        };
        let rests = [hole.start..number, number + 1..hole.end];
        holes.splice(at..=at, rests.into_iter().filter(|rest| !rest.is_empty()));
        Arrival::Late
    }

    /// Returns how many of the first `sent` messages have not arrived.
    pub(crate) fn lost(&self, sent: u32) -> u64 {
        let holes = self.holes.iter().flat_map(|holes| holes.iter());
        let holes: u64 = holes.map(|hole| u64::from(hole.end.min(sent).saturating_sub(hole.start))).sum();
        holes + u64::from(sent.saturating_sub(self.next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(numbers: &[u32]) -> (SequenceTracker, Vec<Arrival>) {
        let mut tracker = SequenceTracker::default();
        let arrivals = numbers.iter().map(|&number| tracker.enter(number)).collect();
        (tracker, arrivals)
    }

    #[test]
    fn a_stream_in_order_has_no_holes() {
        let (tracker, arrivals) = arrivals(&[0, 1, 2]);
        assert_eq!(arrivals, [Arrival::New; 3]);
        assert_eq!((tracker.lost(3), tracker.lost(5)), (0, 2));
        assert!(tracker.holes.is_none());
    }

    #[test]
    fn lost_doubled_and_late_messages_are_told_apart() {
        use Arrival::{Double, Late, New};
        let (tracker, arrivals) = arrivals(&[0, 5, 3, 3, 5, 0, 1, 9, 2, 2]);
        assert_eq!(arrivals, [New, New, Late, Double, Double, Double, Late, New, Late, Double]);
        // 4, 6, 7, 8 have not arrived.
        assert_eq!((tracker.lost(10), tracker.lost(12), tracker.lost(5)), (4, 6, 1));
    }

    /// Against a plain list, with every kind of disorder.
    #[test]
    fn the_counts_are_those_of_a_plain_list() {
        let mut seed = 1_u64;
        for round in 0..200 {
            let (mut tracker, mut seen) = (SequenceTracker::default(), vec![false; 64]);
            let mut highest = None;
            for _ in 0..round {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let number = (seed >> 40) as usize % 64;
                let expected = match (seen[number], highest) {
                    (true, _) => Arrival::Double,
                    (false, Some(highest)) if number < highest => Arrival::Late,
                    (false, _) => Arrival::New,
                };
                seen[number] = true;
                highest = highest.max(Some(number));
                assert_eq!(tracker.enter(number as u32), expected);
            }
            assert_eq!(tracker.lost(64), seen.iter().filter(|seen| !**seen).count() as u64);
        }
    }
}

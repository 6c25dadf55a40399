//! [`Track`]: what has come of one sequence of messages on one connection.

use std::ops::Range;

/// Which of the messages 0, 1, 2, ... have come.
///
/// A lossless stream in order costs a counter; only holes take memory.
#[derive(Debug, Default)]
pub(crate) struct Track {
    /// The number after the highest one that has come.
    next: u32,
    /// What has not come below that, ascending, apart from each other.
    #[expect(clippy::box_collection, reason = "nearly all tracks have none, and there may be millions")]
    holes: Option<Box<Vec<Range<u32>>>>,
}

/// What a message's arrival means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It comes after all that have come.
    New,
    /// A later one has come before it.
    Late,
    /// It has come before.
    Double,
}

impl Track {
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

    /// How many of the first `sent` messages have not come.
    pub(crate) fn lost(&self, sent: u32) -> u64 {
        let holes = self.holes.iter().flat_map(|holes| holes.iter());
        let holes: u64 = holes.map(|hole| u64::from(hole.end.min(sent).saturating_sub(hole.start))).sum();
        holes + u64::from(sent.saturating_sub(self.next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(numbers: &[u32]) -> (Track, Vec<Arrival>) {
        let mut track = Track::default();
        let arrivals = numbers.iter().map(|&number| track.enter(number)).collect();
        (track, arrivals)
    }

    #[test]
    fn a_stream_in_order_has_no_holes() {
        let (track, arrivals) = arrivals(&[0, 1, 2]);
        assert_eq!(arrivals, [Arrival::New; 3]);
        assert_eq!((track.lost(3), track.lost(5)), (0, 2));
        assert!(track.holes.is_none());
    }

    #[test]
    fn lost_doubled_and_late_messages_are_told_apart() {
        use Arrival::{Double, Late, New};
        let (track, arrivals) = arrivals(&[0, 5, 3, 3, 5, 0, 1, 9, 2, 2]);
        assert_eq!(arrivals, [New, New, Late, Double, Double, Double, Late, New, Late, Double]);
        // 4, 6, 7, 8 have not come.
        assert_eq!((track.lost(10), track.lost(12), track.lost(5)), (4, 6, 1));
    }

    /// Against a plain list, with every kind of disorder.
    #[test]
    fn the_counts_are_those_of_a_plain_list() {
        let mut seed = 1_u64;
        for round in 0..200 {
            let (mut track, mut seen) = (Track::default(), vec![false; 64]);
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
                assert_eq!(track.enter(number as u32), expected);
            }
            assert_eq!(track.lost(64), seen.iter().filter(|seen| !**seen).count() as u64);
        }
    }
}

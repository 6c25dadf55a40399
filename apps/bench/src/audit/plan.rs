//! [`Plan`]: which fault begins when.

use std::time::Duration;

use crate::audit::{fault::Fault, rng::Rng};

/// The faults of a run in their order, each with the time that is its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) faults: Vec<Fault>,
    /// From the begin of one fault to that of the next, if it is over by then.
    pub(crate) slot: Duration,
}

/// Average time for a fault and the recovery from it.
const USUAL_SLOT: Duration = Duration::from_secs(8);

impl Plan {
    /// Rounds of all `faults`, each in an order of its own; `times` of them, or as many as fit into `duration`.
    pub(crate) fn new(faults: &[Fault], duration: Duration, times: Option<u32>, seed: u64) -> Self {
        let mut rng = Rng::fork(seed, 1);
        let fitting = duration.as_secs_f64() / (USUAL_SLOT.as_secs_f64() * faults.len().max(1) as f64);
        let rounds = times.unwrap_or((fitting as u32).max(1));
        let mut all = Vec::new();
        for _ in 0..rounds {
            let mut round = faults.to_vec();
            rng.shuffle(&mut round);
            all.append(&mut round);
        }
        let slot = duration / u32::try_from(all.len()).unwrap_or(u32::MAX).max(1);
        Self { faults: all, slot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_its_turn_in_each_round_and_a_seed_repeats_the_order() {
        let plan = |seed| Plan::new(&Fault::ALL, Duration::from_secs(600), None, seed);
        assert_eq!(plan(3), plan(3));
        assert_ne!(plan(3), plan(4));
        for fault in Fault::ALL {
            assert_eq!(plan(3).faults.iter().filter(|&&one| one == fault).count(), 5, "{fault}");
        }
        assert_eq!(Plan::new(&Fault::ALL, Duration::from_secs(60), None, 3).faults.len(), 13);
        assert_eq!(Plan::new(&[Fault::Lag], Duration::from_secs(1), Some(4), 3).faults.len(), 4);
    }
}

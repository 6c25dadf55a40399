//! Long random histories, in which everything happens: past the bounds within which every order can be tried.

use realtime_model::{Ahead, Budget, Early, Protocol, Rules, Skipped, Step};
use stateright::{Expectation, Model};

/// Three nodes, and some of every fault.
fn everything(rules: Rules) -> Protocol {
    let budget = Budget {
        nodes: 3,
        publishers: 3,
        messages: 14,
        unacknowledged: 2,
        beats: 8,
        failovers: 3,
        flushes: 1,
        stream_trims: 3,
        window_trims: 6,
        restarts: 3,
        connections: 2,
        pings: 5,
        kicks: 4,
    };
    Protocol { rules, budget, zombies: true, forged: false }
}

/// Numbers from a seed, always the same (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as usize % limit
    }
}

/// Weight of a step in the random choice: faults are rare, and a client stays for a while.
fn weight(step: Step) -> usize {
    match step {
        Step::Deliver | Step::Read(_) => 40,
        Step::Publish { .. } | Step::LookUp(_) | Step::Beat(_) | Step::Connect(_) => 8,
        Step::Dial(_) => 20,
        Step::Hangup | Step::Ping => 4,
        Step::Kick(_) => 1,
        Step::Relink(_) | Step::TrimStream | Step::TrimWindow(_) | Step::Flush => 2,
        // There is one for each number of entries.
        Step::Failover(_) | Step::Restart { .. } => 1,
    }
}

/// The failed property, the steps that lead there, and the number of delivered messages.
fn run(protocol: &Protocol, seed: u64) -> (Option<&'static str>, Vec<Step>, u32) {
    let always = |property: &stateright::Property<_>| matches!(property.expectation, Expectation::Always);
    let properties: Vec<_> = protocol.properties().into_iter().filter(always).collect();
    let mut random = Random(seed);
    let mut state = protocol.init_states().remove(0);
    let (mut taken, mut steps) = (Vec::new(), Vec::new());
    for _ in 0..400 {
        steps.clear();
        protocol.actions(&state, &mut steps);
        let mut left = random.below(steps.iter().copied().map(weight).sum());
        let chosen = steps.iter().copied().find(|step| {
            let chosen = left < weight(*step);
            left = left.saturating_sub(weight(*step));
            chosen
        });
        let step = chosen.expect("one has the weight");
        let Some(next) = protocol.next_state(&state, step) else { continue };
        state = next;
        taken.push(step);
        if let Some(failed) = properties.iter().find(|property| !(property.condition)(protocol, &state)) {
            return (Some(failed.name), taken, state.client.delivered.count_ones());
        }
    }
    (None, taken, state.client.delivered.count_ones())
}

/// Number of histories; `HISTORIES` sets another.
fn histories() -> u64 {
    std::env::var("HISTORIES").map_or(10_000, |number| number.parse().expect("HISTORIES is a number"))
}

#[test]
fn in_ten_thousand_histories_nothing_is_lost_or_doubled_or_told_wrongly() {
    let protocol = everything(Rules::default());
    let mut delivered = 0;
    for seed in 0..histories() {
        let (failed, steps, messages) = run(&protocol, seed);
        assert_eq!(failed, None, "seed {seed}: {steps:?}");
        delivered += messages;
    }
    // Histories in which the client gets nothing would prove nothing.
    assert!(u64::from(delivered) > histories() * 5, "{delivered}");
}

#[test]
fn histories_find_wrong_rules() {
    for rules in [
        Rules { ahead: Ahead::GapAtOnce, ..Rules::default() },
        Rules { skipped: Skipped::Markers, ..Rules::default() },
        Rules { early: Early::AtOnce, ..Rules::default() },
    ] {
        let protocol = everything(rules);
        assert!((0..10_000).any(|seed| run(&protocol, seed).0.is_some()), "{rules:?}");
    }
}

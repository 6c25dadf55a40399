//! In 10,000 random histories of three nodes under faults no acknowledged message is lost without a gap, delivered
//! twice or invented.
//!
//! The log, shards and sessions of several nodes and their tails run in one thread, with a Redis that is killed,
//! flushed, trimmed and failed over to a lagging replica, and clients that move between nodes. The faults are drawn
//! from a seed. What clients receive is compared with the acknowledged messages.
//!
//! `SIMULATION_SEED=<seed> cargo test -p realtime-tests --test cluster no_history` runs one history and prints it.
#![allow(clippy::print_stdout, reason = "one history is printed")]

mod client;
mod redis;
mod world;

use std::panic::catch_unwind;

use world::World;

/// Histories that one run goes through.
const HISTORIES: u64 = 10_000;

/// Number of steps before everything is healed.
const STEPS: usize = 160;

fn run(seed: u64, prints: bool) {
    let mut world = World::new(seed, prints);
    for _ in 0..STEPS {
        world.step();
    }
    world.heal();
}

#[test]
fn no_history_of_faults_loses_doubles_or_invents_anything() {
    if let Ok(seed) = std::env::var("SIMULATION_SEED") {
        return run(seed.parse().expect("SIMULATION_SEED is a number"), true);
    }
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for seed in (thread..HISTORIES).step_by(usize::try_from(threads).unwrap()) {
                    let history = catch_unwind(|| run(seed, false));
                    assert!(history.is_ok(), "run it again with SIMULATION_SEED={seed}");
                }
            });
        }
    });
}

//! The protocol keeps its promises in every order of what may happen.

use realtime_model::{Budget, Protocol};
use stateright::{Checker, Model};

fn holds(protocol: Protocol) {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    eprintln!("{} states, up to {} steps deep", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
}

/// Two nodes, one of which publishes two messages.
fn budget() -> Budget {
    Budget { nodes: 2, publishers: 1, messages: 2, beats: 1, ..Budget::default() }
}

#[test]
fn a_client_that_moves_misses_nothing_and_gets_nothing_twice() {
    let budget = Budget { messages: 4, beats: 2, pings: 1, ..budget() };
    holds(Protocol { budget, ..Protocol::default() });
}

#[test]
fn a_client_that_moves_between_three_nodes_misses_nothing() {
    let budget = Budget { nodes: 3, messages: 3, ..budget() };
    holds(Protocol { budget, ..Protocol::default() });
}

#[test]
fn what_has_left_a_window_is_a_gap() {
    let budget = Budget { messages: 3, window_trims: 2, pings: 1, ..budget() };
    holds(Protocol { budget, ..Protocol::default() });
}

#[test]
fn what_was_trimmed_from_the_stream_is_a_gap() {
    let budget = Budget { messages: 3, stream_trims: 2, window_trims: 1, ..budget() };
    holds(Protocol { budget, ..Protocol::default() });
}

#[test]
fn a_node_that_starts_gives_what_it_skipped_as_a_gap_and_no_history_as_news() {
    let budget = Budget { messages: 2, restarts: 1, ..budget() };
    holds(Protocol { budget, ..Protocol::default() });
}

#[test]
fn a_failover_to_a_lagging_replica_loses_nothing_without_a_gap() {
    let budget = Budget { failovers: 1, ..budget() };
    holds(Protocol { budget, ..Protocol::default() });
}

#[test]
fn an_old_master_that_goes_on_taking_entries_loses_nothing_without_a_gap() {
    let budget = Budget { publishers: 2, failovers: 1, beats: 0, ..budget() };
    holds(Protocol { budget, zombies: true, ..Protocol::default() });
}

#[test]
fn an_old_master_that_takes_heartbeats_frees_nobody_too_early() {
    let budget = Budget { messages: 1, publishers: 2, failovers: 1, beats: 2, ..budget() };
    holds(Protocol { budget, zombies: true, ..Protocol::default() });
}

#[test]
fn two_failovers_in_a_row_lose_nothing_without_a_gap() {
    let budget = Budget { messages: 1, failovers: 2, beats: 0, ..budget() };
    holds(Protocol { budget, ..Protocol::default() });
}

#[test]
fn a_master_that_was_emptied_is_a_gap() {
    let budget = Budget { publishers: 2, flushes: 1, ..budget() };
    holds(Protocol { budget, ..Protocol::default() });
}

#[test]
fn an_acknowledgement_that_is_lost_changes_nothing_for_the_client() {
    let budget = Budget { unacknowledged: 1, failovers: 1, beats: 0, ..budget() };
    holds(Protocol { budget, ..Protocol::default() });
}

#[test]
fn who_is_kicked_gets_what_was_acknowledged_before() {
    let budget = Budget { publishers: 2, failovers: 1, kicks: 1, beats: 0, ..budget() };
    holds(Protocol { budget, zombies: true, ..Protocol::default() });
}

#[test]
fn a_cursor_that_nobody_gave_out_begins_anew_and_misses_nothing_from_then_on() {
    let budget = Budget { messages: 3, ..budget() };
    holds(Protocol { budget, forged: true, ..Protocol::default() });
}

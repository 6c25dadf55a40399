//! The model finds what it is for: with a wrong rule a property fails.

use realtime_model::{
    Ahead, Budget, Claim, Early, Fence, Head, Heartbeat, Numbering, OwnMessage, Ping, Protocol, Refused,
    Rules, Skipped, Trimmed, UnknownEpoch,
};
use stateright::{Checker, HasDiscoveries, Model};

/// A property fails; the search ends there.
#[track_caller]
fn fails(property: &'static str, protocol: Protocol) {
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
    checker.assert_any_discovery(property);
}

fn budget() -> Budget {
    Budget { nodes: 2, publishers: 1, messages: 2, ..Budget::default() }
}

#[test]
fn a_cursor_ahead_that_is_told_a_gap_at_once_goes_back() {
    let rules = Rules { ahead: Ahead::GapAtOnce, ..Rules::default() };
    for property in ["no false gap", "nothing twice", "a cursor never goes back", "no inversion"] {
        fails(property, Protocol { rules, budget: budget(), ..Protocol::default() });
    }
}

#[test]
fn a_wait_that_any_heartbeat_ends_is_a_false_gap() {
    let rules = Rules { ahead: Ahead::AnyHeartbeat, ..Rules::default() };
    let budget = Budget { beats: 1, ..budget() };
    fails("no false gap", Protocol { rules, budget, ..Protocol::default() });
}

#[test]
fn a_heartbeat_that_stands_for_the_time_of_its_writing_is_a_false_gap() {
    let rules = Rules { heartbeat: Heartbeat::AtWrite, ..Rules::default() };
    let budget = Budget { messages: 1, beats: 1, failovers: 1, ..budget() };
    fails("no false gap", Protocol { rules, budget, zombies: true, ..Protocol::default() });
}

#[test]
fn a_message_that_stands_for_the_time_of_its_publish_is_a_false_gap() {
    let rules = Rules { own_message: OwnMessage::AtPublish, ..Rules::default() };
    let budget = Budget { messages: 2, publishers: 2, failovers: 1, ..budget() };
    fails("no false gap", Protocol { rules, budget, zombies: true, ..Protocol::default() });
}

#[test]
fn an_end_after_what_an_old_master_has_comes_too_early() {
    let rules = Rules { fence: Fence::OwnLink, ..Rules::default() };
    let budget = Budget { publishers: 2, failovers: 1, kicks: 1, ..budget() };
    fails(
        "who is kicked gets what was acknowledged before",
        Protocol { rules, budget, zombies: true, ..Protocol::default() },
    );
}

#[test]
fn an_end_after_what_the_node_has_read_comes_too_early() {
    let rules = Rules { fence: Fence::OwnLog, ..Rules::default() };
    let budget = Budget { kicks: 1, ..budget() };
    fails(
        "who is kicked gets what was acknowledged before",
        Protocol { rules, budget, ..Protocol::default() },
    );
}

#[test]
fn markers_for_skipped_history_are_a_silent_hole() {
    let rules = Rules { skipped: Skipped::Markers, ..Rules::default() };
    let budget = Budget { restarts: 1, ..budget() };
    fails("no silent hole", Protocol { rules, budget, ..Protocol::default() });
}

#[test]
fn a_session_that_is_served_before_the_stream_is_read_gets_messages_twice() {
    let rules = Rules { early: Early::AtOnce, ahead: Ahead::GapAtOnce, ..Rules::default() };
    let budget = Budget { restarts: 1, ..budget() };
    fails("nothing twice", Protocol { rules, budget, ..Protocol::default() });
}

#[test]
fn a_session_that_is_served_before_the_stream_is_read_gets_history_as_news() {
    let rules = Rules { early: Early::AtOnce, ..Rules::default() };
    let budget = Budget { restarts: 1, ..budget() };
    fails("no history as news", Protocol { rules, budget, ..Protocol::default() });
}

#[test]
fn a_head_with_the_place_of_the_session_goes_back_behind_an_old_masters_entries() {
    let rules = Rules { head: Head::Place, ..Rules::default() };
    let budget = Budget { failovers: 1, ..budget() };
    fails("a cursor never goes back", Protocol { rules, budget, zombies: true, ..Protocol::default() });
}

#[test]
fn a_heartbeat_that_forgets_the_clients_cursor_goes_back_behind_an_old_masters_entries() {
    let rules = Rules { ping: Ping::BehindCursor, ..Rules::default() };
    let budget = Budget { pings: 1, failovers: 1, ..budget() };
    fails("a cursor never goes back", Protocol { rules, budget, zombies: true, ..Protocol::default() });
}

#[test]
fn a_head_with_an_id_behind_its_gap_is_a_silent_hole() {
    let rules = Rules { head: Head::Place, ..Rules::default() };
    let budget = Budget { window_trims: 2, ..budget() };
    fails("no silent hole", Protocol { rules, budget, ..Protocol::default() });
}

#[test]
fn a_heartbeat_with_the_logs_end_is_a_silent_hole() {
    let rules = Rules { ping: Ping::End, ..Rules::default() };
    let budget = Budget { pings: 1, ..budget() };
    fails("no silent hole", Protocol { rules, budget, ..Protocol::default() });
}

#[test]
fn a_heartbeat_with_the_oldest_run_left_is_a_silent_hole() {
    let rules = Rules { ping: Ping::OldestRun, ..Rules::default() };
    let budget = Budget { pings: 1, window_trims: 3, failovers: 1, ..budget() };
    fails("no silent hole", Protocol { rules, budget, ..Protocol::default() });
}

#[test]
fn a_cursor_of_an_epoch_that_was_lost_begins_behind_what_it_lacks() {
    let rules = Rules { unknown_epoch: UnknownEpoch::AtTheEnd, ..Rules::default() };
    let budget = Budget { messages: 1, failovers: 2, ..budget() };
    fails("no false gap", Protocol { rules, budget, ..Protocol::default() });
}

#[test]
fn a_gap_for_a_claim_that_its_gap_has_told_of_is_a_false_one() {
    let rules = Rules { trimmed: Trimmed::Always, ..Rules::default() };
    let budget = Budget { messages: 1, window_trims: 3, failovers: 1, ..budget() };
    fails("no false gap", Protocol { rules, budget, ..Protocol::default() });
}

#[test]
fn a_promotion_that_is_not_noticed_is_a_silent_hole() {
    let rules = Rules { claim: Claim::Blind, ..Rules::default() };
    let budget = Budget { failovers: 1, ..budget() };
    fails("no silent hole", Protocol { rules, budget, ..Protocol::default() });
}

#[test]
fn an_old_master_that_is_claimed_again_is_a_silent_hole() {
    let rules = Rules { refused: Refused::ClaimOnTheSpot, ..Rules::default() };
    let budget = Budget { failovers: 1, flushes: 1, ..budget() };
    fails("no silent hole", Protocol { rules, budget, zombies: true, ..Protocol::default() });
}

#[test]
fn epochs_that_are_counted_are_given_twice() {
    let rules = Rules { numbering: Numbering::Counter, ..Rules::default() };
    let budget = Budget { failovers: 2, ..budget() };
    fails("no silent hole", Protocol { rules, budget, ..Protocol::default() });
}

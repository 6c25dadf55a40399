//! docs/codes.md has each reason that there is, and says of each whether a client comes back.

use std::{fs, time::Duration};

use realtime_core::{CloseReason, streams::StreamEnd, wire::GapReason};

use crate::page::root;

fn rows() -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("docs/codes.md")).unwrap();
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    text.lines().filter(|line| line.starts_with('|')).map(cells).collect()
}

#[test]
fn each_reason_of_an_end_has_a_row_that_says_who_comes_back() {
    let rows = rows();
    for reason in [
        CloseReason::Normal,
        CloseReason::Disconnected,
        CloseReason::Drain { retry: Duration::ZERO },
        CloseReason::Protocol,
        CloseReason::InvalidPayload,
        CloseReason::Unsupported,
        CloseReason::TooBig,
        CloseReason::Policy,
        CloseReason::Internal,
        CloseReason::Overloaded,
        CloseReason::TokenExpired,
        CloseReason::Revoked,
        CloseReason::Forbidden,
        CloseReason::NoPong,
        CloseReason::Kicked,
        CloseReason::SlowConsumer,
        CloseReason::RateLimited,
        CloseReason::TooManySessions,
        CloseReason::LimitReached { retry: Duration::ZERO },
    ] {
        let name = format!("`{}`", reason.name());
        let row =
            rows.iter().find(|row| row.get(1) == Some(&name)).unwrap_or_else(|| panic!("no row of {name}"));
        assert_eq!(row[2], if reason.may_reconnect() { "yes" } else { "no" }, "{name}");
    }
}

#[test]
fn each_reason_of_a_gap_and_each_end_of_a_text_has_a_row() {
    let gaps =
        [GapReason::History, GapReason::Bus, GapReason::Cursor, GapReason::Overflow].map(GapReason::name);
    let ends =
        [StreamEnd::Done, StreamEnd::Stopped, StreamEnd::Failed, StreamEnd::Interrupted].map(StreamEnd::name);
    let rows = rows();
    for name in gaps.into_iter().chain(ends) {
        assert!(rows.iter().any(|row| row[0] == format!("`{name}`")), "{name}");
    }
}

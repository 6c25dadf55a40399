//! [`explain`]: what this node knows of a user.

use std::{sync::Arc, time::Duration};

use super::report::{
    ExplainedGap, ExplainedOutbox, ExplainedSession, NodeExplanation, NodeReport, SessionMode,
};
use crate::{UserId, node::Node, outbox::Backlog, recent::OfUser, session::state::SessionState};

/// Number of a user's sessions that a node tells.
const SESSIONS: usize = 100;

/// What this node, which has a name, knows of a user.
pub(crate) fn explain(node: &Node, name: &str, user: &UserId) -> NodeExplanation {
    let mut sessions = node.directory.of(user);
    let count = sessions.len();
    sessions.drain(..count.saturating_sub(SESSIONS));
    let OfUser { ends, ends_since, refusals, refusals_since, unknown } = node.recent.of(user, name);
    let sessions = sessions.iter().map(|session| of_session(node, name, session)).collect();
    NodeExplanation {
        report: NodeReport {
            // Read last: no session has been left out a message for a newer one beyond it.
            position: node.log.cursor().map(|position| position.to_string()),
            bus_down_since: node.bus_down(),
            sessions: count,
            closes_since: ends_since,
            refusals_since,
        },
        sessions,
        closes: ends,
        refusals,
        unknown_refusals: unknown,
    }
}

fn of_session(node: &Node, name: &str, session: &Arc<SessionState>) -> ExplainedSession {
    // Read first: what has been written by then has been served.
    let Backlog { frames, bytes, taken, is_attached, catching_up, closing, .. } = session.outbox.backlog();
    let next = session.host().and_then(|host| host.next_of(session));
    let begin = session.begin();
    let login = session.login();
    let mode = match (closing, begin, catching_up) {
        (Some(_), ..) => SessionMode::Closing,
        (None, None, _) => SessionMode::Waiting,
        (None, Some(_), Some(_)) => SessionMode::CatchingUp,
        (None, Some(_), None) => SessionMode::Live,
    };
    ExplainedSession {
        node: name.to_owned(),
        session_id: session.id.to_string(),
        transport: session.transport().to_string(),
        client_id: login.client_id.as_deref().map(str::to_owned),
        since: session.since(),
        mode: Some(mode),
        lane: Some(if is_attached { "takenOver" } else { "body" }.to_owned()),
        topics: session.topics().iter().map(|topic| topic.as_str().to_owned()).collect(),
        // In JSON a time has four digits of a year.
        expires_at: login.expires_at.filter(|end| *end < session.since() + LONGEST),
        from: begin.and_then(|begin| begin.cursor).map(|position| position.to_string()),
        recovered: begin.and_then(|begin| begin.recovered),
        served_up_to: next.and_then(|next| node.log.cursor_at(next)).map(|position| position.to_string()),
        behind: next.map(|next| node.log.end().saturating_sub(next)),
        outbox: Some(ExplainedOutbox { frames, bytes, written: taken }),
        left_out: session.left_out(),
        gap: session.last_gap().map(|(at, reason)| ExplainedGap { at, reason: reason.name().to_owned() }),
        closing: closing.map(|reason| reason.name().to_owned()),
    }
}

/// A login that ends later ends never.
const LONGEST: Duration = Duration::from_secs(1000 * 365 * 24 * 3600);

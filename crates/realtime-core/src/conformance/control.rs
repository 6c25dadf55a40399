//! The suites for [`Control`](crate::control::Control).

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;

use super::{broken, check, until, within};
use crate::{
    CloseReason, Hub, Principal, Transport, UserId,
    auth::TokenHash,
    control::{CommandResult, ControlError},
    error::ConnectError,
    testkit::TestSession,
};

const STARTED: &str = "`started` resolves, and `is_started` says so from then on";
const EVERYWHERE: &str = "a command ends the sessions that it means on every node, and counts them";
const CONFIRMED: &str = "a command returns when every live node has carried it out";
const REFUSED: &str = "what was kicked or revoked is refused on every node, and nothing else";
const ASKED: &str = "a question is answered by every live node, or fails";
const TWICE: &str = "a command may be sent again";
const LATE: &str = "a node knows the refused logins of its cluster once it has started";

/// Tests the control of one or several hubs that are one cluster, against [its contract](crate::control::Control). Nobody may be connected.
///
/// Hubs of a cluster share a bus: a kick ends sessions behind what the bus had acknowledged.
///
/// # Panics
/// With the clause that is broken, and without a hub.
pub async fn control_conforms(hubs: &[Hub]) {
    for hub in hubs {
        until_started(hub).await;
    }
    let first = &hubs[0];
    let user = UserId::from(1);
    let outcome = confirmed(first.kick(&user).await);
    check(EVERYWHERE, outcome.closed == 0, || format!("{} sessions of nobody", outcome.closed));

    // A kick: all sessions of a user, and their tokens.
    let mut sessions = Vec::new();
    for (n, hub) in hubs.iter().enumerate() {
        sessions.push(open(hub, &user, &format!("kicked {n}"), None).await);
    }
    let other = open(first, &2.into(), "another user's", None).await;
    let outcome = confirmed(hubs[hubs.len() - 1].kick(&user).await);
    check(EVERYWHERE, outcome.closed == hubs.len(), || {
        format!("{} sessions on {} nodes", outcome.closed, hubs.len())
    });
    ended(sessions, CloseReason::Kicked).await;
    for hub in hubs {
        for n in 0..hubs.len() {
            refused(hub, &user, &format!("kicked {n}"), None).await;
        }
        drop(open(hub, &user, "a new login", None).await);
        drop(open(hub, &3.into(), "kicked 0", None).await);
    }
    let outcome = confirmed(first.kick(&user).await);
    check(TWICE, outcome.closed == 0, || format!("{} sessions were ended again", outcome.closed));
    stays(&other);

    // A control need not know questions, but then it says so.
    let explanation = first.explain(&user, 1).await;
    let answered = explanation.nodes.iter().filter(|node| node.answered).count();
    check(ASKED, !explanation.problems.is_empty() || answered == hubs.len(), || {
        format!("{answered} of {} nodes have answered", hubs.len())
    });

    // One session, and the others of its token.
    let last = &hubs[hubs.len() - 1];
    let meant = open(last, &user, "one", None).await;
    let same = open(last, &user, "one", None).await;
    let spared = open(last, &user, "two", None).await;
    let id = meant.handle().id();
    let outcome = confirmed(first.kick_session(&user, id).await);
    check(EVERYWHERE, outcome.closed == 2, || format!("{} of two sessions with one token", outcome.closed));
    ended(vec![meant, same], CloseReason::Kicked).await;
    stays(&spared);
    drop(spared);

    // A token, whoever shows it.
    let token = TokenHash::of("revoked");
    let until = Some(SystemTime::now() + Duration::from_secs(3600));
    let sessions =
        vec![open(first, &4.into(), "revoked", None).await, open(last, &5.into(), "revoked", None).await];
    let outcome = confirmed(first.revoke_token(token, until).await);
    check(EVERYWHERE, outcome.closed == 2, || format!("{} sessions of a token of two users", outcome.closed));
    ended(sessions, CloseReason::Revoked).await;
    let outcome = confirmed(last.revoke_token(token, until).await);
    check(TWICE, outcome.closed == 0, || format!("{} sessions were ended again", outcome.closed));

    // An empty token is none.
    let sessions = [open(first, &4.into(), "", None).await, open(last, &5.into(), "", None).await];
    let outcome = confirmed(first.revoke_token(TokenHash::of(""), until).await);
    check(EVERYWHERE, outcome.closed == 0, || format!("{} sessions without a token", outcome.closed));
    sessions.iter().for_each(stays);
    drop((sessions, open(last, &4.into(), "", None).await));

    // The tokens of a user that were issued before.
    let now = SystemTime::now();
    let (before, after) = (Some(now - Duration::from_secs(60)), Some(now + Duration::from_secs(60)));
    let older = open(last, &6.into(), "older", before).await;
    let newer = open(last, &6.into(), "newer", after).await;
    let outcome = confirmed(first.revoke_user(&6.into(), now).await);
    check(EVERYWHERE, outcome.closed == 1, || format!("{} sessions with one older token", outcome.closed));
    ended(vec![older], CloseReason::Revoked).await;
    stays(&newer);
    for hub in hubs {
        refused(hub, &7.into(), "revoked", None).await;
        refused(hub, &6.into(), "another older one", before).await;
        drop(open(hub, &6.into(), "newer", after).await);
        drop(open(hub, &7.into(), "another older one", before).await);
    }

    // Many at once, from all nodes.
    let users: Vec<UserId> = (100..120_i64).map(UserId::from).collect();
    let mut sessions = Vec::new();
    for (n, user) in users.iter().enumerate() {
        sessions.push(open(&hubs[n % hubs.len()], user, "one of many", None).await);
    }
    let kicks = users.iter().enumerate().map(|(n, user)| hubs[(n + 1) % hubs.len()].kick(user));
    for outcome in join_all(kicks).await {
        check(EVERYWHERE, confirmed(outcome).closed == 1, || "not one session of one".into());
    }
    ended(sessions, CloseReason::Kicked).await;
    stays(&other);
}

/// Tests that a node which starts later knows what was refused. `start` starts it in the cluster of the others.
///
/// # Panics
/// With the clause that is broken, and without a hub.
pub async fn late_node_conforms(hubs: &[Hub], start: impl AsyncFnOnce() -> Hub) {
    for hub in hubs {
        until_started(hub).await;
    }
    let (first, user) = (&hubs[0], UserId::from(1));
    let kicked = open(first, &user, "kicked early", None).await;
    confirmed(first.kick(&user).await);
    ended(vec![kicked], CloseReason::Kicked).await;
    confirmed(first.revoke_token(TokenHash::of("revoked early"), None).await);
    let now = SystemTime::now();
    confirmed(first.revoke_user(&2.into(), now).await);

    let late = start().await;
    let admitted = connect(&late, &3.into(), "too early", None).await.map(drop);
    if matches!(admitted, Err(ConnectError::Starting)) {
        let claims = late.ready().is_ok();
        check(STARTED, !claims, || "a node is ready that takes nobody in".into());
    }
    until_started(&late).await;
    let before = Some(now - Duration::from_secs(60));
    for (user, token, issued_at) in [
        (&user, "kicked early", None),
        (&3.into(), "revoked early", None),
        (&2.into(), "an older one", before),
    ] {
        let answer = connect(&late, user, token, issued_at).await.map(drop);
        check(LATE, matches!(answer, Err(ConnectError::Kicked)), || {
            format!("{token:?} was answered {answer:?}")
        });
    }
    // An old kick ends no new session.
    let back = open(&late, &user, "back again", None).await;
    confirmed(first.kick(&4.into()).await);
    stays(&back);
}

async fn until_started(hub: &Hub) {
    within(STARTED, "the start", hub.started()).await;
    until(STARTED, "a hub that is ready", async || hub.ready().is_ok()).await;
}

async fn connect(
    hub: &Hub,
    user: &UserId,
    token: &str,
    issued_at: Option<SystemTime>,
) -> Result<TestSession, ConnectError> {
    let principal = Principal { issued_at, ..Principal::new(user.clone(), token) };
    TestSession::open(hub, principal, Transport::new("websocket"), None).await
}

async fn open(hub: &Hub, user: &UserId, token: &str, issued_at: Option<SystemTime>) -> TestSession {
    let session = connect(hub, user, token, issued_at).await;
    session.unwrap_or_else(|error| broken(REFUSED, format_args!("{token:?} of user {user}: {error}")))
}

async fn refused(hub: &Hub, user: &UserId, token: &str, issued_at: Option<SystemTime>) {
    let answer = connect(hub, user, token, issued_at).await.map(drop);
    check(REFUSED, matches!(answer, Err(ConnectError::Kicked)), || {
        format!("{token:?} of user {user} was answered {answer:?}")
    });
}

/// A command that all nodes have confirmed.
fn confirmed(outcome: Result<CommandResult, ControlError>) -> CommandResult {
    match outcome {
        Ok(outcome) => {
            check(CONFIRMED, outcome.unconfirmed.is_empty(), || {
                format!("{:?} have not confirmed", outcome.unconfirmed)
            });
            outcome
        }
        Err(error) => broken(CONFIRMED, error),
    }
}

async fn ended(sessions: Vec<TestSession>, reason: CloseReason) {
    for mut session in sessions {
        let seen = within(EVERYWHERE, "a session's end", session.closed()).await;
        check(EVERYWHERE, seen == reason, || format!("a session ended for {seen:?} and not {reason:?}"));
    }
}

fn stays(session: &TestSession) {
    let closing = session.handle().closing();
    check(EVERYWHERE, closing.is_none(), || format!("a session ended for {closing:?} that was not meant"));
}

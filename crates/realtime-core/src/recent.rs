//! [`Recent`]: the last ends of sessions and the last refusals of a node, for questions about one user.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{CloseReason, SessionId, Transport, UserId};

/// The last ends and refusals of one node. Their number is bounded: the oldest are forgotten.
#[derive(Debug)]
pub(crate) struct Recent {
    records: Mutex<Records>,
    started: SystemTime,
}

#[derive(Debug, Default)]
struct Records {
    ends: VecDeque<End>,
    refusals: VecDeque<Refusal>,
    /// Refusals of connections whose user is not known. They have a bound of their own, so that a flood of them costs no
    /// other record.
    unknown: VecDeque<Refusal>,
}

/// The end of a session.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) at: SystemTime,
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
    pub(crate) transport: Transport,
    pub(crate) reason: CloseReason,
    pub(crate) code: Option<u16>,
    pub(crate) open: Duration,
}

/// A connection that was refused.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) at: SystemTime,
    /// `None` if the login was refused, or if it was not looked at.
    pub(crate) user: Option<UserId>,
    pub(crate) transport: Option<Transport>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) reason: &'static str,
    pub(crate) status: u16,
    pub(crate) error: String,
}

/// Session of a user that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct EndedSession {
    /// The node that served it.
    pub node: String,
    /// Time when it ended.
    #[serde(with = "crate::rfc3339")]
    pub at: SystemTime,
    /// The session's id.
    pub session_id: String,
    /// The transport.
    pub transport: String,
    /// The [reason's name](CloseReason::name).
    pub reason: String,
    /// The code that its client was given, for a transport with codes.
    #[serde(default)]
    pub code: Option<u16>,
    /// Milliseconds for which it was open.
    pub open_ms: u64,
}

/// Connection that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RefusedConnection {
    /// The node that refused it.
    pub node: String,
    /// Time when it was refused.
    #[serde(with = "crate::rfc3339")]
    pub at: SystemTime,
    /// The transport, if it is known.
    #[serde(default)]
    pub transport: Option<String>,
    /// The client's address, if it is known.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// The reason's name: `login`, `forbidden` and `unavailable` for a login that is none, may not connect, or cannot be
    /// checked; else that of a [`ConnectError`](crate::error::ConnectError::name).
    pub reason: String,
    /// The HTTP status of the reason. The response had another one where an [`ErrorStatus`](crate::ruoyi::ErrorStatus) says
    /// so, and for an event stream that is to come back later (200), or never (204).
    pub status: u16,
    /// The reason as a text.
    pub error: String,
}

/// What is known of a user.
pub(crate) struct OfUser {
    pub(crate) ends: Vec<EndedSession>,
    /// Time since when the ends are complete, of all users.
    pub(crate) ends_since: SystemTime,
    pub(crate) refusals: Vec<RefusedConnection>,
    pub(crate) refusals_since: SystemTime,
    pub(crate) unknown: Vec<RefusedConnection>,
}

/// Number of ends, and of refusals, that are kept.
const KEPT: usize = 1000;
/// Number of refusals that are kept of connections whose user is not known.
const KEPT_UNKNOWN: usize = 200;
/// Number of records of each kind in one answer.
const TOLD: usize = 20;
/// Longest text of a refusal, in characters.
const LONGEST_TEXT: usize = 200;

impl Default for Recent {
    fn default() -> Self {
        Self { records: Mutex::default(), started: SystemTime::now() }
    }
}

impl Recent {
    pub(crate) fn ended(&self, end: End) {
        push(&mut self.lock().ends, end, KEPT);
    }

    pub(crate) fn refused(&self, mut refusal: Refusal) {
        if let Some((end, _)) = refusal.error.char_indices().nth(LONGEST_TEXT) {
            refusal.error.truncate(end);
        }
        let records = &mut *self.lock();
        match refusal.user {
            Some(_) => push(&mut records.refusals, refusal, KEPT),
            None => push(&mut records.unknown, refusal, KEPT_UNKNOWN),
        }
    }

    /// The last records of a user, newest first.
    pub(crate) fn of(&self, user: &UserId, node: &str) -> OfUser {
        let records = self.lock();
        let since =
            |is_full: bool, oldest: Option<SystemTime>| oldest.filter(|_| is_full).unwrap_or(self.started);
        let refusals = |kept: &VecDeque<Refusal>, user: Option<&UserId>| {
            let of_user = kept.iter().rev().filter(|refusal| refusal.user.as_ref() == user);
            of_user.take(TOLD).map(|refusal| refusal.tell(node)).collect()
        };
        let ends = records.ends.iter().rev().filter(|end| end.user == *user).take(TOLD);
        OfUser {
            ends: ends.map(|end| end.tell(node)).collect(),
            ends_since: since(records.ends.len() == KEPT, records.ends.front().map(|end| end.at)),
            refusals: refusals(&records.refusals, Some(user)),
            refusals_since: since(
                records.refusals.len() == KEPT,
                records.refusals.front().map(|refusal| refusal.at),
            ),
            unknown: refusals(&records.unknown, None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push<T>(records: &mut VecDeque<T>, record: T, most: usize) {
    if records.len() >= most {
        records.pop_front();
    }
    records.push_back(record);
}

impl End {
    fn tell(&self, node: &str) -> EndedSession {
        EndedSession {
            node: node.to_owned(),
            at: self.at,
            session_id: self.session.to_string(),
            transport: self.transport.to_string(),
            reason: self.reason.name().to_owned(),
            code: self.code,
            open_ms: u64::try_from(self.open.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Refusal {
    fn tell(&self, node: &str) -> RefusedConnection {
        RefusedConnection {
            node: node.to_owned(),
            at: self.at,
            transport: self.transport.map(|transport| transport.to_string()),
            address: self.address,
            reason: self.reason.to_owned(),
            status: self.status,
            error: self.error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(user: i64) -> End {
        End {
            at: SystemTime::now(),
            user: user.into(),
            session: SessionId::random(),
            transport: Transport::new("sse"),
            reason: CloseReason::Kicked,
            code: None,
            open: Duration::from_millis(7),
        }
    }

    fn refusal(user: Option<i64>, error: &str) -> Refusal {
        Refusal {
            at: SystemTime::now(),
            user: user.map(UserId::from),
            transport: None,
            address: None,
            reason: "kicked",
            status: 401,
            error: error.to_owned(),
        }
    }

    #[test]
    fn the_newest_records_are_kept_and_the_time_since_when_they_are_complete_is_told() {
        let recent = Recent::default();
        recent.ended(end(1));
        recent.refused(refusal(Some(1), "first"));
        let of_user = recent.of(&1.into(), "a");
        assert_eq!((of_user.ends.len(), of_user.refusals.len()), (1, 1));
        assert_eq!((of_user.ends[0].reason.as_str(), of_user.ends[0].open_ms), ("kicked", 7));
        assert_eq!(of_user.ends_since, recent.started);
        for _ in 0..KEPT {
            recent.ended(end(2));
        }
        let of_user = recent.of(&1.into(), "a");
        assert_eq!(of_user.ends.len(), 0, "it was forgotten");
        assert!(of_user.ends_since > recent.started, "and the answer says so");
        assert_eq!(recent.of(&2.into(), "a").ends.len(), TOLD);
    }

    #[test]
    fn refusals_of_unknown_users_cost_no_known_ones() {
        let recent = Recent::default();
        recent.refused(refusal(Some(1), "known"));
        for _ in 0..10 * KEPT {
            recent.refused(refusal(None, &"ü".repeat(10 * LONGEST_TEXT)));
        }
        let of_user = recent.of(&1.into(), "a");
        assert_eq!((of_user.refusals.len(), of_user.unknown.len()), (1, TOLD));
        assert_eq!(of_user.unknown[0].error.chars().count(), LONGEST_TEXT);
        assert_eq!(recent.lock().unknown.len(), KEPT_UNKNOWN);
    }
}

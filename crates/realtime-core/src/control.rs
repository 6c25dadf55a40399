//! [`Control`]: orders that every node of a cluster carries out.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_core::future::BoxFuture;
use futures_util::future::ready;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{CloseReason, TokenHash, UserId, refusals::Refusals, registry::Registry};

/// Something that every node does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Order {
    /// End a user's sessions, or one of them, and refuse their tokens.
    Kick {
        /// The user.
        user: UserId,
        /// The id of the only session that is meant.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<String>,
    },
    /// Refuse tokens; their live sessions are not touched. Follows a kick on the node that carried it out.
    Refuse {
        /// The tokens.
        tokens: Vec<RefusedToken>,
    },
    /// Refuse a token and end its sessions.
    RevokeToken(RefusedToken),
    /// Refuse a user's tokens that were issued before a time, and end their sessions.
    RevokeUser {
        /// The user.
        user: UserId,
        /// Tokens that do not say when they were issued are older than any time.
        #[serde(with = "seconds")]
        issued_before: SystemTime,
    },
}

/// A token that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedToken {
    /// Its hash.
    pub token: TokenHash,
    /// When it would have ended anyway; `None`: refused for good.
    #[serde(default, with = "optional_seconds", skip_serializing_if = "Option::is_none")]
    pub until: Option<SystemTime>,
}

/// Gives orders to every node of a cluster, this one included.
pub trait Control: Send + Sync + 'static {
    /// Gives an order and waits, for a bounded time, until every live node has carried it out. A node that is cut
    /// off carries it out when it returns.
    ///
    /// # Errors
    /// [`ControlError`] when the order could not be given; nobody carries it out then, or nobody knows.
    fn give(&self, order: Order) -> BoxFuture<'_, Result<Outcome, ControlError>>;

    /// This node stops and has no sessions any more: nobody needs to wait for it.
    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }
}

/// What became of an order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many sessions it ended.
    pub closed: usize,
    /// The live nodes that have not confirmed it within the time.
    pub unconfirmed: Vec<String>,
}

/// An order could not be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the order could not be given: {0}")]
pub struct ControlError(pub String);

/// Carries out orders on this node.
#[derive(Debug, Clone)]
pub struct LocalControl {
    registry: Arc<Registry>,
    refusals: Arc<Refusals>,
    node: Arc<str>,
}

/// What an order did on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// How many sessions it ended.
    pub closed: usize,
    /// The tokens that this node refuses because of it, and that the others have to refuse too.
    pub refused: Vec<RefusedToken>,
}

impl LocalControl {
    pub(crate) fn new(registry: Arc<Registry>, refusals: Arc<Refusals>, node: Arc<str>) -> Self {
        Self { registry, refusals, node }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Carries out an order.
    pub fn apply(&self, order: &Order) -> Applied {
        let directory = &self.registry.directory;
        let mut applied = Applied::default();
        match order {
            Order::Kick { user, session } => {
                for state in directory.of(user) {
                    let meant = session.as_ref().is_none_or(|session| *session == state.id.to_string());
                    if meant && state.outbox.closing().is_none() {
                        let token = state.principal.token;
                        let until = state.principal.expires_at;
                        self.refusals.refuse(token, until);
                        state.outbox.close(CloseReason::Kicked);
                        applied.closed += 1;
                        applied.refused.push(RefusedToken { token, until });
                    }
                }
            }
            Order::Refuse { tokens } => {
                for RefusedToken { token, until } in tokens {
                    self.refusals.refuse(*token, *until);
                }
            }
            Order::RevokeToken(RefusedToken { token, until }) => {
                self.refusals.refuse(*token, *until);
                applied.closed = self.revoke_where(directory.all(), |session| session.token == *token);
            }
            Order::RevokeUser { user, issued_before } => {
                self.refusals.refuse_before(user.clone(), *issued_before);
                let older =
                    |principal: &crate::Principal| principal.issued_at.is_none_or(|at| at < *issued_before);
                applied.closed = self.revoke_where(directory.of(user), older);
            }
        }
        applied
    }

    fn revoke_where(
        &self,
        mut sessions: Vec<Arc<crate::session::SessionState>>,
        condition: impl Fn(&crate::Principal) -> bool,
    ) -> usize {
        sessions.retain(|session| condition(&session.principal) && session.outbox.closing().is_none());
        for session in &sessions {
            session.outbox.close(CloseReason::Revoked);
        }
        sessions.len()
    }
}

impl Control for LocalControl {
    fn give(&self, order: Order) -> BoxFuture<'_, Result<Outcome, ControlError>> {
        let Applied { closed, .. } = self.apply(&order);
        Box::pin(async move { Ok(Outcome { closed, unconfirmed: Vec::new() }) })
    }
}

impl Serialize for TokenHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:032x}", u128::from_be_bytes(self.to_bytes())))
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let hash = u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)?;
        Ok(Self::from_bytes(hash.to_be_bytes()))
    }
}

/// Seconds since 1970.
mod seconds {
    use super::{Deserialize, Deserializer, Duration, Serializer, SystemTime, UNIX_EPOCH};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let seconds = Duration::from_secs(u64::deserialize(deserializer)?);
        UNIX_EPOCH.checked_add(seconds).ok_or_else(|| serde::de::Error::custom("a time beyond all times"))
    }
}

/// The same, or nothing.
mod optional_seconds {
    use super::{Deserialize, Deserializer, Serialize, Serializer, SystemTime, seconds};

    #[derive(Serialize, Deserialize)]
    struct Seconds(#[serde(with = "seconds")] SystemTime);

    pub(super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(Seconds).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SystemTime>, D::Error> {
        Ok(Option::<Seconds>::deserialize(d)?.map(|Seconds(time)| time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_come_back_as_they_were_given() {
        let until = Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let refused = RefusedToken { token: TokenHash::of("a"), until };
        for order in [
            Order::Kick { user: 5.into(), session: None },
            Order::Kick { user: "u-7".parse().unwrap(), session: Some("0a".into()) },
            Order::Refuse { tokens: vec![refused.clone(), RefusedToken { until: None, ..refused.clone() }] },
            Order::RevokeToken(refused),
            Order::RevokeUser { user: 5.into(), issued_before: UNIX_EPOCH + Duration::from_secs(7) },
        ] {
            let json = serde_json::to_string(&order).unwrap();
            assert_eq!(serde_json::from_str::<Order>(&json).unwrap(), order, "{json}");
        }
    }
}

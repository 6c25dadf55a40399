//! [`ConnectError`]: the reasons to refuse a connection.

use std::time::Duration;

use crate::UserId;

/// Reason why a connection was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// This node does not know yet which logins the cluster refuses; see [`Hub::started`](crate::Hub::started).
    #[error("this node is starting")]
    Starting,
    /// The position where the session begins was not known in time: the bus is not up on this node yet, or this node
    /// lags behind the client's cursor. See [`Hub::wait_until_begun`](crate::Hub::wait_until_begun);
    /// [`Hub::connect`](crate::Hub::connect) does not wait.
    #[error("this node is behind the others")]
    Behind,
    /// This node shuts down.
    #[error("this node is shutting down")]
    Draining,
    /// The bus is unavailable, and this node sends its clients to other nodes: `bus.onDown`.
    #[error("this node is cut off from the others")]
    BusDown,
    /// The token was kicked.
    #[error("this login was ended by an administrator")]
    Kicked,
    /// `limits.maxConnections` is reached.
    #[error("this node has reached its limit of {0} connections")]
    Full(usize),
    /// `limits.maxConnectionsPerUser` is reached.
    #[error("user {0} has reached the limit of {1} connections")]
    TooManyOfUser(UserId, usize),
    /// `limits.maxConnectionsPerUserInCluster` is reached.
    #[error("user {0} has reached the limit of {1} connections in the cluster")]
    TooManyInCluster(UserId, usize),
    /// `limits.maxConnectionsPerToken` is reached.
    #[error("this login has reached the limit of {0} connections")]
    TooManyOfToken(usize),
    /// `limits.maxConnectionsPerAddress` is reached.
    #[error("this address has reached the limit of {0} connections")]
    TooManyOfAddress(usize),
    /// `limits.maxHandshakeRate` is reached.
    #[error("too many connections at once")]
    TooFast {
        /// Time until one more is admitted.
        retry: Duration,
    },
    /// `limits.maxHandshakeRatePerAddress` is reached.
    #[error("too many connections at once from this address")]
    TooFastOfAddress {
        /// Time until one more is admitted.
        retry: Duration,
    },
    /// The hub has the maximum number of wire formats.
    #[error("too many wire formats (at most 6): {0}")]
    TooManyWires(&'static str),
}

impl ConnectError {
    /// HTTP status of the response to a request that failed with this error.
    pub fn status(&self) -> u16 {
        match self {
            Self::Starting
            | Self::Behind
            | Self::Draining
            | Self::BusDown
            | Self::Full(_)
            | Self::TooFast { .. } => 503,
            Self::Kicked => 401,
            Self::TooManyOfUser(..)
            | Self::TooManyInCluster(..)
            | Self::TooManyOfToken(_)
            | Self::TooManyOfAddress(_)
            | Self::TooFastOfAddress { .. } => 429,
            Self::TooManyWires(_) => 500,
        }
    }

    /// The reason's name, as in [`Hub::explain`](crate::Hub::explain). Labels of metrics have `node_rate` for `nodeRate`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Behind => "behind",
            Self::Draining | Self::BusDown => "draining",
            Self::Kicked => "kicked",
            Self::Full(_) => "node",
            Self::TooManyOfUser(..) => "user",
            Self::TooManyInCluster(..) => "cluster",
            Self::TooManyOfToken(_) => "token",
            Self::TooManyOfAddress(_) => "address",
            Self::TooFast { .. } => "nodeRate",
            Self::TooFastOfAddress { .. } => "addressRate",
            Self::TooManyWires(_) => "wires",
        }
    }

    /// Returns `true` if the cause passes without the client's doing: others take the room, or the node is not ready. An
    /// event stream is then told to come back.
    pub fn is_temporary(&self) -> bool {
        match self {
            // Others use the address, too; and sessions of a node that was killed count until its lease has ended.
            Self::TooManyOfAddress(_) | Self::TooFastOfAddress { .. } | Self::TooManyInCluster(..) => true,
            _ => self.status() == 503,
        }
    }

    /// Returns `true` for a limit that clients of several users share, so that an operator has to know.
    pub(crate) fn is_shared_limit(&self) -> bool {
        matches!(
            self,
            Self::Full(_) | Self::TooManyOfAddress(_) | Self::TooFast { .. } | Self::TooFastOfAddress { .. }
        )
    }

    /// Time until a connection may be admitted, if it is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooFast { retry } | Self::TooFastOfAddress { retry } => Some(*retry),
            _ => None,
        }
    }
}

//! [`ConnectError`]: the reasons to refuse a connection.

use crate::UserId;

/// Reason why a connection was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// This node does not know yet which logins the cluster refuses; see [`Hub::started`](crate::Hub::started).
    #[error("this node is starting")]
    Starting,
    /// The position where the session begins was not known in time: the bus is not up on this node yet, or this node
    /// lags behind the client's cursor. Only transports report it, since [`Hub::connect`](crate::Hub::connect) does not
    /// wait.
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
    /// The hub has the maximum number of wire formats.
    #[error("too many wire formats (at most 6): {0}")]
    TooManyWires(&'static str),
}

impl ConnectError {
    /// HTTP status of the response to a request that failed with this error.
    pub fn status(&self) -> u16 {
        match self {
            Self::Starting | Self::Behind | Self::Draining | Self::BusDown | Self::Full(_) => 503,
            Self::Kicked => 401,
            Self::TooManyOfUser(..) => 429,
            Self::TooManyWires(_) => 500,
        }
    }
}

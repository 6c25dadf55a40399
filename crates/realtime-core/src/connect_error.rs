//! [`ConnectError`]: why a connection was not taken in.

use crate::UserId;

/// Why a connection was not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// This node does not know yet which logins the cluster refuses; see [`Hub::started`](crate::Hub::started).
    #[error("this node is starting")]
    Starting,
    /// Where the session begins could not be told in time: the bus has yet to come up here, or this node lags behind
    /// the client's cursor. For transports; [`Hub::connect`](crate::Hub::connect) does not wait.
    #[error("this node is behind the others")]
    Behind,
    /// This node shuts down.
    #[error("this node is shutting down")]
    Draining,
    /// The bus is away, and this node sends its sessions to others: `bus.onDown`.
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
    /// Maximum number of wire formats of a hub.
    #[error("too many wire formats (at most 6): {0}")]
    TooManyWires(&'static str),
}

impl ConnectError {
    /// Status of the HTTP response to a request that failed for this.
    pub fn status(&self) -> u16 {
        match self {
            Self::Starting | Self::Behind | Self::Draining | Self::BusDown | Self::Full(_) => 503,
            Self::Kicked => 401,
            Self::TooManyOfUser(..) => 429,
            Self::TooManyWires(_) => 500,
        }
    }
}

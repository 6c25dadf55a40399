//! [`CloseReason`]: why a session ended.

use std::{fmt, time::Duration};

/// Reason for the end of a session. Each transport maps it to its own codes.
///
/// `Application`, `Policy`, `Overloaded` and `Forbidden` are for applications; the framework itself uses the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client closed the session, or the server's code closed it without another reason.
    Normal,
    /// The client disconnected without a close frame.
    Gone,
    /// The close endpoint or `disconnect` ended it.
    Disconnected,
    /// This node shuts down; clients reconnect after `retry`.
    Drain {
        /// Time that this client should wait. It is random, so that clients do not all reconnect at once.
        retry: Duration,
    },
    /// The client broke the protocol.
    Protocol,
    /// The client sent text that is not UTF-8, or a frame that the subprotocol does not allow.
    InvalidPayload,
    /// The client sent a kind of data that is not accepted here.
    Unsupported,
    /// The client sent a message above the limit.
    TooBig,
    /// The application closed it as a matter of policy.
    Policy,
    /// An internal error of the server, such as a panic of the handler of a client's text.
    Internal,
    /// The node is overloaded.
    Overloaded,
    /// The token has expired.
    TokenExpired,
    /// The token was revoked or its user has logged out.
    Revoked,
    /// The user is no longer allowed to connect.
    Forbidden,
    /// The client did not answer the heartbeat.
    NoPong,
    /// Kicked; the token is refused from now on.
    Kicked,
    /// The client's socket accepted no data for longer than `outbox.maxStall`.
    SlowConsumer,
    /// The client sent more messages than it may.
    RateLimited,
    /// Its user or its token has more sessions than `limits.*` allows, and a newer one has taken its place.
    TooManySessions,
    /// Its user has more sessions in the cluster than `limits.*` allows, which was found after it had been let in: it is refused
    /// as its handshake would have been. Clients come back after `retry`, since the other sessions may have ended.
    LimitReached {
        /// Time that this client should wait. It is random, so that clients do not all reconnect at once.
        retry: Duration,
    },
    /// An application-defined reason. A WebSocket client should not reconnect. An `EventSource` does not receive the
    /// reason and reconnects: only its login can keep it out.
    Application {
        /// The code of the WebSocket's Close frame.
        code: CloseCode,
        /// The reason's stable name. The Close frame contains at most 123 bytes of it.
        name: &'static str,
    },
}

/// Code that a client sees of a connection that ends without a Close frame (RFC 6455, section 7.4.1).
const ABNORMAL: u16 = 1006;

/// Application-defined close code: 4000 to 4999 (RFC 6455, section 7.4.2). The framework uses 4401, 4403, 4408, 4409,
/// 4410 and 4429.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// Creates a close code; `None` outside 4000 to 4999.
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            4000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

impl CloseReason {
    /// The reasons of the framework itself.
    #[cfg(feature = "metrics")]
    pub(crate) const OF_FRAMEWORK: [Self; 17] = [
        Self::Normal,
        Self::Gone,
        Self::Disconnected,
        Self::Drain { retry: Duration::ZERO },
        Self::Protocol,
        Self::InvalidPayload,
        Self::Unsupported,
        Self::TooBig,
        Self::Internal,
        Self::TokenExpired,
        Self::Revoked,
        Self::NoPong,
        Self::Kicked,
        Self::SlowConsumer,
        Self::RateLimited,
        Self::TooManySessions,
        Self::LimitReached { retry: Duration::ZERO },
    ];

    /// The reason's stable name, as in logs, metrics and `bye` frames.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Gone => "gone",
            Self::Disconnected => "disconnected",
            Self::Drain { .. } => "drain",
            Self::Protocol => "protocol",
            Self::InvalidPayload => "invalid-payload",
            Self::Unsupported => "unsupported",
            Self::TooBig => "too-big",
            Self::Policy => "policy",
            Self::Internal => "internal",
            Self::Overloaded => "overloaded",
            Self::TokenExpired => "token-expired",
            Self::Revoked => "revoked",
            Self::Forbidden => "forbidden",
            Self::NoPong => "no-pong",
            Self::Kicked => "kicked",
            Self::SlowConsumer => "slow-consumer",
            Self::RateLimited => "rate-limited",
            Self::TooManySessions => "too-many-sessions",
            Self::LimitReached { .. } => "limit-reached",
            Self::Application { name, .. } => name,
        }
    }

    /// Code of the WebSocket's Close frame; `None` for a client that is gone.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Gone => None,
            Self::Normal | Self::Disconnected => Some(1000),
            Self::Protocol => Some(1002),
            Self::Unsupported => Some(1003),
            Self::InvalidPayload => Some(1007),
            Self::Policy => Some(1008),
            Self::TooBig => Some(1009),
            Self::Internal => Some(1011),
            Self::Drain { .. } => Some(1012),
            Self::Overloaded | Self::LimitReached { .. } => Some(1013),
            Self::TokenExpired | Self::Revoked => Some(4401),
            Self::Forbidden => Some(4403),
            Self::NoPong => Some(4408),
            Self::Kicked => Some(4409),
            Self::TooManySessions => Some(4410),
            Self::SlowConsumer | Self::RateLimited => Some(4429),
            Self::Application { code, .. } => Some(code.get()),
        }
    }

    /// The name and the code by which ends are counted.
    pub(crate) fn counted_as(&self) -> (&'static str, u16) {
        (self.name(), self.code().unwrap_or(ABNORMAL))
    }

    /// Returns `true` if the same client may reconnect with the same token.
    pub fn may_reconnect(&self) -> bool {
        matches!(
            self,
            Self::Gone
                | Self::Drain { .. }
                | Self::Internal
                | Self::Overloaded
                | Self::NoPong
                | Self::SlowConsumer
                | Self::RateLimited
                | Self::LimitReached { .. }
        )
    }
}

//! [`LoginRejection`]: the reason why a login is invalid, and its consequence.

use realtime_core::{CloseReason, auth::AuthError};

/// The reason why a login is invalid. The numbers are Sa-Token's (`NotLoginException`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LoginRejection {
    /// Parameter and header are missing or empty.
    #[error("{0} is missing")]
    Missing(String),
    /// Parameter or header lacks the prefix.
    #[error("token has no {0} prefix")]
    NoPrefix(String),
    #[error("token is malformed")]
    Malformed,
    #[error("token algorithm is not HS256")]
    Algorithm,
    #[error("token header requires an unsupported extension")]
    Header,
    #[error("token signature is wrong")]
    Signature,
    #[error("token claims cannot be read")]
    Claims,
    #[error("token is of another login type")]
    LoginType,
    /// Redis does not know it.
    #[error("token is unknown: it was logged out, or has expired")]
    Unknown,
    /// Redis has it for another login id.
    #[error("token is another login's")]
    LoginId,
    /// -3.
    #[error("token has expired")]
    Expired,
    /// -4: the same account has logged in elsewhere.
    #[error("token was replaced by a later login")]
    Replaced,
    /// -5: an administrator ended it.
    #[error("token was kicked out")]
    Kicked,
    /// -6.
    #[error("token is frozen")]
    Frozen,
    /// Sa-Token treats a token without a time of last activity as frozen.
    #[error("token is frozen: its last activity is unknown")]
    NeverActive,
    #[error("token is frozen: it was inactive for too long")]
    Inactive,
    #[error("token's last activity cannot be read")]
    LastActive,
    /// -1, -2, -7, which Sa-Token reserves but does not write.
    #[error("token is marked as invalid ({0})")]
    Marked(i8),
}

impl LoginRejection {
    /// Returns the reason with which a live session of the login is closed.
    pub(super) fn close_reason(&self) -> CloseReason {
        match self {
            Self::Kicked | Self::Replaced => CloseReason::Kicked,
            Self::Expired | Self::Frozen | Self::NeverActive | Self::Inactive => CloseReason::TokenExpired,
            _ => CloseReason::Revoked,
        }
    }
}

impl From<LoginRejection> for AuthError {
    fn from(rejection: LoginRejection) -> Self {
        Self::Unauthorized(rejection.to_string())
    }
}

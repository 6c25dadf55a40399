//! Close codes of reasons.

use realtime_core::CloseReason;

/// Code of the Close frame for a reason; `None` when the client is gone. docs/protocol.md has the same table.
pub(crate) fn code(reason: CloseReason) -> Option<u16> {
    match reason {
        CloseReason::Gone => None,
        CloseReason::Normal | CloseReason::Disconnected => Some(1000),
        CloseReason::Protocol => Some(1002),
        CloseReason::Unsupported => Some(1003),
        CloseReason::InvalidPayload => Some(1007),
        CloseReason::Policy => Some(1008),
        CloseReason::TooBig => Some(1009),
        CloseReason::Internal => Some(1011),
        CloseReason::Drain { .. } => Some(1012),
        CloseReason::Overloaded => Some(1013),
        CloseReason::TokenExpired | CloseReason::Revoked => Some(4401),
        CloseReason::Forbidden => Some(4403),
        CloseReason::NoPong => Some(4408),
        CloseReason::Kicked => Some(4409),
        CloseReason::TooManySessions => Some(4410),
        CloseReason::SlowConsumer | CloseReason::RateLimited => Some(4429),
        CloseReason::Application { code, .. } => Some(code.get()),
        // A reason of a newer core than this crate.
        _ => Some(1000),
    }
}

//! The times of a token, which are NumericDates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::auth::AuthError;

/// Rejects a token that is not valid yet or has expired.
pub(super) fn check_times(expires_at: SystemTime, nbf: Option<f64>) -> Result<(), AuthError> {
    let now = SystemTime::now();
    if expires_at <= now {
        Err(AuthError::Unauthorized("token has expired".into()))
    } else if nbf.is_some_and(|nbf| time(nbf).map_or(nbf > 0.0, |start| start > now)) {
        Err(AuthError::Unauthorized("token is not valid yet".into()))
    } else {
        Ok(())
    }
}

/// Converts a NumericDate to a time; `None` if it is out of range.
pub(super) fn time(seconds: f64) -> Option<SystemTime> {
    let span = Duration::try_from_secs_f64(seconds.abs()).ok()?;
    if seconds < 0.0 { UNIX_EPOCH.checked_sub(span) } else { UNIX_EPOCH.checked_add(span) }
}

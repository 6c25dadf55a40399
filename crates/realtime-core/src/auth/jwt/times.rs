//! The times of a token, which are NumericDates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::auth::AuthError;

/// Refuses a token before and after its time.
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

/// A NumericDate as a time, unless no clock gets there.
pub(super) fn time(seconds: f64) -> Option<SystemTime> {
    let span = Duration::try_from_secs_f64(seconds.abs()).ok()?;
    if seconds < 0.0 { UNIX_EPOCH.checked_sub(span) } else { UNIX_EPOCH.checked_add(span) }
}

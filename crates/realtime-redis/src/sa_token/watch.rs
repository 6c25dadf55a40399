//! [`SaTokenWatch`]: periodic check of the logins of live sessions.

use std::{
    collections::HashMap,
    fmt,
    panic::AssertUnwindSafe,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use realtime_core::{Hub, SessionHandle, auth::Credential};
use tokio::{task::JoinHandle, time::sleep};

use super::{authenticator::SaTokenAuthenticator, store::StoreUnavailable};

/// A task that checks the logins of live sessions until this is dropped.
#[must_use = "the watch ends when this is dropped"]
pub struct SaTokenWatch(JoinHandle<()>);

/// Number of logins that are looked up in one round trip.
const BATCH: usize = 500;
/// Minimum time between two rounds.
const MIN_INTERVAL: Duration = Duration::from_millis(50);

impl SaTokenAuthenticator {
    /// Checks the logins of a hub's live sessions once per interval (30 s is a good value, 50 ms the minimum), and ends the
    /// sessions of those that are not valid any more: with [`Kicked`] if the login was kicked out or replaced, with
    /// [`TokenExpired`] if it is frozen, with [`Revoked`] if it is gone.
    ///
    /// While Redis is unavailable no session ends; but in a Redis that has lost its data all logins are gone. Sessions of
    /// another authenticator are left alone; if tokens are opaque, those without a credential.
    ///
    /// [`Kicked`]: realtime_core::CloseReason::Kicked
    /// [`TokenExpired`]: realtime_core::CloseReason::TokenExpired
    /// [`Revoked`]: realtime_core::CloseReason::Revoked
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn watch(&self, hub: Hub, every: Duration) -> SaTokenWatch {
        let authenticator = self.clone();
        SaTokenWatch(tokio::spawn(async move {
            loop {
                sleep(every.max(MIN_INTERVAL)).await;
                // A round that panics, which the panic hook reports, must not be the last.
                let round = AssertUnwindSafe(authenticator.recheck(&hub)).catch_unwind().await;
                if let Ok(Err(error)) = round {
                    // The store has logged the outage.
                    tracing::debug!(%error, "failed to look up live logins");
                }
            }
        }))
    }

    async fn recheck(&self, hub: &Hub) -> Result<(), StoreUnavailable> {
        let mut logins: HashMap<_, Vec<SessionHandle>> = HashMap::new();
        for session in hub.all_sessions() {
            if let Some(credential) = session.principal().credential.clone()
                && session.closing().is_none()
            {
                logins.entry(credential).or_default().push(session);
            }
        }
        let logins: Vec<_> = logins.into_iter().collect();
        for batch in logins.chunks(BATCH) {
            // Tokens of another authenticator are left alone.
            let ours = batch.iter().filter_map(|(credential, sessions)| {
                let claims = self.0.claims(credential.expose()).ok()?;
                // An opaque token's session has the login id for its user.
                let login_id = match claims {
                    Some(claims) => claims.login_id,
                    None => sessions.first()?.user().to_string(),
                };
                Some((credential.expose(), login_id, sessions))
            });
            let ours: Vec<_> = ours.collect();
            if ours.is_empty() {
                continue;
            }
            let records = self.0.store.look_up_all(ours.iter().map(|(token, ..)| *token)).await?;
            let now = SystemTime::now();
            for ((token, login_id, sessions), record) in ours.iter().zip(records) {
                let Err(rejection) = record.check(Some(login_id), self.0.activity, now) else { continue };
                for session in *sessions {
                    // Its login may have been renewed since.
                    if session.principal().credential.as_ref().map(Credential::expose) != Some(*token) {
                        continue;
                    }
                    tracing::debug!(session = %session.id(), user = %session.user(), %rejection, "login has ended");
                    session.close(rejection.close_reason());
                }
            }
        }
        Ok(())
    }
}

impl Drop for SaTokenWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for SaTokenWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaTokenWatch")
    }
}

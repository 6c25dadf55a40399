//! [`SaTokenWatch`]: asks again whether the logins of live sessions hold.

use std::{
    collections::HashMap,
    fmt,
    panic::AssertUnwindSafe,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use realtime_core::{Hub, SessionHandle};
use tokio::{task::JoinHandle, time::sleep};

use super::{SaTokenAuthenticator, store::Away};

/// Looks again after the logins of live sessions, until it is dropped.
#[must_use = "the watch ends when this is dropped"]
pub struct SaTokenWatch(JoinHandle<()>);

/// How many logins are looked up in one round trip.
const BATCH: usize = 500;
/// The shortest time between two rounds.
const SHORTEST: Duration = Duration::from_millis(50);

impl SaTokenAuthenticator {
    /// Looks `every` so often (30 s is a good time, 50 ms the shortest) whether the logins of a hub's live sessions
    /// still hold, and ends the sessions of those that do not: with [`Kicked`] when the login was kicked out or
    /// replaced, with [`TokenExpired`] when it is frozen, with [`Revoked`] when it is gone.
    ///
    /// While Redis is away no session ends; but a Redis that comes back empty has forgotten all logins, and says so.
    /// Sessions that another authenticator let in are left alone; where tokens are opaque, those without a credential.
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
                sleep(every.max(SHORTEST)).await;
                // A round that panics, which the panic hook tells of, must not be the last.
                let round = AssertUnwindSafe(authenticator.recheck(&hub)).catch_unwind().await;
                if let Ok(Err(error)) = round {
                    // The store has told the log already.
                    tracing::debug!(%error, "live logins could not be looked up");
                }
            }
        }))
    }

    async fn recheck(&self, hub: &Hub) -> Result<(), Away> {
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
            // What is no token of ours is somebody else's to judge.
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
            for ((_, login_id, sessions), record) in ours.iter().zip(records) {
                let Err(invalid) = record.check(Some(login_id), self.0.activity, now) else { continue };
                for session in *sessions {
                    tracing::debug!(session = %session.id(), user = %session.user(), %invalid, "login has ended");
                    session.close(invalid.close_reason());
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

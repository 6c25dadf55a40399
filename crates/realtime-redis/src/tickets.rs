//! [`RedisTickets`]: the tickets of a cluster.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_core::future::BoxFuture;
use realtime_core::{
    Position, Principal, Topic, UserId,
    auth::{Credential, TicketError, TicketKey, TicketStore, TokenHash, TopicPattern},
    error::CursorError,
};
use serde::{Deserialize, Serialize};

use crate::{
    commands::Commands,
    config::{RedisConfig, RedisConfigError},
    content::Skipped,
    millis::millis,
    part::Part,
    repair::Repair,
};

/// Tickets in Redis: made on one node, used once on any.
///
/// A key is the SHA-256 of its ticket, and its value the login, without the token: only its hash. An exception are logins of
/// Java nodes, whose tokens Redis has anyway. A failover may lose tickets, and one that was used in its last moment may work
/// a second time, if the new master had not heard of its use.
pub struct RedisTickets {
    commands: Commands,
    /// Prefix of the keys.
    prefix: String,
}

impl RedisTickets {
    /// Returns what makes the store when the hub starts, for [`HubBuilder::tickets`](realtime_core::HubBuilder::tickets).
    ///
    /// # Errors
    /// [`RedisConfigError`] for an invalid URL, or a file that cannot be used.
    ///
    /// # Panics
    /// The returned function panics outside a tokio runtime.
    pub fn make(config: RedisConfig) -> Result<impl FnOnce() -> Self + Send, RedisConfigError> {
        // In one slot with control: tickets are few.
        let prefix = format!("{}:ticket:", config.tag("rt/control"));
        let commands = Commands::make(config, Part::Tickets)?;
        // A ticket's key has one reader, who takes it away: there is nothing to repair, and nothing to skip.
        let skipped = Arc::new(Skipped::new(|| ()));
        Ok(move || Self { commands: commands(prefix.clone(), Repair::default(), skipped), prefix })
    }

    fn key(&self, key: TicketKey) -> String {
        format!("{}{key}", self.prefix)
    }
}

impl TicketStore for RedisTickets {
    fn put(&self, key: TicketKey, login: Principal, ttl: Duration) -> BoxFuture<'_, Result<(), TicketError>> {
        Box::pin(async move {
            if !login.extensions.is_empty() {
                return Err(TicketError::Unsupported);
            }
            let failed = |error: &dyn fmt::Display| TicketError::Unavailable(error.to_string());
            let value = serde_json::to_string(&Login::of(login)).map_err(|error| failed(&error))?;
            let key = self.key(key);
            let (mut set, mut get) = (redis::cmd("SET"), redis::cmd("GET"));
            set.arg(&key).arg(&value).arg("NX").arg("PX").arg(millis(ttl).max(1));
            get.arg(&key);
            // After a lost answer the request is repeated, and meets what it has written itself.
            let put = self.commands.run(async |connection| {
                match set.query_async::<Option<String>>(connection).await? {
                    Some(_) => Ok(true),
                    None => Ok(get.query_async::<Option<String>>(connection).await?.as_ref() == Some(&value)),
                }
            });
            match put.await.map_err(|error| failed(&error))? {
                true => Ok(()),
                false => Err(failed(&"the key of a new ticket exists")),
            }
        })
    }

    fn take(&self, key: TicketKey) -> BoxFuture<'_, Result<Option<Principal>, TicketError>> {
        Box::pin(async move {
            let mut take = redis::cmd("GETDEL");
            take.arg(self.key(key));
            let runs = AtomicU32::new(0);
            let taken = self.commands.run(async |connection| {
                runs.fetch_add(1, Ordering::Relaxed);
                take.query_async::<Option<String>>(connection).await
            });
            let Some(value) = taken.await.map_err(TicketError::Unavailable)? else {
                // The first request may have taken it, and the answer was lost.
                return match runs.into_inner() {
                    0 | 1 => Ok(None),
                    _ => Err(TicketError::Unavailable(
                        "the connection broke while the ticket was taken".into(),
                    )),
                };
            };
            match serde_json::from_str::<Login>(&value) {
                Ok(login) => Ok(Some(login.principal())),
                Err(error) => {
                    // Of another version, or of somebody who writes there.
                    tracing::warn!(%error, "a ticket in Redis cannot be read");
                    Ok(None)
                }
            }
        })
    }
}

impl fmt::Debug for RedisTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTickets").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// A login as Redis has it. Nodes of different versions understand each other: fields may be missing, and unknown ones are
/// ignored.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Login {
    user: UserId,
    token: TokenHash,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    /// Seconds and nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued_at: Option<(i64, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<(i64, u32)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    topics: Vec<Topic>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    grants: Vec<TopicPattern>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
    /// A position, as its text. A login whose limit cannot be read is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    history_after: Option<Limit>,
}

/// A position as its text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Limit(Position);

impl TryFrom<String> for Limit {
    type Error = CursorError;

    fn try_from(text: String) -> Result<Self, CursorError> {
        Ok(Self(text.parse()?))
    }
}

impl From<Limit> for String {
    fn from(Limit(position): Limit) -> Self {
        position.to_string()
    }
}

impl Login {
    fn of(login: Principal) -> Self {
        Self {
            user: login.user,
            token: login.token,
            client_id: login.client_id.as_deref().map(str::to_owned),
            issued_at: login.issued_at.map(since_1970),
            expires_at: login.expires_at.map(since_1970),
            topics: login.topics,
            grants: login.grants,
            credential: login.credential.map(|credential| credential.expose().to_owned()),
            history_after: login.history_after.map(Limit),
        }
    }

    fn principal(self) -> Principal {
        let mut principal = Principal::new(self.user, "");
        principal.token = self.token;
        principal.client_id = self.client_id.map(Into::into);
        principal.issued_at = self.issued_at.and_then(time);
        // An end that cannot be read has come.
        principal.expires_at = self.expires_at.map(|end| time(end).unwrap_or(UNIX_EPOCH));
        principal.topics = self.topics;
        principal.grants = self.grants;
        principal.credential = self.credential.as_deref().map(Credential::new);
        principal.history_after = self.history_after.map(|Limit(position)| position);
        principal
    }
}

/// A time of issue may be before 1970; the fraction counts forwards.
fn since_1970(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let seconds = before.as_secs() + u64::from(before.subsec_nanos() > 0);
            let nanos = (1_000_000_000 - before.subsec_nanos()) % 1_000_000_000;
            (i64::try_from(seconds).map_or(i64::MIN, |seconds| -seconds), nanos)
        }
    }
}

fn time((seconds, nanos): (i64, u32)) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let whole = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    whole?.checked_add(Duration::from_nanos(nanos.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_survives_its_way_through_redis() {
        let mut login = Principal::new("shop-7".parse().unwrap(), "a token");
        let bare = login.clone();
        login.client_id = Some("web".into());
        login.issued_at = UNIX_EPOCH.checked_sub(Duration::from_millis(1500));
        login.expires_at = Some(UNIX_EPOCH + Duration::from_nanos(4_102_444_800_123_456_789));
        login.topics = vec![Topic::new("role:buyer").unwrap()];
        login.grants = vec![TopicPattern::new("order:*").unwrap()];
        login.credential = Some(Credential::new("a credential"));
        login.history_after = Some("7.3".parse().unwrap());
        for login in [bare, login] {
            let json = serde_json::to_string(&Login::of(login.clone())).unwrap();
            assert!(!json.contains("a token"), "{json}");
            assert_eq!(serde_json::from_str::<Login>(&json).unwrap().principal(), login);
        }
        let newer = r#"{"user":7,"token":"00","more":[1]}"#;
        assert_eq!(serde_json::from_str::<Login>(newer).unwrap().principal().user, UserId::from(7));
        for bad in [
            "{}",
            r#"{"user":7}"#,
            r#"{"user":"a b","token":"00"}"#,
            r#"{"user":7,"token":"00","historyAfter":"x"}"#,
            "7",
        ] {
            assert!(serde_json::from_str::<Login>(bad).is_err(), "{bad}");
        }
        let broken = r#"{"user":7,"token":"00","expiresAt":[9223372036854775807,1000000000]}"#;
        let principal = serde_json::from_str::<Login>(broken).unwrap().principal();
        assert_eq!(principal.expires_at, Some(UNIX_EPOCH));
    }
}

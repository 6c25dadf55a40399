//! [`SaTokenAuthenticator`]: logins that Sa-Token issued and keeps in Redis, as in RuoYi-Vue-Plus.
//!
//! A token is a JWT of the style "simple", signed, but without an end of its own, or a text that says nothing. Whether the
//! login still holds is written in Redis alone, so it is asked at every handshake, and again and again while sessions live.

mod claims;
mod config;
mod connections;
mod invalid;
mod record;
mod store;
mod watch;

use std::{fmt, sync::Arc, time::SystemTime};

use futures_core::future::BoxFuture;
use realtime_core::{AuthError, Authenticator, ClientIdPolicy, Credential, Handshake, Principal, TokenHash};

use self::{
    claims::{Claims, Verifier},
    invalid::Invalid,
    record::ActivityCheck,
    store::Store,
};
pub use self::{
    config::{SaTokenConfig, SaTokenConfigError, SaTokenStyle, SaTokenStyleError},
    watch::SaTokenWatch,
};

/// Checks tokens of Sa-Token: the JWT's signature, if it is one, then its keys in Redis, then the client id.
///
/// It agrees with `StpUtil.checkLogin()` of the Java nodes, without their cache: what they revoke is refused here at
/// once. Live sessions end through [`Self::watch`]. Cloning it gives the same authenticator.
///
/// ```no_run
/// use std::{sync::Arc, time::Duration};
///
/// use realtime_core::{Authenticator, Hub};
/// use realtime_redis::{SaTokenAuthenticator, SaTokenConfig};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hub = Hub::builder().start()?;
/// let config = SaTokenConfig::new("redis://127.0.0.1/", "the jwt-secret-key of the Java nodes");
/// let sa_token = SaTokenAuthenticator::new(config)?;
/// let _watch = sa_token.watch(hub.clone(), Duration::from_secs(30));
/// let authenticator: Arc<dyn Authenticator> = Arc::new(sa_token);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SaTokenAuthenticator(Arc<Shared>);

struct Shared {
    token_name: String,
    /// With its space; empty when none is asked for.
    token_prefix: String,
    /// Of signed tokens; opaque ones say nothing that could be verified.
    verifier: Option<Verifier>,
    activity: ActivityCheck,
    store: Store,
    client_id: ClientIdPolicy,
    renew: bool,
}

impl SaTokenAuthenticator {
    /// An authenticator for a configuration. It connects on first use, and goes on trying.
    ///
    /// # Errors
    /// [`SaTokenConfigError`] when the secret is empty or the URL is none.
    pub fn new(config: SaTokenConfig) -> Result<Self, SaTokenConfigError> {
        let verifier = match config.style {
            SaTokenStyle::JwtSimple => Some(Verifier::new(&config.jwt_secret, &config.login_type)?),
            SaTokenStyle::Opaque => None,
        };
        let activity = ActivityCheck::new(config.active_timeout, config.dynamic_active_timeout);
        let store = Store::new(&config)?;
        let SaTokenConfig { token_name, token_prefix, client_id, renew, .. } = config;
        let token_prefix = if token_prefix.is_empty() { token_prefix } else { token_prefix + " " };
        Ok(Self(Arc::new(Shared { token_name, token_prefix, verifier, activity, store, client_id, renew })))
    }
}

impl Authenticator for SaTokenAuthenticator {
    fn authenticate<'a>(&'a self, handshake: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
        Box::pin(async move {
            let Shared { activity, store, .. } = &*self.0;
            let token = self.0.token(handshake)?;
            let claims = self.0.claims(token)?;
            let record = store.look_up(token).await?;
            let now = SystemTime::now();
            let login_id = record.check(claims.as_ref().map(|claims| &*claims.login_id), *activity, now)?;
            let (user, client_id) = match claims {
                Some(claims) => (claims.user_id, claims.client_id),
                None => (login_id.parse().map_err(|_| Invalid::LoginId)?, None),
            };
            handshake.check_client_id(client_id.as_deref(), self.0.client_id)?;
            if self.0.renew
                && activity.is_on()
                && let Some(last_active) = record.renewed(now)
                && let Err(error) = store.renew(token, &last_active).await
            {
                // The login holds all the same.
                tracing::debug!(%user, %error, "the time of last activity was not renewed");
            }
            Ok(Principal {
                user,
                client_id: client_id.map(Into::into),
                token: TokenHash::of(token),
                issued_at: None,
                expires_at: None,
                topics: Vec::new(),
                credential: Some(Credential::new(token)),
            })
        })
    }
}

/// Longer than any that Sa-Token makes.
const MAX_OPAQUE: usize = 512;

impl Shared {
    /// What a token says of itself: an opaque one, nothing.
    fn claims(&self, token: &str) -> Result<Option<Claims>, Invalid> {
        match &self.verifier {
            Some(verifier) => verifier.verify(token).map(Some),
            None if token.len() <= MAX_OPAQUE && token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(None)
            }
            None => Err(Invalid::Malformed),
        }
    }

    /// The token where `StpLogic.getTokenValue` looks for it: a parameter that is not empty hides the header, and
    /// either needs the prefix to the letter.
    fn token<'a>(&self, handshake: &'a Handshake) -> Result<&'a str, Invalid> {
        let given = |value: &&str| !value.is_empty();
        let value = handshake.query(&self.token_name).filter(given);
        let value = value.or_else(|| handshake.header(&self.token_name)).filter(given);
        let value = value.ok_or_else(|| Invalid::Missing(self.token_name.clone()))?;
        let token = value
            .strip_prefix(self.token_prefix.as_str())
            .ok_or_else(|| Invalid::NoPrefix(self.token_prefix.trim_end().to_owned()))?;
        Some(token).filter(given).ok_or_else(|| Invalid::Missing(self.token_name.clone()))
    }
}

impl fmt::Debug for SaTokenAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaTokenAuthenticator").field("token_name", &self.0.token_name).finish_non_exhaustive()
    }
}

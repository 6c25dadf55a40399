//! [`SaTokenAuthenticator`]: the check of a token at the handshake.

use std::{fmt, sync::Arc, time::SystemTime};

use futures_core::future::BoxFuture;
use realtime_core::{
    Authenticator, Principal,
    auth::{AuthError, ClientIdPolicy, Credential, Handshake, LoginSource},
};

use super::{
    claims::{Claims, Verifier},
    config::{SaTokenConfig, SaTokenConfigError, SaTokenStyle},
    login_rejection::LoginRejection,
    record::ActivityCheck,
    store::Store,
};

/// An authenticator for tokens of Sa-Token: it checks the signature of a JWT, then the token's keys in Redis, then the client
/// id.
///
/// It agrees with `StpUtil.checkLogin()` of the Java nodes, without their cache: a token that they revoke is refused at once.
/// Live sessions are ended by [`Self::watch`]. Clones share the same authenticator.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use realtime_core::{Authenticator, Hub};
/// use realtime_redis::{SaTokenAuthenticator, SaTokenConfig};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hub = Hub::builder().start()?;
/// let config = SaTokenConfig::new("redis://127.0.0.1/", "the jwt-secret-key of the Java nodes");
/// let every = config.recheck;
/// let sa_token = SaTokenAuthenticator::new(config)?;
/// let _watch = sa_token.watch(hub.clone(), every);
/// let authenticator: Arc<dyn Authenticator> = Arc::new(sa_token);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SaTokenAuthenticator(pub(super) Arc<SaTokenShared>);

/// The state that the authenticator and its watch share.
pub(super) struct SaTokenShared {
    token_name: String,
    /// Including the space after it; empty if none is required.
    token_prefix: String,
    /// The verifier of signed tokens; opaque ones have nothing to verify.
    verifier: Option<Verifier>,
    pub(super) activity: ActivityCheck,
    pub(super) store: Store,
    client_id: ClientIdPolicy,
    renew: bool,
}

impl SaTokenAuthenticator {
    /// Creates an authenticator for a configuration. It connects on first use, and reconnects when needed.
    ///
    /// # Errors
    /// [`SaTokenConfigError`] for an empty secret, a missing Redis or an invalid URL.
    pub fn new(config: SaTokenConfig) -> Result<Self, SaTokenConfigError> {
        config.check()?;
        let redis = config.redis.as_ref().ok_or(SaTokenConfigError::NoRedis)?;
        let verifier = match config.style {
            SaTokenStyle::JwtSimple => Some(Verifier::new(&config.jwt_secret, &config.login_type)),
            SaTokenStyle::Opaque => None,
        };
        let activity = ActivityCheck::new(config.active_timeout, config.dynamic_active_timeout);
        let store = Store::new(redis, &config)?;
        let SaTokenConfig { token_name, token_prefix, client_id, renew, .. } = config;
        let token_prefix = if token_prefix.is_empty() { token_prefix } else { token_prefix + " " };
        Ok(Self(Arc::new(SaTokenShared {
            token_name,
            token_prefix,
            verifier,
            activity,
            store,
            client_id,
            renew,
        })))
    }
}

impl Authenticator for SaTokenAuthenticator {
    fn authenticate<'a>(&'a self, handshake: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
        Box::pin(async move {
            let SaTokenShared { activity, store, .. } = &*self.0;
            let token = self.0.token(handshake)?;
            let claims = self.0.claims(token)?;
            let record = store.look_up(token).await?;
            let now = SystemTime::now();
            let login_id = record.check(claims.as_ref().map(|claims| &*claims.login_id), *activity, now)?;
            let (user, client_id) = match claims {
                Some(claims) => (claims.user_id, claims.client_id),
                None => (login_id.parse().map_err(|_| LoginRejection::LoginId)?, None),
            };
            handshake.check_client_id(client_id.as_deref(), self.0.client_id)?;
            if self.0.renew
                && activity.is_on()
                && let Some(last_active) = record.renewed(now)
                && let Err(error) = store.renew(token, &last_active).await
            {
                // The login is valid all the same.
                tracing::debug!(%user, %error, "failed to renew the time of last activity");
            }
            let mut principal = Principal::new(user, token);
            principal.client_id = client_id.map(Into::into);
            principal.credential = Some(Credential::new(token));
            Ok(principal)
        })
    }
}

/// Length limit of opaque tokens, more than any that Sa-Token generates.
const MAX_OPAQUE: usize = 512;

impl SaTokenShared {
    /// Returns the claims of a token; an opaque one has none.
    pub(super) fn claims(&self, token: &str) -> Result<Option<Claims>, LoginRejection> {
        match &self.verifier {
            Some(verifier) => verifier.verify(token).map(Some),
            None if token.len() <= MAX_OPAQUE && token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(None)
            }
            None => Err(LoginRejection::Malformed),
        }
    }

    /// Finds the token as `StpLogic.getTokenValue` does: a parameter that is not empty hides the header, and either must start
    /// with exactly the prefix.
    fn token<'a>(&self, handshake: &'a Handshake) -> Result<&'a str, AuthError> {
        let missing = || LoginRejection::Missing(self.token_name.clone());
        if handshake.renews().is_some() {
            return Ok(handshake.token().ok_or_else(missing)?);
        }
        let Some(value) = handshake.credential(&self.token_name)? else {
            // A cookie has no prefix, in Sa-Token neither.
            let cookie = handshake.token().filter(|_| handshake.login_source() == Some(LoginSource::Cookie));
            return Ok(cookie.ok_or_else(missing)?);
        };
        let token = value
            .strip_prefix(self.token_prefix.as_str())
            .ok_or_else(|| LoginRejection::NoPrefix(self.token_prefix.trim_end().to_owned()))?;
        Ok(Some(token).filter(|token| !token.is_empty()).ok_or_else(missing)?)
    }
}

impl fmt::Debug for SaTokenAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaTokenAuthenticator").field("token_name", &self.0.token_name).finish_non_exhaustive()
    }
}

//! [`Logins`]: logins by signed tokens, whose keys a reload replaces.

use std::sync::{Arc, PoisonError, RwLock};

use realtime_core::{
    BoxFuture, Principal,
    auth::{AuthError, Authenticator, ClientIdPolicy, Handshake, JwtAuthenticator, RotatingKeys},
};

use crate::{
    config::{Config, Jwt},
    token,
};

/// The check of signed tokens that is in force, and the signature of new ones.
pub(crate) struct Logins {
    current: RwLock<Arc<Current>>,
    /// The secret where none is configured. It stays the same while the process runs.
    random: String,
}

struct Current {
    config: Jwt,
    client_ids: ClientIdPolicy,
    jwt: JwtAuthenticator,
    /// Those of `jwt` that change.
    rotating: Option<RotatingKeys>,
    /// Logins are made here, and not elsewhere alone.
    signs: bool,
}

impl Logins {
    /// Starts to check logins as configured.
    ///
    /// # Errors
    /// When a key cannot be used.
    pub(crate) fn start(config: &Config) -> anyhow::Result<Self> {
        let random = token::random_secret();
        Ok(Self { current: RwLock::new(Arc::new(Current::new(config, &random, None)?)), random })
    }

    /// Checks logins as another configuration says from now on. Sessions stay.
    ///
    /// # Errors
    /// When a key cannot be used; the check before stays then.
    pub(crate) fn replace(&self, config: &Config) -> anyhow::Result<()> {
        let current = self.current();
        let same = current.config == config.auth.jwt && current.client_ids == config.auth.client_id_policy();
        // The files of public keys may have changed; a key set is read again by itself.
        if same && config.auth.jwt.public_keys.is_empty() {
            return Ok(());
        }
        let new = Arc::new(Current::new(config, &self.random, Some(&current))?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// The signature of new tokens; `None` if logins are made elsewhere.
    pub(crate) fn signer(&self) -> Option<JwtAuthenticator> {
        let current = self.current();
        current.signs.then(|| current.jwt.clone())
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Current {
    fn new(config: &Config, random: &str, before: Option<&Self>) -> anyhow::Result<Self> {
        let jwt = &config.auth.jwt;
        let mut authenticator = token::authenticator(config, random)?;
        // The same set keeps its keys: their issuer may be away just now.
        let held = before
            .filter(|Self { config, .. }| config.jwks == jwt.jwks && config.algorithms == jwt.algorithms);
        let rotating = match held {
            Some(before) => before.rotating.clone(),
            None => token::rotating_keys(jwt)?,
        };
        if let Some(keys) = &rotating {
            authenticator = authenticator.rotating(keys.clone());
        }
        // With public keys alone, logins are made elsewhere.
        let signs = jwt.secret.is_some() || !jwt.has_public_keys();
        Ok(Self {
            config: jwt.clone(),
            client_ids: config.auth.client_id_policy(),
            jwt: authenticator,
            rotating,
            signs,
        })
    }
}

impl Authenticator for Logins {
    fn authenticate<'a>(&'a self, handshake: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
        let current = self.current();
        Box::pin(async move { current.jwt.authenticate(handshake).await })
    }
}

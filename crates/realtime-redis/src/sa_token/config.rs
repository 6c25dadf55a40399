//! [`SaTokenConfig`]: how the Java nodes were configured.

use std::{fmt, time::Duration};

use realtime_core::ClientIdPolicy;

use crate::{RedisConfigError, Topology};

/// How the Java nodes were configured, and how long Redis may take.
///
/// The defaults are those of RuoYi-Vue-Plus 5.x as shipped.
#[derive(Clone)]
pub struct SaTokenConfig {
    /// The Redis that Sa-Token writes to.
    pub topology: Topology,
    /// `sa-token.jwt-secret-key`; its UTF-8 bytes sign.
    pub jwt_secret: String,
    /// `sa-token.token-name`: the name of parameter and header, and the first part of Sa-Token's keys. Default
    /// `Authorization`.
    pub token_name: String,
    /// `sa-token.token-prefix`, without the space that follows it: what parameter and header have to begin with;
    /// empty for nothing. Default `Bearer`.
    pub token_prefix: String,
    /// `redisson.keyPrefix`: what comes before all keys, without the colon; empty for nothing. Default empty.
    pub key_prefix: String,
    /// Whether keys begin with `global:` (after the prefix), as they do where `tenant.enable` is on. Default true;
    /// RuoYi-Vue-Plus 6 has none.
    pub global_prefix: bool,
    /// The kind of account, in claims and keys. Default `login`.
    pub login_type: String,
    /// Whether a handshake counts as activity, as it does on Java nodes. Default false: nothing is written.
    pub renew: bool,
    /// The longest that a look-up may take, the wait for a connection included. Default 2 s.
    pub timeout: Duration,
    /// Whether a request has to name its client id. Default: it is checked when given.
    pub client_id: ClientIdPolicy,
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaTokenConfigError {
    /// An empty secret signs for everybody.
    #[error("the JWT secret of Sa-Token must not be empty")]
    EmptySecret,
    /// The URL is none.
    #[error(transparent)]
    Redis(#[from] RedisConfigError),
}

impl SaTokenConfig {
    /// The URL of a single server and a secret, everything else by default.
    pub fn new(url: impl Into<String>, jwt_secret: impl Into<String>) -> Self {
        Self {
            topology: Topology::Single(url.into()),
            jwt_secret: jwt_secret.into(),
            token_name: "Authorization".to_owned(),
            token_prefix: "Bearer".to_owned(),
            key_prefix: String::new(),
            global_prefix: true,
            login_type: "login".to_owned(),
            renew: false,
            timeout: Duration::from_secs(2),
            client_id: ClientIdPolicy::Optional,
        }
    }
}

impl fmt::Debug for SaTokenConfig {
    /// The secret is not shown, and no URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaTokenConfig")
            .field("topology", &self.topology)
            .field("token_name", &self.token_name)
            .field("token_prefix", &self.token_prefix)
            .field("key_prefix", &self.key_prefix)
            .field("global_prefix", &self.global_prefix)
            .field("login_type", &self.login_type)
            .field("renew", &self.renew)
            .field("timeout", &self.timeout)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SaTokenAuthenticator;

    #[test]
    fn what_cannot_work_is_named_when_it_is_put_together() {
        let problem =
            |url, secret| SaTokenAuthenticator::new(SaTokenConfig::new(url, secret)).unwrap_err().to_string();
        assert_eq!(problem("redis://127.0.0.1/", ""), "the JWT secret of Sa-Token must not be empty");
        assert!(problem("http://:password@127.0.0.1/", "secret").starts_with("the server is no Redis URL"));
    }

    #[test]
    fn no_debug_output_shows_the_secret_or_the_password() {
        let config = SaTokenConfig::new("redis://:hidden@127.0.0.1/", "hidden too");
        let authenticator = SaTokenAuthenticator::new(config.clone()).unwrap();
        assert!(!format!("{config:?} {authenticator:?}").contains("hidden"));
    }
}

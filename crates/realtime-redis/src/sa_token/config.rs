//! [`SaTokenConfig`]: the configuration of the Java nodes.

use std::{fmt, str::FromStr, time::Duration};

use realtime_core::auth::ClientIdPolicy;

use crate::{RedisConfig, RedisConfigError};

/// The configuration of the Java nodes, and of the connection to their Redis.
///
/// The defaults are those of RuoYi-Vue-Plus 5.x as shipped.
#[derive(Clone)]
pub struct SaTokenConfig {
    /// The Redis that Sa-Token writes to, which may differ from the bus's; `redisson.keyPrefix` is its `key_prefix`, and a
    /// lookup takes at most its `command_timeout`, including the wait for a connection.
    pub redis: RedisConfig,
    /// The style of tokens. Default [`SaTokenStyle::JwtSimple`].
    pub style: SaTokenStyle,
    /// `sa-token.jwt-secret-key`; its UTF-8 bytes are the key. Opaque tokens need none.
    pub jwt_secret: String,
    /// `sa-token.token-name`: the name of parameter and header, and the first part of Sa-Token's keys. Default
    /// `Authorization`.
    pub token_name: String,
    /// `sa-token.token-prefix`, without the space that follows it: the required start of parameter and header; empty for
    /// none. Default `Bearer`.
    pub token_prefix: String,
    /// Adds `global:` to keys (after the prefix), as Java nodes do if `tenant.enable` is on. Default true; RuoYi-Vue-Plus 6
    /// has no such part.
    pub global_prefix: bool,
    /// The login type in claims and keys. Default `login`.
    pub login_type: String,
    /// Counts a handshake as activity, as Java nodes do. Default false: nothing is written.
    pub renew: bool,
    /// `sa-token.active-timeout`: time for which a login may be unused, in whole seconds; `None` (there -1) for no limit.
    /// Default none.
    pub active_timeout: Option<Duration>,
    /// `sa-token.dynamic-active-timeout`: allows a login to have a limit of its own. Default true. Without it and without
    /// `active_timeout`, which is Sa-Token's default, activity is not checked.
    pub dynamic_active_timeout: bool,
    /// The policy for client ids in requests. Default: checked when given.
    pub client_id: ClientIdPolicy,
}

/// The style of Sa-Token's tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SaTokenStyle {
    /// `StpLogicJwtForSimple`: a signed token with the login id; Redis decides whether the login is valid.
    #[default]
    JwtSimple,
    /// `sa-token.token-style` `uuid`, `simple-uuid`, `random-32`, `random-64`, `random-128` or `tik`, or one of the
    /// application's own: an opaque string of up to 512 visible ASCII characters. The user is the whole login id that Redis
    /// has for it.
    Opaque,
}

/// An unsupported or unknown style.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaTokenStyleError {
    /// A style whose logins are stored in another way, or not at all.
    #[error(
        "token style `{0}` is not supported: its logins are not all stored in Redis, so their end is not visible"
    )]
    Unsupported(String),
    /// The name of no style.
    #[error(
        "unknown token style `{0}`, expected jwt-simple, uuid, simple-uuid, random-32, random-64, random-128 or tik"
    )]
    Unknown(String),
}

impl FromStr for SaTokenStyle {
    type Err = SaTokenStyleError;

    fn from_str(style: &str) -> Result<Self, Self::Err> {
        match style {
            "jwt-simple" => Ok(Self::JwtSimple),
            "uuid" | "simple-uuid" | "random-32" | "random-64" | "random-128" | "tik" => Ok(Self::Opaque),
            "jwt-mixin" | "jwt-stateless" => Err(SaTokenStyleError::Unsupported(style.to_owned())),
            _ => Err(SaTokenStyleError::Unknown(style.to_owned())),
        }
    }
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaTokenConfigError {
    /// The secret is empty, so that anybody could sign.
    #[error("the JWT secret of Sa-Token must not be empty")]
    EmptySecret,
    /// The configuration of Redis is invalid.
    #[error(transparent)]
    Redis(#[from] RedisConfigError),
}

impl SaTokenConfig {
    /// Creates a configuration from the URL of a single server and a secret, with defaults for everything else.
    pub fn new(url: impl Into<String>, jwt_secret: impl Into<String>) -> Self {
        Self {
            redis: RedisConfig::single(url),
            style: SaTokenStyle::JwtSimple,
            jwt_secret: jwt_secret.into(),
            token_name: "Authorization".to_owned(),
            token_prefix: "Bearer".to_owned(),
            global_prefix: true,
            login_type: "login".to_owned(),
            renew: false,
            active_timeout: None,
            dynamic_active_timeout: true,
            client_id: ClientIdPolicy::Optional,
        }
    }
}

impl fmt::Debug for SaTokenConfig {
    /// Hides the secret, and all URLs, which may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaTokenConfig")
            .field("redis", &self.redis)
            .field("style", &self.style)
            .field("token_name", &self.token_name)
            .field("token_prefix", &self.token_prefix)
            .field("global_prefix", &self.global_prefix)
            .field("login_type", &self.login_type)
            .field("renew", &self.renew)
            .field("active_timeout", &self.active_timeout)
            .field("dynamic_active_timeout", &self.dynamic_active_timeout)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SaTokenAuthenticator;

    #[test]
    fn an_invalid_configuration_is_rejected_with_its_reason() {
        let problem =
            |url, secret| SaTokenAuthenticator::new(SaTokenConfig::new(url, secret)).unwrap_err().to_string();
        assert_eq!(problem("redis://127.0.0.1/", ""), "the JWT secret of Sa-Token must not be empty");
        assert!(problem("http://:password@127.0.0.1/", "secret").starts_with("the server is no Redis URL"));
        let opaque =
            SaTokenConfig { style: SaTokenStyle::Opaque, ..SaTokenConfig::new("redis://127.0.0.1/", "") };
        SaTokenAuthenticator::new(opaque).unwrap();
    }

    #[test]
    fn styles_have_sa_tokens_names_and_those_without_logins_in_redis_are_rejected_with_a_reason() {
        assert_eq!("jwt-simple".parse(), Ok(SaTokenStyle::JwtSimple));
        for style in ["uuid", "simple-uuid", "random-32", "random-64", "random-128", "tik"] {
            assert_eq!(style.parse(), Ok(SaTokenStyle::Opaque), "{style}");
        }
        for (style, reason) in [
            ("jwt-mixin", "not supported"),
            ("jwt-stateless", "not supported"),
            ("UUID", "unknown token style"),
        ] {
            let error = style.parse::<SaTokenStyle>().unwrap_err().to_string();
            assert!(error.contains(style) && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn debug_output_hides_the_secret_and_the_password() {
        let config = SaTokenConfig::new("redis://:hidden@127.0.0.1/", "hidden too");
        let authenticator = SaTokenAuthenticator::new(config.clone()).unwrap();
        assert!(!format!("{config:?} {authenticator:?}").contains("hidden"));
    }
}

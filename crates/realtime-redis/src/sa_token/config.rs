//! [`SaTokenConfig`]: how the Java nodes were configured.

use std::{fmt, str::FromStr, time::Duration};

use realtime_core::ClientIdPolicy;

use crate::{RedisConfig, RedisConfigError};

/// How the Java nodes were configured, and how long Redis may take.
///
/// The defaults are those of RuoYi-Vue-Plus 5.x as shipped.
#[derive(Clone)]
pub struct SaTokenConfig {
    /// The Redis that Sa-Token writes to, which may be another one than the bus's; `redisson.keyPrefix` is its
    /// `key_prefix`, and a look-up takes no longer than its `command_timeout`, the wait for a connection included.
    pub redis: RedisConfig,
    /// How tokens are made. Default [`SaTokenStyle::JwtSimple`].
    pub style: SaTokenStyle,
    /// `sa-token.jwt-secret-key`; its UTF-8 bytes sign. Opaque tokens need none.
    pub jwt_secret: String,
    /// `sa-token.token-name`: the name of parameter and header, and the first part of Sa-Token's keys. Default
    /// `Authorization`.
    pub token_name: String,
    /// `sa-token.token-prefix`, without the space that follows it: what parameter and header have to begin with;
    /// empty for nothing. Default `Bearer`.
    pub token_prefix: String,
    /// Whether keys begin with `global:` (after the prefix), as they do where `tenant.enable` is on. Default true;
    /// RuoYi-Vue-Plus 6 has none.
    pub global_prefix: bool,
    /// The kind of account, in claims and keys. Default `login`.
    pub login_type: String,
    /// Whether a handshake counts as activity, as it does on Java nodes. Default false: nothing is written.
    pub renew: bool,
    /// `sa-token.active-timeout`: how long a login may be unused, in whole seconds; `None` (there -1) for no limit.
    /// Default none.
    pub active_timeout: Option<Duration>,
    /// `sa-token.dynamic-active-timeout`: whether a login may have a limit of its own. Default true. Without it and
    /// without `active_timeout`, which is Sa-Token's default, no activity is looked at.
    pub dynamic_active_timeout: bool,
    /// Whether a request has to name its client id. Default: it is checked when given.
    pub client_id: ClientIdPolicy,
}

/// How Sa-Token makes its tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SaTokenStyle {
    /// `StpLogicJwtForSimple`: a signed token that names its login; Redis has the last word.
    #[default]
    JwtSimple,
    /// `sa-token.token-style` `uuid`, `simple-uuid`, `random-32`, `random-64`, `random-128` or `tik`, or one of the
    /// application's own: text that says nothing, up to 512 visible ASCII characters. The user is the whole login id
    /// that Redis has for it.
    Opaque,
}

/// A style that is not supported, or none at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaTokenStyleError {
    /// Its logins are kept, or not kept, in another way.
    #[error(
        "`{0}` is not supported: its logins are not all kept in Redis, so that nobody else sees them end"
    )]
    Unsupported(String),
    /// No style.
    #[error("`{0}` is none of: jwt-simple, uuid, simple-uuid, random-32, random-64, random-128, tik")]
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
    /// The secret is not shown, and no URL, which may hold a password.
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
    fn what_cannot_work_is_named_when_it_is_put_together() {
        let problem =
            |url, secret| SaTokenAuthenticator::new(SaTokenConfig::new(url, secret)).unwrap_err().to_string();
        assert_eq!(problem("redis://127.0.0.1/", ""), "the JWT secret of Sa-Token must not be empty");
        assert!(problem("http://:password@127.0.0.1/", "secret").starts_with("the server is no Redis URL"));
        let opaque =
            SaTokenConfig { style: SaTokenStyle::Opaque, ..SaTokenConfig::new("redis://127.0.0.1/", "") };
        SaTokenAuthenticator::new(opaque).unwrap();
    }

    #[test]
    fn styles_go_by_sa_tokens_names_and_those_without_logins_in_redis_are_refused_with_words() {
        assert_eq!("jwt-simple".parse(), Ok(SaTokenStyle::JwtSimple));
        for style in ["uuid", "simple-uuid", "random-32", "random-64", "random-128", "tik"] {
            assert_eq!(style.parse(), Ok(SaTokenStyle::Opaque), "{style}");
        }
        for (style, words) in
            [("jwt-mixin", "not supported"), ("jwt-stateless", "not supported"), ("UUID", "none of")]
        {
            let error = style.parse::<SaTokenStyle>().unwrap_err().to_string();
            assert!(error.contains(style) && error.contains(words), "{error}");
        }
    }

    #[test]
    fn no_debug_output_shows_the_secret_or_the_password() {
        let config = SaTokenConfig::new("redis://:hidden@127.0.0.1/", "hidden too");
        let authenticator = SaTokenAuthenticator::new(config.clone()).unwrap();
        assert!(!format!("{config:?} {authenticator:?}").contains("hidden"));
    }
}

//! [`SaTokenConfig`]: the configuration of the Java nodes.

use std::{fmt, str::FromStr, time::Duration};

use realtime_core::auth::ClientIdPolicy;
use serde::{Deserialize, Deserializer, de::Error};

use crate::{RedisConfig, RedisConfigError};

/// The configuration of the Java nodes, and of the connection to their Redis.
///
/// The defaults are those of RuoYi-Vue-Plus 5.x as shipped. It deserializes from a section of a configuration file, whose
/// keys are the fields' names in camelCase, but `tokenStyle` for the style and `secret` for the secret; an unknown key is an
/// error, and so is a value that cannot work.
///
/// ```
/// use realtime_redis::{SaTokenConfig, SaTokenStyle};
///
/// let section = r#"{"tokenStyle": "uuid", "activeTimeout": 1800, "redis": {"url": "redis://127.0.0.1/3"}}"#;
/// let config: SaTokenConfig = serde_json::from_str(section)?;
/// assert_eq!(config.style, SaTokenStyle::Opaque);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct SaTokenConfig {
    /// The Redis that Sa-Token writes to, which may differ from the bus's; `redisson.keyPrefix` is its `key_prefix`, and a
    /// lookup takes at most its `command_timeout`, including the wait for a connection. A file may leave its `url` out, where
    /// the application sets one itself. Default: none.
    #[serde(deserialize_with = "RedisConfig::optional")]
    pub redis: Option<RedisConfig>,
    /// The style of tokens. Default [`SaTokenStyle::JwtSimple`].
    #[serde(rename = "tokenStyle")]
    pub style: SaTokenStyle,
    /// `sa-token.jwt-secret-key`; its UTF-8 bytes are the key. Opaque tokens need none.
    #[serde(rename = "secret", deserialize_with = "text_or_nothing")]
    pub jwt_secret: String,
    /// `sa-token.token-name`: the name of parameter and header, and the first part of Sa-Token's keys. Default
    /// `Authorization`.
    #[serde(deserialize_with = "text")]
    pub token_name: String,
    /// `sa-token.token-prefix`, without the space that follows it: the required start of parameter and header; empty for
    /// none. Default `Bearer`.
    #[serde(deserialize_with = "text_or_nothing")]
    pub token_prefix: String,
    /// Adds `global:` to keys (after the prefix), as Java nodes do if `tenant.enable` is on. Default true; RuoYi-Vue-Plus 6
    /// has no such part.
    pub global_prefix: bool,
    /// The login type in claims and keys. Default `login`.
    #[serde(deserialize_with = "text")]
    pub login_type: String,
    /// Counts a handshake as activity, as Java nodes do. Default false: nothing is written.
    pub renew: bool,
    /// `sa-token.active-timeout`: time for which a login may be unused, in whole seconds; `None` (there and in a file -1) for
    /// no limit. Default none.
    #[serde(deserialize_with = "active_timeout")]
    pub active_timeout: Option<Duration>,
    /// `sa-token.dynamic-active-timeout`: allows a login to have a limit of its own. Default true. Without it and without
    /// `active_timeout`, which is Sa-Token's default, activity is not checked.
    pub dynamic_active_timeout: bool,
    /// Interval for [`SaTokenAuthenticator::watch`](crate::SaTokenAuthenticator::watch), which is given it by the
    /// application. Default 30 s. In a file at least 1 s.
    #[serde(deserialize_with = "recheck")]
    pub recheck: Duration,
    /// The policy for client ids in requests. Default: checked when given. It is set in code, since it is also that of other
    /// logins.
    #[serde(skip)]
    pub client_id: ClientIdPolicy,
}

/// The style of Sa-Token's tokens.
///
/// It deserializes from Sa-Token's name for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
#[non_exhaustive]
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
#[non_exhaustive]
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

impl TryFrom<String> for SaTokenStyle {
    type Error = SaTokenStyleError;

    fn try_from(style: String) -> Result<Self, Self::Error> {
        style.parse()
    }
}

/// A configuration that cannot work.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaTokenConfigError {
    /// The secret is empty, so that anybody could sign.
    #[error("the JWT secret of Sa-Token must not be empty")]
    EmptySecret,
    /// There is no Redis to look logins up in.
    #[error("the Redis that Sa-Token writes to is missing")]
    NoRedis,
    /// The configuration of Redis is invalid.
    #[error(transparent)]
    Redis(#[from] RedisConfigError),
}

impl Default for SaTokenConfig {
    fn default() -> Self {
        Self {
            redis: None,
            style: SaTokenStyle::JwtSimple,
            jwt_secret: String::new(),
            token_name: "Authorization".to_owned(),
            token_prefix: "Bearer".to_owned(),
            global_prefix: true,
            login_type: "login".to_owned(),
            renew: false,
            active_timeout: None,
            dynamic_active_timeout: true,
            recheck: Duration::from_secs(30),
            client_id: ClientIdPolicy::Optional,
        }
    }
}

impl SaTokenConfig {
    /// Creates a configuration from the URL of a single server and a secret, with defaults for everything else.
    pub fn new(url: impl Into<String>, jwt_secret: impl Into<String>) -> Self {
        Self { jwt_secret: jwt_secret.into(), ..Self::default().redis(RedisConfig::single(url)) }
    }

    /// Checks that there is a Redis, and a secret where the style needs one.
    ///
    /// # Errors
    /// [`SaTokenConfigError`] with what is missing.
    pub fn check(&self) -> Result<(), SaTokenConfigError> {
        if self.redis.is_none() {
            Err(SaTokenConfigError::NoRedis)
        } else if self.style == SaTokenStyle::JwtSimple && self.jwt_secret.is_empty() {
            Err(SaTokenConfigError::EmptySecret)
        } else {
            Ok(())
        }
    }

    /// Sets [`Self::redis`].
    #[must_use]
    pub fn redis(mut self, redis: RedisConfig) -> Self {
        self.redis = Some(redis);
        self
    }

    /// Sets [`Self::style`].
    #[must_use]
    pub fn style(mut self, style: SaTokenStyle) -> Self {
        self.style = style;
        self
    }

    /// Sets [`Self::token_name`].
    #[must_use]
    pub fn token_name(mut self, name: impl Into<String>) -> Self {
        self.token_name = name.into();
        self
    }

    /// Sets [`Self::token_prefix`].
    #[must_use]
    pub fn token_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.token_prefix = prefix.into();
        self
    }

    /// Sets [`Self::global_prefix`].
    #[must_use]
    pub fn global_prefix(mut self, global: bool) -> Self {
        self.global_prefix = global;
        self
    }

    /// Sets [`Self::login_type`].
    #[must_use]
    pub fn login_type(mut self, login_type: impl Into<String>) -> Self {
        self.login_type = login_type.into();
        self
    }

    /// Sets [`Self::renew`].
    #[must_use]
    pub fn renew(mut self, renew: bool) -> Self {
        self.renew = renew;
        self
    }

    /// Sets [`Self::active_timeout`].
    #[must_use]
    pub fn active_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.active_timeout = timeout;
        self
    }

    /// Sets [`Self::dynamic_active_timeout`].
    #[must_use]
    pub fn dynamic_active_timeout(mut self, dynamic: bool) -> Self {
        self.dynamic_active_timeout = dynamic;
        self
    }

    /// Sets [`Self::recheck`].
    #[must_use]
    pub fn recheck(mut self, every: Duration) -> Self {
        self.recheck = every;
        self
    }

    /// Sets [`Self::client_id`].
    #[must_use]
    pub fn client_id(mut self, policy: ClientIdPolicy) -> Self {
        self.client_id = policy;
        self
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
            .field("recheck", &self.recheck)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// In a file; a shorter interval asks Redis without a pause.
const MIN_RECHECK: Duration = Duration::from_secs(1);

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Err(D::Error::custom("must not be empty")) } else { Ok(text) }
}

fn text_or_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn active_timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    match i64::deserialize(deserializer)? {
        -1 => Ok(None),
        seconds => match u64::try_from(seconds) {
            Ok(seconds) => Ok(Some(Duration::from_secs(seconds))),
            Err(_) => Err(D::Error::custom("must be -1, for no limit, or a number of seconds")),
        },
    }
}

fn recheck<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let every: Duration = humantime_serde::deserialize(deserializer)?;
    if every < MIN_RECHECK { Err(D::Error::custom("must be at least 1s")) } else { Ok(every) }
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
        let opaque = SaTokenConfig::new("redis://127.0.0.1/", "").style(SaTokenStyle::Opaque);
        SaTokenAuthenticator::new(opaque.clone()).unwrap();
        let nowhere = SaTokenConfig { redis: None, ..opaque };
        assert_eq!(SaTokenAuthenticator::new(nowhere).unwrap_err(), SaTokenConfigError::NoRedis);
    }

    #[test]
    fn every_key_of_a_section_has_the_default_of_code() {
        let read = serde_json::from_str::<SaTokenConfig>;
        assert_eq!(format!("{:?}", read("{}").unwrap()), format!("{:?}", SaTokenConfig::default()));
        let config = read(
            r#"{"secret": "s", "tokenStyle": "tik", "tokenName": "satoken", "tokenPrefix": null, "globalPrefix": false,
                "loginType": "app", "renew": true, "recheck": "1m", "activeTimeout": 1800,
                "dynamicActiveTimeout": false, "redis": {"url": "redis://a/", "keyPrefix": "ry"}}"#,
        );
        let redis = RedisConfig::single("redis://a/").key_prefix("ry");
        let expected = SaTokenConfig::new("", "s")
            .redis(redis)
            .style(SaTokenStyle::Opaque)
            .token_name("satoken")
            .token_prefix("")
            .global_prefix(false)
            .login_type("app")
            .renew(true)
            .recheck(Duration::from_secs(60))
            .active_timeout(Some(Duration::from_secs(1800)))
            .dynamic_active_timeout(false);
        let config = config.unwrap();
        assert_eq!(format!("{config:?}"), format!("{expected:?}"));
        assert_eq!(config.jwt_secret, "s");
        for (json, problem) in [
            (r#"{"tokenName": ""}"#, "must not be empty"),
            (r#"{"recheck": "999ms"}"#, "must be at least 1s"),
            (r#"{"activeTimeout": -2}"#, "must be -1, for no limit, or a number of seconds"),
            (r#"{"tokenStyle": "jwt-mixin"}"#, "token style `jwt-mixin` is not supported"),
            (r#"{"jwtSecret": "s"}"#, "unknown field `jwtSecret`"),
            (r#"{"redis": {"topology": "cluster"}}"#, "url: is missing"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.starts_with(problem), "{json}: {error}");
        }
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

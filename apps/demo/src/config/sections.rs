//! [`Server`], [`Api`], [`Topics`] and [`Log`]: the small sections.

use std::{fmt::Display, str::FromStr, time::Duration};

use realtime_core::auth::{TopicPattern, TrustedProxies};
use serde::{Deserialize, Deserializer, de::Error};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{Address, AllowedHosts, ConfigError, Secret, Tls};

/// The section `server`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Server {
    /// The address or host name to listen on.
    #[serde(deserialize_with = "not_empty")]
    pub host: String,
    /// The port to listen on; 0 takes any free one.
    pub port: u16,
    /// Worker threads, up to 1024; 0 is one per core.
    pub workers: usize,
    /// The HTTP server that serves.
    #[serde(deserialize_with = "parsed")]
    pub kind: ServerKind,
    /// This node's name; `None` asks for a random one.
    #[serde(deserialize_with = "node")]
    pub node: Option<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Names of this server that requests may have in `Host`.
    pub allowed_hosts: AllowedHosts,
    /// Certificate and key, for TLS.
    pub tls: Tls,
    /// Separate address of the publish API; `None` to serve it with everything else.
    #[serde(deserialize_with = "optional")]
    pub internal: Option<Address>,
}

impl Server {
    /// Checks that the addresses differ, and that the threads can be started.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.workers > MAX_WORKERS {
            return Err(ConfigError::at(
                "server.workers",
                format!("must be from 0 to {MAX_WORKERS}, is {}", self.workers),
            ));
        }
        let public = Address { host: self.host.clone(), port: self.port };
        match &self.internal {
            Some(internal) if internal.overlaps(&public) => {
                let problem = format!(
                    "`{internal}` and the public address `{public}` (server.host, server.port) cannot both be \
                     listened on"
                );
                Err(ConfigError::at("server.internal", problem))
            }
            _ => Ok(()),
        }
    }
}

/// Beyond any machine's number of cores.
const MAX_WORKERS: usize = 1024;

/// An HTTP server for the demo's `App`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// realtime's own, whose connections are taken over from the dispatcher.
    Realtime,
    /// actix-web's.
    Actix,
}

impl FromStr for ServerKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "realtime" => Ok(Self::Realtime),
            "actix" => Ok(Self::Actix),
            _ => Err(format!("`{text}` is none of: realtime, actix")),
        }
    }
}

/// The section `api`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Api {
    /// Key of the API's callers: at least 16 visible ASCII characters; `None` for a random one.
    #[serde(deserialize_with = "api_key")]
    pub key: Option<Secret>,
}

/// The section `topics`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Topics {
    /// Named topics that every user may subscribe to.
    pub public: Vec<TopicPattern>,
}

/// The section `log`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Log {
    /// A directive that [`EnvFilter`] understands.
    #[serde(deserialize_with = "level")]
    pub level: String,
    /// The format of its lines.
    #[serde(deserialize_with = "parsed")]
    pub format: LogFormat,
}

/// A format of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: an object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("`{text}` is none of: text, json")),
        }
    }
}

/// The section `health`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthChecks {
    /// Time for which a node is still called ready while its bus is unavailable.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

/// A value that its type reads from text.
pub(super) fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// The same, or nothing.
fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse()).transpose().map_err(D::Error::custom)
}

/// Text that is not empty.
pub(super) fn not_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Err(D::Error::custom("must not be empty"));
    }
    Ok(text)
}

fn node<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let node = Option::<String>::deserialize(deserializer)?;
    if node.as_deref() == Some("") {
        return Err(D::Error::custom("must not be empty"));
    }
    Ok(node)
}

fn api_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    let key = Option::<Secret>::deserialize(deserializer)?;
    // It comes in a header, which carries nothing else unharmed.
    if key
        .as_ref()
        .is_some_and(|key| key.len() < MIN_KEY_CHARS || !key.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        return Err(D::Error::custom(format_args!(
            "must have at least {MIN_KEY_CHARS} characters, all of them visible ASCII"
        )));
    }
    Ok(key)
}

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let level = not_empty(deserializer)?;
    // `EnvFilter` takes a misspelled level for the name of a module, and then logs nothing else.
    if level.bytes().all(|byte| byte.is_ascii_alphanumeric()) && level.parse::<LevelFilter>().is_err() {
        return Err(D::Error::custom(format_args!(
            "`{level}` is none of: trace, debug, info, warn, error, off"
        )));
    }
    match EnvFilter::try_new(&level) {
        Ok(_) => Ok(level),
        Err(error) => Err(D::Error::custom(format_args!("`{level}`: {error}"))),
    }
}

const MIN_KEY_CHARS: usize = 16;

#[cfg(test)]
mod tests {
    use crate::config::tests::{load, refused};

    #[test]
    fn what_must_say_something_is_not_empty() {
        for (variable, key) in [
            ("REALTIME__SERVER__HOST", "server.host"),
            ("REALTIME__SERVER__NODE", "server.node"),
            ("REALTIME__LOG__LEVEL", "log.level"),
        ] {
            assert_eq!(
                refused(None, &[(variable, "")]),
                format!("{key} (environment variable {variable}): must not be empty")
            );
        }
    }

    #[test]
    fn a_key_of_the_api_is_long_enough_and_fits_into_a_header() {
        let key = |text| [("REALTIME__API__KEY", text)];
        assert_eq!(load(None, &[]).api.key, None);
        assert_eq!(load(None, &key("0123456789abcdef")).api.key.as_deref(), Some("0123456789abcdef"));
        for bad in ["", "0123456789abcde", "0123456789 abcdef", "0123456789abcdef\n", "0123456789abcdé"] {
            assert_eq!(
                refused(None, &key(bad)),
                "api.key (environment variable REALTIME__API__KEY): \
                 must have at least 16 characters, all of them visible ASCII"
            );
        }
    }

    #[test]
    fn a_misspelled_level_is_not_taken_for_a_module() {
        let level = |text| [("REALTIME__LOG__LEVEL", text)];
        for good in ["debug", "OFF", "info,realtime_core=debug", "realtime_core::hub=trace"] {
            assert_eq!(load(None, &level(good)).log.level, good);
        }
        assert_eq!(
            refused(None, &level("verbose")),
            "log.level (environment variable REALTIME__LOG__LEVEL): \
             `verbose` is none of: trace, debug, info, warn, error, off"
        );
        let error = refused(None, &level("info,actix=loud"));
        let start = "log.level (environment variable REALTIME__LOG__LEVEL): `info,actix=loud`: ";
        assert!(error.starts_with(start), "{error}");
    }
}

//! [`RedisConfig`]: the servers of Redis, names and limits.

mod error;
mod section;

use std::{fmt, time::Duration};

use realtime_core::settings::{History, RetainedLimits};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, io::tcp::TcpSettings};
use serde::Deserialize;

pub use self::error::RedisConfigError;
use crate::tls::{self, RedisTls};

/// The servers of Redis, the names of keys, and limits.
///
/// It deserializes from the section `redis` of a configuration file. Only `url` has no default; an unknown key is an error,
/// and so is a value that cannot work, alone or beside the others. Files are read when a bus or another part is made.
///
/// | key | default | meaning |
/// |---|---|---|
/// | `url` | | The server. With sentinels, user, password and TLS are taken from it; in a cluster only `nodes` count. |
/// | `mode` | `streams` | [`RedisMode`]: `streams` or `pubsub`. |
/// | `topology` | `single` | [`Topology`]: `single`, `sentinel` or `cluster`. |
/// | `nodes` | none | URLs of the sentinels, or of some nodes of the cluster: a list, or one text with commas. |
/// | `service` | `mymaster` | Name that the sentinels know the master by. |
/// | `keyPrefix` | none | [`Self::key_prefix`]. |
/// | `commandTimeout` | `2s` | [`Self::command_timeout`], at least 100 ms. |
/// | `tls.caFile`, `tls.certFile`, `tls.keyFile`, `tls.insecure` | none | [`RedisTls`], in PEM files. |
///
/// ```
/// use realtime_redis::{RedisConfig, Topology};
///
/// #[derive(serde::Deserialize)]
/// struct AppConfig {
///     redis: RedisConfig,
/// }
///
/// let file = r#"{"redis": {"url": "redis://127.0.0.1:6379/", "keyPrefix": "shop"}}"#;
/// let config: AppConfig = serde_json::from_str(file)?;
/// assert_eq!(config.redis.key_prefix, "shop");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Deserialize)]
#[serde(try_from = "section::Section")]
#[non_exhaustive]
pub struct RedisConfig {
    /// The arrangement of the servers.
    pub topology: Topology,
    /// Bus of a [`RedisCluster`](crate::RedisCluster) that is made by [`new`](crate::RedisCluster::new). Default: streams.
    pub mode: RedisMode,
    /// TLS settings for `rediss` URLs, also of sentinels and cluster nodes.
    pub tls: RedisTls,
    /// Prefix of all keys and channels, without the colon; empty for none.
    pub key_prefix: String,
    /// Time limit of a command. Default 2 s.
    pub command_timeout: Duration,
    /// Approximate number of entries that the stream keeps. Default 100,000.
    pub max_len: usize,
    /// Approximate time for which the stream keeps an entry. A starting node skips older entries. Default 300 s.
    pub max_age: Duration,
    /// Approximate size of the stream in bytes, as counted by the nodes. Default 64 MiB.
    pub max_bytes: usize,
    /// Maximum number of retained messages. Default 10,000.
    pub retained_messages: usize,
    /// Maximum size of the retained messages in bytes. Default 16 MiB.
    pub retained_bytes: usize,
    /// Maximum number of retained messages of one topic. Default 256.
    pub retained_per_topic: usize,
    /// Whether a publish removes from the stream what is beyond its bounds.
    pub(crate) trims: bool,
}

/// Arrangement of the Redis servers.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Topology {
    /// One server: its URL.
    Single(String),
    /// A master that sentinels watch.
    Sentinel {
        /// The sentinels' URLs.
        sentinels: Vec<String>,
        /// The name of the master.
        service: String,
        /// The URL of a server, for everything but its address: `rediss` for TLS, user, password.
        server: String,
    },
    /// A cluster: the URLs of some of its nodes.
    Cluster(Vec<String>),
}

/// Exchange of messages between nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum RedisMode {
    /// One stream with positions: replay and announced gaps. See [`RedisStreamsBus`](crate::RedisStreamsBus).
    #[default]
    Streams,
    /// RuoYi's channels and bytes, shared with Java nodes: at most once. See [`RedisPubSubBus`](crate::RedisPubSubBus).
    PubSub,
}

impl RedisConfig {
    const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

    /// Creates a configuration for one server, with defaults for everything else.
    pub fn single(url: impl Into<String>) -> Self {
        Self::new(Topology::Single(url.into()))
    }

    /// Creates a configuration for a topology, with defaults for everything else.
    pub fn new(topology: Topology) -> Self {
        Self {
            topology,
            mode: RedisMode::default(),
            tls: RedisTls::default(),
            key_prefix: String::new(),
            command_timeout: Self::COMMAND_TIMEOUT,
            max_len: 100_000,
            max_age: Duration::from_secs(300),
            max_bytes: 64 << 20,
            retained_messages: 10_000,
            retained_bytes: 16 << 20,
            retained_per_topic: 256,
            trims: true,
        }
    }

    /// Sets [`Self::mode`].
    #[must_use]
    pub fn mode(mut self, mode: RedisMode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets [`Self::tls`].
    #[must_use]
    pub fn tls(mut self, tls: RedisTls) -> Self {
        self.tls = tls;
        self
    }

    /// Sets [`Self::key_prefix`].
    #[must_use]
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = prefix.into();
        self
    }

    /// Sets [`Self::command_timeout`].
    #[must_use]
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.command_timeout = timeout;
        self
    }

    /// Sets [`Self::max_len`].
    #[must_use]
    pub fn max_len(mut self, entries: usize) -> Self {
        self.max_len = entries;
        self
    }

    /// Sets [`Self::max_age`].
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Sets [`Self::max_bytes`].
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets [`Self::max_len`], [`Self::max_age`] and [`Self::max_bytes`]: the stream keeps what the nodes' logs keep.
    #[must_use]
    pub fn history(mut self, history: &History) -> Self {
        self.max_len = history.max_messages;
        self.max_age = history.max_age;
        self.max_bytes = history.max_bytes;
        self.trims = true;
        self
    }

    /// Sets [`Self::retained_messages`], [`Self::retained_bytes`] and [`Self::retained_per_topic`] to what the nodes keep.
    #[must_use]
    pub fn retained(mut self, limits: &RetainedLimits) -> Self {
        self.retained_messages = limits.max_messages;
        self.retained_bytes = limits.max_bytes;
        self.retained_per_topic = limits.max_per_topic;
        self
    }

    /// Leaves it to the nodes to remove entries of the stream, with each of their own, and retained messages, with the next one
    /// that a node retains, of the same topic where that has too many: for a process that only publishes, and does not know how
    /// much they keep. [`Self::history`] and [`Self::retained`] say so afterwards.
    #[must_use]
    pub fn without_trimming(mut self) -> Self {
        self.trims = false;
        self.retained_messages = usize::MAX;
        self.retained_bytes = usize::MAX;
        self.retained_per_topic = usize::MAX;
        self
    }

    /// Returns the hash tag of a component's keys: `{[<prefix>:]<name>}`. It includes the prefix, so that a cluster distributes
    /// several applications, and each component has its own, so that they can be on different masters.
    pub(crate) fn tag(&self, name: &str) -> String {
        format!("{{{}}}", self.name(name))
    }

    /// Returns the name with the prefix, `[<prefix>:]<name>`, unless it has it already.
    pub(crate) fn name(&self, name: &str) -> String {
        match self.key_prefix.as_str() {
            "" => name.to_owned(),
            prefix if name.starts_with(&format!("{prefix}:")) => name.to_owned(),
            prefix => format!("{prefix}:{name}"),
        }
    }
}

impl TryFrom<String> for RedisMode {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "streams" => Ok(Self::Streams),
            "pubsub" => Ok(Self::PubSub),
            _ => Err(format!("`{name}` is none of: streams, pubsub")),
        }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("topology", &self.topology)
            .field("mode", &self.mode)
            .field("tls", &self.tls)
            .field("key_prefix", &self.key_prefix)
            .field("command_timeout", &self.command_timeout)
            .field("max_len", &self.max_len)
            .field("max_age", &self.max_age)
            .field("max_bytes", &self.max_bytes)
            .field("retained_messages", &self.retained_messages)
            .field("retained_bytes", &self.retained_bytes)
            .field("retained_per_topic", &self.retained_per_topic)
            .field("trims", &self.trims)
            .finish()
    }
}

impl fmt::Debug for Topology {
    /// Hides the URLs, which may contain passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(_) => f.write_str("Single"),
            Self::Sentinel { sentinels, service, .. } => {
                write!(f, "Sentinel({service}, {} sentinels)", sentinels.len())
            }
            Self::Cluster(nodes) => write!(f, "Cluster({} nodes)", nodes.len()),
        }
    }
}

/// Parses URLs; at least one is required.
pub(crate) fn parse_all(
    what: &'static str,
    urls: &[String],
) -> Result<Vec<ConnectionInfo>, RedisConfigError> {
    let parsed = urls.iter().enumerate().map(|(n, url)| parse(format_args!("{what} {}", n + 1), url));
    let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
    if parsed.is_empty() { Err(RedisConfigError::NoUrl(what)) } else { Ok(parsed) }
}

/// Parses a URL, and disables Nagle's algorithm for the connection.
pub(crate) fn parse(what: impl fmt::Display, url: &str) -> Result<ConnectionInfo, RedisConfigError> {
    let info = url.into_connection_info().map_err(|error| RedisConfigError::Url {
        what: what.to_string(),
        problem: error.category().to_owned(),
    })?;
    if let ConnectionAddr::TcpTls { .. } = info.addr() {
        tls::install_provider();
    }
    Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

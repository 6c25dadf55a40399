//! [`RedisConfig`]: the servers of Redis, names and limits.

use std::{fmt, time::Duration};

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, io::tcp::TcpSettings};

use crate::tls::{self, RedisTls};

/// The servers of Redis, the names of keys, and limits.
#[derive(Clone)]
pub struct RedisConfig {
    /// The arrangement of the servers.
    pub topology: Topology,
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
}

/// Arrangement of the Redis servers.
#[derive(Clone, PartialEq, Eq)]
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

/// An invalid configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisConfigError {
    /// An invalid URL. It is not shown, since it may contain a password.
    #[error("{what} is no Redis URL: {problem}")]
    Url {
        /// The name of the URL, such as `sentinel 2`.
        what: String,
        /// The problem.
        problem: String,
    },
    /// Unusable certificates.
    #[error("TLS: {0}")]
    Tls(String),
    /// A list of URLs is empty.
    #[error("{0}: at least one URL is needed")]
    NoUrl(&'static str),
}

impl RedisConfig {
    /// Creates a configuration for one server, with defaults for everything else.
    pub fn single(url: impl Into<String>) -> Self {
        Self::new(Topology::Single(url.into()))
    }

    /// Creates a configuration for a topology, with defaults for everything else.
    pub fn new(topology: Topology) -> Self {
        Self {
            topology,
            tls: RedisTls::default(),
            key_prefix: String::new(),
            command_timeout: Duration::from_secs(2),
            max_len: 100_000,
            max_age: Duration::from_secs(300),
            max_bytes: 64 << 20,
        }
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

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("topology", &self.topology)
            .field("tls", &self.tls)
            .field("key_prefix", &self.key_prefix)
            .field("command_timeout", &self.command_timeout)
            .field("max_len", &self.max_len)
            .field("max_age", &self.max_age)
            .field("max_bytes", &self.max_bytes)
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

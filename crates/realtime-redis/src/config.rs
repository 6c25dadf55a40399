//! [`RedisConfig`]: where Redis is and how long it may take.

use std::{fmt, time::Duration};

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, io::tcp::TcpSettings};

use crate::tls::{self, RedisTls};

/// Where Redis is, what our keys are called, and how long a command may take.
#[derive(Clone)]
pub struct RedisConfig {
    /// How the servers are arranged.
    pub topology: Topology,
    /// What `rediss` URLs need besides, of sentinels and cluster nodes as well.
    pub tls: RedisTls,
    /// What comes before our keys and channels, without the colon; empty for nothing.
    pub key_prefix: String,
    /// The longest that a command may take. Default 2 s.
    pub command_timeout: Duration,
    /// About how many entries the stream keeps. Default 100,000.
    pub max_len: usize,
    /// About how long the stream keeps an entry. A node that starts leaves out what was published longer ago. Default
    /// 300 s.
    pub max_age: Duration,
    /// About how many bytes the stream keeps, as counted by the nodes. Default 64 MiB.
    pub max_bytes: usize,
}

/// How the Redis servers are arranged.
#[derive(Clone, PartialEq, Eq)]
pub enum Topology {
    /// One server: its URL.
    Single(String),
    /// Sentinels watch a master.
    Sentinel {
        /// The sentinels' URLs.
        sentinels: Vec<String>,
        /// The name of the master.
        service: String,
        /// The URL of a server, for all but its address: `rediss` for TLS, user, password.
        server: String,
    },
    /// A cluster: the URLs of some of its nodes.
    Cluster(Vec<String>),
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisConfigError {
    /// A URL that is none. It is not shown: it may hold a password.
    #[error("{what} is no Redis URL: {problem}")]
    Url {
        /// Which one, such as `sentinel 2`.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificates that cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// A list of URLs is empty.
    #[error("{0}: at least one URL is needed")]
    NoUrl(&'static str),
}

impl RedisConfig {
    /// One server, everything else by default.
    pub fn single(url: impl Into<String>) -> Self {
        Self::new(Topology::Single(url.into()))
    }

    /// Servers in some arrangement, everything else by default.
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

    /// The hash tag of one part's keys: `{[<prefix>:]<name>}`. The prefix is in it, so that a cluster spreads several
    /// applications, and each part has its own, so that it can place the parts on different masters.
    pub(crate) fn tag(&self, name: &str) -> String {
        format!("{{{}}}", self.name(name))
    }

    /// A name of ours: `[<prefix>:]<name>`, not doubled.
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
    /// URLs may hold passwords, so none is shown.
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

/// URLs as connections to open; at least one.
pub(crate) fn parse_all(
    what: &'static str,
    urls: &[String],
) -> Result<Vec<ConnectionInfo>, RedisConfigError> {
    let parsed = urls.iter().enumerate().map(|(n, url)| parse(format_args!("{what} {}", n + 1), url));
    let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
    if parsed.is_empty() { Err(RedisConfigError::NoUrl(what)) } else { Ok(parsed) }
}

/// A URL as a connection to open, without Nagle's delay.
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

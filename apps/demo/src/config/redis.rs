//! [`Redis`]: the section `redis`, where the nodes of a cluster meet.

use std::{path::PathBuf, str::FromStr, time::Duration};

use serde::Deserialize;

use super::{ConfigError, Secret, sections::parsed};

/// The section `redis`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Redis {
    /// URL of the server, possibly with a password; `None` for a single node.
    pub url: Option<Secret>,
    /// Mode of the exchange of messages between nodes.
    #[serde(deserialize_with = "parsed")]
    pub mode: RedisMode,
    /// Topology of the servers.
    #[serde(deserialize_with = "parsed")]
    pub topology: RedisTopology,
    /// The URLs of the sentinels, or of some nodes of a cluster.
    pub nodes: Vec<Secret>,
    /// The name that the sentinels know the master by.
    pub service: String,
    /// Prefix of keys and channels, without the colon.
    pub key_prefix: Option<String>,
    /// The longest that a command may take.
    #[serde(with = "humantime_serde")]
    pub command_timeout: Duration,
    /// TLS settings of `rediss` URLs.
    pub tls: RedisTlsFiles,
}

/// The section `redis.tls`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisTlsFiles {
    /// The authorities that are trusted, in PEM; `None` are those of the operating system.
    pub ca_file: Option<PathBuf>,
    /// The client certificate and what it is signed with, in PEM.
    pub cert_file: Option<PathBuf>,
    /// The private key of the client certificate, in PEM.
    pub key_file: Option<PathBuf>,
    /// Whether the server's certificate is not verified.
    pub insecure: bool,
}

/// Mode of the exchange of messages between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisMode {
    /// One stream with positions: replay and announced gaps.
    Streams,
    /// RuoYi's channels and bytes, shared with Java nodes: at most once.
    PubSub,
}

/// Topology of the Redis servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisTopology {
    /// One server.
    Single,
    /// Sentinels watch a master.
    Sentinel,
    /// A cluster.
    Cluster,
}

impl Redis {
    /// Checks what a single value cannot tell.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let several = self.topology != RedisTopology::Single;
        if self.url.is_none() && (several || !self.nodes.is_empty()) {
            return Err(ConfigError::at(
                "redis.url",
                "is missing: redis.topology and redis.nodes alone start nothing",
            ));
        }
        if self.url.is_some() && several && self.nodes.is_empty() {
            return Err(ConfigError::at("redis.nodes", "must name at least one URL for this redis.topology"));
        }
        if !several && !self.nodes.is_empty() {
            let problem = "goes with `redis.topology: sentinel` or `cluster`; a single server is redis.url";
            return Err(ConfigError::at("redis.nodes", problem));
        }
        if self.command_timeout < Duration::from_millis(100) {
            return Err(ConfigError::at("redis.commandTimeout", "must be at least 100ms"));
        }
        self.check_tls()
    }

    fn check_tls(&self) -> Result<(), ConfigError> {
        let RedisTlsFiles { ca_file, cert_file, key_file, insecure } = &self.tls;
        for (key, given, other, missing) in [
            ("redis.tls.certFile", cert_file.is_some(), "redis.tls.keyFile", key_file.is_none()),
            ("redis.tls.keyFile", key_file.is_some(), "redis.tls.certFile", cert_file.is_none()),
        ] {
            if given && missing {
                return Err(ConfigError::at(key, format!("goes with {other}, which is missing")));
            }
        }
        if *insecure && ca_file.is_some() {
            return Err(ConfigError::at(
                "redis.tls.insecure",
                "trusts everybody, and redis.tls.caFile does not",
            ));
        }
        let keys = [
            ("redis.tls.caFile", ca_file.is_some()),
            ("redis.tls.certFile", cert_file.is_some()),
            ("redis.tls.insecure", *insecure),
        ];
        let over_tls = self.url.iter().chain(&self.nodes).any(|url| url.starts_with("rediss:"));
        match keys.into_iter().find(|(_, given)| *given) {
            Some((key, _)) if !over_tls => {
                Err(ConfigError::at(key, "goes with a URL that begins with `rediss:`, and there is none"))
            }
            _ => Ok(()),
        }
    }
}

impl FromStr for RedisMode {
    type Err = String;

    fn from_str(mode: &str) -> Result<Self, Self::Err> {
        match mode {
            "streams" => Ok(Self::Streams),
            "pubsub" => Ok(Self::PubSub),
            _ => Err(format!("`{mode}` is none of: streams, pubsub")),
        }
    }
}

impl FromStr for RedisTopology {
    type Err = String;

    fn from_str(topology: &str) -> Result<Self, Self::Err> {
        match topology {
            "single" => Ok(Self::Single),
            "sentinel" => Ok(Self::Sentinel),
            "cluster" => Ok(Self::Cluster),
            _ => Err(format!("`{topology}` is none of: single, sentinel, cluster")),
        }
    }
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use super::*;
    use crate::config::tests::{load, refused};

    #[test]
    fn a_cluster_names_its_nodes() {
        let file = "redis: {url: 'redis://a/', topology: sentinel, nodes: ['redis://s1:26379/', 'redis://s2:26379/']}";
        let redis = load(Some(file), &[]).redis;
        assert_eq!(
            (redis.topology, redis.nodes.len(), redis.service.as_str()),
            (RedisTopology::Sentinel, 2, "mymaster")
        );
        assert_eq!((redis.mode, redis.key_prefix), (RedisMode::Streams, None));
        assert_eq!(
            refused(Some("redis: {url: 'redis://a/', topology: cluster}"), &[]),
            "redis.nodes (built-in defaults): must name at least one URL for this redis.topology"
        );
        let error = refused(Some("redis: {url: 'redis://a/', nodes: ['redis://:hunter2@b/']}"), &[]);
        assert!(error.starts_with("redis.nodes (file app.yml): goes with"), "{error}");
        assert!(!error.contains("hunter2"));
    }

    #[test]
    fn settings_of_tls_that_cannot_work_are_refused() {
        for (tls, error) in [
            (
                "{certFile: c.pem}",
                "redis.tls.certFile (file app.yml): goes with redis.tls.keyFile, which is missing",
            ),
            (
                "{keyFile: k.pem}",
                "redis.tls.keyFile (file app.yml): goes with redis.tls.certFile, which is missing",
            ),
            (
                "{caFile: ca.pem, insecure: true}",
                "redis.tls.insecure (file app.yml): trusts everybody, and redis.tls.caFile does not",
            ),
        ] {
            assert_eq!(refused(Some(&format!("redis: {{url: 'rediss://a/', tls: {tls}}}")), &[]), error);
        }
        assert_eq!(
            refused(Some("redis: {url: 'redis://a/', tls: {caFile: ca.pem}}"), &[]),
            "redis.tls.caFile (file app.yml): goes with a URL that begins with `rediss:`, and there is none"
        );
        let tls = load(Some("redis: {url: 'rediss://a/', tls: {insecure: true}}"), &[]);
        assert!(tls.redis.tls.insecure);
        assert!(tls.warnings.contains(&"redis.tls.insecure: whoever answers is taken for Redis".to_owned()));
    }

    #[test]
    fn modes_and_topologies_are_known_by_name() {
        assert_eq!(
            refused(None, &[("REALTIME__REDIS__MODE", "queue")]),
            "redis.mode (environment variable REALTIME__REDIS__MODE): `queue` is none of: streams, pubsub"
        );
        assert_eq!(
            refused(None, &[("REALTIME__REDIS__TOPOLOGY", "star")]),
            "redis.topology (environment variable REALTIME__REDIS__TOPOLOGY): `star` is none of: single, sentinel, cluster"
        );
    }
}

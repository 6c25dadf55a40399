//! [`Section`]: a [`RedisConfig`] as a configuration file has it.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

use super::{RedisConfig, RedisConfigError, RedisMode, Topology};
use crate::{master::MasterLookup, tls::RedisTls};

/// The keys of a section `redis`.
#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Section {
    url: Option<String>,
    mode: RedisMode,
    topology: Arrangement,
    #[serde(deserialize_with = "list")]
    nodes: Vec<String>,
    service: String,
    key_prefix: Option<String>,
    #[serde(with = "humantime_serde")]
    command_timeout: Duration,
    tls: RedisTls,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
enum Arrangement {
    #[default]
    Single,
    Sentinel,
    Cluster,
}

/// The name by which Redis' documentation, and its clients, know a master.
const SERVICE: &str = "mymaster";

/// A shorter one is missed by a server that is merely busy.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);

impl Default for Section {
    fn default() -> Self {
        Self {
            url: None,
            mode: RedisMode::default(),
            topology: Arrangement::default(),
            nodes: Vec::new(),
            service: SERVICE.to_owned(),
            key_prefix: None,
            command_timeout: RedisConfig::COMMAND_TIMEOUT,
            tls: RedisTls::default(),
        }
    }
}

impl Section {
    /// The configuration, unless there is no URL.
    pub(super) fn into_config(self) -> Result<Option<RedisConfig>, RedisConfigError> {
        let Self { url, mode, topology, nodes, service, key_prefix, command_timeout, tls } = self;
        let fail = |key, problem: &str| Err(RedisConfigError::Key { key, problem: problem.to_owned() });
        if command_timeout < MIN_TIMEOUT {
            return fail("commandTimeout", "must be at least 100ms");
        }
        let over_tls = url.iter().chain(&nodes).any(|url| url.starts_with("rediss:"));
        tls.check(over_tls)?;
        let several = topology != Arrangement::Single;
        let Some(url) = url else {
            if several || !nodes.is_empty() {
                return fail("url", "is missing: topology and nodes alone name no server");
            }
            return Ok(None);
        };
        if several && nodes.is_empty() {
            return fail("nodes", "must name at least one URL for this topology");
        }
        if !several && !nodes.is_empty() {
            return fail("nodes", "goes with `topology: sentinel` or `cluster`; a single server is url");
        }
        let topology = match topology {
            Arrangement::Single => Topology::Single(url),
            Arrangement::Sentinel => Topology::Sentinel { sentinels: nodes, service, server: url },
            Arrangement::Cluster => Topology::Cluster(nodes),
        };
        MasterLookup::check(&topology)?;
        Ok(Some(RedisConfig {
            mode,
            tls,
            key_prefix: key_prefix.unwrap_or_default(),
            command_timeout,
            ..RedisConfig::new(topology)
        }))
    }
}

impl RedisConfig {
    /// Deserializes a section that may have no URL, where the application is a single node then: for
    /// `#[serde(default, deserialize_with = "RedisConfig::optional")]`.
    ///
    /// # Errors
    /// As for a section with a URL; the other keys are checked in any case.
    pub fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        let section = Option::<Section>::deserialize(deserializer)?.unwrap_or_default();
        section.into_config().map_err(D::Error::custom)
    }
}

impl TryFrom<Section> for RedisConfig {
    type Error = RedisConfigError;

    fn try_from(section: Section) -> Result<Self, Self::Error> {
        let missing = || RedisConfigError::Key { key: "url", problem: "is missing".to_owned() };
        section.into_config()?.ok_or_else(missing)
    }
}

impl TryFrom<String> for Arrangement {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "single" => Ok(Self::Single),
            "sentinel" => Ok(Self::Sentinel),
            "cluster" => Ok(Self::Cluster),
            _ => Err(format!("`{name}` is none of: single, sentinel, cluster")),
        }
    }
}

/// A list of texts, or one text with commas.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a list of URLs, or one text with commas")]
    enum Urls {
        Text(String),
        List(Vec<String>),
    }
    Ok(match Urls::deserialize(deserializer)? {
        Urls::List(list) => list,
        Urls::Text(text) => {
            text.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<RedisConfig, String> {
        serde_json::from_str(json).map_err(|error| {
            let error = error.to_string();
            error.split(" at line ").next().unwrap_or_default().to_owned()
        })
    }

    #[test]
    fn every_key_but_the_url_has_the_default_of_code() {
        let config = read(r#"{"url": "redis://a/"}"#).unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", RedisConfig::single("redis://a/")));
        assert_eq!(config.topology, Topology::Single("redis://a/".to_owned()));
        let config = read(
            r#"{"url": "rediss://u:p@a/", "mode": "pubsub", "topology": "sentinel", "nodes": "redis://b:1/, redis://c:1/",
                "service": "s", "keyPrefix": "k", "commandTimeout": "1s 500ms", "tls": {"insecure": true}}"#,
        );
        let config = config.unwrap();
        assert_eq!(
            config.topology,
            Topology::Sentinel {
                sentinels: vec!["redis://b:1/".to_owned(), "redis://c:1/".to_owned()],
                service: "s".to_owned(),
                server: "rediss://u:p@a/".to_owned()
            }
        );
        assert_eq!((config.mode, config.key_prefix.as_str()), (RedisMode::PubSub, "k"));
        assert_eq!(config.command_timeout, Duration::from_millis(1500));
        assert!(config.tls.is_insecure());
    }

    #[test]
    fn a_section_without_a_url_is_no_redis_where_that_is_asked_for() {
        #[derive(Deserialize)]
        struct App {
            #[serde(default, deserialize_with = "RedisConfig::optional")]
            redis: Option<RedisConfig>,
        }
        for json in
            ["{}", r#"{"redis": null}"#, r#"{"redis": {}}"#, r#"{"redis": {"url": null, "mode": "pubsub"}}"#]
        {
            assert!(serde_json::from_str::<App>(json).unwrap().redis.is_none(), "{json}");
        }
        assert!(serde_json::from_str::<App>(r#"{"redis": {"url": "redis://a/"}}"#).unwrap().redis.is_some());
        assert_eq!(read("{}").unwrap_err(), "url: is missing");
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_key_and_no_password() {
        for (json, error) in [
            (r#"{"url": "nonsense:hunter2"}"#, "the server is no Redis URL: invalid client config"),
            (
                r#"{"url": "redis://a/", "topology": "cluster"}"#,
                "nodes: must name at least one URL for this topology",
            ),
            (
                r#"{"url": "redis://a/", "topology": "cluster", "nodes": ["redis://b/", "hunter2"]}"#,
                "cluster node 2 is no Redis URL: invalid client config",
            ),
            (
                r#"{"url": "redis://a/", "nodes": ["redis://:hunter2@b/"]}"#,
                "nodes: goes with `topology: sentinel` or `cluster`; a single server is url",
            ),
            (
                r#"{"nodes": ["redis://:hunter2@b/"]}"#,
                "url: is missing: topology and nodes alone name no server",
            ),
            (r#"{"topology": "star"}"#, "`star` is none of: single, sentinel, cluster"),
            (r#"{"mode": "queue"}"#, "`queue` is none of: streams, pubsub"),
            (r#"{"commandTimeout": "99ms"}"#, "commandTimeout: must be at least 100ms"),
            (
                r#"{"url": "rediss://a/", "tls": {"certFile": "c.pem"}}"#,
                "tls.certFile: goes with tls.keyFile, which is missing",
            ),
            (
                r#"{"url": "rediss://a/", "tls": {"keyFile": "k.pem"}}"#,
                "tls.keyFile: goes with tls.certFile, which is missing",
            ),
            (
                r#"{"url": "rediss://a/", "tls": {"caFile": "ca.pem", "insecure": true}}"#,
                "tls.insecure: trusts everybody, and tls.caFile does not",
            ),
            (
                r#"{"url": "redis://a/", "tls": {"caFile": "ca.pem"}}"#,
                "tls.caFile: goes with a URL that begins with `rediss:`, and there is none",
            ),
        ] {
            assert_eq!(read(json).unwrap_err(), error, "{json}");
        }
        let error = read(r#"{"link": "redis://a/"}"#).unwrap_err();
        assert!(error.starts_with("unknown field `link`"), "{error}");
    }
}

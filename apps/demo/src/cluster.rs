//! Redis as the configuration describes it.

use std::{fs, path::Path, time::Duration};

use anyhow::Context;
use realtime_core::HubBuilder;
use realtime_redis::{
    Incarnation, RedisConfig, RedisControl, RedisPresence, RedisPubSubBus, RedisStreamsBus, RedisTls,
    RedisTlsError, SaTokenAuthenticator, SaTokenConfig, Topology,
};

use crate::config::{Config, PresenceMode, Redis, RedisMode, RedisTlsFiles, RedisTopology};
use crate::token;

/// The logins of the Java nodes, in the Redis that the configuration names.
pub(crate) fn sa_token(config: &Config) -> anyhow::Result<SaTokenAuthenticator> {
    let auth = &config.auth.sa_token;
    let redis = auth.servers(&config.redis);
    let url = redis.url.as_deref().unwrap_or_default();
    let secret = auth.secret.as_deref().unwrap_or_default();
    let authenticator = SaTokenAuthenticator::new(SaTokenConfig {
        redis: RedisConfig {
            tls: tls(&redis.tls)?,
            key_prefix: redis.key_prefix.clone().unwrap_or_default(),
            command_timeout: redis.command_timeout,
            ..RedisConfig::new(topology(&redis, url))
        },
        style: auth.token_style.parse()?,
        token_name: auth.token_name.clone(),
        token_prefix: auth.token_prefix.clone().unwrap_or_default(),
        global_prefix: auth.global_prefix,
        renew: auth.renew,
        active_timeout: u64::try_from(auth.active_timeout).ok().map(Duration::from_secs),
        dynamic_active_timeout: auth.dynamic_active_timeout,
        client_id: token::client_id_policy(config),
        ..SaTokenConfig::new(url, secret)
    });
    authenticator.context("auth.saToken")
}

pub(crate) fn with_bus(hub: HubBuilder, url: &str, config: &Config) -> anyhow::Result<HubBuilder> {
    let redis = &config.redis;
    let redis_config = RedisConfig {
        tls: tls(&redis.tls)?,
        key_prefix: redis.key_prefix.clone().unwrap_or_default(),
        command_timeout: redis.command_timeout,
        max_len: config.settings.history.max_messages,
        max_age: config.settings.history.max_age,
        max_bytes: config.settings.history.max_bytes,
        ..RedisConfig::new(topology(redis, url))
    };
    // Presence and control know this life of the node by one name.
    let node = config.server.node.clone().unwrap_or_else(|| format!("{:08x}", rand::random::<u32>()));
    let incarnation = Incarnation::new(&node);
    let mut hub = hub.node(node);
    if config.presence == PresenceMode::Redis {
        hub = hub.presence(RedisPresence::make(redis_config.clone(), incarnation.clone()).context("redis")?);
    }
    hub = hub.control(RedisControl::make(redis_config.clone(), incarnation).context("redis")?);
    match redis.mode {
        RedisMode::Streams => Ok(hub.bus(RedisStreamsBus::new(redis_config).context("redis")?)),
        RedisMode::PubSub => Ok(hub.bus(RedisPubSubBus::new(redis_config).context("redis")?)),
    }
}

/// Reads the TLS files. An error names the key.
fn tls(files: &RedisTlsFiles) -> anyhow::Result<RedisTls> {
    let mut tls = RedisTls::default();
    if let Some(file) = &files.ca_file {
        tls = tls.ca(read("caFile", file)?).with_context(|| at("caFile", file))?;
    }
    if let (Some(certificate), Some(key)) = (&files.cert_file, &files.key_file) {
        tls = tls.client(read("certFile", certificate)?, read("keyFile", key)?).map_err(|error| {
            let place = match &error {
                RedisTlsError::Certificate(_) => at("certFile", certificate),
                _ => at("keyFile", key),
            };
            anyhow::Error::new(error).context(place)
        })?;
    }
    Ok(if files.insecure { tls.insecure() } else { tls })
}

fn read(key: &str, file: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(file).with_context(|| at(key, file))
}

/// A key of `redis.tls`, and the file that it names.
fn at(key: &str, file: &Path) -> String {
    format!("redis.tls.{key} (`{}`)", file.display())
}

fn topology(redis: &Redis, url: &str) -> Topology {
    let nodes = || redis.nodes.iter().map(|url| url.to_string()).collect();
    match redis.topology {
        RedisTopology::Single => Topology::Single(url.to_owned()),
        RedisTopology::Sentinel => {
            Topology::Sentinel { sentinels: nodes(), service: redis.service.clone(), server: url.to_owned() }
        }
        RedisTopology::Cluster => Topology::Cluster(nodes()),
    }
}

//! Redis as the configuration describes it.

use anyhow::anyhow;
use realtime_core::HubBuilder;
use realtime_redis::{RedisCluster, RedisConfigError, SaTokenAuthenticator, SaTokenConfigError};

use crate::config::{Config, PresenceMode, Redis};

/// The logins of the Java nodes, in the Redis that the configuration names.
pub(crate) fn sa_token(config: &Config) -> anyhow::Result<SaTokenAuthenticator> {
    let own = config.auth.sa_token.redis.is_some();
    SaTokenAuthenticator::new(config.auth.sa_token(config.redis.as_ref())).map_err(|error| match error {
        SaTokenConfigError::Redis(error) => at(if own { "auth.saToken.redis" } else { "redis" }, &error),
        error => anyhow!("auth.saToken: {error}"),
    })
}

/// Connects the hub with the other nodes.
pub(crate) fn join(hub: HubBuilder, redis: &Redis, config: &Config) -> anyhow::Result<HubBuilder> {
    let node = config.server.node.clone().unwrap_or_else(|| format!("{:08x}", rand::random::<u32>()));
    let settings = config.settings();
    let redis = redis.clone().history(&settings.history).retained(&settings.retained);
    let hub = hub.cluster(RedisCluster::new(redis, node).map_err(|error| at("redis", &error))?);
    Ok(match config.presence_mode() {
        PresenceMode::Redis => hub,
        PresenceMode::Local | PresenceMode::Off => hub.presence(|local| local),
    })
}

/// The error with the key, or else the section, whose value is wrong.
fn at(section: &str, error: &RedisConfigError) -> anyhow::Error {
    match error.key() {
        Some(_) => anyhow!("{section}.{error}"),
        None => anyhow!("{section}: {error}"),
    }
}

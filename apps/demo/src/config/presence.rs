//! [`Presence`]: the section `presence`, who is online.

use std::{str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de::Error};

use super::ConfigError;

/// The section `presence`, as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Presence {
    #[serde(deserialize_with = "mode")]
    mode: Option<PresenceMode>,
    /// Time for which a user stays online after the end of the last session.
    #[serde(with = "humantime_serde")]
    pub(super) grace: Duration,
}

/// Implementation of presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceMode {
    /// No presence.
    Off,
    /// Each node for itself.
    Local,
    /// All nodes that share a Redis.
    Redis,
}

impl Presence {
    /// Checks that there is a Redis to ask.
    pub(super) fn check(&self, has_redis: bool) -> Result<(), ConfigError> {
        if self.mode == Some(PresenceMode::Redis) && !has_redis {
            return Err(ConfigError::at("presence.mode", "redis needs a Redis to ask: redis.url is missing"));
        }
        Ok(())
    }

    /// The mode that is in force.
    pub(super) fn mode(&self, has_redis: bool) -> PresenceMode {
        self.mode.unwrap_or(if has_redis { PresenceMode::Redis } else { PresenceMode::Local })
    }
}

fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PresenceMode>, D::Error> {
    Option::<String>::deserialize(deserializer)?
        .map(|text| text.parse().map_err(D::Error::custom))
        .transpose()
}

impl FromStr for PresenceMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "local" => Ok(Self::Local),
            "redis" => Ok(Self::Redis),
            _ => Err(format!("`{text}` is none of: off, local, redis")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{load, refused};

    const MODE: &str = "REALTIME__PRESENCE__MODE";

    #[test]
    fn without_redis_a_node_knows_its_own_users() {
        assert_eq!(load(None, &[]).presence_mode(), PresenceMode::Local);
        assert_eq!(load(None, &[(MODE, "off")]).presence_mode(), PresenceMode::Off);
        assert_eq!(
            refused(None, &[(MODE, "redis")]),
            "presence.mode (environment variable REALTIME__PRESENCE__MODE): \
             redis needs a Redis to ask: redis.url is missing"
        );
        assert_eq!(
            refused(None, &[(MODE, "on")]),
            "presence.mode (environment variable REALTIME__PRESENCE__MODE): `on` is none of: off, local, redis"
        );
    }

    #[cfg(feature = "redis")]
    #[test]
    fn with_redis_the_cluster_knows() {
        let redis = ("REALTIME__REDIS__URL", "redis://127.0.0.1:6379/");
        assert_eq!(load(None, &[redis]).presence_mode(), PresenceMode::Redis);
        assert_eq!(load(None, &[redis, (MODE, "local")]).presence_mode(), PresenceMode::Local);
    }
}

//! [`connect`]: tries each Redis that the configuration names.

use std::fmt;

use realtime_redis::{RedisProbe, RedisProbeError};

use crate::config::{AuthMode, Config, Redis};

/// A Redis that answers.
#[derive(Debug)]
pub struct Reached {
    /// The section, `redis` or `auth.saToken.redis`.
    section: &'static str,
    addresses: String,
    probe: RedisProbe,
}

/// A Redis that cannot be used.
#[derive(Debug)]
pub struct Unreached {
    section: &'static str,
    addresses: String,
    error: RedisProbeError,
}

/// The oldest version with all commands that the bus needs.
const OLDEST: u32 = 7;

/// Connects once to each Redis that is in use, one after the other.
pub async fn connect(config: &Config) -> Vec<Result<Reached, Unreached>> {
    let mut results = Vec::new();
    if let Some(redis) = &config.redis {
        results.push(to_cluster(redis).await);
    }
    if config.auth.mode == AuthMode::SaToken
        && let Some(redis) = &config.auth.sa_token.redis
    {
        results.push(to("auth.saToken.redis", redis).await);
    }
    results
}

/// Connects once to the Redis of the cluster.
pub(crate) async fn to_cluster(redis: &Redis) -> Result<Reached, Unreached> {
    let reached = to("redis", redis).await?;
    let unfit = |problem: String| {
        let mut error = RedisProbeError::new("url", problem);
        error.is_permanent = true;
        Unreached { section: "redis", addresses: reached.addresses.clone(), error }
    };
    let major = reached.probe.version.as_deref().and_then(|version| version.split('.').next()?.parse().ok());
    if major.is_some_and(|major: u32| major < OLDEST) {
        return Err(unfit(format!("{} is too old: at least {OLDEST}.0 is needed", reached.probe)));
    }
    if reached.probe.is_master == Some(false) {
        return Err(unfit("it is a replica, to which nothing can be written".to_owned()));
    }
    Ok(reached)
}

async fn to(section: &'static str, redis: &Redis) -> Result<Reached, Unreached> {
    let addresses = redis.addresses();
    match redis.probe().await {
        Ok(probe) => Ok(Reached { section, addresses, probe }),
        Err(error) => Err(Unreached { section, addresses, error }),
    }
}

impl Unreached {
    /// Returns `true` if another attempt fails as well until something is changed.
    pub fn is_permanent(&self) -> bool {
        self.error.is_permanent
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: reached {} ({})", self.section, self.addresses, self.probe)
    }
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.error.is_permanent { "this does not pass by itself" } else { "this may pass" };
        let RedisProbeError { key, problem, .. } = &self.error;
        write!(f, "{}.{key}: {} is not reached, and {kind}: {problem}", self.section, self.addresses)
    }
}

//! [`Pool`]: connections to the servers that hold Sa-Token's keys, in any arrangement.
//!
//! The keys have no hash tag, so in a cluster each may be on another node, and a client that knows all of them is
//! needed; under sentinels a plain connection to the master will do.

use std::time::Duration;

use deadpool_redis::{
    Manager, Pool as SinglePool, PoolError,
    cluster::{Manager as ClusterManager, Pool as ClusterPool},
    sentinel::{
        Manager as SentinelManager, Pool as SentinelPool, SentinelNodeConnectionInfo, SentinelServerType,
        TlsMode,
    },
};
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, RedisError,
    aio::ConnectionLike,
};

use crate::{
    RedisConfigError,
    config::{Topology, parse, parse_all},
};

pub(super) enum Pool {
    Single(SinglePool),
    Sentinel(SentinelPool),
    Cluster(ClusterPool),
}

/// How many connections there are at most.
const CONNECTIONS: usize = 16;
const NO_TIME_LIMITS: &str = "only a pool with time limits of its own needs more";

impl Pool {
    pub(super) fn new(topology: &Topology, limit: Duration) -> Result<Self, RedisConfigError> {
        let refused = |error: RedisError| RedisConfigError::Url {
            what: "the server".to_owned(),
            problem: error.category().to_owned(),
        };
        Ok(match topology {
            Topology::Single(url) => {
                let limits = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(limit))
                    .set_response_timeout(Some(limit));
                let manager = Manager::new_with_config(parse("the server", url)?, limits).map_err(refused)?;
                Self::Single(
                    SinglePool::builder(manager).max_size(CONNECTIONS).build().expect(NO_TIME_LIMITS),
                )
            }
            Topology::Sentinel { sentinels, service, server } => {
                let sentinels = parse_all("sentinel", sentinels)?;
                let server = like(&parse("the server", server)?);
                let master = SentinelServerType::Master;
                let manager = SentinelManager::new(sentinels, service.clone(), Some(server), master)
                    .map_err(refused)?;
                Self::Sentinel(
                    SentinelPool::builder(manager).max_size(CONNECTIONS).build().expect(NO_TIME_LIMITS),
                )
            }
            Topology::Cluster(nodes) => {
                let manager =
                    ClusterManager::new(parse_all("cluster node", nodes)?, false).map_err(refused)?;
                Self::Cluster(
                    ClusterPool::builder(manager).max_size(CONNECTIONS).build().expect(NO_TIME_LIMITS),
                )
            }
        })
    }

    pub(super) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, PoolError> {
        match self {
            Self::Single(pool) => over(&mut pool.get().await?, command).await,
            Self::Sentinel(pool) => over(&mut pool.get().await?, command).await,
            Self::Cluster(pool) => over(&mut pool.get().await?, command).await,
        }
    }

    /// Closes all connections that nobody uses.
    pub(super) fn empty(&self) {
        match self {
            Self::Single(pool) => drop(pool.retain(|_, _| false)),
            Self::Sentinel(pool) => drop(pool.retain(|_, _| false)),
            Self::Cluster(pool) => drop(pool.retain(|_, _| false)),
        }
    }
}

async fn over<T: FromRedisValue>(
    connection: &mut impl ConnectionLike,
    command: &Cmd,
) -> Result<T, PoolError> {
    command.query_async(connection).await.map_err(PoolError::Backend)
}

/// User, password and TLS of a server whose address the sentinels tell.
fn like(server: &ConnectionInfo) -> SentinelNodeConnectionInfo {
    let tls_mode = match server.addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => Some(TlsMode::Insecure),
        ConnectionAddr::TcpTls { .. } => Some(TlsMode::Secure),
        _ => None,
    };
    let redis_connection_info = Some(server.redis_settings().clone().into());
    SentinelNodeConnectionInfo { tls_mode, redis_connection_info }
}

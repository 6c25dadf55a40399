//! [`Connections`]: connections to the servers of Sa-Token's keys, in any topology.
//!
//! Handshakes arrive in bursts and ask for little: they share one connection, which is discarded when its server is not the
//! master any more. Large questions, which would delay them, use a pool of their own; it pings an idle connection before the
//! next use. The keys have no hash tag, so in a cluster each may be on another node, which requires the client for clusters;
//! that has one connection to each node already.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use deadpool_redis::{Manager, Pool, PoolError};
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue, RedisError,
    RedisResult,
    aio::MultiplexedConnection,
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
};
use tokio::{runtime::Handle, time::timeout};

use crate::{
    commands::Commands,
    config::{RedisConfig, RedisConfigError, Topology, parse_all},
    content::Skipped,
    liveness::Link,
    master::MasterLookup,
    part::Part,
    repair::Repair,
    shared_connection::SharedConnection,
    tls,
};

pub(super) enum Connections {
    Master(Box<Master>),
    Cluster { client: Box<ClusterClient>, shared: SharedConnection<ClusterConnection>, limit: Duration },
}

/// Any of the topologies in which one server has all keys.
pub(super) struct Master {
    config: RedisConfig,
    /// A key whose master is used.
    key: String,
    shared: OnceLock<Commands>,
    lookup: Arc<MasterLookup>,
    pool: Mutex<Option<MasterPool>>,
}

#[derive(Clone)]
struct MasterPool {
    pool: Pool,
    addr: ConnectionAddr,
    looked_up: Instant,
}

/// Maximum number of connections for large questions.
const POOL_SIZE: usize = 2;

/// Time for which the result of a lookup is used.
const LOOKUP_TTL: Duration = Duration::from_secs(1);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

impl Connections {
    pub(super) fn new(config: &RedisConfig, key: String) -> Result<Self, RedisConfigError> {
        if let Topology::Cluster(nodes) = &config.topology {
            let nodes = parse_all("cluster node", nodes)?;
            let with_tls = nodes.iter().any(|node| matches!(node.addr(), ConnectionAddr::TcpTls { .. }));
            let mut client = ClusterClientBuilder::new(nodes);
            if with_tls {
                tls::install_provider();
                client = config.tls.load()?.certify(client);
            }
            let client = client
                .connection_timeout(CONNECT_TIMEOUT)
                .response_timeout(config.command_timeout)
                .build()
                .map_err(|error| RedisConfigError::Url {
                    what: "a cluster node".to_owned(),
                    problem: error.category().to_owned(),
                })?;
            let (client, shared) = (Box::new(client), SharedConnection::new(config.command_timeout));
            shared.runtime().use_current();
            return Ok(Self::Cluster { client, shared, limit: config.command_timeout });
        }
        let lookup = MasterLookup::shared(config)?;
        let (config, shared, pool) = (config.clone(), OnceLock::new(), Mutex::default());
        let master = Box::new(Master { config, key, shared, lookup, pool });
        // Its task that watches for another master runs on this runtime, rather than on that of the first handshake.
        if Handle::try_current().is_ok() {
            master.shared();
        }
        Ok(Self::Master(master))
    }

    /// Asks a small question, within the time limit of a command.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, String> {
        match self {
            Self::Master(master) => master.ask(command).await,
            Self::Cluster { client, shared, limit } => {
                let answer = async {
                    let open = || {
                        let client = client.clone();
                        async move { client.get_async_connection().await }
                    };
                    let connection = shared.get(open).await.map_err(|error| error.to_string())?;
                    let answer = command.query_async(&mut ClusterConnection::clone(&connection)).await;
                    // The refusal of a node would be the same over another connection.
                    match &answer {
                        Err(error) if RedisError::is_io_error(error) => {
                            shared.discard_failed(&connection, redacted(error))
                        }
                        _ => shared.record_success(),
                    }
                    answer.map_err(|error| redacted(&error).to_string())
                };
                timeout(*limit, answer).await.unwrap_or_else(|_| {
                    if let Some(connection) = shared.current() {
                        shared.discard_failed(&connection, late(*limit));
                    }
                    Err(late(*limit))
                })
            }
        }
    }

    /// Asks a question that may be large.
    pub(super) async fn ask_at_length<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, String> {
        let Self::Master(master) = self else { return self.ask(command).await };
        let answer = async {
            let mut connection = master.pool().await?.get().await.map_err(|error| match error {
                PoolError::Backend(error) => redacted(&error).to_string(),
                error => error.to_string(),
            })?;
            command.query_async(&mut connection).await.map_err(|error| redacted(&error).to_string())
        };
        let limit = master.config.command_timeout;
        let answer = timeout(limit, answer).await.unwrap_or_else(|_| Err(late(limit)));
        if answer.is_err() {
            *master.pool.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        answer
    }
}

impl Master {
    /// # Panics
    /// The first call panics outside a tokio runtime.
    fn shared(&self) -> &Commands {
        self.shared.get_or_init(|| {
            let make = Commands::make(self.config.clone(), Part::Logins);
            let make = make.expect("the same configuration was accepted a moment ago");
            // The keys are those of the Java nodes: none is removed.
            make(self.key.clone(), Repair::default(), Arc::new(Skipped::new(|| {})))
        })
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, String> {
        let ask = async |connection: &mut MultiplexedConnection| {
            command.query_async(connection).await.map_err(|error| redacted(&error))
        };
        self.shared().run(ask).await
    }

    /// Returns a pool of connections to the current master.
    async fn pool(&self) -> Result<Pool, String> {
        let known = self.pool.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(MasterPool { pool, looked_up, .. }) = &known
            && (looked_up.elapsed() < LOOKUP_TTL || !self.lookup.can_change())
        {
            return Ok(pool.clone());
        }
        let master =
            self.lookup.recent_master(&self.key).await.map_err(|error| redacted(&error).to_string())?;
        let addr = master.addr().clone();
        let pool = match known {
            Some(known) if known.addr == addr => known.pool,
            _ => self.connect(master).map_err(|error| redacted(&error).to_string())?,
        };
        let new = MasterPool { pool: pool.clone(), addr, looked_up: Instant::now() };
        *self.pool.lock().unwrap_or_else(PoisonError::into_inner) = Some(new);
        Ok(pool)
    }

    fn connect(&self, server: ConnectionInfo) -> RedisResult<Pool> {
        let limits = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(self.config.command_timeout));
        let pool = Pool::builder(Manager::new_with_config(server, limits)?).max_size(POOL_SIZE);
        Ok(pool.build().expect("only a pool with time limits of its own needs a runtime"))
    }
}

/// The client for clusters replaces its connections itself.
impl Link for ClusterConnection {}

fn late(limit: Duration) -> String {
    format!("no answer from Redis within {limit:?}")
}

/// Returns the error without the server's text, which may repeat a command, and with it a token.
fn redacted(error: &RedisError) -> RedisError {
    let what = if error.is_connection_refusal() {
        "connection refused"
    } else if error.is_timeout() {
        "timed out"
    } else if error.is_io_error() {
        "the connection broke"
    } else {
        "Redis refused"
    };
    let kind: ErrorKind = error.kind();
    (kind, what).into()
}

//! [`Connections`]: ways to the servers that hold Sa-Token's keys, in any arrangement.
//!
//! Handshakes come in storms and ask for little: they share one connection, which leaves a server that is not the master
//! any more. Large questions, which would hold them up, go over a pool of their own; it pings a connection that was idle
//! before it is used again. The keys have no hash tag, so in a cluster each may be on another node, and a client that
//! knows all of them is needed; it has a connection to each as it is.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
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
    RedisConfig, RedisConfigError, Topology, commands::Commands, config::parse_all, line::Line,
    master::Servers, tls,
};

pub(super) enum Connections {
    Master(Box<Master>),
    Cluster { client: Box<ClusterClient>, shared: Line<ClusterConnection>, limit: Duration },
}

/// Any of the topologies in which one server has all keys.
pub(super) struct Master {
    config: RedisConfig,
    /// A key that the server holds.
    key: String,
    shared: OnceLock<Commands>,
    servers: Arc<Servers>,
    pool: Mutex<Option<MasterPool>>,
}

#[derive(Clone)]
struct MasterPool {
    pool: Pool,
    addr: ConnectionAddr,
    looked_up: Instant,
}

/// The most connections for large questions.
const POOLED: usize = 2;

/// How long a master is believed to be the master.
const LOOK: Duration = Duration::from_secs(1);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

impl Connections {
    pub(super) fn new(config: &RedisConfig, key: String) -> Result<Self, RedisConfigError> {
        if let Topology::Cluster(nodes) = &config.topology {
            let nodes = parse_all("cluster node", nodes)?;
            let with_tls = nodes.iter().any(|node| matches!(node.addr(), ConnectionAddr::TcpTls { .. }));
            let mut client = ClusterClientBuilder::new(nodes);
            if with_tls {
                tls::install_provider();
                client = config.tls.certify(client);
            }
            let client = client
                .connection_timeout(CONNECT_TIMEOUT)
                .response_timeout(config.command_timeout)
                .build()
                .map_err(|error| RedisConfigError::Url {
                    what: "a cluster node".to_owned(),
                    problem: error.category().to_owned(),
                })?;
            let (client, shared) = (Box::new(client), Line::default());
            return Ok(Self::Cluster { client, shared, limit: config.command_timeout });
        }
        let servers = Servers::shared(config)?;
        let (config, shared, pool) = (config.clone(), OnceLock::new(), Mutex::default());
        let master = Box::new(Master { config, key, shared, servers, pool });
        // Its look-out for another master lives here, rather than on the first worker that asks.
        if Handle::try_current().is_ok() {
            master.shared();
        }
        Ok(Self::Master(master))
    }

    /// The answer to a small question, within the time that a command may take.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, String> {
        match self {
            Self::Master(master) => master.ask(command).await,
            Self::Cluster { client, shared, limit } => {
                let answer = async {
                    let open = || client.get_async_connection();
                    let link = shared.link(open).await.map_err(|error| error.to_string())?;
                    let answer = command.query_async(&mut ClusterConnection::clone(&link)).await;
                    // What a node says no to would be said again over another connection.
                    match &answer {
                        Err(error) if RedisError::is_io_error(error) => {
                            shared.give_up(&link, wordless(error))
                        }
                        _ => shared.worked(),
                    }
                    answer.map_err(|error| wordless(&error).to_string())
                };
                timeout(*limit, answer).await.unwrap_or_else(|_| {
                    if let Some(link) = shared.current() {
                        shared.give_up(&link, late(*limit));
                    }
                    Err(late(*limit))
                })
            }
        }
    }

    /// The answer to a question that may be large.
    pub(super) async fn ask_at_length<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, String> {
        let Self::Master(master) = self else { return self.ask(command).await };
        let answer = async {
            let mut connection = master.pool().await?.get().await.map_err(|error| match error {
                PoolError::Backend(error) => wordless(&error).to_string(),
                error => error.to_string(),
            })?;
            command.query_async(&mut connection).await.map_err(|error| wordless(&error).to_string())
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
    /// Outside a tokio runtime, when it is the first time.
    fn shared(&self) -> &Commands {
        self.shared.get_or_init(|| {
            let make = Commands::make(self.config.clone());
            make.expect("the same configuration was accepted a moment ago")(self.key.clone())
        })
    }

    /// Asks a second time where the connection turns out to be broken: one that was idle may have been closed long ago,
    /// and a look-up may be repeated.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, String> {
        let broken = AtomicBool::new(false);
        let ask = async |connection: &mut MultiplexedConnection| {
            command.query_async(connection).await.map_err(|error| {
                broken.store(error.is_io_error() && !error.is_timeout(), Ordering::Relaxed);
                wordless(&error)
            })
        };
        let answer = self.shared().run(ask).await;
        if answer.is_err() && broken.load(Ordering::Relaxed) { self.shared().run(ask).await } else { answer }
    }

    /// A pool of connections to the server that is the master now.
    async fn pool(&self) -> Result<Pool, String> {
        let known = self.pool.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(MasterPool { pool, looked_up, .. }) = &known
            && (looked_up.elapsed() < LOOK || !self.servers.can_change())
        {
            return Ok(pool.clone());
        }
        let master =
            self.servers.recent_master(&self.key).await.map_err(|error| wordless(&error).to_string())?;
        let addr = master.addr().clone();
        let pool = match known {
            Some(known) if known.addr == addr => known.pool,
            _ => self.connect(master).map_err(|error| wordless(&error).to_string())?,
        };
        let new = MasterPool { pool: pool.clone(), addr, looked_up: Instant::now() };
        *self.pool.lock().unwrap_or_else(PoisonError::into_inner) = Some(new);
        Ok(pool)
    }

    fn connect(&self, server: ConnectionInfo) -> RedisResult<Pool> {
        let limits = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(self.config.command_timeout));
        let pool = Pool::builder(Manager::new_with_config(server, limits)?).max_size(POOLED);
        Ok(pool.build().expect("only a pool with time limits of its own needs more"))
    }
}

fn late(limit: Duration) -> String {
    format!("no answer from Redis within {limit:?}")
}

/// The same error without what the server said: it may repeat a command, and with it a token.
fn wordless(error: &RedisError) -> RedisError {
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

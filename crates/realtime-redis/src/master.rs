//! [`Servers`]: finds the server that holds our keys now, and opens plain connections to it.
//!
//! Sentinel and Cluster are asked for nothing but who is the master: everything else goes straight to that server. All
//! parts of a process that go to the same servers share one look-up, and its connections.

mod majority;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue, Pipeline,
    RedisError, RedisResult, Value, aio::MultiplexedConnection, from_redis_value_ref,
};
use tokio::time::Instant;

use self::majority::most;
use crate::{
    config::{RedisConfig, RedisConfigError, Topology, parse, parse_all},
    lookup::Lookups,
    tls::RedisTls,
};

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How old an answer may be for those who only watch for a change: a little less than their second, so that one which
/// watches alone asks each time.
const RECENT: Duration = Duration::from_millis(900);

/// The servers of a configuration, with parsed addresses.
pub(crate) struct Servers {
    kind: Kind,
    timeout: Duration,
    /// The keys that anybody has asked for.
    keys: Mutex<Vec<String>>,
    lookups: Lookups<Masters>,
}

/// Where the server of each key is, or why nobody says.
type Masters = Arc<BTreeMap<String, RedisResult<Address>>>;

/// A host and a port.
type Address = (String, u16);

/// What tells servers from others.
type Identity = (Topology, RedisTls, Duration);

/// The servers of this process.
static KNOWN: Mutex<Vec<(Identity, Weak<Servers>)>> = Mutex::new(Vec::new());

enum Kind {
    Single(ConnectionInfo),
    Sentinel { sentinels: Vec<Seed>, service: String, server: ConnectionInfo },
    Cluster(Vec<Seed>),
}

/// A sentinel or cluster node that is asked for the master, and the connection to it that is kept between two questions.
struct Seed {
    info: ConnectionInfo,
    kept: Mutex<Option<Kept>>,
}

/// A connection to a seed.
struct Kept {
    connection: MultiplexedConnection,
    /// Questions since the last answer that was waited for: the others may have agreed before it came.
    unanswered: u32,
}

/// A seed that has answered none of so many questions gets the next one over a new connection.
const UNANSWERED: u32 = 3;

impl Seed {
    fn all(infos: Vec<ConnectionInfo>) -> Vec<Self> {
        infos.into_iter().map(|info| Self { info, kept: Mutex::default() }).collect()
    }

    /// The connection for another question.
    fn kept(&self) -> Option<MultiplexedConnection> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take_if(|kept| kept.unanswered >= UNANSWERED);
        kept.as_mut().map(|kept| {
            kept.unanswered += 1;
            kept.connection.clone()
        })
    }

    /// A question has been answered over this connection, or is about to be put over a new one.
    fn keep(&self, connection: MultiplexedConnection, unanswered: u32) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Kept { connection, unanswered });
    }
}

impl Servers {
    /// The servers of a configuration, shared with whoever in this process has the same.
    ///
    /// # Errors
    /// [`RedisConfigError`] when a URL is none, or certificates cannot be used.
    pub(crate) fn shared(config: &RedisConfig) -> Result<Arc<Self>, RedisConfigError> {
        let identity = (config.topology.clone(), config.tls.clone(), config.command_timeout);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, servers)| servers.strong_count() > 0);
        let same = known.iter().find(|(other, _)| *other == identity);
        if let Some(servers) = same.and_then(|(_, servers)| servers.upgrade()) {
            return Ok(servers);
        }
        let servers = Arc::new(Self::new(config)?);
        known.push((identity, Arc::downgrade(&servers)));
        Ok(servers)
    }

    fn new(config: &RedisConfig) -> Result<Self, RedisConfigError> {
        let with_tls = |connection| {
            config.tls.apply(connection).map_err(|error| RedisConfigError::Tls(error.to_string()))
        };
        let all_with_tls = |connections: Vec<ConnectionInfo>| {
            connections.into_iter().map(with_tls).collect::<Result<Vec<_>, _>>()
        };
        let kind = match &config.topology {
            Topology::Single(url) => Kind::Single(with_tls(parse("the server", url)?)?),
            Topology::Sentinel { sentinels, service, server } => Kind::Sentinel {
                sentinels: Seed::all(all_with_tls(parse_all("sentinel", sentinels)?)?),
                service: service.clone(),
                server: with_tls(parse("the server", server)?)?,
            },
            Topology::Cluster(nodes) => {
                Kind::Cluster(Seed::all(all_with_tls(parse_all("cluster node", nodes)?)?))
            }
        };
        let timeout = config.command_timeout;
        Ok(Self { kind, timeout, keys: Mutex::default(), lookups: Lookups::default() })
    }

    /// Whether another server can become the master.
    pub(crate) fn can_change(&self) -> bool {
        !matches!(self.kind, Kind::Single(_))
    }

    /// The server that holds `key` now: it was asked for after this was called.
    pub(crate) async fn master(&self, key: &str) -> RedisResult<ConnectionInfo> {
        self.master_since(key, Instant::now()).await
    }

    /// The server that holds `key`, or held it a moment ago.
    pub(crate) async fn recent_master(&self, key: &str) -> RedisResult<ConnectionInfo> {
        let now = Instant::now();
        self.master_since(key, now.checked_sub(RECENT).unwrap_or(now)).await
    }

    async fn master_since(&self, key: &str, since: Instant) -> RedisResult<ConnectionInfo> {
        let like = match &self.kind {
            Kind::Single(server) => return Ok(server.clone()),
            Kind::Sentinel { server, .. } => server,
            Kind::Cluster(nodes) => &nodes[0].info,
        };
        {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            if !keys.iter().any(|known| known == key) {
                keys.push(key.to_owned());
            }
        }
        let masters =
            self.lookups.since(since, |masters| masters.contains_key(key), async || self.ask_all().await);
        let masters = masters.await;
        let address =
            masters.get(key).cloned().unwrap_or_else(|| Err(missing("nobody was asked for our key")));
        address.map(|(host, port)| at(like, host, port))
    }

    /// Asks all sentinels, or some nodes of a cluster, where the servers of all keys are.
    async fn ask_all(&self) -> Masters {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answers = match &self.kind {
            Kind::Single(_) => Vec::new(),
            Kind::Sentinel { sentinels, service, .. } => {
                let asked = sentinels.iter().map(|sentinel| self.ask_sentinel(sentinel, service));
                // One master has all keys.
                let answer = most(asked.collect(), 1).await.pop();
                keys.iter().filter_map(|_| answer.clone()).collect()
            }
            Kind::Cluster(nodes) => {
                most(nodes.iter().map(|node| self.ask_cluster(node, &keys)).collect(), keys.len()).await
            }
        };
        Arc::new(keys.into_iter().zip(answers).collect())
    }

    /// Opens a connection whose commands take `timeout` at most.
    pub(crate) async fn open(
        &self,
        server: ConnectionInfo,
        timeout: impl Into<Option<Duration>>,
    ) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(timeout.into())
            .set_pipeline_buffer_size(1024);
        Client::open(server)?.get_multiplexed_async_connection_with_config(&config).await
    }

    async fn ask_sentinel(&self, sentinel: &Seed, service: &str) -> RedisResult<Vec<RedisResult<Address>>> {
        let mut question = redis::pipe();
        question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        let (address,): (Option<Address>,) = self.ask(sentinel, &question).await?;
        Ok(vec![address.ok_or_else(|| missing("the sentinel knows no such master"))])
    }

    async fn ask_cluster(&self, node: &Seed, keys: &[String]) -> RedisResult<Vec<RedisResult<Address>>> {
        let mut question = redis::pipe();
        question.cmd("CLUSTER").arg("SLOTS");
        for key in keys {
            question.cmd("CLUSTER").arg("KEYSLOT").arg(key);
        }
        let mut answers: Vec<Value> = self.ask(node, &question).await?;
        let slots = answers.split_off(1.min(answers.len()));
        let ranges: Vec<Vec<Value>> = from_redis_value_ref(answers.first().unwrap_or(&Value::Nil))?;
        let owners = slots.iter().map(|slot| owner(&ranges, from_redis_value_ref(slot)?, node.info.addr()));
        Ok(owners.collect())
    }

    /// Asks over the connection that was kept, or over a new one.
    async fn ask<T: FromRedisValue>(&self, seed: &Seed, question: &Pipeline) -> RedisResult<T> {
        if let Some(mut connection) = seed.kept()
            && let Ok(answer) = question.query_async(&mut connection).await
        {
            seed.keep(connection, 0);
            return Ok(answer);
        }
        let mut connection = self.open(seed.info.clone(), self.timeout).await?;
        seed.keep(connection.clone(), 1);
        let answer = question.query_async(&mut connection).await?;
        seed.keep(connection, 0);
        Ok(answer)
    }
}

/// Who serves a slot, in an answer to CLUSTER SLOTS of the node at `asked`.
fn owner(ranges: &[Vec<Value>], slot: u16, asked: &ConnectionAddr) -> RedisResult<(String, u16)> {
    for range in ranges {
        // first slot, last slot, master, replicas; a server is host, port and more
        let [first, last, Value::Array(master), ..] = range.as_slice() else { continue };
        let [host, port, ..] = master.as_slice() else { continue };
        if (from_redis_value_ref::<u16>(first)?..=from_redis_value_ref(last)?).contains(&slot) {
            // A node that knows no address of its own, or no endpoint, means the one that was asked.
            let host = match from_redis_value_ref::<Option<String>>(host)?.as_deref() {
                None | Some("" | "?") => host_of(asked),
                Some(host) => host.to_owned(),
            };
            return Ok((host, from_redis_value_ref(port)?));
        }
    }
    Err(missing("no cluster node serves the slot of our keys"))
}

fn host_of(addr: &ConnectionAddr) -> String {
    match addr {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
        _ => "localhost".to_owned(),
    }
}

/// The same server at another address.
fn at(like: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let addr = match like.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    like.clone().set_addr(addr)
}

/// Whether an answer to ROLE is that of a master.
pub(crate) fn is_master(role: &Value) -> bool {
    let Value::Array(role) = role else { return false };
    role.first().is_some_and(|role| from_redis_value_ref::<String>(role).is_ok_and(|role| role == "master"))
}

fn missing(what: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Client, what))
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Single(_) => "Single",
            Kind::Sentinel { .. } => "Sentinel",
            Kind::Cluster(_) => "Cluster",
        };
        f.debug_struct("Servers").field("kind", &kind).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_process_share_their_servers() {
        let config = RedisConfig::new(Topology::Cluster(vec!["redis://127.0.0.1:1/".to_owned()]));
        let first = Servers::shared(&config).unwrap();
        assert!(Arc::ptr_eq(&first, &Servers::shared(&config).unwrap()));
        let other = RedisConfig::new(Topology::Cluster(vec!["redis://127.0.0.1:2/".to_owned()]));
        assert!(!Arc::ptr_eq(&first, &Servers::shared(&other).unwrap()));
    }

    #[test]
    fn a_node_that_does_not_name_its_host_means_the_one_that_was_asked() {
        let asked = ConnectionAddr::Tcp("asked".to_owned(), 7000);
        let text = |text: &str| Value::BulkString(text.into());
        for (host, expected) in
            [(Value::Nil, "asked"), (text(""), "asked"), (text("?"), "asked"), (text("10.0.0.1"), "10.0.0.1")]
        {
            let master = Value::Array(vec![host, Value::Int(7001), text("id"), Value::Array(vec![])]);
            let other = Value::Array(vec![text("10.0.0.2"), Value::Int(7002), text("id")]);
            let ranges =
                [vec![Value::Int(0), Value::Int(99), other], vec![Value::Int(100), Value::Int(200), master]];
            assert_eq!(owner(&ranges, 150, &asked).unwrap(), (expected.to_owned(), 7001));
            assert!(owner(&ranges, 201, &asked).is_err());
        }
    }
}

//! [`MasterLookup`]: finds the master of a key, and opens plain connections to it.
//!
//! Sentinels and cluster nodes are asked for the master only: everything else is sent straight to that server. All parts of
//! a process that use the same servers share one lookup and its connections.

mod majority;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, FromRedisValue, Pipeline, RedisResult,
    Value, aio::MultiplexedConnection, from_redis_value_ref,
};
use tokio::time::Instant;

use self::majority::majority;
use crate::{
    config::{RedisConfig, RedisConfigError, Topology, parse, parse_all},
    error::client_error,
    shared_runtime::SharedRuntime,
    single_flight::SingleFlight,
    tls::RedisTls,
};

/// Time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Age limit of an answer for tasks that only watch for a change: a little less than their interval of a second, so that a
/// task that watches alone asks each time.
const RECENT: Duration = Duration::from_millis(900);

/// The servers of a configuration, with parsed addresses.
pub(crate) struct MasterLookup {
    kind: Kind,
    timeout: Duration,
    /// The keys that were looked up so far.
    keys: Mutex<Vec<String>>,
    answers: SingleFlight<Masters>,
}

/// The address of each key's master, or why it is unknown.
type Masters = Arc<BTreeMap<String, RedisResult<Address>>>;

/// A host and a port.
type Address = (String, u16);

/// The part of a configuration by which lookups are shared.
type Identity = (Topology, RedisTls, Duration);

/// The lookups of this process.
static KNOWN: Mutex<Vec<(Identity, Weak<MasterLookup>)>> = Mutex::new(Vec::new());

enum Kind {
    Single(ConnectionInfo),
    Sentinel { sentinels: Vec<Arc<LookupNode>>, service: String, server: ConnectionInfo },
    Cluster(Vec<Arc<LookupNode>>),
}

/// A sentinel or cluster node that is asked for the master, and the connection that is kept between two questions.
struct LookupNode {
    info: ConnectionInfo,
    kept: Mutex<Option<Kept>>,
}

/// A connection to a node.
struct Kept {
    connection: MultiplexedConnection,
    /// Questions since the last answer.
    unanswered: u32,
}

/// Number of unanswered questions after which the next one is sent over a new connection.
const MAX_UNANSWERED: u32 = 3;

impl LookupNode {
    fn all(infos: Vec<ConnectionInfo>) -> Vec<Arc<Self>> {
        infos.into_iter().map(|info| Arc::new(Self { info, kept: Mutex::default() })).collect()
    }

    /// Returns the kept connection for another question.
    fn kept(&self) -> Option<MultiplexedConnection> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take_if(|kept| kept.unanswered >= MAX_UNANSWERED);
        kept.as_mut().map(|kept| {
            kept.unanswered += 1;
            kept.connection.clone()
        })
    }

    /// Keeps a connection over which a question was answered, or a new one that is about to be used.
    fn keep(&self, connection: MultiplexedConnection, unanswered: u32) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Kept { connection, unanswered });
    }
}

impl MasterLookup {
    /// Returns the lookup for a configuration, shared with all parts of this process that use the same servers.
    ///
    /// # Errors
    /// [`RedisConfigError`] for an invalid URL or unusable certificates.
    pub(crate) fn shared(config: &RedisConfig) -> Result<Arc<Self>, RedisConfigError> {
        let identity = (config.topology.clone(), config.tls.clone(), config.command_timeout);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, lookup)| lookup.strong_count() > 0);
        let same = known.iter().find(|(other, _)| *other == identity);
        if let Some(lookup) = same.and_then(|(_, lookup)| lookup.upgrade()) {
            return Ok(lookup);
        }
        let lookup = Arc::new(Self::new(config)?);
        known.push((identity, Arc::downgrade(&lookup)));
        Ok(lookup)
    }

    /// Checks the URLs of a topology.
    pub(crate) fn check(topology: &Topology) -> Result<(), RedisConfigError> {
        match topology {
            Topology::Single(url) => parse("the server", url).map(drop),
            Topology::Sentinel { sentinels, server, .. } => {
                parse_all("sentinel", sentinels)?;
                parse("the server", server).map(drop)
            }
            Topology::Cluster(nodes) => parse_all("cluster node", nodes).map(drop),
        }
    }

    /// Creates a lookup of its own.
    pub(crate) fn new(config: &RedisConfig) -> Result<Self, RedisConfigError> {
        let tls = config.tls.load()?;
        let with_tls =
            |connection| tls.apply(connection).map_err(|error| RedisConfigError::Tls(error.to_string()));
        let all_with_tls = |connections: Vec<ConnectionInfo>| {
            connections.into_iter().map(with_tls).collect::<Result<Vec<_>, _>>()
        };
        let kind = match &config.topology {
            Topology::Single(url) => Kind::Single(with_tls(parse("the server", url)?)?),
            Topology::Sentinel { sentinels, service, server } => Kind::Sentinel {
                sentinels: LookupNode::all(all_with_tls(parse_all("sentinel", sentinels)?)?),
                service: service.clone(),
                server: with_tls(parse("the server", server)?)?,
            },
            Topology::Cluster(nodes) => {
                Kind::Cluster(LookupNode::all(all_with_tls(parse_all("cluster node", nodes)?)?))
            }
        };
        let timeout = config.command_timeout;
        Ok(Self { kind, timeout, keys: Mutex::default(), answers: SingleFlight::default() })
    }

    /// Returns whether another server can become the master.
    pub(crate) fn can_change(&self) -> bool {
        !matches!(self.kind, Kind::Single(_))
    }

    /// Returns the master of `key`, as of a question sent after this call.
    pub(crate) async fn master(self: &Arc<Self>, key: &str) -> RedisResult<ConnectionInfo> {
        self.master_since(key, Instant::now()).await
    }

    /// Returns the master of `key`, as of a question sent at most [`RECENT`] ago.
    pub(crate) async fn recent_master(self: &Arc<Self>, key: &str) -> RedisResult<ConnectionInfo> {
        let now = Instant::now();
        self.master_since(key, now.checked_sub(RECENT).unwrap_or(now)).await
    }

    async fn master_since(self: &Arc<Self>, key: &str, since: Instant) -> RedisResult<ConnectionInfo> {
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
        let ask = || {
            let (lookup, key) = (Arc::clone(self), key.to_owned());
            async move {
                let has_key = |masters: &Masters| masters.contains_key(&key);
                lookup.answers.since(since, has_key, async || lookup.ask_all().await).await
            }
        };
        // All parts of the process may wait for this question.
        let masters = SharedRuntime::default().run(ask).await;
        let address =
            masters.get(key).cloned().unwrap_or_else(|| Err(client_error("the key was not looked up")));
        address.map(|(host, port)| with_address(like, host, port))
    }

    /// Asks all sentinels, or the configured nodes of a cluster, for the masters of all keys.
    async fn ask_all(&self) -> Masters {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answers = match &self.kind {
            Kind::Single(_) => Vec::new(),
            Kind::Sentinel { sentinels, service, .. } => {
                let asked = sentinels.iter().map(|sentinel| self.ask_sentinel(sentinel, service));
                // One master holds all keys.
                let answer = majority(asked.collect(), 1).await.pop();
                keys.iter().filter_map(|_| answer.clone()).collect()
            }
            Kind::Cluster(nodes) => {
                majority(nodes.iter().map(|node| self.ask_cluster(node, &keys)).collect(), keys.len()).await
            }
        };
        Arc::new(keys.into_iter().zip(answers).collect())
    }

    async fn ask_sentinel(
        &self,
        sentinel: &Arc<LookupNode>,
        service: &str,
    ) -> RedisResult<Vec<RedisResult<Address>>> {
        let mut question = redis::pipe();
        question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        let (address,): (Option<Address>,) = self.ask(sentinel, question).await?;
        Ok(vec![address.ok_or_else(|| client_error("the sentinel does not know this master"))])
    }

    async fn ask_cluster(
        &self,
        node: &Arc<LookupNode>,
        keys: &[String],
    ) -> RedisResult<Vec<RedisResult<Address>>> {
        let mut question = redis::pipe();
        question.cmd("CLUSTER").arg("SLOTS");
        for key in keys {
            question.cmd("CLUSTER").arg("KEYSLOT").arg(key);
        }
        let mut answers: Vec<Value> = self.ask(node, question).await?;
        let slots = answers.split_off(1.min(answers.len()));
        let ranges: Vec<Vec<Value>> = from_redis_value_ref(answers.first().unwrap_or(&Value::Nil))?;
        let owners = slots.iter().map(|slot| owner(&ranges, from_redis_value_ref(slot)?, node.info.addr()));
        Ok(owners.collect())
    }

    /// Sends a question over the kept connection, or over a new one if that fails.
    async fn ask<T>(&self, node: &Arc<LookupNode>, question: Pipeline) -> RedisResult<T>
    where
        T: FromRedisValue + Send + 'static,
    {
        let (node, timeout) = (Arc::clone(node), self.timeout);
        // In a task of its own: the answer counts, and a new connection is kept, even if the other nodes agree first.
        // Otherwise a node that is a little slower than they are would be connected to again and again.
        let asked = tokio::spawn(async move {
            if let Some(mut connection) = node.kept()
                && let Ok(answer) = question.query_async(&mut connection).await
            {
                node.keep(connection, 0);
                return Ok(answer);
            }
            let mut connection = open(node.info.clone(), timeout).await?;
            node.keep(connection.clone(), 1);
            let answer = question.query_async(&mut connection).await?;
            node.keep(connection, 0);
            Ok(answer)
        });
        asked.await.map_err(|_| client_error("the question was not asked"))?
    }
}

/// Opens a connection with a time limit for its commands.
pub(crate) async fn open(
    server: ConnectionInfo,
    timeout: impl Into<Option<Duration>>,
) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(timeout.into())
        .set_pipeline_buffer_size(1024);
    Client::open(server)?.get_multiplexed_async_connection_with_config(&config).await
}

/// Returns the address of the node that serves a slot, from an answer to CLUSTER SLOTS of the node at `asked`.
fn owner(ranges: &[Vec<Value>], slot: u16, asked: &ConnectionAddr) -> RedisResult<(String, u16)> {
    for range in ranges {
        // first slot, last slot, master, replicas; a server is host, port and more
        let [first, last, Value::Array(master), ..] = range.as_slice() else { continue };
        let [host, port, ..] = master.as_slice() else { continue };
        if (from_redis_value_ref::<u16>(first)?..=from_redis_value_ref(last)?).contains(&slot) {
            // Without a known address or endpoint, it is the node that was asked.
            let host = match from_redis_value_ref::<Option<String>>(host)?.as_deref() {
                None | Some("" | "?") => host_of(asked),
                Some(host) => host.to_owned(),
            };
            return Ok((host, from_redis_value_ref(port)?));
        }
    }
    Err(client_error("no cluster node serves the slot of the key"))
}

fn host_of(addr: &ConnectionAddr) -> String {
    match addr {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
        _ => "localhost".to_owned(),
    }
}

/// Returns the connection settings with another address.
fn with_address(like: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let addr = match like.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    like.clone().set_addr(addr)
}

/// Returns whether an answer to ROLE is that of a master.
pub(crate) fn is_master(role: &Value) -> bool {
    let Value::Array(role) = role else { return false };
    role.first().is_some_and(|role| from_redis_value_ref::<String>(role).is_ok_and(|role| role == "master"))
}

impl fmt::Debug for MasterLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Single(_) => "Single",
            Kind::Sentinel { .. } => "Sentinel",
            Kind::Cluster(_) => "Cluster",
        };
        f.debug_struct("MasterLookup").field("kind", &kind).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_process_share_their_lookup() {
        let config = RedisConfig::new(Topology::Cluster(vec!["redis://127.0.0.1:1/".to_owned()]));
        let first = MasterLookup::shared(&config).unwrap();
        assert!(Arc::ptr_eq(&first, &MasterLookup::shared(&config).unwrap()));
        let other = RedisConfig::new(Topology::Cluster(vec!["redis://127.0.0.1:2/".to_owned()]));
        assert!(!Arc::ptr_eq(&first, &MasterLookup::shared(&other).unwrap()));
    }

    #[test]
    fn a_node_without_a_host_is_the_one_that_was_asked() {
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

//! [`Servers`]: finds the server that holds our keys now, and opens plain connections to it.
//!
//! Sentinel and Cluster are asked for nothing but who is the master: everything else goes straight to that server.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue, Pipeline,
    RedisError, RedisResult, Value, aio::MultiplexedConnection, from_redis_value_ref,
};
use tokio::time::{Instant, timeout_at};

use crate::config::{RedisConfig, RedisConfigError, Topology, parse, parse_all};

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the others have after the first that says who the master is.
const PATIENCE: Duration = Duration::from_millis(200);

/// The servers of a configuration, with parsed addresses.
pub(crate) struct Servers {
    kind: Kind,
    timeout: Duration,
}

enum Kind {
    Single(ConnectionInfo),
    Sentinel { sentinels: Vec<Seed>, service: String, server: ConnectionInfo },
    Cluster(Vec<Seed>),
}

/// A sentinel or cluster node that is asked for the master, and the connection to it that is kept between two questions.
struct Seed {
    info: ConnectionInfo,
    kept: Mutex<Option<MultiplexedConnection>>,
}

impl Seed {
    fn all(infos: Vec<ConnectionInfo>) -> Vec<Self> {
        infos.into_iter().map(|info| Self { info, kept: Mutex::default() }).collect()
    }

    fn kept(&self) -> Option<MultiplexedConnection> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, connection: MultiplexedConnection) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }
}

impl Servers {
    pub(crate) fn new(config: &RedisConfig) -> Result<Self, RedisConfigError> {
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
        Ok(Self { kind, timeout: config.command_timeout })
    }

    /// Whether another server can become the master.
    pub(crate) fn can_change(&self) -> bool {
        !matches!(self.kind, Kind::Single(_))
    }

    /// The server that holds `key` now.
    pub(crate) async fn master(&self, key: &str) -> RedisResult<ConnectionInfo> {
        match &self.kind {
            Kind::Single(server) => Ok(server.clone()),
            Kind::Sentinel { sentinels, service, server } => {
                let asked = sentinels.iter().map(|sentinel| self.ask_sentinel(sentinel, service));
                let (host, port) = most(asked.collect()).await?;
                Ok(at(server, host, port))
            }
            Kind::Cluster(nodes) => {
                let asked = nodes.iter().map(|node| self.ask_cluster(node, key));
                let (host, port) = most(asked.collect()).await?;
                Ok(at(&nodes[0].info, host, port))
            }
        }
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

    async fn ask_sentinel(&self, sentinel: &Seed, service: &str) -> RedisResult<(String, u16)> {
        let mut question = redis::pipe();
        question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        let (address,): (Option<(String, u16)>,) = self.ask(sentinel, &question).await?;
        address.ok_or_else(|| missing("the sentinel knows no such master"))
    }

    async fn ask_cluster(&self, node: &Seed, key: &str) -> RedisResult<(String, u16)> {
        let mut question = redis::pipe();
        question.cmd("CLUSTER").arg("KEYSLOT").arg(key).cmd("CLUSTER").arg("SLOTS");
        let (slot, ranges): (u16, Vec<Vec<Value>>) = self.ask(node, &question).await?;
        owner(&ranges, slot, node.info.addr())
    }

    /// Asks over the connection that was kept, or over a new one. Nobody waits for the answer on one whose answer was
    /// given up: it is not kept.
    async fn ask<T: FromRedisValue>(&self, seed: &Seed, question: &Pipeline) -> RedisResult<T> {
        if let Some(mut connection) = seed.kept()
            && let Ok(answer) = question.query_async(&mut connection).await
        {
            seed.keep(connection);
            return Ok(answer);
        }
        let mut connection = self.open(seed.info.clone(), self.timeout).await?;
        let answer = question.query_async(&mut connection).await?;
        seed.keep(connection);
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

/// What more than half of those asked say; failing that, what most say that answer with the first or soon after.
///
/// All are asked at once, so that one that hangs holds nobody up, and one that was cut off from the others with an
/// old master is outvoted.
async fn most<A: PartialEq>(
    mut asked: FuturesUnordered<impl Future<Output = RedisResult<A>>>,
) -> RedisResult<A> {
    let majority = asked.len() / 2 + 1;
    let mut said: Vec<(A, usize)> = Vec::new();
    let (mut problem, mut deadline) = (None, None);
    loop {
        let next = match deadline {
            None => asked.next().await,
            Some(deadline) => timeout_at(deadline, asked.next()).await.unwrap_or(None),
        };
        match next {
            None => break,
            Some(Err(error)) => problem = Some(error),
            Some(Ok(answer)) => {
                deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
                let n = said.iter().position(|(said, _)| *said == answer).unwrap_or_else(|| {
                    said.push((answer, 0));
                    said.len() - 1
                });
                said[n].1 += 1;
                if said[n].1 == majority {
                    break;
                }
            }
        }
    }
    let most = said.into_iter().max_by_key(|(_, count)| *count);
    most.map(|(answer, _)| answer).ok_or_else(|| problem.unwrap_or_else(|| missing("there is nobody to ask")))
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
    use std::future::{pending, ready};

    use futures_util::future::Either;

    use super::*;

    /// Each asked server's answer: a name, `!` for an error, nothing for one that hangs.
    async fn ask(answers: &[&'static str]) -> Option<&'static str> {
        let asked = answers.iter().map(|answer| match *answer {
            "" => Either::Left(pending()),
            "!" => Either::Right(ready(Err(missing("refused")))),
            answer => Either::Right(ready(Ok(answer))),
        });
        most(asked.collect()).await.ok()
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

    #[tokio::test]
    async fn the_master_is_whom_most_name() {
        assert_eq!(ask(&["old", "new", "new"]).await, Some("new"));
        assert_eq!(ask(&["new", "old", "new"]).await, Some("new"));
        assert_eq!(ask(&["!", "new", "!"]).await, Some("new"));
        assert_eq!(ask(&["!", "!", "!"]).await, None);
    }

    #[tokio::test]
    async fn servers_that_hang_hold_nobody_up() {
        let asked = Instant::now();
        assert_eq!(ask(&["", "new", "new"]).await, Some("new"));
        assert!(asked.elapsed() < PATIENCE, "most have answered");
        assert_eq!(ask(&["", "", "new"]).await, Some("new"));
        assert!(asked.elapsed() < PATIENCE * 5);
    }
}

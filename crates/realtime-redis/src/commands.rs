//! [`Commands`]: requests to Redis off the publish path.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::{
    ErrorKind, RedisError, RedisResult, ServerErrorKind, Value, aio::MultiplexedConnection, from_redis_value,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    config::{RedisConfig, RedisConfigError},
    content::{Skipped, StreamEntry},
    error::is_refusal,
    large_entry::{LARGE, next_entry},
    master::MasterLookup,
    millis::millis,
    part::Part,
    repair::{Repair, is_broken_key},
    server_connection::ServerConnection,
    shared_connection::SharedConnection,
};

/// Time for which a read waits for an entry; it ends before the time limit of a command.
const BLOCK: Duration = Duration::from_millis(500);

/// Time between two checks that the master is still the same.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Two connections, one for requests and one for blocking reads. They are opened on demand, and discarded after any error
/// except a plain refusal and when another server has become the master.
pub(crate) struct Commands {
    connections: Arc<Connections>,
    watch: Option<JoinHandle<()>>,
}

struct Connections {
    lookup: Arc<MasterLookup>,
    config: RedisConfig,
    part: Part,
    /// The key whose master is used.
    key: String,
    requests: SharedConnection<ServerConnection>,
    /// Separate, since a blocking read delays everything behind it.
    blocking: SharedConnection<ServerConnection>,
    repair: Repair,
    skipped: Arc<Skipped>,
    /// Number of entries that the next read of a stream asks for.
    count: AtomicUsize,
}

/// Entries of a stream that were read.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub(crate) entries: Vec<StreamEntry>,
    /// The stream was at the end of its ids, and is begun anew: the next read starts at its beginning.
    pub(crate) begun_anew: bool,
}

/// The reason why a request has failed.
struct Failure {
    problem: String,
    /// There was no answer in time.
    is_late: bool,
}

/// The most entries of one read.
const COUNT: usize = 1000;

/// The last id that a stream can have. It takes no entry afterwards.
pub(crate) const LAST_ID: &str = "18446744073709551615-18446744073709551615";

impl Commands {
    /// Makes the requests of a part. `key` is the key whose master is used, `repair` has the keys of the part, which are
    /// begun anew if they turn out to be broken.
    ///
    /// # Panics
    /// The returned function panics outside a tokio runtime.
    pub(crate) fn make(
        config: RedisConfig,
        part: Part,
    ) -> Result<impl FnOnce(String, Repair, Arc<Skipped>) -> Self + Send, RedisConfigError> {
        part.describe();
        let lookup = MasterLookup::shared(&config)?;
        Ok(move |key, repair, skipped| {
            let slot = || {
                let slot = SharedConnection::new(config.command_timeout);
                slot.runtime().use_current();
                slot
            };
            let (requests, blocking) = (slot(), slot());
            let count = AtomicUsize::new(COUNT);
            let connections =
                Connections { lookup, config, part, key, requests, blocking, repair, skipped, count };
            let connections = Arc::new(connections);
            let watch = connections.lookup.can_change();
            let watch = watch.then(|| tokio::spawn(discard_moved(Arc::clone(&connections))));
            Self { connections, watch }
        })
    }

    /// Returns how many connections for requests were opened so far. Writes over an earlier one may be lost with its
    /// server.
    pub(crate) fn opened(&self) -> u64 {
        self.connections.requests.opened()
    }

    /// Returns how many connections, of both, have replaced an earlier one so far.
    pub(crate) fn reopened(&self) -> u64 {
        let Connections { requests, blocking, .. } = &*self.connections;
        [requests, blocking].map(|connection| connection.opened().saturating_sub(1)).iter().sum()
    }

    /// Returns the record of broken content.
    pub(crate) fn skipped(&self) -> &Skipped {
        &self.connections.skipped
    }

    /// Runs requests over the connection, within the time limit of a command. They are repeated once if the connection
    /// breaks, and once if a key was broken and is begun anew, so they must be such that running them twice does no harm.
    ///
    /// # Errors
    /// The problem as text.
    pub(crate) async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T> + Clone,
    ) -> Result<T, String> {
        self.request(&self.connections.repair, work).await
    }

    /// Does the same, and begins these keys anew as well if one of them is broken.
    pub(crate) async fn run_with<T>(
        &self,
        repair: Repair,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T> + Clone,
    ) -> Result<T, String> {
        self.request(&self.connections.repair.clone().and(repair), work).await
    }

    async fn request<T>(
        &self,
        repair: &Repair,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T> + Clone,
    ) -> Result<T, String> {
        let connections = &self.connections;
        let request = connections.part.request();
        let answer = connections.run(&connections.requests, repair, work).await;
        request.end(answer.is_ok());
        answer.map_err(|it| it.problem)
    }

    /// Reads the entries of a stream after an id; waits for some. An entry that is too large to arrive in time has no fields.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) async fn entries_after(&self, stream: &str, after: &str) -> Result<Entries, String> {
        let connections = &self.connections;
        let block = BLOCK.min(connections.config.command_timeout / 2);
        let mut entries = loop {
            let count = connections.count.load(Ordering::Relaxed);
            let read = async |connection: &mut MultiplexedConnection| {
                redis::cmd("XREAD")
                    .arg("COUNT")
                    .arg(count)
                    .arg("BLOCK")
                    .arg(millis(block))
                    .arg("STREAMS")
                    .arg(stream)
                    .arg(after)
                    .query_async::<Value>(connection)
                    .await
            };
            match connections.run(&connections.blocking, &connections.repair, read).await {
                Ok(Value::Nil) => return Ok(Entries::default()),
                Ok(streams) => {
                    connections.count.store((count * 4).min(COUNT), Ordering::Relaxed);
                    let streams: Vec<(Value, Vec<StreamEntry>)> =
                        from_redis_value(streams).map_err(|error| error.to_string())?;
                    break streams.into_iter().flat_map(|(_, entries)| entries).collect::<Vec<_>>();
                }
                Err(Failure { is_late: true, .. }) if count > 1 => {
                    connections.count.store((count / 8).max(1), Ordering::Relaxed);
                }
                Err(Failure { is_late: true, problem }) => {
                    let next =
                        self.run(async |connection| next_entry(connection, stream, after).await).await?;
                    let Some((id, _)) = next.filter(|(_, bytes)| *bytes >= LARGE) else {
                        return Err(problem);
                    };
                    self.skipped().record("an entry that is too large to arrive in time");
                    break vec![StreamEntry { id, fields: HashMap::new() }];
                }
                Err(Failure { problem, .. }) => return Err(problem),
            }
        };
        let end = entries.iter().position(|entry| entry.id == LAST_ID);
        if let Some(end) = end {
            entries.truncate(end);
            let begin_anew = async |connection: &mut MultiplexedConnection| {
                connections.remove_broken(&connections.repair, connection).await
            };
            self.run(begin_anew).await?;
        }
        Ok(Entries { entries, begun_anew: end.is_some() })
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.abort();
        }
    }
}

impl Connections {
    async fn run<T>(
        &self,
        shared: &SharedConnection<ServerConnection>,
        repair: &Repair,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T> + Clone,
    ) -> Result<T, Failure> {
        let limit = self.config.command_timeout;
        let deadline = Instant::now() + limit;
        let late = || Failure { problem: format!("no answer from Redis within {limit:?}"), is_late: true };
        let open = || {
            let (part, lookup, key) = (self.part, Arc::clone(&self.lookup), self.key.clone());
            async move {
                part.connects();
                ServerConnection::open(&lookup, &key, limit).await
            }
        };
        let (mut repeated, mut repaired) = (false, false);
        loop {
            let connection = timeout_at(deadline, shared.get(open))
                .await
                .map_err(|_| late())?
                .map_err(|error| Failure { problem: error.detail().to_owned(), is_late: false })?;
            let mut requests = connection.connection.clone();
            let error = match timeout_at(deadline, work.clone()(&mut requests)).await {
                Ok(Ok(answer)) => {
                    shared.record_success();
                    return Ok(answer);
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    shared.discard_failed(&connection, late().problem);
                    return Err(late());
                }
            };
            if is_broken_key(&error) && !repaired {
                repaired = true;
                match timeout_at(deadline, self.remove_broken(repair, &mut requests)).await {
                    Ok(Ok(true)) => continue,
                    Ok(Ok(false)) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "failed to remove a broken key"),
                    Err(_) => return Err(late()),
                }
            }
            if !is_rejection(&error) {
                // An idle connection may have been closed a moment ago.
                if error.is_connection_dropped() && !error.is_timeout() && !repeated {
                    repeated = true;
                    shared.discard(&connection);
                    continue;
                }
                shared.discard_failed(&connection, &error);
            }
            return Err(Failure { problem: error.to_string(), is_late: error.is_timeout() });
        }
    }

    /// Removes broken keys. Returns whether there were any.
    async fn remove_broken(
        &self,
        repair: &Repair,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<bool> {
        let removed = repair.run(connection).await?;
        removed.iter().for_each(|key| self.skipped.record_removed(key));
        Ok(!removed.is_empty())
    }
}

/// Discards connections to a server that is no longer the master: one that is cut off from the others doesn't notice
/// its replacement.
async fn discard_moved(connections: Arc<Connections>) {
    loop {
        sleep(CHECK_EVERY).await;
        if let Ok(master) = connections.lookup.recent_master(&connections.key).await {
            connections.requests.discard_unless_to(master.addr());
            connections.blocking.discard_unless_to(master.addr());
        }
    }
}

/// Returns whether the right server rejected one command; the connection stays usable.
fn is_rejection(error: &RedisError) -> bool {
    is_refusal(error)
        || matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::NoScript)
                | ErrorKind::UnexpectedReturnType
        )
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commands").field("key", &self.connections.key).finish_non_exhaustive()
    }
}

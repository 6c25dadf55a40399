//! [`Commands`]: requests to Redis off the publish path.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use redis::{
    ErrorKind, RedisError, RedisResult, ServerErrorKind, Value, aio::MultiplexedConnection, from_redis_value,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    config::{RedisConfig, RedisConfigError},
    error::is_refusal,
    master::MasterLookup,
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
    /// The key whose master is used.
    key: String,
    requests: SharedConnection<ServerConnection>,
    /// Separate, since a blocking read delays everything behind it.
    blocking: SharedConnection<ServerConnection>,
}

/// An entry of a stream: its id and its fields.
pub(crate) type StreamEntry = (String, HashMap<String, String>);

impl Commands {
    /// # Panics
    /// The returned function panics outside a tokio runtime.
    pub(crate) fn make(config: RedisConfig) -> Result<impl FnOnce(String) -> Self + Send, RedisConfigError> {
        let lookup = MasterLookup::shared(&config)?;
        Ok(move |key| {
            let (requests, blocking) = (SharedConnection::default(), SharedConnection::default());
            let connections = Arc::new(Connections { lookup, config, key, requests, blocking });
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

    /// Runs requests over the connection, within the time limit of a command.
    ///
    /// # Errors
    /// The problem as text.
    pub(crate) async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, String> {
        self.connections.run(&self.connections.requests, work).await
    }

    /// Reads the entries of a stream after an id; waits for some.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) async fn entries_after(&self, stream: &str, after: &str) -> Result<Vec<StreamEntry>, String> {
        let connections = &self.connections;
        let block = BLOCK.min(connections.config.command_timeout / 2);
        let read = async |connection: &mut MultiplexedConnection| {
            redis::cmd("XREAD")
                .arg("COUNT")
                .arg(1000)
                .arg("BLOCK")
                .arg(u64::try_from(block.as_millis()).unwrap_or(u64::MAX))
                .arg("STREAMS")
                .arg(stream)
                .arg(after)
                .query_async::<Value>(connection)
                .await
        };
        match connections.run(&connections.blocking, read).await? {
            Value::Nil => Ok(Vec::new()),
            streams => {
                let streams: Vec<(String, Vec<StreamEntry>)> =
                    from_redis_value(streams).map_err(|error| error.to_string())?;
                Ok(streams.into_iter().flat_map(|(_, entries)| entries).collect())
            }
        }
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
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, String> {
        let limit = self.config.command_timeout;
        let deadline = Instant::now() + limit;
        let late = || format!("no answer from Redis within {limit:?}");
        let open = || ServerConnection::open(&self.lookup, &self.key, limit);
        let connection = timeout_at(deadline, shared.get(open))
            .await
            .map_err(|_| late())?
            .map_err(|error| error.detail().to_owned())?;
        let answer = timeout_at(deadline, work(&mut connection.connection.clone())).await;
        match &answer {
            Ok(Ok(_)) => shared.record_success(),
            Ok(Err(error)) if is_rejection(error) => {}
            Ok(Err(error)) => shared.discard_failed(&connection, error),
            Err(_) => shared.discard_failed(&connection, late()),
        }
        answer.map_err(|_| late())?.map_err(|error| error.to_string())
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

//! [`Commands`]: request and answer with Redis, off the path of messages.

use std::{
    collections::HashMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use realtime_core::BusError;
use redis::{
    ErrorKind, RedisError, RedisResult, ServerErrorKind, Value, aio::MultiplexedConnection, from_redis_value,
};
use tokio::time::{Instant, timeout_at};

use crate::{config::RedisConfig, line::Line, master::Servers};

/// How long a read waits for an entry; it ends before a command's time is up.
const BLOCK: Duration = Duration::from_millis(500);

/// One connection that is opened when it is needed and given up after any fault but a server's plain "no".
pub(crate) struct Commands {
    servers: Servers,
    config: RedisConfig,
    /// The key that says which server of a cluster it is.
    key: String,
    line: Line<MultiplexedConnection>,
    opened: AtomicU64,
}

/// An entry of a stream: its id and its fields.
pub(crate) type StreamEntry = (String, HashMap<String, String>);

impl Commands {
    pub(crate) fn new(servers: Servers, config: RedisConfig, key: String) -> Self {
        Self { servers, config, key, line: Line::default(), opened: AtomicU64::new(0) }
    }

    /// How many connections it has opened. Whatever went over an earlier one may be lost with its server.
    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Acquire)
    }

    /// Runs something over the connection, within the time that a command may take.
    ///
    /// # Errors
    /// What is wrong, as text.
    pub(crate) async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, String> {
        let limit = self.config.command_timeout;
        let deadline = Instant::now() + limit;
        let late = || format!("no answer from Redis within {limit:?}");
        let open = || async {
            let server = self.servers.master(&self.key).await?;
            let link = self.servers.open(server, limit).await?;
            self.opened.fetch_add(1, Ordering::Release);
            Ok(link)
        };
        let link = timeout_at(deadline, self.line.link(open)).await.map_err(|_| late())?.map_err(
            |error| match error {
                BusError::Unavailable(problem) | BusError::Unsupported(problem) => problem,
            },
        )?;
        let answer = timeout_at(deadline, work(&mut MultiplexedConnection::clone(&link))).await;
        if !matches!(&answer, Ok(Ok(_))) && !matches!(&answer, Ok(Err(error)) if is_plain_no(error)) {
            self.line.give_up(&link);
        }
        answer.map_err(|_| late())?.map_err(|error| error.to_string())
    }

    /// The entries of a stream after one; waits for some. Nothing else should go over this connection meanwhile.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) async fn entries_after(&self, stream: &str, after: &str) -> Result<Vec<StreamEntry>, String> {
        let block = BLOCK.min(self.config.command_timeout / 2);
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
        match self.run(read).await? {
            Value::Nil => Ok(Vec::new()),
            streams => {
                let streams: Vec<(String, Vec<StreamEntry>)> =
                    from_redis_value(streams).map_err(|error| error.to_string())?;
                Ok(streams.into_iter().flat_map(|(_, entries)| entries).collect())
            }
        }
    }
}

/// A server that says no to one command is still the right one, unless it says that it is not.
fn is_plain_no(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::ResponseError | ServerErrorKind::NoScript | ServerErrorKind::NoPerm
        ) | ErrorKind::UnexpectedReturnType
    )
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commands").field("key", &self.key).finish_non_exhaustive()
    }
}

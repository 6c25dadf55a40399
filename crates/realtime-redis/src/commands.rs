//! [`Commands`]: request and answer with Redis, off the path of messages.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use realtime_core::BusError;
use redis::{
    ConnectionAddr, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value, aio::MultiplexedConnection,
    from_redis_value,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    config::{RedisConfig, RedisConfigError},
    line::{Line, is_refusal},
    master::Servers,
};

/// How long a read waits for an entry; it ends before a command's time is up.
const BLOCK: Duration = Duration::from_millis(500);

/// How often it is asked whether the master is still the same.
const LOOK: Duration = Duration::from_secs(1);

/// Two connections, one to ask over and one to wait on, that are opened when they are needed and given up after any
/// fault but a server's plain "no", and when another server has become the master.
pub(crate) struct Commands {
    shared: Arc<Shared>,
    watch: Option<JoinHandle<()>>,
}

struct Shared {
    servers: Arc<Servers>,
    config: RedisConfig,
    /// The key that says which server of a cluster it is.
    key: String,
    asking: Way,
    /// A read that waits would hold up everything behind it.
    waiting: Way,
}

#[derive(Default)]
struct Way {
    line: Line<Link>,
    opened: AtomicU64,
}

struct Link {
    connection: MultiplexedConnection,
    addr: ConnectionAddr,
}

/// An entry of a stream: its id and its fields.
pub(crate) type StreamEntry = (String, HashMap<String, String>);

impl Commands {
    /// # Panics
    /// The function it returns, outside a tokio runtime.
    pub(crate) fn make(config: RedisConfig) -> Result<impl FnOnce(String) -> Self + Send, RedisConfigError> {
        let servers = Servers::shared(&config)?;
        Ok(move |key| {
            let (asking, waiting) = (Way::default(), Way::default());
            let shared = Arc::new(Shared { servers, config, key, asking, waiting });
            let watch = shared.servers.can_change().then(|| tokio::spawn(leave(Arc::clone(&shared))));
            Self { shared, watch }
        })
    }

    /// How many connections were opened to ask over. Whatever went over an earlier one may be lost with its server.
    pub(crate) fn opened(&self) -> u64 {
        self.shared.asking.opened.load(Ordering::Acquire)
    }

    /// Runs something over the connection, within the time that a command may take.
    ///
    /// # Errors
    /// What is wrong, as text.
    pub(crate) async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, String> {
        self.shared.over(&self.shared.asking, work).await
    }

    /// The entries of a stream after one; waits for some.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) async fn entries_after(&self, stream: &str, after: &str) -> Result<Vec<StreamEntry>, String> {
        let shared = &self.shared;
        let block = BLOCK.min(shared.config.command_timeout / 2);
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
        match shared.over(&shared.waiting, read).await? {
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

impl Shared {
    async fn over<T>(
        &self,
        way: &Way,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, String> {
        let limit = self.config.command_timeout;
        let deadline = Instant::now() + limit;
        let late = || format!("no answer from Redis within {limit:?}");
        let link = timeout_at(deadline, way.line.link(|| self.open(way)))
            .await
            .map_err(|_| late())?
            .map_err(|error| match error {
                BusError::Unavailable(problem)
                | BusError::Refused(problem)
                | BusError::Unsupported(problem) => problem,
            })?;
        let answer = timeout_at(deadline, work(&mut link.connection.clone())).await;
        match &answer {
            Ok(Ok(_)) => way.line.worked(),
            Ok(Err(error)) if is_plain_no(error) => {}
            Ok(Err(error)) => way.line.give_up(&link, error),
            Err(_) => way.line.give_up(&link, late()),
        }
        answer.map_err(|_| late())?.map_err(|error| error.to_string())
    }

    async fn open(&self, way: &Way) -> RedisResult<Link> {
        let server = self.servers.master(&self.key).await?;
        let addr = server.addr().clone();
        let connection = self.servers.open(server, self.config.command_timeout).await?;
        way.opened.fetch_add(1, Ordering::Release);
        Ok(Link { connection, addr })
    }
}

/// Leaves a server that is not the master any more: one that is cut off from the others notices nothing itself.
async fn leave(shared: Arc<Shared>) {
    loop {
        sleep(LOOK).await;
        let Ok(master) = shared.servers.recent_master(&shared.key).await else { continue };
        for line in [&shared.asking.line, &shared.waiting.line] {
            if let Some(link) = line.current()
                && link.addr != *master.addr()
            {
                line.leave(&link);
            }
        }
    }
}

/// A server that says no to one command is still the right one, unless it says that it is not.
fn is_plain_no(error: &RedisError) -> bool {
    is_refusal(error)
        || matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::NoScript)
                | ErrorKind::UnexpectedReturnType
        )
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commands").field("key", &self.shared.key).finish_non_exhaustive()
    }
}

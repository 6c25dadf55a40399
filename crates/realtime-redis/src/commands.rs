//! [`Commands`]: request and answer with Redis, off the path of messages.

use std::fmt;

use realtime_core::BusError;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, aio::MultiplexedConnection};
use tokio::time::timeout;

use crate::{config::RedisConfig, line::Line, master::Servers};

/// One connection that is opened when it is needed and given up after any fault but a server's plain "no".
pub(crate) struct Commands {
    servers: Servers,
    config: RedisConfig,
    /// The key that says which server of a cluster it is.
    key: String,
    line: Line<MultiplexedConnection>,
}

impl Commands {
    pub(crate) fn new(servers: Servers, config: RedisConfig, key: String) -> Self {
        Self { servers, config, key, line: Line::default() }
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
        let late = || format!("no answer from Redis within {limit:?}");
        let open = || async {
            let server = self.servers.master(&self.key).await?;
            self.servers.open(server, limit).await
        };
        let link =
            timeout(limit, self.line.link(open)).await.map_err(|_| late())?.map_err(|error| match error {
                BusError::Unavailable(problem) | BusError::Unsupported(problem) => problem,
            })?;
        let answer = timeout(limit, work(&mut MultiplexedConnection::clone(&link))).await;
        if !matches!(&answer, Ok(Ok(_))) && !matches!(&answer, Ok(Err(error)) if is_plain_no(error)) {
            self.line.give_up(&link);
        }
        answer.map_err(|_| late())?.map_err(|error| error.to_string())
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

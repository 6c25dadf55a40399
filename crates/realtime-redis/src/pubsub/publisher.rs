//! Publishing: one multiplexed connection a node, which batches by itself what many callers publish at once.

use std::fmt;

use realtime_core::BusError;
use redis::{
    ConnectionAddr, ErrorKind, Pipeline, RedisResult, Value, aio::MultiplexedConnection, from_redis_value_ref,
};
use tokio::time::{Instant, timeout_at};

use super::{Shared, count};
use crate::line::unavailable;

/// A connection to a server that reaches everybody.
pub(super) struct Link {
    connection: MultiplexedConnection,
    addr: ConnectionAddr,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Shared {
    /// Runs PUBLISH commands, within the time that a command may take.
    ///
    /// # Errors
    /// [`BusError::Unavailable`]. Nothing is tried twice: Redis may have taken it.
    pub(super) async fn publish(&self, commands: &Pipeline) -> Result<(), BusError> {
        let timeout = self.config.command_timeout;
        let deadline = Instant::now() + timeout;
        let late = || BusError::Unavailable(format!("no answer from Redis within {timeout:?}"));
        let link = timeout_at(deadline, self.line.link(|| self.open())).await.map_err(|_| late())??;
        // Redis answers each with the number of its receivers on that server, which says nothing about other servers.
        let mut connection = link.connection.clone();
        let answer = commands.query_async::<Vec<u64>>(&mut connection);
        let error = match timeout_at(deadline, answer).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => unavailable(&error),
            Err(_) => late(),
        };
        self.line.give_up(&link);
        Err(error)
    }

    async fn open(&self) -> RedisResult<Link> {
        count(&self.metrics.connects);
        let server = self.servers.master(self.home()).await?;
        let addr = server.addr().clone();
        let mut connection = self.servers.open(server, self.config.command_timeout).await?;
        if self.servers.can_change() {
            // A replica takes a PUBLISH, too, and only its own subscribers hear it.
            let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
            let role: Option<String> = role.first().map(from_redis_value_ref).transpose()?;
            if role.as_deref() != Some("master") {
                return Err((ErrorKind::Client, "this server is not a master").into());
            }
        }
        Ok(Link { connection, addr })
    }

    /// Everything of ours goes over the master of this name. In a cluster every node would do: each tells all others.
    pub(super) fn home(&self) -> &str {
        &self.channels[0].name
    }

    /// Gives the connection up when it leads elsewhere than to this server.
    pub(super) fn leave_unless_at(&self, master: &ConnectionAddr) {
        if let Some(link) = self.line.current()
            && link.addr != *master
        {
            self.line.give_up(&link);
        }
    }
}

//! Publishing: one multiplexed connection a node, which batches by itself what many callers publish at once.

use std::fmt;

use realtime_core::BusError;
use redis::{
    ConnectionAddr, ErrorKind, FromRedisValue, Pipeline, RedisResult, Value, aio::MultiplexedConnection,
};
use tokio::time::{Instant, timeout_at};

use super::{Shared, count};
use crate::{
    line::{bus_error, is_refusal},
    master::is_master,
};

/// What is said of a server that takes a PUBLISH and tells its own subscribers only.
pub(super) const NO_MASTER: &str = "this server is not a master";

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
        // Redis answers each with the number of its receivers on that server, which says nothing about other servers.
        self.run::<Vec<u64>>(commands).await.map(drop)
    }

    /// Publishes a canary and asks for the server's role, which may change behind an address that does not. Returns
    /// whether it is a master; one that is not is left.
    pub(super) async fn publish_canary(&self) -> Result<bool, BusError> {
        let mut canary = redis::pipe();
        canary.cmd("PUBLISH").arg(&self.canary).arg(self.born.elapsed().as_millis().to_string()).cmd("ROLE");
        let (_, role) = self.run::<(u64, Value)>(&canary).await?;
        let leads = is_master(&role);
        if !leads && let Some(link) = self.line.current() {
            self.line.leave(&link);
        }
        Ok(leads)
    }

    async fn run<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, BusError> {
        let timeout = self.config.command_timeout;
        let deadline = Instant::now() + timeout;
        let late = || BusError::Unavailable(format!("no answer from Redis within {timeout:?}"));
        let link = timeout_at(deadline, self.line.link(|| self.open())).await.map_err(|_| late())??;
        let mut connection = link.connection.clone();
        let answer = commands.query_async::<T>(&mut connection);
        let error = match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => {
                self.line.worked();
                return Ok(answer);
            }
            Ok(Err(error)) if is_refusal(&error) => return Err(bus_error(&error)),
            Ok(Err(error)) => bus_error(&error),
            Err(_) => late(),
        };
        self.line.give_up(&link, &error);
        Err(error)
    }

    async fn open(&self) -> RedisResult<Link> {
        count(&self.metrics.connects);
        let server = self.servers.master(self.home()).await?;
        let addr = server.addr().clone();
        let mut connection = self.servers.open(server, self.config.command_timeout).await?;
        // A replica takes a PUBLISH, too, and only its own subscribers hear it.
        if !is_master(&redis::cmd("ROLE").query_async(&mut connection).await?) {
            return Err((ErrorKind::Client, NO_MASTER).into());
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
            self.line.leave(&link);
        }
    }
}

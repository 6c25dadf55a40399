//! Publishing: one multiplexed connection a node, over which concurrent publishes are batched.

use std::sync::Arc;

use realtime_core::bus::BusError;
use redis::{FromRedisValue, Pipeline, RedisResult, Value};
use tokio::time::{Instant, timeout_at};

use super::shared::{NOT_A_MASTER, PubSubShared};
use crate::{
    error::{client_error, is_refusal, publish_error},
    master::is_master,
    part::Part,
    server_connection::ServerConnection,
};

impl PubSubShared {
    /// Runs PUBLISH commands, within the time limit of a command.
    ///
    /// # Errors
    /// [`BusError`]. Nothing is tried twice: Redis may have accepted it ([`BusError::OutcomeUnknown`]).
    pub(super) async fn publish(self: &Arc<Self>, commands: &Pipeline) -> Result<(), BusError> {
        // The answers are numbers of receivers on that server; receivers on other servers are not included.
        self.run::<Vec<u64>>(commands).await.map(drop)
    }

    /// Publishes a heartbeat and asks for the server's role, which may change behind the same address. Returns whether it
    /// is a master; otherwise the connection is discarded.
    pub(super) async fn publish_heartbeat(self: &Arc<Self>) -> Result<bool, BusError> {
        let mut heartbeat = redis::pipe();
        let time = self.started_at.elapsed().as_millis().to_string();
        heartbeat.cmd("PUBLISH").arg(&self.heartbeat_channel).arg(time).cmd("ROLE");
        let (_, role) = self.run::<(u64, Value)>(&heartbeat).await?;
        let is_master = is_master(&role);
        if !is_master && let Some(connection) = self.connection.current() {
            self.connection.discard(&connection);
        }
        Ok(is_master)
    }

    async fn run<T: FromRedisValue>(self: &Arc<Self>, commands: &Pipeline) -> Result<T, BusError> {
        let request = Part::Bus.request();
        let answer = self.run_within_limit(commands).await;
        request.end(answer.is_ok());
        answer
    }

    async fn run_within_limit<T: FromRedisValue>(
        self: &Arc<Self>,
        commands: &Pipeline,
    ) -> Result<T, BusError> {
        let timeout = self.config.command_timeout;
        let deadline = Instant::now() + timeout;
        let late = || format!("no answer from Redis within {timeout:?}");
        let open = || {
            let shared = Arc::clone(self);
            async move { shared.open().await }
        };
        let shared = timeout_at(deadline, self.connection.get(open))
            .await
            .map_err(|_| BusError::Unavailable(late()))??;
        let mut connection = shared.connection.clone();
        let answer = commands.query_async::<T>(&mut connection);
        let error = match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => {
                self.connection.record_success();
                return Ok(answer);
            }
            Ok(Err(error)) => {
                let problem = publish_error(&error, commands.cmd_iter().count());
                if is_refusal(&error) {
                    return Err(problem);
                }
                problem
            }
            Err(_) => BusError::OutcomeUnknown(late()),
        };
        self.connection.discard_failed(&shared, error.detail());
        Err(error)
    }

    async fn open(&self) -> RedisResult<ServerConnection> {
        self.counters.connected();
        let limit = self.config.command_timeout;
        let mut opened = ServerConnection::open(&self.lookup, self.key(), limit).await?;
        // A replica accepts a PUBLISH, too, but delivers it to its own subscribers only.
        if !is_master(&redis::cmd("ROLE").query_async(&mut opened.connection).await?) {
            return Err(client_error(NOT_A_MASTER));
        }
        Ok(opened)
    }
}

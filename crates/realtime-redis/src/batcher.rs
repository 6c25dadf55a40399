//! [`Batcher`]: commands of many callers, sent over one connection as pipelines.
//!
//! A single command through the client costs a buffer, a message through a channel, and two task wake-ups; a pipeline costs
//! that once. No caller waits for a batch to fill: a command on an idle connection is sent alone, and commands that arrive
//! in the meantime are sent together after its answer.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{Cmd, ErrorKind, Pipeline, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{runtime::Handle, sync::oneshot, time::timeout};

/// The most commands of a batch. A full batch is sent at once, beside those in flight.
const BATCH: usize = 48;

/// The most batches in flight: while Redis works on one batch, the callers of another prepare their next commands.
const MAX_IN_FLIGHT: usize = 4;

/// A connection that callers share. Clones share the same connection.
#[derive(Clone)]
pub(crate) struct Batcher(Arc<BatcherShared>);

struct BatcherShared {
    connection: MultiplexedConnection,
    /// The runtime of the connection; batches run on it, too.
    runtime: Handle,
    /// Time limit of a batch.
    limit: Duration,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<(Cmd, Caller)>,
    /// The number of tasks that send batches, plus one for a caller that sends its command alone.
    in_flight: usize,
}

/// The recipient of an answer.
type Caller = oneshot::Sender<RedisResult<Value>>;

impl Batcher {
    /// Wraps a connection that was opened on the current runtime. No caller may wait longer than `limit`, so that a batch
    /// that exceeds it has no callers left.
    pub(crate) fn new(connection: MultiplexedConnection, limit: Duration) -> Self {
        Self(Arc::new(BatcherShared {
            connection,
            runtime: Handle::current(),
            limit,
            queue: Mutex::default(),
        }))
    }

    /// Returns a connection for requests beside the batches.
    pub(crate) fn connection(&self) -> MultiplexedConnection {
        self.0.connection.clone()
    }

    /// Returns the connection itself.
    pub(crate) fn link(&self) -> &MultiplexedConnection {
        &self.0.connection
    }

    /// Runs a command. If the future is dropped before the command was sent, it is not sent.
    ///
    /// # Errors
    /// The error that Redis returned for this command; if the connection failed, the command may or may not have been run.
    pub(crate) async fn run(&self, command: Cmd) -> RedisResult<Value> {
        match self.admit(command) {
            Admitted::Alone(command, _guard) => command.query_async(&mut self.connection()).await,
            Admitted::Waiting(answer) => {
                answer.await.unwrap_or_else(|_| Err((ErrorKind::Io, "the batch was cancelled").into()))
            }
        }
    }

    fn admit(&self, command: Cmd) -> Admitted<'_> {
        let mut queue = self.0.queue();
        if queue.in_flight == 0 {
            queue.in_flight = 1;
            return Admitted::Alone(command, InFlightGuard(self));
        }
        let (caller, answer) = oneshot::channel();
        queue.waiting.push((command, caller));
        if queue.waiting.len() >= BATCH && queue.in_flight < MAX_IN_FLIGHT {
            queue.in_flight += 1;
            self.0.runtime.spawn(self.clone().run_batches());
        }
        Admitted::Waiting(answer)
    }

    /// Sends batches until the queue is empty.
    async fn run_batches(self) {
        let _guard = InFlightGuard(&self);
        while let Some((commands, callers)) = self.0.next_batch() {
            if callers.is_empty() {
                continue;
            }
            let mut connection = self.connection();
            let answers = commands.query_async::<Vec<RedisResult<Value>>>(&mut connection);
            let error = match timeout(self.0.limit, answers).await {
                Ok(Ok(answers)) if answers.len() == callers.len() => {
                    for (caller, answer) in callers.into_iter().zip(answers) {
                        // A caller that was dropped needs no answer.
                        caller.send(answer).ok();
                    }
                    continue;
                }
                Ok(Ok(_)) => (ErrorKind::UnexpectedReturnType, "a batch was answered in part").into(),
                Ok(Err(error)) => error,
                Err(_) => (ErrorKind::Io, "a batch was not answered").into(),
            };
            for caller in callers {
                caller.send(Err(error.clone())).ok();
            }
        }
    }
}

impl BatcherShared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next batch: its commands and their callers. It is empty if all callers were dropped in the meantime.
    fn next_batch(&self) -> Option<(Pipeline, Vec<Caller>)> {
        let batch = {
            let mut queue = self.queue();
            let len = queue.waiting.len().min(BATCH);
            let rest = queue.waiting.split_off(len);
            mem::replace(&mut queue.waiting, rest)
        };
        if batch.is_empty() {
            return None;
        }
        let (mut commands, mut callers) =
            (Pipeline::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for (command, caller) in batch {
            if !caller.is_closed() {
                commands.add_command(command);
                callers.push(caller);
            }
        }
        commands.ignore_errors();
        Some((commands, callers))
    }
}

enum Admitted<'a> {
    /// The connection is idle: the caller sends the command itself.
    Alone(Cmd, InFlightGuard<'a>),
    Waiting(oneshot::Receiver<RedisResult<Value>>),
}

/// One unit of `Queue::in_flight`. Its drop hands it to a task if commands are waiting, also when the holder was cancelled.
struct InFlightGuard<'a>(&'a Batcher);

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.0.queue();
        if queue.waiting.is_empty() {
            queue.in_flight -= 1;
        } else {
            self.0.0.runtime.spawn(self.0.clone().run_batches());
        }
    }
}

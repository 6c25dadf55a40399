//! [`Batcher`]: commands of many callers, sent over one connection as pipelines.
//!
//! A single command through the client costs a buffer, a message through a channel, and two task wake-ups; a pipeline costs
//! that once. No caller waits for a batch to fill, nor for another caller: a command on an idle connection is sent alone, by
//! its caller, and those that arrive in the meantime are sent by a task.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{Cmd, ErrorKind, Pipeline, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{runtime::Handle, sync::oneshot, task::yield_now, time::timeout};

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
    /// They are sent by the tasks: there is one as long as there are any.
    waiting: Vec<(Cmd, Caller)>,
    /// A caller sends its command alone. It may not be polled for long, so that nothing waits for it.
    alone: bool,
    /// The number of tasks that send batches.
    tasks: usize,
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
            Admitted::Alone(command, _alone) => command.query_async(&mut self.connection()).await,
            Admitted::Waiting(answer) => {
                answer.await.unwrap_or_else(|_| Err((ErrorKind::Io, "the batch was cancelled").into()))
            }
        }
    }

    fn admit(&self, command: Cmd) -> Admitted<'_> {
        let mut queue = self.0.queue();
        if !queue.alone && queue.tasks == 0 {
            queue.alone = true;
            return Admitted::Alone(command, AloneGuard(&self.0));
        }
        let (caller, answer) = oneshot::channel();
        queue.waiting.push((command, caller));
        let is_full = queue.waiting.len() >= BATCH && queue.tasks + usize::from(queue.alone) < MAX_IN_FLIGHT;
        if queue.tasks == 0 || is_full {
            queue.tasks += 1;
            self.0.runtime.spawn(self.clone().run_batches());
        }
        Admitted::Waiting(answer)
    }

    /// Sends batches until the queue is empty.
    async fn run_batches(self) {
        let _guard = TaskGuard(&self);
        // Callers that are ready to run join the first batch.
        yield_now().await;
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
    Alone(Cmd, AloneGuard<'a>),
    Waiting(oneshot::Receiver<RedisResult<Value>>),
}

/// `Queue::alone`, until the command was answered or its caller was cancelled.
struct AloneGuard<'a>(&'a BatcherShared);

impl Drop for AloneGuard<'_> {
    fn drop(&mut self) {
        self.0.queue().alone = false;
    }
}

/// One of `Queue::tasks`. Its drop hands it to another task if commands are waiting, also when this one was cancelled.
struct TaskGuard<'a>(&'a Batcher);

impl Drop for TaskGuard<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.0.queue();
        if queue.waiting.is_empty() {
            queue.tasks -= 1;
        } else {
            self.0.0.runtime.spawn(self.0.clone().run_batches());
        }
    }
}

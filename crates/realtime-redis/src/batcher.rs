//! [`Batcher`]: what many callers ask of one connection at once goes there as one pipeline.
//!
//! A single command through the client costs a buffer, a channel's turn, and two wakes of tasks; a pipeline costs that
//! once. Nobody waits for a batch to fill: whoever comes to an idle connection goes alone, and what comes meanwhile goes
//! together when that is answered.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{Cmd, ErrorKind, Pipeline, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{runtime::Handle, sync::oneshot, time::timeout};

/// The most commands of a batch. So many do not wait for what is under way.
const BATCH: usize = 48;

/// How many are under way at once: while Redis works on one batch, the callers of another prepare their next.
const CARRIERS: usize = 4;

/// A connection that callers share. Cloning it gives the same connection.
#[derive(Clone)]
pub(crate) struct Batcher(Arc<Shared>);

struct Shared {
    connection: MultiplexedConnection,
    /// Where the connection lives, and the batches.
    runtime: Handle,
    /// How long a batch may take.
    limit: Duration,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<(Cmd, Caller)>,
    /// How many are under way: tasks with a batch, or a caller with its own command.
    carriers: usize,
}

/// Whom an answer goes to.
type Caller = oneshot::Sender<RedisResult<Value>>;

impl Batcher {
    /// Takes a connection that was opened on the current runtime. No caller waits longer than `limit`, so that a batch
    /// that took so long has nobody left.
    pub(crate) fn new(connection: MultiplexedConnection, limit: Duration) -> Self {
        Self(Arc::new(Shared { connection, runtime: Handle::current(), limit, queue: Mutex::default() }))
    }

    /// A connection for what is asked beside the batches.
    pub(crate) fn connection(&self) -> MultiplexedConnection {
        self.0.connection.clone()
    }

    /// Runs a command. What is dropped before it was sent is not sent.
    ///
    /// # Errors
    /// What Redis answers to this command; when the connection failed, nobody knows whether the command was run.
    pub(crate) async fn run(&self, command: Cmd) -> RedisResult<Value> {
        match self.admit(command) {
            Admitted::Alone(command, _turn) => command.query_async(&mut self.connection()).await,
            Admitted::Waiting(answer) => {
                answer.await.unwrap_or_else(|_| Err((ErrorKind::Io, "the batch was given up").into()))
            }
        }
    }

    fn admit(&self, command: Cmd) -> Admitted<'_> {
        let mut queue = self.0.queue();
        if queue.carriers == 0 {
            queue.carriers = 1;
            return Admitted::Alone(command, Turn(self));
        }
        let (caller, answer) = oneshot::channel();
        queue.waiting.push((command, caller));
        if queue.waiting.len() >= BATCH && queue.carriers < CARRIERS {
            queue.carriers += 1;
            self.0.runtime.spawn(self.clone().carry());
        }
        Admitted::Waiting(answer)
    }

    /// Carries batches until nothing waits.
    async fn carry(self) {
        let _turn = Turn(&self);
        while let Some((commands, callers)) = self.0.next() {
            if callers.is_empty() {
                continue;
            }
            let mut connection = self.connection();
            let answers = commands.query_async::<Vec<RedisResult<Value>>>(&mut connection);
            let error = match timeout(self.0.limit, answers).await {
                Ok(Ok(answers)) if answers.len() == callers.len() => {
                    for (caller, answer) in callers.into_iter().zip(answers) {
                        // Who gave up meanwhile needs no answer.
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

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch: its commands, and who waits for the answers. It has none when all of them gave up meanwhile.
    fn next(&self) -> Option<(Pipeline, Vec<Caller>)> {
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
    /// Nobody is under way.
    Alone(Cmd, Turn<'a>),
    Waiting(oneshot::Receiver<RedisResult<Value>>),
}

/// Whoever is under way. When it ends, answered or not, what waits is carried on.
struct Turn<'a>(&'a Batcher);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.0.queue();
        if queue.waiting.is_empty() {
            queue.carriers -= 1;
        } else {
            self.0.0.runtime.spawn(self.0.clone().carry());
        }
    }
}

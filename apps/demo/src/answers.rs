//! [`Answers`]: the tasks that write answers of the AI scene.

use std::sync::{Mutex, PoisonError};

use tokio::task::JoinSet;

/// The tasks that write answers. They end with this value.
#[derive(Default)]
pub(crate) struct Answers(Mutex<JoinSet<()>>);

impl Answers {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

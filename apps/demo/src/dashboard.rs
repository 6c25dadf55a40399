//! [`Dashboard`]: the task that publishes the chart's figures.

use std::sync::{Mutex, PoisonError};

use tokio::task::JoinHandle;

/// The task that publishes the chart's figures, if it runs. It ends with this value.
#[derive(Default)]
pub(crate) struct Dashboard(Mutex<Option<JoinHandle<()>>>);

impl Dashboard {
    /// Replaces the task; the old one is aborted.
    pub(crate) fn replace(&self, task: JoinHandle<()>) {
        if let Some(old) = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(task) {
            old.abort();
        }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        if let Some(task) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

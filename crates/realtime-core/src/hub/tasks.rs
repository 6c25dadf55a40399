//! Supervision of the hub's tasks.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::time::sleep;

use super::pump::Health;

/// Pause before a task that panicked is restarted.
const REST: Duration = Duration::from_millis(200);

/// Runs a task that the hub depends on and that cannot be restarted: when it ends, the hub has failed.
pub(super) async fn essential(name: &'static str, task: impl Future<Output = ()>, health: Arc<Health>) {
    let how = match AssertUnwindSafe(task).catch_unwind().await {
        Ok(()) => "has ended",
        Err(_) => "has panicked",
    };
    health.fail(format!("the task `{name}` {how}"));
}

/// Runs a task and restarts it when it panics.
pub(super) async fn restarting<F: Future<Output = ()>>(name: &'static str, mut task: impl FnMut() -> F) {
    while AssertUnwindSafe(task()).catch_unwind().await.is_err() {
        tracing::error!(name, "a task has panicked and is restarted");
        sleep(REST).await;
    }
}

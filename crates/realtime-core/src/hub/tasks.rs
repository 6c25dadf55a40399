//! The hub's tasks: none ends unnoticed.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::time::sleep;

use super::pump::Health;

/// Pause before a task that panicked is restarted.
const REST: Duration = Duration::from_millis(200);

/// Runs a task without which the hub does nothing and which cannot be begun again: when it ends, the hub has failed.
pub(super) async fn essential(name: &'static str, task: impl Future<Output = ()>, health: Arc<Health>) {
    let how = match AssertUnwindSafe(task).catch_unwind().await {
        Ok(()) => "has ended",
        Err(_) => "has panicked",
    };
    health.fail(format!("the task `{name}` {how}"));
}

/// Runs a task that is begun again when it panics.
pub(super) async fn restarting<F: Future<Output = ()>>(name: &'static str, mut task: impl FnMut() -> F) {
    while AssertUnwindSafe(task()).catch_unwind().await.is_err() {
        tracing::error!(name, "a task has panicked and is begun again");
        sleep(REST).await;
    }
}

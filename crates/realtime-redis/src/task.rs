//! Tasks that run for as long as their owner: one that panics is logged and restarted.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::time::sleep;

/// Pause before a task that panicked is restarted.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs the future that `make` returns until it ends; makes a new one whenever it panics.
pub(crate) async fn restarting<F: Future<Output = ()>>(name: &'static str, mut make: impl FnMut() -> F) {
    while AssertUnwindSafe(make()).catch_unwind().await.is_err() {
        tracing::error!(name, "a task has panicked and is restarted");
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_restarted() {
        let runs = AtomicU32::new(0);
        restarting("test", || async {
            assert!(runs.fetch_add(1, Ordering::Relaxed) > 0, "the first run panics");
        })
        .await;
        assert_eq!(runs.into_inner(), 2);
    }
}

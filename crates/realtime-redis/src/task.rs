//! Tasks that run for as long as their owner: one that panics is begun again, and says so.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::time::sleep;

/// How long a task that panicked rests before it is begun again.
const REST: Duration = Duration::from_millis(200);

/// Runs what `make` makes until it ends, anew whenever it panics.
pub(crate) async fn restarting<F: Future<Output = ()>>(name: &'static str, mut make: impl FnMut() -> F) {
    while AssertUnwindSafe(make()).catch_unwind().await.is_err() {
        tracing::error!(name, "a task has panicked and is begun again");
        sleep(REST).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_begun_again() {
        let lives = AtomicU32::new(0);
        restarting("test", || async {
            assert!(lives.fetch_add(1, Ordering::Relaxed) > 0, "the first life ends badly");
        })
        .await;
        assert_eq!(lives.into_inner(), 2);
    }
}

//! [`SharedRuntime`]: the runtime for work that other callers wait for.

use std::{
    panic::resume_unwind,
    sync::{Mutex, PoisonError},
};

use tokio::{runtime::Handle, task::JoinSet};

/// A runtime for work that other callers wait for: that goes on while the one whose future began it is not polled, and while the
/// runtime of that caller is busy. A connection that the work opens is driven by this runtime as well.
#[derive(Debug, Default)]
pub(crate) struct SharedRuntime(Mutex<Option<Handle>>);

impl SharedRuntime {
    /// Runs all work from now on on the current runtime, if there is one, rather than on that of each caller.
    pub(crate) fn use_current(&self) {
        self.set(Handle::try_current().ok());
    }

    /// Runs work in a task, which ends with this future at the latest.
    pub(crate) async fn run<T, F>(&self, work: impl Fn() -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        for runtime in [self.get(), Some(Handle::current())].into_iter().flatten() {
            let mut task = JoinSet::new();
            task.spawn_on(work(), &runtime);
            match task.join_next().await {
                Some(Ok(result)) => return result,
                Some(Err(error)) if error.is_panic() => resume_unwind(error.into_panic()),
                // The runtime has ended.
                _ => self.set(None),
            }
        }
        Box::pin(work()).await
    }

    /// Runs work in a task that nobody waits for.
    pub(crate) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) {
        self.get().unwrap_or_else(Handle::current).spawn(work);
    }

    fn get(&self) -> Option<Handle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, runtime: Option<Handle>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = runtime;
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use futures_util::future::poll_immediate;
    use tokio::{
        runtime::{Builder, Runtime},
        sync::oneshot,
        task::yield_now,
        time::timeout,
    };

    use super::*;

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[tokio::test]
    async fn work_goes_on_while_its_caller_is_not_polled_and_ends_with_it() {
        let shared = SharedRuntime::default();
        let (begun, has_begun) = oneshot::channel::<()>();
        let (sender, receiver) = oneshot::channel::<()>();
        let parts = Mutex::new(Some((begun, sender)));
        let mut caller = Box::pin(shared.run(|| {
            let (begun, sender) = parts.lock().unwrap().take().unwrap();
            async move {
                yield_now().await;
                begun.send(()).unwrap();
                let _sender = sender;
                std::future::pending::<()>().await;
            }
        }));
        assert!(poll_immediate(&mut caller).await.is_none());
        timeout(Duration::from_secs(5), has_begun).await.unwrap().unwrap();
        drop(caller);
        timeout(Duration::from_secs(5), receiver).await.unwrap().expect_err("it was dropped");
    }

    #[test]
    fn work_is_done_on_the_shared_runtime_until_that_runtime_ends() {
        let (shared, there) =
            (SharedRuntime::default(), Builder::new_multi_thread().worker_threads(1).build().unwrap());
        there.block_on(async { shared.use_current() });
        let here = thread::current().id();
        let runs_here = || here == runtime().block_on(shared.run(|| async { thread::current().id() }));
        assert!(!runs_here());
        there.shutdown_background();
        assert!(runs_here());
        assert!(runs_here());
    }
}

//! Locks and time for state that threads share, replaceable by those of `shuttle`.
//!
//! With the feature `shuttle` a test decides at each lock which thread runs next, and tries thousands of schedules.
//! Time does not pass there: nothing times out, and a [`Schedule`] is due at random.

pub(crate) use self::imp::*;

#[cfg(not(feature = "shuttle"))]
mod imp {
    pub(crate) use std::sync::{Mutex, MutexGuard};
    use std::{pin::pin, sync::PoisonError, time::Duration};

    use tokio::time::{Instant, timeout_at};

    /// Takes a lock, even a poisoned one: the maps behind it are consistent between two statements.
    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a future, at most for this long.
    pub(crate) async fn timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
        tokio::time::timeout(limit, future).await.ok()
    }

    /// Work that is due once per interval.
    #[derive(Debug)]
    pub(crate) struct Schedule {
        interval: Duration,
        next: Instant,
    }

    impl Schedule {
        pub(crate) fn new(interval: Duration) -> Self {
            Self { interval, next: Instant::now() + interval }
        }

        pub(crate) fn is_due(&self) -> bool {
            Instant::now() >= self.next
        }

        pub(crate) fn restart(&mut self) {
            self.next = Instant::now() + self.interval;
        }

        /// Waits for a future, at most until the schedule is due.
        pub(crate) async fn until_due(&self, future: impl Future<Output = ()>) {
            timeout_at(self.next, pin!(future)).await.ok();
        }
    }
}

#[cfg(feature = "shuttle")]
mod imp {
    use std::time::Duration;

    use shuttle::rand::{Rng, thread_rng};
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) async fn timeout<F: Future>(_limit: Duration, future: F) -> Option<F::Output> {
        Some(future.await)
    }

    #[derive(Debug)]
    pub(crate) struct Schedule;

    impl Schedule {
        pub(crate) fn new(_interval: Duration) -> Self {
            Self
        }

        pub(crate) fn is_due(&self) -> bool {
            thread_rng().gen_bool(0.2)
        }

        pub(crate) fn restart(&mut self) {}

        pub(crate) async fn until_due(&self, future: impl Future<Output = ()>) {
            future.await;
        }
    }
}

//! [`SharedConnection`]: one connection for many callers, opened on demand and discarded when it fails.

use std::{
    fmt::Display,
    sync::{
        Arc, Mutex as StdMutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use realtime_core::bus::BusError;
use redis::RedisResult;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{backoff::Backoff, error::bus_error, liveness::Link, shared_runtime::SharedRuntime};

/// A slot for at most one connection. A caller that finds it empty has a connection opened, which the others then share; it goes
/// on without that caller being polled.
///
/// A connection that could be opened is no proof that it works: the pauses between attempts end only after a success over
/// the connection ([`Self::record_success`]).
#[derive(Debug)]
pub(crate) struct SharedConnection<C> {
    slot: Arc<Slot<C>>,
    runtime: SharedRuntime,
}

#[derive(Debug)]
struct Slot<C> {
    state: StdMutex<ConnectState<C>>,
    /// Set once a command has succeeded over the current connection.
    works: AtomicBool,
    /// The number of connections opened so far.
    opened: AtomicU64,
    /// Held by a task while a connection is being opened; the other callers wait for the result.
    connecting: Mutex<()>,
    /// Time limit for opening a connection.
    limit: Duration,
}

#[derive(Debug)]
struct ConnectState<C> {
    connection: Option<Arc<C>>,
    backoff: Backoff,
    /// The earliest time of the next attempt, and the error of the last one.
    retry_at: Option<(Instant, BusError)>,
}

impl<C> SharedConnection<C> {
    /// Creates an empty slot. Opening a connection may take `limit`.
    pub(crate) fn new(limit: Duration) -> Self {
        let state = ConnectState { connection: None, backoff: Backoff::default(), retry_at: None };
        let slot = Slot {
            state: StdMutex::new(state),
            works: AtomicBool::new(false),
            opened: AtomicU64::new(0),
            connecting: Mutex::default(),
            limit,
        };
        Self { slot: Arc::new(slot), runtime: SharedRuntime::default() }
    }

    /// Returns the runtime on which connections are opened, and driven.
    pub(crate) fn runtime(&self) -> &SharedRuntime {
        &self.runtime
    }

    fn state(&self) -> MutexGuard<'_, ConnectState<C>> {
        self.slot.state()
    }
}

impl<C: Link + Send + Sync + 'static> SharedConnection<C> {
    /// Returns the connection if one is open.
    pub(crate) fn current(&self) -> Option<Arc<C>> {
        self.state().connection.clone()
    }

    /// Returns the connection; opens one if there is none, or if it was closed.
    ///
    /// # Errors
    /// The error of opening or using it, now or in the attempt before: Redis is not contacted again during the pause.
    pub(crate) async fn get<F>(&self, open: impl Fn() -> F) -> Result<Arc<C>, BusError>
    where
        F: Future<Output = RedisResult<C>> + Send + 'static,
    {
        if let Some(connection) = self.current() {
            if !connection.is_closed() {
                return Ok(connection);
            }
            // Without a pause: a server that takes no connections fails in `open`.
            self.discard(&connection);
        }
        // Boxed: it is large and rare, and would otherwise enlarge the future of every publish.
        Box::pin(self.runtime.run(|| Arc::clone(&self.slot).fill(open()))).await
    }

    /// Returns how many connections were opened so far.
    pub(crate) fn opened(&self) -> u64 {
        self.slot.opened.load(Ordering::Acquire)
    }

    /// Records that a command succeeded over the connection.
    pub(crate) fn record_success(&self) {
        if !self.slot.works.load(Ordering::Relaxed) {
            self.slot.works.store(true, Ordering::Relaxed);
            let mut state = self.state();
            state.backoff.reset();
            state.retry_at = None;
        }
    }

    /// Discards a connection that has failed, unless another one has replaced it. If no command ever succeeded over it, the
    /// next attempt is delayed.
    pub(crate) fn discard_failed(&self, connection: &Arc<C>, problem: impl Display) {
        let works = self.slot.works.load(Ordering::Relaxed);
        let mut state = self.state();
        if state.remove(connection) && !works {
            state.schedule_retry(BusError::Unavailable(problem.to_string()));
        }
    }

    /// Discards a connection that leads to the wrong server, unless another one has replaced it.
    pub(crate) fn discard(&self, connection: &Arc<C>) {
        self.state().remove(connection);
    }
}

impl<C> Slot<C> {
    /// Opens a connection unless there is one by now.
    async fn fill(self: Arc<Self>, open: impl Future<Output = RedisResult<C>>) -> Result<Arc<C>, BusError> {
        let _connecting = self.connecting.lock().await;
        {
            let state = self.state();
            if let Some(connection) = &state.connection {
                return Ok(Arc::clone(connection));
            }
            if let Some((at, problem)) = &state.retry_at
                && Instant::now() < *at
            {
                return Err(problem.clone());
            }
        }
        match timeout(self.limit, open).await {
            Ok(Ok(connection)) => {
                self.works.store(false, Ordering::Relaxed);
                self.opened.fetch_add(1, Ordering::Release);
                let connection = Arc::new(connection);
                self.state().connection = Some(Arc::clone(&connection));
                Ok(connection)
            }
            Ok(Err(error)) => {
                let error = bus_error(&error);
                self.state().schedule_retry(error.clone());
                Err(error)
            }
            // The caller's own time limit has ended as well, unless nobody polls it.
            Err(_) => Err(BusError::Unavailable(format!("no answer from Redis within {:?}", self.limit))),
        }
    }

    fn state(&self) -> MutexGuard<'_, ConnectState<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> ConnectState<C> {
    /// Returns whether the connection was the current one.
    fn remove(&mut self, connection: &Arc<C>) -> bool {
        let is_current = self.connection.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection));
        if is_current {
            self.connection = None;
        }
        is_current
    }

    fn schedule_retry(&mut self, problem: BusError) {
        self.retry_at = Some((Instant::now() + self.backoff.next(), problem));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use futures_util::future::poll_immediate;
    use redis::ErrorKind;

    use super::*;

    impl Link for () {}
    impl Link for u32 {}

    fn shared<C>() -> SharedConnection<C> {
        SharedConnection::new(Duration::from_secs(5))
    }

    /// A connection that the server may close.
    struct Closable(AtomicBool);

    impl Link for Closable {
        fn is_closed(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_is_replaced_before_it_is_used() {
        let shared = shared();
        let open = || async { Ok(Closable(AtomicBool::new(false))) };
        let first = shared.get(open).await.unwrap();
        shared.record_success();
        assert!(Arc::ptr_eq(&first, &shared.get(open).await.unwrap()));
        first.0.store(true, Ordering::Relaxed);
        assert!(!Arc::ptr_eq(&first, &shared.get(open).await.unwrap()));
        assert_eq!(shared.opened(), 2);
    }

    #[tokio::test]
    async fn many_callers_open_one_connection() {
        let (shared, opened) = (shared(), Arc::new(AtomicU32::new(0)));
        let open = || {
            let opened = Arc::clone(&opened);
            async move {
                tokio::task::yield_now().await;
                Ok(opened.fetch_add(1, Ordering::Relaxed))
            }
        };
        let (a, b) = tokio::join!(shared.get(open), shared.get(open));
        assert!(Arc::ptr_eq(&a.unwrap(), &b.unwrap()));
        assert_eq!(opened.load(Ordering::Relaxed), 1);
        assert_eq!(shared.opened(), 1);
    }

    #[tokio::test]
    async fn a_caller_that_is_not_polled_delays_no_other() {
        let shared = shared();
        let open = || async {
            tokio::task::yield_now().await;
            Ok(1_u32)
        };
        let mut held = Box::pin(shared.get(open));
        assert!(poll_immediate(&mut held).await.is_none());
        timeout(Duration::from_secs(1), shared.get(open))
            .await
            .expect("it waits for no other caller")
            .unwrap();
        held.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_nobody_waits_for_takes_no_longer_than_its_limit() {
        let shared = shared::<()>();
        let mut held = Box::pin(shared.get(std::future::pending));
        assert!(poll_immediate(&mut held).await.is_none());
        let next = timeout(Duration::from_secs(6), shared.get(|| async { Ok(()) }));
        next.await.expect("the first was given up").unwrap();
    }

    #[tokio::test]
    async fn after_a_failure_the_next_attempt_is_delayed() {
        let shared = shared::<()>();
        let refuse = || async { Err((ErrorKind::Io, "connection refused").into()) };
        let first = shared.get(refuse).await.unwrap_err();
        let second = shared.get(|| async { panic!("no attempt is due") }).await.unwrap_err();
        assert_eq!(first, second);
        let at = shared.state().retry_at.as_ref().unwrap().0;
        tokio::time::sleep_until(at).await;
        shared.get(|| async { Ok(()) }).await.unwrap();
    }

    #[tokio::test]
    async fn discarding_an_old_connection_keeps_the_new_one() {
        let shared = shared();
        let old = shared.get(|| async { Ok(1_u32) }).await.unwrap();
        shared.record_success();
        shared.discard_failed(&old, "broken");
        let new = shared.get(|| async { Ok(2) }).await.unwrap();
        shared.discard_failed(&old, "broken");
        assert!(Arc::ptr_eq(&shared.current().unwrap(), &new));
        shared.discard(&new);
        assert!(shared.current().is_none());
    }

    #[tokio::test]
    async fn a_connection_over_which_no_command_succeeded_is_no_success() {
        let shared = shared();
        let opened = Arc::new(AtomicU32::new(0));
        let open = || {
            let opened = Arc::clone(&opened);
            async move { Ok(opened.fetch_add(1, Ordering::Relaxed)) }
        };
        let connection = shared.get(open).await.unwrap();
        shared.discard_failed(&connection, "broken");
        assert_eq!(shared.get(open).await.unwrap_err(), BusError::Unavailable("broken".into()));
        let at = shared.state().retry_at.as_ref().unwrap().0;
        tokio::time::sleep_until(at).await;
        let connection = shared.get(open).await.unwrap();
        shared.record_success();
        shared.discard_failed(&connection, "broken");
        shared.get(open).await.unwrap();
        assert_eq!(opened.load(Ordering::Relaxed), 3);
    }
}

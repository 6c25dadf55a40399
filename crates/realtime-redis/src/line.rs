//! [`Line`]: the one connection over which a node publishes, opened when it is needed and given up when it fails.

use std::{
    fmt::Display,
    sync::{
        Arc, Mutex as StdMutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use realtime_core::BusError;
use redis::{RedisError, RedisResult};
use tokio::{sync::Mutex, time::Instant};

use crate::backoff::Backoff;

/// At most one link at a time; whoever finds none opens it for all.
///
/// That a link could be opened proves nothing: only what went well over it ends the pauses between two attempts.
#[derive(Debug)]
pub(crate) struct Line<L> {
    state: StdMutex<State<L>>,
    /// Something went well over the current link.
    works: AtomicBool,
    /// Held by whoever opens a link; the others wait for what comes of it.
    door: Mutex<()>,
}

#[derive(Debug)]
struct State<L> {
    link: Option<Arc<L>>,
    backoff: Backoff,
    /// No attempt before this time, and what the last one met.
    closed: Option<(Instant, BusError)>,
}

impl<L> Line<L> {
    /// The link, if there is one.
    pub(crate) fn current(&self) -> Option<Arc<L>> {
        self.state().link.clone()
    }

    /// The link, opened if there is none.
    ///
    /// # Errors
    /// What opening or using it met, now or a moment ago: Redis is not asked again at once.
    pub(crate) async fn link<F>(&self, open: impl FnOnce() -> F) -> Result<Arc<L>, BusError>
    where
        F: Future<Output = RedisResult<L>>,
    {
        if let Some(link) = self.current() {
            return Ok(link);
        }
        let _door = self.door.lock().await;
        {
            let state = self.state();
            if let Some(link) = &state.link {
                return Ok(Arc::clone(link));
            }
            if let Some((until, problem)) = &state.closed
                && Instant::now() < *until
            {
                return Err(problem.clone());
            }
        }
        // Boxed: it is large, rare, and a part of every publish otherwise.
        match Box::pin(open()).await {
            Ok(link) => {
                self.works.store(false, Ordering::Relaxed);
                let link = Arc::new(link);
                self.state().link = Some(Arc::clone(&link));
                Ok(link)
            }
            Err(error) => {
                let error = bus_error(&error);
                self.state().fail(error.clone());
                Err(error)
            }
        }
    }

    /// Something went well over the link.
    pub(crate) fn worked(&self) {
        if !self.works.load(Ordering::Relaxed) {
            self.works.store(true, Ordering::Relaxed);
            let mut state = self.state();
            state.backoff.reset();
            state.closed = None;
        }
    }

    /// Gives a link up that has failed. Another one is not touched. If nothing ever went well over it there is a pause
    /// before the next attempt.
    pub(crate) fn give_up(&self, link: &Arc<L>, problem: impl Display) {
        let works = self.works.load(Ordering::Relaxed);
        let mut state = self.state();
        if state.end(link) && !works {
            state.fail(BusError::Unavailable(problem.to_string()));
        }
    }

    /// Leaves a link that leads elsewhere now. Another one is not touched.
    pub(crate) fn leave(&self, link: &Arc<L>) {
        self.state().end(link);
    }

    fn state(&self) -> MutexGuard<'_, State<L>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L> State<L> {
    fn end(&mut self, link: &Arc<L>) -> bool {
        let is_current = self.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, link));
        if is_current {
            self.link = None;
        }
        is_current
    }

    fn fail(&mut self, problem: BusError) {
        self.closed = Some((Instant::now() + self.backoff.next(), problem));
    }
}

impl<L> Default for Line<L> {
    fn default() -> Self {
        let state = State { link: None, backoff: Backoff::default(), closed: None };
        Self { state: StdMutex::new(state), works: AtomicBool::new(false), door: Mutex::default() }
    }
}

/// What Redis answered, as the reason why the bus did not take an envelope.
pub(crate) fn bus_error(error: &RedisError) -> BusError {
    if is_refusal(error) {
        BusError::Refused(error.to_string())
    } else {
        BusError::Unavailable(error.to_string())
    }
}

/// Whether a server that works says no, and would over any other connection, too: nothing was done, and the connection
/// is not to blame.
pub(crate) fn is_refusal(error: &RedisError) -> bool {
    let is_named = |code: &str| REFUSALS.contains(&code);
    match error.code() {
        Some(code) if is_named(code) => true,
        // One of several commands, each of which has an error of its own.
        Some("EXECABORT") | None => {
            let errors = error.clone().into_server_errors();
            errors.is_some_and(|all| !all.is_empty() && all.iter().all(|(_, error)| is_named(error.code())))
        }
        Some(_) => false,
    }
}

/// Full; too few replicas; cannot save; not allowed; not logged in; busy with a script; a key of another kind.
const REFUSALS: [&str; 7] = ["OOM", "NOREPLICAS", "MISCONF", "NOPERM", "NOAUTH", "BUSY", "WRONGTYPE"];

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use redis::{ErrorKind, Value};

    use super::*;

    #[tokio::test]
    async fn many_callers_open_one_link() {
        let (line, opened) = (Line::default(), AtomicU32::new(0));
        let open = || async {
            tokio::task::yield_now().await;
            Ok(opened.fetch_add(1, Ordering::Relaxed))
        };
        let (a, b) = tokio::join!(line.link(open), line.link(open));
        assert!(Arc::ptr_eq(&a.unwrap(), &b.unwrap()));
        assert_eq!(opened.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn after_a_failure_redis_is_left_alone_for_a_moment() {
        let line = Line::<()>::default();
        let refuse = || async { Err((ErrorKind::Io, "connection refused").into()) };
        let first = line.link(refuse).await.unwrap_err();
        let second = line.link(|| async { panic!("the door is closed") }).await.unwrap_err();
        assert_eq!(first, second);
        let until = line.state().closed.as_ref().unwrap().0;
        tokio::time::sleep_until(until).await;
        line.link(|| async { Ok(()) }).await.unwrap();
    }

    #[tokio::test]
    async fn giving_up_an_old_link_leaves_the_new_one() {
        let line = Line::default();
        let old = line.link(|| async { Ok(1) }).await.unwrap();
        line.worked();
        line.give_up(&old, "broken");
        let new = line.link(|| async { Ok(2) }).await.unwrap();
        line.give_up(&old, "broken");
        assert!(Arc::ptr_eq(&line.current().unwrap(), &new));
        line.leave(&new);
        assert!(line.current().is_none());
    }

    #[tokio::test]
    async fn a_link_over_which_nothing_went_well_is_no_success() {
        let line = Line::default();
        let opened = AtomicU32::new(0);
        let open = || async { Ok(opened.fetch_add(1, Ordering::Relaxed)) };
        let link = line.link(open).await.unwrap();
        line.give_up(&link, "broken");
        assert_eq!(line.link(open).await.unwrap_err(), BusError::Unavailable("broken".into()));
        let until = line.state().closed.as_ref().unwrap().0;
        tokio::time::sleep_until(until).await;
        let link = line.link(open).await.unwrap();
        line.worked();
        line.give_up(&link, "broken");
        line.link(open).await.unwrap();
        assert_eq!(opened.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_refusal_is_told_from_a_broken_link() {
        let error = |text: &[u8]| match redis::parse_redis_value(text) {
            Ok(Value::ServerError(error)) => RedisError::from(error),
            other => panic!("{other:?}"),
        };
        for refusal in ["OOM command not allowed", "NOREPLICAS Not enough", "MISCONF Redis", "NOPERM no"] {
            let error = error(format!("-{refusal}\r\n").as_bytes());
            assert!(is_refusal(&error), "{error}");
            let words = bus_error(&error).to_string();
            let name = refusal.split(' ').next().unwrap();
            assert!(words.to_uppercase().contains(name), "{words}");
        }
        for other in ["READONLY You can't", "LOADING Redis", "UNBLOCKED force", "ERR unknown"] {
            assert!(!is_refusal(&error(format!("-{other}\r\n").as_bytes())), "{other}");
        }
    }
}

//! [`Line`]: the one connection over which a node publishes, opened when it is needed and given up when it fails.

use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use realtime_core::BusError;
use redis::{RedisError, RedisResult};
use tokio::{sync::Mutex, time::Instant};

use crate::backoff::Backoff;

/// At most one link at a time; whoever finds none opens it for all.
#[derive(Debug)]
pub(crate) struct Line<L> {
    link: StdMutex<Option<Arc<L>>>,
    /// Held by whoever opens a link; the others wait for what comes of it.
    door: Mutex<Door>,
}

#[derive(Debug, Default)]
struct Door {
    backoff: Backoff,
    /// No attempt before this time, and what the last one met.
    closed: Option<(Instant, String)>,
}

impl<L> Line<L> {
    /// The link, if there is one.
    pub(crate) fn current(&self) -> Option<Arc<L>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The link, opened if there is none.
    ///
    /// # Errors
    /// What opening met, now or a moment ago: Redis is not asked again at once.
    pub(crate) async fn link<F>(&self, open: impl FnOnce() -> F) -> Result<Arc<L>, BusError>
    where
        F: Future<Output = RedisResult<L>>,
    {
        if let Some(link) = self.current() {
            return Ok(link);
        }
        let mut door = self.door.lock().await;
        if let Some(link) = self.current() {
            return Ok(link);
        }
        if let Some((until, problem)) = &door.closed
            && Instant::now() < *until
        {
            return Err(BusError::Unavailable(problem.clone()));
        }
        // Boxed: it is large, rare, and a part of every publish otherwise.
        match Box::pin(open()).await {
            Ok(link) => {
                *door = Door::default();
                let link = Arc::new(link);
                *self.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&link));
                Ok(link)
            }
            Err(error) => {
                let wait = door.backoff.next();
                door.closed = Some((Instant::now() + wait, error.to_string()));
                Err(unavailable(&error))
            }
        }
    }

    /// Gives a link up. Another one is not touched.
    pub(crate) fn give_up(&self, link: &Arc<L>) {
        let mut current = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            *current = None;
        }
    }
}

impl<L> Default for Line<L> {
    fn default() -> Self {
        Self { link: StdMutex::default(), door: Mutex::default() }
    }
}

/// What Redis answered, as the reason why the bus did not take an envelope.
pub(crate) fn unavailable(error: &RedisError) -> BusError {
    BusError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use redis::ErrorKind;

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
        tokio::time::sleep_until(line.door.lock().await.closed.as_ref().unwrap().0).await;
        line.link(|| async { Ok(()) }).await.unwrap();
    }

    #[tokio::test]
    async fn giving_up_an_old_link_leaves_the_new_one() {
        let line = Line::default();
        let old = line.link(|| async { Ok(1) }).await.unwrap();
        line.give_up(&old);
        let new = line.link(|| async { Ok(2) }).await.unwrap();
        line.give_up(&old);
        assert!(Arc::ptr_eq(&line.current().unwrap(), &new));
        line.give_up(&new);
        assert!(line.current().is_none());
    }
}

//! [`SingleFlight`]: one request in flight at a time, whose answer all callers share.

use std::sync::{Mutex as StdMutex, PoisonError};

use tokio::{sync::Mutex, time::Instant};

/// The answers to a request of many callers. A caller that arrives while one is in flight waits, and shares the next answer
/// with all others that wait.
#[derive(Debug)]
pub(crate) struct SingleFlight<T> {
    /// Held while a request is in flight.
    in_flight: Mutex<()>,
    /// The newest answer, and when its request was sent.
    last: StdMutex<Option<(Instant, T)>>,
}

impl<T: Clone> SingleFlight<T> {
    /// Returns an answer whose request was sent at this time or later, and that is usable for the caller.
    pub(crate) async fn since(
        &self,
        since: Instant,
        is_usable: impl Fn(&T) -> bool,
        ask: impl AsyncFnOnce() -> T,
    ) -> T {
        let known = || {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            last.as_ref()
                .filter(|(asked, answer)| *asked >= since && is_usable(answer))
                .map(|(_, it)| it.clone())
        };
        if let Some(answer) = known() {
            return answer;
        }
        // A caller that is cancelled during its request passes the lock on.
        let _in_flight = self.in_flight.lock().await;
        if let Some(answer) = known() {
            return answer;
        }
        let asked = Instant::now();
        let answer = ask().await;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((asked, answer.clone()));
        answer
    }
}

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self { in_flight: Mutex::default(), last: StdMutex::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        time::Duration,
    };

    use futures_util::future::join_all;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_callers_share_the_next_answer() {
        let (flight, asked) = (SingleFlight::default(), AtomicU32::new(0));
        let (asked, flight) = (&asked, &flight);
        let ask = async move |after: u64| {
            sleep(Duration::from_millis(after)).await;
            let since = Instant::now();
            let answer = flight.since(
                since,
                |_| true,
                async || {
                    sleep(Duration::from_millis(100)).await;
                    asked.fetch_add(1, Ordering::Relaxed) + 1
                },
            );
            answer.await
        };
        // Callers that arrive during the first request don't get its answer: it may be older than what they know.
        let answers = join_all([0, 10, 20, 50, 99].map(ask)).await;
        assert_eq!(answers, [1, 2, 2, 2, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_may_accept_an_older_answer() {
        let (flight, asked) = (SingleFlight::default(), AtomicU32::new(0));
        let began = Instant::now();
        let ask = async || asked.fetch_add(1, Ordering::Relaxed) + 1;
        assert_eq!(flight.since(began, |_| true, ask).await, 1);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(flight.since(began, |_| true, ask).await, 1);
        assert_eq!(flight.since(began, |answer| *answer > 1, ask).await, 2);
        assert_eq!(flight.since(Instant::now() + Duration::from_millis(1), |_| true, ask).await, 3);
    }
}

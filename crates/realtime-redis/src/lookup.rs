//! [`Lookups`]: one question under way at a time, whose answer is everybody's.

use std::sync::{Mutex as StdMutex, PoisonError};

use tokio::{sync::Mutex, time::Instant};

/// The answers to a question that many ask: who comes while it is under way waits, and shares the next answer with all
/// others who wait.
#[derive(Debug)]
pub(crate) struct Lookups<T> {
    /// Held by whoever asks.
    asking: Mutex<()>,
    /// The newest answer, and when it was asked for.
    last: StdMutex<Option<(Instant, T)>>,
}

impl<T: Clone> Lookups<T> {
    /// An answer to a question that was put at this time or later, and that is of use to the caller.
    pub(crate) async fn since(
        &self,
        since: Instant,
        is_of_use: impl Fn(&T) -> bool,
        ask: impl AsyncFnOnce() -> T,
    ) -> T {
        let known = || {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            last.as_ref()
                .filter(|(asked, answer)| *asked >= since && is_of_use(answer))
                .map(|(_, it)| it.clone())
        };
        if let Some(answer) = known() {
            return answer;
        }
        // Who is given up while it asks leaves the lock to the next.
        let _asking = self.asking.lock().await;
        if let Some(answer) = known() {
            return answer;
        }
        let asked = Instant::now();
        let answer = ask().await;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((asked, answer.clone()));
        answer
    }
}

impl<T> Default for Lookups<T> {
    fn default() -> Self {
        Self { asking: Mutex::default(), last: StdMutex::default() }
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
    async fn whoever_waits_shares_the_next_answer() {
        let (lookups, asked) = (Lookups::default(), AtomicU32::new(0));
        let (asked, lookups) = (&asked, &lookups);
        let ask = async move |after: u64| {
            sleep(Duration::from_millis(after)).await;
            let since = Instant::now();
            let answer = lookups.since(
                since,
                |_| true,
                async || {
                    sleep(Duration::from_millis(100)).await;
                    asked.fetch_add(1, Ordering::Relaxed) + 1
                },
            );
            answer.await
        };
        // Who comes while the first question is under way is not served by it: it may be older than what they know.
        let answers = join_all([0, 10, 20, 50, 99].map(ask)).await;
        assert_eq!(answers, [1, 2, 2, 2, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_be_of_a_moment_ago_for_those_who_say_so() {
        let (lookups, asked) = (Lookups::default(), AtomicU32::new(0));
        let began = Instant::now();
        let ask = async || asked.fetch_add(1, Ordering::Relaxed) + 1;
        assert_eq!(lookups.since(began, |_| true, ask).await, 1);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(lookups.since(began, |_| true, ask).await, 1);
        assert_eq!(lookups.since(began, |answer| *answer > 1, ask).await, 2);
        assert_eq!(lookups.since(Instant::now() + Duration::from_millis(1), |_| true, ask).await, 3);
    }
}

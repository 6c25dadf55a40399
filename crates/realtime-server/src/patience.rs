//! [`Patience`]: the time that a client may have the server wait for a head or a body.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes that buy a client another second: what comes at this rate is not cut off.
const BYTES_PER_SECOND: u64 = 1024;

/// Limits of the time that a client may take to send a request, 0 for none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestTimes {
    /// For a head, from its first byte.
    pub(crate) head: Duration,
    /// For a body; it is extended while bytes come.
    pub(crate) body: Duration,
}

/// Time limit for a part of a request. Only time counts in which the server waits for the client, so that a handler may
/// take its time with a body.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    left: Option<Duration>,
    /// Begin of the current wait.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes that have yet to buy time.
    bytes: u64,
}

impl Patience {
    /// Starts the limit of another part; 0 means none.
    pub(crate) fn start(&mut self, limit: Duration) {
        *self = Self { left: (!limit.is_zero()).then_some(limit), ..Self::default() };
    }

    /// Ends the limit.
    pub(crate) fn end(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn is_running(&self) -> bool {
        self.left.is_some()
    }

    /// Ends the current wait.
    pub(crate) fn pause(&mut self) {
        if let Some((left, since)) = self.left.as_mut().zip(self.since.take()) {
            *left = left.saturating_sub(since.elapsed());
        }
    }

    /// Records that bytes have come. With `extends` they buy time.
    pub(crate) fn received(&mut self, bytes: usize, extends: bool) {
        self.pause();
        let Some(left) = &mut self.left else { return };
        if extends {
            self.bytes += bytes as u64;
            *left = left.saturating_add(Duration::from_secs(self.bytes / BYTES_PER_SECOND));
            self.bytes %= BYTES_PER_SECOND;
        }
    }

    /// Ready when the client has had its time. Called while the server waits for it.
    pub(crate) fn poll_exhausted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(left) = self.left else { return Poll::Pending };
        let since = *self.since.get_or_insert_with(Instant::now);
        // A limit beyond what a clock can hold is none.
        let Some(end) = since.checked_add(left) else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if timer.deadline() != end {
            timer.as_mut().reset(end);
        }
        timer.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, timeout};

    use super::*;

    fn is_exhausted(patience: &mut Patience) -> bool {
        patience.poll_exhausted(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_time_counts_in_which_the_server_waits() {
        let mut patience = Patience::default();
        patience.start(Duration::from_secs(5));
        advance(Duration::from_secs(60)).await;
        assert!(!is_exhausted(&mut patience));
        advance(Duration::from_secs(3)).await;
        patience.received(1, false);
        advance(Duration::from_secs(60)).await;
        assert!(!is_exhausted(&mut patience));
        let rest = Instant::now();
        poll_fn(|cx| patience.poll_exhausted(cx)).await;
        assert_eq!(rest.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_extend_the_time_for_a_body() {
        let mut patience = Patience::default();
        patience.start(Duration::from_secs(5));
        for _ in 0..60 {
            assert!(!is_exhausted(&mut patience));
            advance(Duration::from_secs(1)).await;
            patience.received(1024, true);
        }
        let mut drip = 0;
        while !is_exhausted(&mut patience) {
            advance(Duration::from_secs(1)).await;
            patience.received(1, true);
            drip += 1;
        }
        assert!(drip <= 6, "{drip} s");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_it_never_ends() {
        for limit in [Duration::ZERO, Duration::MAX] {
            let mut patience = Patience::default();
            patience.start(limit);
            let end = timeout(Duration::from_secs(1 << 20), poll_fn(|cx| patience.poll_exhausted(cx)));
            assert!(end.await.is_err());
        }
    }
}

//! [`Outbox`]: the small bounded buffer between a session and its socket.

use std::{
    collections::VecDeque,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use crate::{CloseReason, limits::OutboxLimits};

/// Frames that wait for one socket, and what that socket's reader is told when there are none.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    max_messages: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// Set while the session reads from the log by itself: the place where it goes on.
    catching_up: Option<u64>,
    closing: Option<CloseReason>,
    waker: Option<Waker>,
    /// A local send was lost since the outbox was last empty, and the client has been told.
    overflowed: bool,
    /// The socket took something since the last tick.
    pulled: bool,
    stalled_ticks: u32,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    Taken,
    Full,
    Closed,
}

/// What the socket gets next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pull {
    Frame(Bytes),
    /// Nothing waits; go on reading the log here.
    CatchUp(u64),
    Closed(CloseReason),
}

impl Outbox {
    pub(crate) fn new(limits: &OutboxLimits) -> Self {
        Self { state: Mutex::default(), max_messages: limits.max_messages, max_bytes: limits.max_bytes }
    }

    /// Queues a frame if there is room.
    pub(crate) fn offer(&self, frame: &Bytes) -> Offer {
        self.offer_in(&mut self.lock(), frame)
    }

    /// Queues the log's frame of `place` if there is room; else the session reads on from there by itself.
    pub(crate) fn offer_or_catch_up(&self, frame: &Bytes, place: u64) -> Offer {
        let mut state = self.lock();
        let offer = self.offer_in(&mut state, frame);
        if offer == Offer::Full {
            state.catching_up = Some(place);
        }
        offer
    }

    /// Queues a frame of which nothing else keeps a copy. When it finds no room, `notice` is queued beyond the
    /// bound, once until the outbox has been empty again.
    pub(crate) fn offer_or_notice(&self, frame: &Bytes, notice: impl FnOnce() -> Option<Bytes>) -> Offer {
        let mut state = self.lock();
        let offer = self.offer_in(&mut state, frame);
        if offer == Offer::Full
            && !mem::replace(&mut state.overflowed, true)
            && let Some(notice) = notice()
        {
            state.put(notice);
        }
        offer
    }

    /// Queues a frame beyond the bound: for notices that must not be lost.
    pub(crate) fn force(&self, frame: Bytes) {
        let mut state = self.lock();
        if state.closing.is_none() {
            state.put(frame);
        }
    }

    /// Ends the session once what waits has been sent. The first reason stays.
    pub(crate) fn close(&self, reason: CloseReason) {
        let mut state = self.lock();
        if state.closing.is_none() {
            state.closing = Some(reason);
            state.catching_up = None;
            if reason == CloseReason::SlowConsumer {
                state.queue = VecDeque::new();
                state.bytes = 0;
            }
            state.wake();
        }
    }

    /// Why the session ends, if it does.
    pub(crate) fn closing(&self) -> Option<CloseReason> {
        self.lock().closing
    }

    /// The next thing for the socket; wakes the caller's task when there is none yet.
    pub(crate) fn poll_pull(&self, cx: &mut Context<'_>) -> Poll<Pull> {
        let mut state = self.lock();
        state.pulled = true;
        if let Some(frame) = state.queue.pop_front() {
            state.bytes -= frame.len();
            return Poll::Ready(Pull::Frame(frame));
        }
        state.overflowed = false;
        if state.queue.capacity() > 2 * self.max_messages.min(64) {
            // A burst must not be paid for as long as the connection lives.
            state.queue = VecDeque::new();
        }
        if let Some(reason) = state.closing {
            return Poll::Ready(Pull::Closed(reason));
        }
        if let Some(place) = state.catching_up {
            return Poll::Ready(Pull::CatchUp(place));
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Sends the session to the log: it reads on by itself from `place`.
    pub(crate) fn catch_up_from(&self, place: u64) {
        self.lock().catching_up = Some(place);
    }

    /// Lets a catching-up session put in what it read from the log.
    pub(crate) fn refill(&self) -> Refill<'_> {
        Refill { outbox: self, state: self.lock() }
    }

    /// The session has met its shard's place and gets what comes from there.
    pub(crate) fn join(&self) {
        self.lock().catching_up = None;
    }

    /// Called on every tick: for how many ticks frames have waited without the socket taking one.
    pub(crate) fn stalled_ticks(&self) -> u32 {
        let mut state = self.lock();
        let pulled = mem::take(&mut state.pulled);
        let waiting = !state.queue.is_empty() || state.catching_up.is_some() || state.closing.is_some();
        state.stalled_ticks = if pulled || !waiting { 0 } else { state.stalled_ticks + 1 };
        state.stalled_ticks
    }

    fn offer_in(&self, state: &mut State, frame: &Bytes) -> Offer {
        if state.closing.is_some() {
            Offer::Closed
        } else if self.has_room(state, frame) {
            state.put(frame.clone());
            Offer::Taken
        } else {
            Offer::Full
        }
    }

    fn has_room(&self, state: &State, frame: &Bytes) -> bool {
        state.queue.is_empty()
            || (state.queue.len() < self.max_messages && state.bytes + frame.len() <= self.max_bytes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outbox, held by its own session while that reads the log.
pub(crate) struct Refill<'a> {
    outbox: &'a Outbox,
    state: MutexGuard<'a, State>,
}

impl Refill<'_> {
    /// Queues a frame of the log if there is room.
    pub(crate) fn put(&mut self, frame: &Bytes) -> bool {
        self.outbox.offer_in(&mut self.state, frame) == Offer::Taken
    }

    /// The place at which the session reads on.
    pub(crate) fn resume_at(mut self, place: u64) {
        if self.state.closing.is_none() {
            self.state.catching_up = Some(place);
        }
    }
}

impl State {
    fn put(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.queue.push_back(frame);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn outbox(max_messages: usize, max_bytes: usize) -> Outbox {
        Outbox::new(&OutboxLimits { max_messages, max_bytes, ..OutboxLimits::default() })
    }

    fn frame(len: usize) -> Bytes {
        Bytes::from(vec![b'x'; len])
    }

    fn pull(outbox: &Outbox) -> Poll<Pull> {
        outbox.poll_pull(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_full_outbox_sends_its_session_to_the_log() {
        let outbox = outbox(2, 100);
        assert_eq!(outbox.offer_or_catch_up(&frame(1), 7), Offer::Taken);
        assert_eq!(outbox.offer_or_catch_up(&frame(1), 8), Offer::Taken);
        assert_eq!(outbox.offer_or_catch_up(&frame(1), 9), Offer::Full);
        assert_eq!(pull(&outbox), Poll::Ready(Pull::Frame(frame(1))));
        assert_eq!(pull(&outbox), Poll::Ready(Pull::Frame(frame(1))));
        assert_eq!(pull(&outbox), Poll::Ready(Pull::CatchUp(9)));
        outbox.join();
        assert_eq!(pull(&outbox), Poll::Pending);
    }

    #[test]
    fn a_frame_above_the_bound_passes_alone() {
        let outbox = outbox(10, 100);
        assert_eq!(outbox.offer(&frame(500)), Offer::Taken);
        assert_eq!(outbox.offer(&frame(1)), Offer::Full);
    }

    #[test]
    fn a_lost_local_send_is_announced_once() {
        let outbox = outbox(1, 100);
        let notice = || Some(Bytes::from_static(b"gap"));
        assert_eq!(outbox.offer_or_notice(&frame(1), notice), Offer::Taken);
        assert_eq!(outbox.offer_or_notice(&frame(1), notice), Offer::Full);
        assert_eq!(outbox.offer_or_notice(&frame(1), notice), Offer::Full);
        assert_eq!(pull(&outbox), Poll::Ready(Pull::Frame(frame(1))));
        assert_eq!(pull(&outbox), Poll::Ready(Pull::Frame(Bytes::from_static(b"gap"))));
        assert_eq!(pull(&outbox), Poll::Pending);
    }

    #[test]
    fn what_waits_is_sent_before_the_close() {
        let outbox = outbox(10, 100);
        outbox.offer(&frame(1));
        outbox.close(CloseReason::Kicked);
        outbox.close(CloseReason::Normal);
        assert_eq!(outbox.offer(&frame(1)), Offer::Closed);
        assert_eq!(pull(&outbox), Poll::Ready(Pull::Frame(frame(1))));
        assert_eq!(pull(&outbox), Poll::Ready(Pull::Closed(CloseReason::Kicked)));
    }

    #[test]
    fn only_a_socket_that_takes_nothing_stalls() {
        let outbox = outbox(10, 100);
        assert_eq!((outbox.stalled_ticks(), outbox.stalled_ticks()), (0, 0), "nothing waits");
        outbox.offer(&frame(1));
        outbox.offer(&frame(1));
        assert_eq!((outbox.stalled_ticks(), outbox.stalled_ticks()), (1, 2));
        let _ = pull(&outbox);
        assert_eq!((outbox.stalled_ticks(), outbox.stalled_ticks()), (0, 1));
    }
}

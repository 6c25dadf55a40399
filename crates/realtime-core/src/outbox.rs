//! [`Outbox`]: the small bounded buffer between a session and its socket.
//!
//! Frames leave it in one of two ways. Whoever runs the connection pulls, always. A connection that was taken over also
//! has its socket here, which frames are written to directly: only while everything that was pulled has reached the
//! socket, and until the first write that the socket does not take whole. What is left is pulled then.

mod group;
#[cfg(test)]
mod tests;

use std::{
    mem,
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

pub(crate) use self::group::OutboxGroup;
use crate::{
    CloseReason, Position,
    direct::{DirectWrite, WriteBuffer},
    frame_queue::FrameQueue,
    sync::{Mutex, MutexGuard, lock},
};

/// Frames that wait for one socket, and what that socket's reader is told when there are none.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    group: Arc<OutboxGroup>,
    /// Its session's slot in the shard, once it has one.
    slot: AtomicU32,
    /// Where its session stands among its user's. It is the directory's, and here because here is room.
    pub(crate) index: AtomicU32,
}

/// A session has no slot yet.
const NO_SLOT: u32 = u32::MAX;

#[derive(Debug, Default)]
#[repr(C)]
struct State {
    // First what every frame meets, so that it is fetched at once.
    /// Frames were put in to be written directly, and somebody is about to flush them.
    unflushed: bool,
    /// The body asked, or the socket took something, since the last tick.
    pulled: bool,
    /// Frames are written to the socket that is here.
    direct_open: bool,
    /// A local send was lost since the outbox was last empty, and the client has been told.
    overflowed: bool,
    /// The connection ends without another byte.
    aborted: bool,
    /// The next tick looks at it.
    watched: bool,
    /// The body was woken and has not asked since.
    woken: bool,
    /// The group counts it among those.
    counted: bool,
    /// What only some sessions have at a time. An idle one that is live has none.
    rare: Option<Box<Rare>>,
    direct: Option<Arc<dyn DirectWrite>>,
    frames: FrameQueue,
    /// The bytes that have left, in either way.
    taken: u64,
    waker: Option<Waker>,
}

/// What only a session has that is closing, reads the log, or has yet to answer a heartbeat.
#[derive(Debug, Default)]
struct Rare {
    closing: Option<CloseReason>,
    /// Set while the session reads from the log by itself: the sequence number where it goes on. Nothing is written
    /// directly then.
    catching_up: Option<u64>,
    /// The session is closing, but has yet to be served what the bus acknowledged up to here.
    hold: Option<Position>,
    /// What `taken` was at the last tick.
    taken_before: u64,
    /// A heartbeat that its client has to answer: it has left when `taken` is this.
    asked: Option<u64>,
    stalled_ticks: u32,
    closing_ticks: u32,
    unanswered_ticks: u32,
    /// Ticks since the client was last active in which frames waited and some left: an answer may be behind them.
    busy_ticks: u32,
}

/// What a tick finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ticked {
    /// For how many ticks frames have waited without the socket taking one.
    pub(crate) stalled: u32,
    /// For how many ticks the session has been closing; `None` when it is not, or its end waits for the log.
    pub(crate) closing: Option<u32>,
    /// For how many ticks the client has left a heartbeat unanswered that it can be expected to have.
    pub(crate) unanswered: u32,
}

/// Result of putting in a frame.
pub(crate) type TrySend = Result<Accepted, TrySendError>;

/// Why a frame was not put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrySendError {
    Full,
    Closed,
}

/// What has to happen for an accepted frame to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// Nothing more: it has left, whoever pulls was woken, or others were there before it.
    Done,
    /// Whoever put it in calls [`Outbox::flush`].
    NeedsFlush,
}

/// What the socket gets next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pull {
    /// Frames one behind the other, or a piece of one.
    Bytes(Bytes),
    /// Nothing waits; go on reading the log here.
    CatchUp(u64),
    Closed(CloseReason),
    /// The connection is to be broken off: what was given before may end within a frame.
    Aborted(CloseReason),
}

/// What became of a frame of the connection's own: see `Session::send_direct`.
#[derive(Debug, PartialEq, Eq)]
pub enum SendDirect {
    /// It has been written to the socket, or waits in order.
    Sent,
    /// Nothing is written directly: whoever runs the connection writes it now.
    Write(Bytes),
    /// The rest of a frame has to be pulled and written first.
    WithinFrame(Bytes),
}

impl Outbox {
    pub(crate) fn new(group: Arc<OutboxGroup>) -> Self {
        let slot = AtomicU32::new(NO_SLOT);
        Self { state: Mutex::default(), group, slot, index: AtomicU32::default() }
    }

    /// Its session's slot in the shard.
    pub(crate) fn slot(&self) -> u32 {
        self.slot.load(Ordering::Relaxed)
    }

    /// Tells the slot of its session; once.
    pub(crate) fn set_slot(&self, slot: u32) {
        // When it is given up, it is watched if something has been put in before.
        let state = self.lock();
        self.slot.store(slot, Ordering::Relaxed);
        drop(state);
    }

    /// Sends a frame if there is room.
    pub(crate) fn offer(&self, frame: &Bytes) -> TrySend {
        let mut state = self.lock();
        match self.refuse(&mut state, frame) {
            Some(refusal) => Err(refusal),
            None => {
                state.send(frame, &mut WriteBuffer::default());
                Ok(Accepted::Done)
            }
        }
    }

    /// Queues the log's frame of `seq` if there is room; else the session reads on from there by itself.
    pub(crate) fn queue_or_catch_up(&self, frame: &Bytes, seq: u64) -> TrySend {
        self.put_or_catch_up(&[(seq, frame)], None).1
    }

    /// Queues frames of the log, with the sequence number of each, as far as there is room; the session reads on at the
    /// first that finds none. Returns how many were taken.
    pub(crate) fn queue_run(&self, frames: &[(u64, &Bytes)]) -> (usize, TrySend) {
        self.put_or_catch_up(frames, None)
    }

    /// The same of frames that no others follow: written directly they leave at once, behind what was queued. `joined`
    /// is all of them, one behind the other.
    pub(crate) fn send_run(
        &self,
        frames: &[(u64, &Bytes)],
        joined: &[u8],
        gather: &mut WriteBuffer,
    ) -> (usize, TrySend) {
        self.put_or_catch_up(frames, Some((joined, gather)))
    }

    fn put_or_catch_up(
        &self,
        frames: &[(u64, &Bytes)],
        send: Option<(&[u8], &mut WriteBuffer)>,
    ) -> (usize, TrySend) {
        let mut state = self.lock();
        if state.is_closed() {
            return (0, Err(TrySendError::Closed));
        }
        // Most frames leave at once, and need no queue.
        let mut written = match &send {
            Some((joined, _)) => match state.write_past_queue(joined) {
                Some(written) if written == joined.len() => return (frames.len(), Ok(Accepted::Done)),
                written => written.unwrap_or(0),
            },
            None => 0,
        };
        let mut accepted = Accepted::Done;
        for (index, (seq, frame)) in frames.iter().enumerate() {
            if written >= frame.len() {
                written -= frame.len();
            } else if written > 0 {
                state.put_rest(frame, mem::take(&mut written));
            } else if self.refuse(&mut state, frame).is_some() {
                state.rare().catching_up = Some(*seq);
                return (index, Err(TrySendError::Full));
            } else if state.put((*frame).clone()) == Accepted::NeedsFlush {
                accepted = Accepted::NeedsFlush;
            }
        }
        if let Some((_, gather)) = send {
            state.flush(gather);
            accepted = Accepted::Done;
        }
        (frames.len(), Ok(accepted))
    }

    /// Queues a frame of which nothing else keeps a copy. When it finds no room, `notice` is queued beyond the
    /// bound, once until the outbox has been empty again.
    pub(crate) fn queue_or_notice(&self, frame: &Bytes, notice: impl FnOnce() -> Option<Bytes>) -> TrySend {
        let mut state = self.lock();
        let refusal = self.refuse(&mut state, frame);
        if refusal == Some(TrySendError::Full)
            && !mem::replace(&mut state.overflowed, true)
            && let Some(notice) = notice()
        {
            state.put(notice);
        }
        refusal.map_or_else(|| Ok(state.put(frame.clone())), Err)
    }

    /// Sends a frame beyond the bound: for notices that must not be lost.
    pub(crate) fn force(&self, frame: &Bytes) {
        let mut state = self.lock();
        if state.closing().is_none() || state.hold().is_some() {
            state.send(frame, &mut WriteBuffer::default());
        }
    }

    /// Writes what was queued, if frames are written directly.
    pub(crate) fn flush(&self, gather: &mut WriteBuffer) {
        self.lock().flush(gather);
    }

    /// Ends the session once what waits has been sent. The first reason stays.
    pub(crate) fn close(&self, reason: CloseReason) {
        let mut state = self.lock();
        if reason == CloseReason::SlowConsumer {
            state.abort(reason);
        } else if state.closing().is_none() {
            state.rare().closing = Some(reason);
            state.end();
        }
    }

    /// Ends the session once it has been served up to `after`: it is still given what the log has up to there. Says
    /// whether it was not closing before.
    pub(crate) fn close_after(&self, reason: CloseReason, after: Position) -> bool {
        let mut state = self.lock();
        let first = state.closing().is_none();
        if first {
            let rare = state.rare();
            (rare.closing, rare.hold) = (Some(reason), Some(after));
        }
        first
    }

    /// What is still to be served before the session ends.
    pub(crate) fn hold(&self) -> Option<Position> {
        self.lock().hold()
    }

    /// The position behind which a session ends that was held open for one that was not known.
    pub(crate) fn hold_until(&self, after: Position) {
        let mut state = self.lock();
        if state.hold().is_some() {
            state.rare().hold = Some(after);
        }
    }

    /// Ends a session that was held open by [`Self::close_after`].
    pub(crate) fn release(&self) {
        let mut state = self.lock();
        if state.hold().is_some() {
            state.end();
        }
    }

    /// Ends the connection at once, within a frame if need be. The first reason stays.
    pub(crate) fn abort(&self, reason: CloseReason) {
        self.lock().abort(reason);
    }

    /// Why the session ends, if it does.
    pub(crate) fn closing(&self) -> Option<CloseReason> {
        self.lock().closing()
    }

    /// Up to `max` bytes for the body to write; wakes the caller's task when there are none yet.
    pub(crate) fn poll_pull(&self, cx: &mut Context<'_>, max: usize) -> Poll<Pull> {
        let mut state = self.lock();
        (state.pulled, state.woken) = (true, false);
        if state.aborted
            && let Some(reason) = state.closing()
        {
            return Poll::Ready(Pull::Aborted(reason));
        }
        // What is pulled must not be overtaken by what is written directly.
        state.flush(&mut WriteBuffer::default());
        if let Some(bytes) = state.frames.take(max) {
            state.taken += bytes.len() as u64;
            return Poll::Ready(Pull::Bytes(bytes));
        }
        state.emptied();
        if let Some(reason) = state.closing().filter(|_| state.hold().is_none()) {
            state.detach();
            return Poll::Ready(Pull::Closed(reason));
        }
        if let Some(seq) = state.catching_up() {
            return Poll::Ready(Pull::CatchUp(seq));
        }
        state.wait(cx);
        Poll::Pending
    }

    /// Has the body's task woken when there is something for it.
    pub(crate) fn wait(&self, cx: &Context<'_>) {
        self.lock().wait(cx);
    }

    /// Wakes the body's task.
    pub(crate) fn wake(&self) {
        self.lock().wake();
    }

    /// Gives the session its socket. Nothing is written to it before [`Self::open_direct`].
    pub(crate) fn attach(&self, socket: Arc<dyn DirectWrite>) {
        let mut state = self.lock();
        (state.direct, state.direct_open) = (Some(socket), false);
    }

    /// Takes the socket away.
    pub(crate) fn detach(&self) {
        self.lock().detach();
    }

    /// There is no body any more that could ask.
    pub(crate) fn end_body(&self) {
        let mut state = self.lock();
        (state.waker, state.woken) = (None, false);
    }

    /// Whether frames are written directly.
    pub(crate) fn is_direct(&self) -> bool {
        self.lock().is_direct()
    }

    /// Pending until the session is aborted; has the task woken then.
    pub(crate) fn poll_aborted(&self, cx: &Context<'_>) -> Poll<CloseReason> {
        let mut state = self.lock();
        match state.closing().filter(|_| state.aborted) {
            Some(reason) => Poll::Ready(reason),
            None => {
                state.wait(cx);
                Poll::Pending
            }
        }
    }

    /// Whether the last that was taken was a piece of a frame, and the rest waits.
    pub(crate) fn is_cut(&self) -> bool {
        self.lock().frames.is_cut()
    }

    /// Has frames written directly from now on, unless something waits or the session reads the log. The caller
    /// guarantees that everything that was pulled has reached the socket.
    pub(crate) fn open_direct(&self) {
        let mut state = self.lock();
        let free = state.frames.is_empty() && state.catching_up().is_none() && state.closing().is_none();
        if free && state.direct.is_some() {
            state.direct_open = true;
        }
    }

    /// Writes the connection's own frame directly, in order with what waits, or says that the caller has to, and when.
    /// One lock decides, so that no other thread can begin a frame in between.
    pub(crate) fn send_direct(&self, frame: Bytes) -> SendDirect {
        let mut state = self.lock();
        if state.is_direct() {
            state.send(&frame, &mut WriteBuffer::default());
            SendDirect::Sent
        } else if state.frames.is_cut() {
            SendDirect::WithinFrame(frame)
        } else {
            SendDirect::Write(frame)
        }
    }

    /// Sends the session to the log: it reads on by itself from `seq`.
    pub(crate) fn catch_up_from(&self, seq: u64) {
        let mut state = self.lock();
        state.rare().catching_up = Some(seq);
        state.wake();
    }

    /// Queues what a catching-up session has read from the log, with the sequence number of each frame, as far as there
    /// is room. The session reads on at the first that found none, else at `next`. Returns how many were taken.
    pub(crate) fn refill(&self, frames: &[(u64, Bytes)], next: u64) -> usize {
        let mut state = self.lock();
        let mut taken = 0;
        for (_, frame) in frames {
            if self.refuse(&mut state, frame).is_some() {
                break;
            }
            state.put(frame.clone());
            taken += 1;
        }
        if state.catching_up().is_some() {
            state.rare().catching_up = Some(frames.get(taken).map_or(next, |(seq, _)| *seq));
        }
        taken
    }

    /// The session has met its shard's sequence number and gets what comes from there.
    pub(crate) fn join(&self) {
        let mut state = self.lock();
        if let Some(rare) = &mut state.rare {
            rare.catching_up = None;
        }
    }

    /// Queues a heartbeat that the client has to answer: what it sent before, as `active` has it, is no answer.
    pub(crate) fn ask(&self, heartbeat: &Bytes, active: &AtomicBool) {
        let mut state = self.lock();
        if self.refuse(&mut state, heartbeat).is_none() {
            if state.rare.as_ref().is_none_or(|rare| rare.asked.is_none()) {
                active.store(false, Ordering::Relaxed);
            }
            state.send(heartbeat, &mut WriteBuffer::default());
            let end = state.taken + state.frames.bytes() as u64;
            state.rare().asked.get_or_insert(end);
        }
    }

    /// Called on a tick for an outbox that is watched, with whether the client was active since the last one, or could
    /// not be.
    pub(crate) fn tick(&self, active: bool) -> Ticked {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.watched = false;
        let pulled = mem::take(&mut state.pulled);
        // A session whose end waits for the log has nothing to give until that has come.
        let goes_on = state.hold().is_none() && (state.catching_up().is_some() || state.closing().is_some());
        let waiting = !state.frames.is_empty() || goes_on;
        if state.frames.is_empty() {
            // An idle connection keeps nothing of what a message or a burst took.
            state.frames.free();
        }
        if state.rare.is_none() && !waiting {
            return Ticked::default();
        }
        let taken = state.taken;
        let moved = state.rare.as_ref().map_or(pulled, |rare| taken != rare.taken_before);
        let rare = state.rare();
        rare.stalled_ticks = if pulled || !waiting { 0 } else { rare.stalled_ticks + 1 };
        rare.taken_before = taken;
        if active {
            (rare.asked, rare.unanswered_ticks, rare.busy_ticks) = (None, 0, 0);
        } else {
            rare.busy_ticks += u32::from(waiting && moved);
            rare.unanswered_ticks += u32::from(rare.asked.is_some_and(|end| taken >= end));
        }
        let closing = rare.closing.filter(|_| rare.hold.is_none()).map(|_| {
            rare.closing_ticks += 1;
            rare.closing_ticks
        });
        let ticked = Ticked {
            stalled: rare.stalled_ticks,
            closing,
            unanswered: rare.unanswered_ticks.saturating_sub(rare.busy_ticks),
        };
        if !waiting && rare.asked.is_none() && rare.closing.is_none() {
            state.rare = None;
        }
        ticked
    }

    /// Why a frame can't be put in, if so.
    fn refuse(&self, state: &mut State, frame: &Bytes) -> Option<TrySendError> {
        if state.is_closed() {
            return Some(TrySendError::Closed);
        }
        if !self.has_room(state, frame) {
            // A pass puts much in before it flushes.
            state.flush(&mut WriteBuffer::default());
            if !self.has_room(state, frame) {
                return Some(TrySendError::Full);
            }
        }
        None
    }

    fn has_room(&self, state: &State, frame: &Bytes) -> bool {
        let frames = &state.frames;
        frames.is_empty()
            || (frames.len() < self.group.max_messages
                && frames.bytes() + frame.len() <= self.group.max_bytes)
    }

    fn lock(&self) -> Locked<'_> {
        Locked { state: lock(&self.state), outbox: self }
    }
}

/// The state under its lock. When that is given up, an outbox with something in it is watched from then on, and its
/// group counts the bodies that were woken.
struct Locked<'a> {
    state: MutexGuard<'a, State>,
    outbox: &'a Outbox,
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if !self.watched && (self.rare.is_some() || !self.frames.is_empty()) {
            let slot = self.outbox.slot();
            if slot != NO_SLOT {
                // What was asked and taken before it began to wait is none of its waiting.
                (self.watched, self.pulled) = (true, false);
                self.outbox.group.watch(slot);
            }
        }
        if self.woken != self.counted {
            self.counted = self.woken;
            self.outbox.group.count(self.woken);
        }
    }
}

impl State {
    fn closing(&self) -> Option<CloseReason> {
        self.rare.as_ref().and_then(|rare| rare.closing)
    }

    /// The session ends, and is given nothing more.
    fn is_closed(&self) -> bool {
        self.closing().is_some() && self.hold().is_none()
    }

    fn hold(&self) -> Option<Position> {
        self.rare.as_ref().and_then(|rare| rare.hold)
    }

    fn catching_up(&self) -> Option<u64> {
        self.rare.as_ref().and_then(|rare| rare.catching_up)
    }

    fn rare(&mut self) -> &mut Rare {
        let taken = self.taken;
        self.rare.get_or_insert_with(|| Box::new(Rare { taken_before: taken, ..Rare::default() }))
    }

    /// The socket, while frames are written to it.
    fn socket(&self) -> Option<&dyn DirectWrite> {
        self.direct.as_deref().filter(|_| self.direct_open)
    }

    fn detach(&mut self) -> Option<Arc<dyn DirectWrite>> {
        self.direct_open = false;
        self.direct.take()
    }

    fn is_direct(&self) -> bool {
        self.direct_open
    }

    fn put(&mut self, frame: Bytes) -> Accepted {
        self.frames.put(frame);
        self.wake_or_flush()
    }

    /// What has to happen for what was put in to leave.
    fn wake_or_flush(&mut self) -> Accepted {
        if self.is_direct() {
            if mem::replace(&mut self.unflushed, true) { Accepted::Done } else { Accepted::NeedsFlush }
        } else {
            self.wake();
            Accepted::Done
        }
    }

    /// Puts a frame in; written directly it leaves at once, behind what was put in before.
    fn send(&mut self, frame: &Bytes, gather: &mut WriteBuffer) {
        match self.write_past_queue(frame) {
            Some(written) if written == frame.len() => {}
            Some(written) => self.put_rest(frame, written),
            None => {
                self.put(frame.clone());
                self.flush(gather);
            }
        }
    }

    /// Writes bytes directly if none wait before them, and says how many. Where the socket does not take all of them,
    /// the rest is left to be pulled.
    fn write_past_queue(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.frames.bytes() > 0 {
            return None;
        }
        let written = write(self.socket()?, bytes);
        self.direct_open = written == bytes.len();
        self.pulled |= written > 0;
        self.taken += written as u64;
        Some(written)
    }

    /// Queues what is left of a frame of which so much was written.
    fn put_rest(&mut self, frame: &Bytes, written: usize) {
        self.frames.put_rest(frame, written);
        self.wake_or_flush();
    }

    /// The session ends when what is queued has been sent.
    fn end(&mut self) {
        let rare = self.rare();
        (rare.catching_up, rare.hold) = (None, None);
        self.wake();
    }

    fn abort(&mut self, reason: CloseReason) {
        self.rare().closing.get_or_insert(reason);
        self.aborted = true;
        self.frames.free();
        if let Some(socket) = self.detach() {
            socket.abort();
        }
        self.end();
    }

    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// Wakes the body if it waits.
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            self.woken = true;
            waker.wake();
        }
    }

    /// Writes all that waits, if frames are written directly. That ends when the socket does not take all; the rest is
    /// left to be pulled.
    fn flush(&mut self, gather: &mut WriteBuffer) {
        self.unflushed = false;
        let Some(socket) = self.socket() else { return };
        let frames = self.frames.frames();
        let written = match frames.len() {
            0 => return,
            1 => write(socket, &frames[0]),
            _ => write(socket, gather.join(frames)),
        };
        let all = written == self.frames.bytes();
        self.frames.advance(written);
        self.pulled |= written > 0;
        self.taken += written as u64;
        if all {
            self.emptied();
        } else {
            self.direct_open = false;
            self.wake();
        }
    }

    fn emptied(&mut self) {
        self.overflowed = false;
        self.frames.shrink();
    }
}

/// Writes to a socket and says how many of the bytes it takes.
fn write(socket: &dyn DirectWrite, bytes: &[u8]) -> usize {
    // Errors are left to whoever runs the connection: the rest is pulled, and the next write meets them.
    socket.write(bytes).unwrap_or(0)
}

//! [`Outbox`]: the small bounded buffer between a session and its socket.
//!
//! Frames leave the outbox in one of two ways. The connection's task can always pull them. A connection that was taken
//! over also has its socket here, and frames are written to it directly: only while everything that was pulled has
//! reached the socket, and until the first write that the socket accepts only in part. The rest is pulled then.

mod group;
#[cfg(test)]
mod tests;

use std::{
    mem,
    ops::{Deref, DerefMut},
    sync::{
        Arc, OnceLock,
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

/// Number of bytes after which the socket gets a turn. With a response's head they fit into the 8 KiB that actix's
/// buffer has in any case, so that no connection keeps a buffer that a burst or a large message has enlarged.
pub(crate) const WRITE_BUDGET: u32 = 7 << 10;

/// Maximum number of bytes that wait for one socket when frames are sent to it that have no other copy and come at
/// once: the first frames of a topic.
pub(crate) const INITIAL_BYTES: usize = 8 << 20;

/// Frames that wait for one socket, and the state that decides the next step when there are none.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Outbox {
    // What a direct write needs of the state is in one cache line with the session's kind, and the socket in another.
    state: Mutex<State>,
    group: Arc<OutboxGroup>,
    /// The socket of a connection that was taken over. Outside the lock, so that it can be fetched without it.
    socket: OnceLock<Arc<dyn DirectWrite>>,
    /// Its session's slot in the shard, once it has one.
    slot: AtomicU32,
    /// Index of its session among its user's. It belongs to the directory, and is here because there is space.
    pub(crate) index: AtomicU32,
}

/// Slot of a session that has none yet.
const NO_SLOT: u32 = u32::MAX;

#[derive(Debug, Default)]
#[repr(C)]
struct State {
    // Fields that every frame needs come first, so that they are fetched at once.
    /// Frames were queued to be written directly, and the caller that queued them is about to flush.
    unflushed: bool,
    /// The body pulled, or the socket accepted bytes, since the last tick.
    pulled: bool,
    direct: Direct,
    /// A local send was lost since the outbox was last empty, and the client was notified.
    overflowed: bool,
    /// The connection ends without another byte.
    aborted: bool,
    /// The next tick checks it.
    watched: bool,
    /// The body was woken and has not pulled since.
    woken: bool,
    /// The group counts it as woken.
    counted: bool,
    /// State that few sessions have at a time. An idle live session has none.
    rare: Option<Box<Rare>>,
    /// Number of bytes that have left, in either way.
    taken: u64,
    frames: FrameQueue,
    waker: Option<Waker>,
}

/// Whether frames are written to the attached socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Direct {
    /// There is none, or its use has ended.
    #[default]
    Unattached,
    /// No: they are pulled, until [`Outbox::open_direct`].
    Closed,
    /// Yes.
    Open,
}

/// State of a session that is closing, reads the log, or has yet to answer a heartbeat.
#[derive(Debug, Default)]
struct Rare {
    closing: Option<CloseReason>,
    /// Set while the session reads the log itself: the next sequence number. Nothing is written directly then.
    catching_up: Option<u64>,
    /// The session has entered a topic since it last began to read the log.
    has_new_topics: bool,
    /// The session is closing, but is first served everything that the bus acknowledged up to here.
    hold: Option<Position>,
    /// Value of `taken` at the last tick.
    taken_before: u64,
    /// A heartbeat that the client has to answer has left once `taken` reaches this value.
    asked: Option<u64>,
    /// The queued frames of the connection's own have left once `taken` reaches this value.
    own_end: u64,
    stalled_ticks: u32,
    closing_ticks: u32,
    unanswered_ticks: u32,
    /// Ticks since the client was last active in which frames waited and some left: it may have to read them before it
    /// answers.
    busy_ticks: u32,
}

/// Result of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ticked {
    /// Ticks for which frames have waited without the socket accepting one.
    pub(crate) stalled: u32,
    /// Ticks for which the session has been closing; `None` if it is not, or if its end waits for the log.
    pub(crate) closing: Option<u32>,
    /// Ticks for which the client has not answered a heartbeat that it should have received.
    pub(crate) unanswered: u32,
}

/// The state of an outbox at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backlog {
    /// Frames that wait.
    pub(crate) frames: usize,
    /// Bytes that wait.
    pub(crate) bytes: usize,
    /// Ticks for which they have waited without the socket accepting anything.
    pub(crate) stalled_ticks: u32,
    /// Bytes that have left.
    pub(crate) taken: u64,
    /// The session's connection was taken over.
    pub(crate) is_attached: bool,
    /// The next sequence number of a session that reads the log itself.
    pub(crate) catching_up: Option<u64>,
    pub(crate) closing: Option<CloseReason>,
}

/// Result of queueing a frame.
pub(crate) type TrySend = Result<Accepted, TrySendError>;

/// Reason why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrySendError {
    Full,
    Closed,
}

/// Action that is needed for an accepted frame to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// None: the frame has left, the body was woken, or others were queued before it.
    Done,
    /// The caller has to call [`Outbox::flush`].
    NeedsFlush,
}

/// Next step of the socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pull {
    /// Consecutive frames, or a piece of one.
    Bytes(Bytes),
    /// The queue is empty; continue to read the log at this sequence number.
    CatchUp(u64),
    Closed(CloseReason),
    /// The connection has to be broken off; the bytes given before may end within a frame.
    Aborted(CloseReason),
}

/// Result of sending a frame of the connection's own: see `Session::send_direct`.
#[derive(Debug, PartialEq, Eq)]
pub enum SendDirect {
    /// The frame has been written to the socket, or is queued in order.
    Sent,
    /// Frames are not written directly; the caller writes this one now.
    Write(Bytes),
    /// Others have to be pulled and written first: the rest of a frame, those that leave no room for this one, or an earlier
    /// one of the connection's own.
    Later(Bytes),
}

impl Outbox {
    pub(crate) fn new(group: Arc<OutboxGroup>) -> Self {
        let slot = AtomicU32::new(NO_SLOT);
        let socket = OnceLock::new();
        Self { state: Mutex::default(), group, socket, slot, index: AtomicU32::default() }
    }

    /// Fetches what a direct write reads from memory. The caller does it for several sessions at once, before it writes
    /// to the first of them.
    pub(crate) fn prefetch(&self) {
        if let Some(socket) = self.socket.get() {
            socket.prefetch();
        }
    }

    /// Its session's slot in the shard.
    pub(crate) fn slot(&self) -> u32 {
        self.slot.load(Ordering::Relaxed)
    }

    /// Sets the slot of its session, once.
    pub(crate) fn set_slot(&self, slot: u32) {
        // If something was queued before, dropping the lock watches the outbox.
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

    /// Queues the log's frame of `seq` if there is room; otherwise the session reads the log itself from there.
    pub(crate) fn queue_or_catch_up(&self, frame: &Bytes, seq: u64) -> TrySend {
        self.put_or_catch_up(&[(seq, frame)], None).1
    }

    /// Queues frames of the log, each with its sequence number, as far as there is room. The session continues in the
    /// log at the first frame that does not fit. Returns the number of queued frames.
    pub(crate) fn queue_run(&self, frames: &[(u64, &Bytes)]) -> (usize, TrySend) {
        self.put_or_catch_up(frames, None)
    }

    /// Like [`Self::queue_run`], for frames that no others follow: written directly they leave at once, after those
    /// queued before. `joined` is the concatenation of all of them.
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
        let mut send = send;
        if state.is_closed() {
            return (0, Err(TrySendError::Closed));
        }
        // Most frames leave at once and need no queue.
        let mut written = match &mut send {
            Some((joined, gather)) => match state.write_past_queue(joined) {
                Some(written) if written == joined.len() => {
                    state.count_into(gather);
                    return (frames.len(), Ok(Accepted::Done));
                }
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

    /// Queues a frame of which there is no other copy. If there is no room, `notice` is queued beyond the bound, once
    /// until the outbox has been empty again.
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

    /// Sends a frame even beyond the bound, for notices that must not be lost.
    pub(crate) fn force(&self, frame: &Bytes) {
        let mut state = self.lock();
        if state.closing().is_none() || state.hold().is_some() {
            state.send(frame, &mut WriteBuffer::default());
        }
    }

    /// Returns `true` if the queued frames have fewer bytes than the bound.
    pub(crate) fn has_bytes_left(&self) -> bool {
        self.lock().frames.bytes() < self.group.max_bytes
    }

    /// Sends the frames that a session gets first of a topic, beyond the bound but not beyond [`INITIAL_BYTES`] queued
    /// bytes. Returns the number of those that did not fit.
    pub(crate) fn send_initial(&self, frames: &[Bytes]) -> usize {
        let mut state = self.lock();
        if state.is_closed() {
            return 0;
        }
        for (index, frame) in frames.iter().enumerate() {
            if state.frames.bytes() > 0 && state.frames.bytes() + frame.len() > INITIAL_BYTES {
                return frames.len() - index;
            }
            state.send(frame, &mut WriteBuffer::default());
        }
        0
    }

    /// Writes the queued frames, if frames are written directly.
    pub(crate) fn flush(&self, gather: &mut WriteBuffer) {
        let mut state = self.lock();
        state.flush(gather);
        state.count_into(gather);
    }

    /// Ends the session once the queued frames have been sent. The first reason stays.
    pub(crate) fn close(&self, reason: CloseReason) {
        let mut state = self.lock();
        if reason == CloseReason::SlowConsumer {
            state.abort(reason);
        } else if state.closing().is_none() {
            state.rare().closing = Some(reason);
            state.end();
        }
    }

    /// Ends the session once it has been served the log up to `after`. Returns `true` if it was not closing before.
    pub(crate) fn close_after(&self, reason: CloseReason, after: Position) -> bool {
        let mut state = self.lock();
        let first = state.closing().is_none();
        if first {
            let rare = state.rare();
            (rare.closing, rare.hold) = (Some(reason), Some(after));
        }
        first
    }

    /// Position up to which the session is still served before it ends.
    pub(crate) fn hold(&self) -> Option<Position> {
        self.lock().hold()
    }

    /// Sets the position after which a session ends that was held open without a known one.
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

    /// Ends the connection at once, even within a frame. The first reason stays.
    pub(crate) fn abort(&self, reason: CloseReason) {
        self.lock().abort(reason);
    }

    /// Reason for the session's end, if it is ending.
    pub(crate) fn closing(&self) -> Option<CloseReason> {
        self.lock().closing()
    }

    /// Pulls up to `max` bytes for the body to write; wakes the caller's task once there are some.
    pub(crate) fn poll_pull(&self, cx: &mut Context<'_>, max: usize) -> Poll<Pull> {
        let mut state = self.lock();
        (state.pulled, state.woken) = (true, false);
        if state.aborted
            && let Some(reason) = state.closing()
        {
            return Poll::Ready(Pull::Aborted(reason));
        }
        // Pulled bytes must not be overtaken by directly written ones.
        state.flush(&mut WriteBuffer::default());
        if let Some(bytes) = state.frames.take(max) {
            state.taken += bytes.len() as u64;
            return Poll::Ready(Pull::Bytes(bytes));
        }
        state.emptied();
        if let Some(reason) = state.closing().filter(|_| state.hold().is_none()) {
            // The last bytes are the connection's. It can be broken off until the socket has them.
            if state.is_direct() {
                state.direct = Direct::Closed;
            }
            return Poll::Ready(Pull::Closed(reason));
        }
        if let Some(seq) = state.catching_up() {
            return Poll::Ready(Pull::CatchUp(seq));
        }
        state.wait(cx);
        Poll::Pending
    }

    /// Registers the body's task to be woken once there is something to pull.
    pub(crate) fn wait(&self, cx: &Context<'_>) {
        self.lock().wait(cx);
    }

    /// Wakes the body's task.
    pub(crate) fn wake(&self) {
        self.lock().wake();
    }

    /// Attaches the session's socket. Nothing is written to it before [`Self::open_direct`].
    pub(crate) fn attach(&self, socket: Arc<dyn DirectWrite>) {
        let mut state = self.lock();
        if self.socket.set(socket).is_ok() {
            state.direct = Direct::Closed;
        }
    }

    /// Ends the use of the socket, which has taken everything: it is not broken off any more.
    pub(crate) fn detach(&self) {
        self.lock().direct = Direct::Unattached;
    }

    /// Notes that the body has been dropped. Nobody pulls what is queued any more, which others who keep the session would
    /// keep as well.
    pub(crate) fn end_body(&self) {
        let mut state = self.lock();
        (state.waker, state.woken) = (None, false);
        state.frames.free();
    }

    /// Returns `true` if frames are written directly.
    pub(crate) fn is_direct(&self) -> bool {
        self.lock().is_direct()
    }

    /// Pending until the session is aborted; wakes the caller's task then.
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

    /// Number of bytes that have left, in either way.
    pub(crate) fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// Number of bytes that will have left once everything that is queued has.
    pub(crate) fn end(&self) -> u64 {
        let state = self.lock();
        state.taken + state.frames.bytes() as u64
    }

    /// Its state now.
    pub(crate) fn backlog(&self) -> Backlog {
        let state = self.lock();
        Backlog {
            frames: state.frames.len(),
            bytes: state.frames.bytes(),
            stalled_ticks: state.rare.as_ref().map_or(0, |rare| rare.stalled_ticks),
            taken: state.taken,
            is_attached: state.direct != Direct::Unattached,
            catching_up: state.catching_up(),
            closing: state.closing(),
        }
    }

    /// Returns `true` if the last pulled bytes end within a frame, whose rest is queued.
    pub(crate) fn is_cut(&self) -> bool {
        self.lock().frames.is_cut()
    }

    /// Has frames written directly from now on, unless frames are queued or the session reads the log. The caller must
    /// guarantee that everything that was pulled has reached the socket.
    pub(crate) fn open_direct(&self) {
        let mut state = self.lock();
        let free = state.frames.is_empty() && state.catching_up().is_none() && state.closing().is_none();
        if free && state.direct == Direct::Closed {
            state.direct = Direct::Open;
        }
    }

    /// Writes the connection's own frame directly, in order with the queued ones, or returns it for the caller to
    /// write. One lock is held throughout, so that no other thread can begin a frame in between.
    ///
    /// A large frame is queued instead: the socket would take it for long while nothing is pulled, which a tick counts as
    /// a stall.
    pub(crate) fn send_direct(&self, frame: Bytes) -> SendDirect {
        let mut state = self.lock();
        if state.is_direct() {
            state.send(&frame, &mut WriteBuffer::default());
            state.mark_own();
            SendDirect::Sent
        } else if state.frames.is_cut() || state.has_own() {
            SendDirect::Later(frame)
        } else if frame.len() <= WRITE_BUDGET as usize {
            SendDirect::Write(frame)
        } else if self.has_room(&state, &frame) {
            state.put(frame);
            state.mark_own();
            SendDirect::Sent
        } else {
            SendDirect::Later(frame)
        }
    }

    /// The next sequence number of a session that reads the log itself.
    pub(crate) fn catching_up(&self) -> Option<u64> {
        self.lock().catching_up()
    }

    /// Notes that the session begins to read the log, for the topics that it is in from now on.
    pub(crate) fn begin_read(&self) {
        if let Some(rare) = &mut self.lock().rare {
            rare.has_new_topics = false;
        }
    }

    /// Notes that the session has entered a topic. What it is reading from the log is discarded and read again: it was
    /// selected without that topic.
    pub(crate) fn read_again(&self) {
        if let Some(rare) = &mut self.lock().rare {
            rare.has_new_topics = rare.catching_up.is_some();
        }
    }

    /// Makes the session read the log itself from `seq`.
    pub(crate) fn catch_up_from(&self, seq: u64) {
        let mut state = self.lock();
        state.rare().catching_up = Some(seq);
        state.wake();
    }

    /// Has a session that reads the log go on at `seq`.
    pub(crate) fn skip_to(&self, seq: u64) {
        if let Some(rare) = &mut self.lock().rare {
            rare.catching_up = rare.catching_up.map(|_| seq);
        }
    }

    /// Queues frames that a catching-up session has read from the log, each with its sequence number, as far as there
    /// is room. The session continues at the first that does not fit, else at `next`; at `first` if it has entered a topic
    /// meanwhile. Returns the number of queued frames.
    pub(crate) fn refill(&self, frames: &[(u64, Bytes)], first: u64, next: u64) -> usize {
        let mut state = self.lock();
        let mut taken = 0;
        if state.rare.as_ref().is_some_and(|rare| rare.has_new_topics && rare.catching_up.is_some()) {
            state.rare().catching_up = Some(first);
            return 0;
        }
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

    /// Notes that the session has reached its shard's sequence number, from which on passes serve it.
    pub(crate) fn join(&self) {
        let mut state = self.lock();
        if let Some(rare) = &mut state.rare {
            rare.catching_up = None;
        }
    }

    /// Queues a heartbeat that the client has to answer. Activity before it, as recorded in `active`, is no answer. Returns
    /// `false` if there is no room.
    pub(crate) fn ask(&self, heartbeat: &Bytes, active: &AtomicBool) -> bool {
        let mut state = self.lock();
        let is_queued = self.refuse(&mut state, heartbeat).is_none();
        if is_queued {
            if state.rare.as_ref().is_none_or(|rare| rare.asked.is_none()) {
                active.store(false, Ordering::Relaxed);
            }
            state.send(heartbeat, &mut WriteBuffer::default());
            let end = state.taken + state.frames.bytes() as u64;
            state.rare().asked.get_or_insert(end);
        }
        is_queued
    }

    /// Called on a tick for a watched outbox. `active`: the client was active since the last tick, or was not read
    /// from.
    pub(crate) fn tick(&self, active: bool) -> Ticked {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.watched = false;
        let pulled = mem::take(&mut state.pulled);
        // A session whose end waits for the log has nothing to send until the log has grown.
        let goes_on = state.hold().is_none() && (state.catching_up().is_some() || state.closing().is_some());
        let waiting = !state.frames.is_empty() || goes_on;
        if state.frames.is_empty() {
            // An idle connection keeps no memory that a message or a burst has used.
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

    /// Reason why a frame cannot be queued, if there is one.
    fn refuse(&self, state: &mut Locked<'_>, frame: &Bytes) -> Option<TrySendError> {
        if state.is_closed() {
            return Some(TrySendError::Closed);
        }
        if !self.has_room(state, frame) {
            // A pass queues many frames before it flushes.
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
        let state = lock(&self.state);
        Locked { left_before: state.taken, state, outbox: self }
    }
}

/// The locked state. When the lock is dropped, an outbox that is not idle is watched from then on, and its group counts
/// the woken bodies and the bytes that have left.
struct Locked<'a> {
    state: MutexGuard<'a, State>,
    outbox: &'a Outbox,
    /// Bytes that had left when it was locked. No name of a field of the state.
    left_before: u64,
}

impl<'a> Locked<'a> {
    /// Leaves it to the owner of a buffer to count the bytes that have left: a pass does it once for all sessions, since
    /// an atomic addition costs a third of a delivery.
    fn count_into(&mut self, gather: &mut WriteBuffer) {
        let left = self.state.taken;
        gather.sent += left - self.left_before;
        self.left_before = left;
    }

    /// The socket, if frames are written to it.
    fn socket(&self) -> Option<&'a dyn DirectWrite> {
        self.outbox.socket.get().filter(|_| self.is_direct()).map(|socket| &**socket)
    }

    /// Sends a frame. Written directly it leaves at once, after the queued ones.
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

    /// Writes bytes directly unless others are queued, and returns the number written. If the socket does not accept
    /// all of them, the rest has to be pulled.
    fn write_past_queue(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.frames.bytes() > 0 {
            return None;
        }
        let written = write(self.socket()?, bytes);
        if written < bytes.len() {
            self.direct = Direct::Closed;
        }
        self.pulled |= written > 0;
        self.taken += written as u64;
        Some(written)
    }

    fn abort(&mut self, reason: CloseReason) {
        self.rare().closing.get_or_insert(reason);
        self.aborted = true;
        self.frames.free();
        if mem::take(&mut self.direct) != Direct::Unattached
            && let Some(socket) = self.outbox.socket.get()
        {
            socket.abort();
        }
        self.end();
    }

    /// Writes all queued frames, if frames are written directly. That stops when the socket does not accept all of
    /// them; the rest has to be pulled.
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
            self.direct = Direct::Closed;
            self.wake();
        }
    }
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
        // No frame is empty, and the number of bytes has been fetched already.
        if !self.watched && (self.rare.is_some() || self.frames.bytes() > 0) {
            let slot = self.outbox.slot();
            if slot != NO_SLOT {
                // Pulls from before the outbox was watched do not count as progress.
                (self.watched, self.pulled) = (true, false);
                self.outbox.group.watch(slot);
            }
        }
        if self.woken != self.counted {
            self.counted = self.woken;
            self.outbox.group.count(self.woken);
        }
        if self.state.taken != self.left_before {
            self.outbox.group.sent(self.state.taken - self.left_before);
        }
    }
}

impl State {
    fn closing(&self) -> Option<CloseReason> {
        self.rare.as_ref().and_then(|rare| rare.closing)
    }

    /// Returns `true` if the session is ending and is served nothing more.
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

    fn is_direct(&self) -> bool {
        self.direct == Direct::Open
    }

    /// Notes that the last of the queued frames, if there are any, is the connection's own.
    fn mark_own(&mut self) {
        let left = self.frames.bytes() as u64;
        if left > 0 {
            self.rare().own_end = self.taken + left;
        }
    }

    /// Returns `true` if a frame of the connection's own is queued.
    fn has_own(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.own_end > self.taken)
    }

    fn put(&mut self, frame: Bytes) -> Accepted {
        self.frames.put(frame);
        self.wake_or_flush()
    }

    /// Action that is needed for queued frames to leave.
    fn wake_or_flush(&mut self) -> Accepted {
        if self.is_direct() {
            if mem::replace(&mut self.unflushed, true) { Accepted::Done } else { Accepted::NeedsFlush }
        } else {
            self.wake();
            Accepted::Done
        }
    }

    /// Queues the rest of a frame of which `written` bytes have been written.
    fn put_rest(&mut self, frame: &Bytes, written: usize) {
        self.frames.put_rest(frame, written);
        self.wake_or_flush();
    }

    /// Ends the session once the queued frames have been sent.
    fn end(&mut self) {
        let rare = self.rare();
        (rare.catching_up, rare.hold) = (None, None);
        self.wake();
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

    fn emptied(&mut self) {
        self.overflowed = false;
        self.frames.shrink();
    }
}

/// Writes to a socket and returns the number of bytes that it accepted.
fn write(socket: &dyn DirectWrite, bytes: &[u8]) -> usize {
    // Errors are ignored here: the rest is pulled, and the connection's task gets the same error from its next write.
    socket.write(bytes).unwrap_or(0)
}

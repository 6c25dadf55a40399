//! [`Probe`]: times one publish at a time, from the call until a pass of this node has delivered it.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::stopwatch::{END_TO_END, Stopwatch};
use crate::{Position, log::Log};

/// The publish that is timed now. The others cost nothing, and so do deliveries.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    /// A publish is timed.
    busy: AtomicBool,
    /// It has been acknowledged, and not been delivered yet.
    armed: AtomicBool,
    sample: Mutex<Option<(Stopwatch, Position)>>,
    /// The greatest sequence number up to which a worker has served its sessions.
    served: AtomicU64,
}

/// A publish that is timed. Dropping it lets the next one be timed.
#[derive(Debug)]
pub(crate) struct Timed<'a> {
    probe: &'a Probe,
    watch: Stopwatch,
    is_over: bool,
}

impl Probe {
    /// Begins to time a publish, unless another one is timed.
    pub(crate) fn begin(&self) -> Option<Timed<'_>> {
        let is_free = !self.busy.load(Ordering::Relaxed) && !self.busy.swap(true, Ordering::AcqRel);
        is_free.then(|| Timed { probe: self, watch: Stopwatch::start(), is_over: true })
    }

    /// Notes that a pass has served the sessions of a worker up to a sequence number.
    pub(crate) fn passed(&self, seq: u64, log: &Log) {
        // In this order, and the other way round in `acknowledged`: one of the two sees the other.
        self.served.fetch_max(seq, Ordering::SeqCst);
        if !self.armed.load(Ordering::SeqCst) {
            return;
        }
        let Some(cursor) = log.cursor_at(seq) else { return };
        let delivered = self.lock().take_if(|(_, position)| *position <= cursor);
        if let Some((watch, position)) = delivered {
            self.end();
            // Of another history: it is not known to have been delivered.
            if position.epoch == cursor.epoch {
                watch.record(END_TO_END);
            }
        }
    }

    fn end(&self) {
        self.armed.store(false, Ordering::SeqCst);
        self.busy.store(false, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Stopwatch, Position)>> {
        self.sample.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timed<'_> {
    /// Notes that the bus has taken it at a position. Its pass may have been before.
    pub(crate) fn acknowledged(mut self, position: Position, log: &Log) {
        self.is_over = false;
        let probe = self.probe;
        *probe.lock() = Some((self.watch, position));
        probe.armed.store(true, Ordering::SeqCst);
        let served = probe.served.load(Ordering::SeqCst);
        if log.find(position).is_some_and(|(seq, _)| seq < served)
            && let Some((watch, _)) = probe.lock().take()
        {
            probe.end();
            watch.record(END_TO_END);
        }
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        if self.is_over {
            self.probe.busy.store(false, Ordering::Release);
        }
    }
}

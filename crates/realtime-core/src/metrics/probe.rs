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

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use std::sync::{Arc, atomic::AtomicUsize};

    use metrics::{
        Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
        with_local_recorder,
    };

    use super::*;
    use crate::{Envelope, Scope, Settings};

    /// Number of the times that were recorded.
    #[derive(Default)]
    struct Recorded(Arc<Times>);

    #[derive(Default)]
    struct Times(AtomicUsize);

    impl HistogramFn for Times {
        fn record(&self, _: f64) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Recorder for Recorded {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::noop()
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            assert_eq!(key.name(), END_TO_END);
            Histogram::from_arc(Arc::clone(&self.0))
        }
    }

    fn at(epoch: u64, offset: u64) -> Position {
        Position { epoch, offset }
    }

    fn log(epoch: u64) -> Log {
        let Settings { history, retained, .. } = Settings::default();
        let log = Log::new(history, retained);
        log.begin(Some(at(epoch, 0)));
        log
    }

    fn push(log: &Log, position: Position) {
        log.push(Some(position), Arc::new(Envelope::broadcast(Scope::Both, "x".into())), None);
    }

    /// Runs a function on a probe. Returns how many publishes were timed, and whether another one may be.
    fn timed(run: impl FnOnce(&Probe)) -> (usize, bool) {
        let (recorder, probe) = (Recorded::default(), Probe::default());
        with_local_recorder(&recorder, || run(&probe));
        (recorder.0.0.load(Ordering::Relaxed), probe.begin().is_some())
    }

    #[test]
    fn a_publish_is_timed_once_whether_its_pass_or_its_answer_comes_first() {
        let log = log(1);
        push(&log, at(1, 1));
        let answer_first = |probe: &Probe| {
            let publish = probe.begin().unwrap();
            assert!(probe.begin().is_none(), "one at a time");
            publish.acknowledged(at(1, 1), &log);
            probe.passed(0, &log);
            assert!(probe.begin().is_none(), "it has not been delivered");
            probe.passed(1, &log);
            probe.passed(1, &log);
        };
        let pass_first = |probe: &Probe| {
            let publish = probe.begin().unwrap();
            probe.passed(1, &log);
            publish.acknowledged(at(1, 1), &log);
            probe.passed(1, &log);
        };
        assert_eq!((timed(answer_first), timed(pass_first)), ((1, true), (1, true)));
    }

    #[test]
    fn a_publish_that_fails_or_belongs_to_another_history_is_not_timed_and_lets_the_next_one_be() {
        assert_eq!(timed(|probe| drop(probe.begin())), (0, true));
        let later = log(2);
        push(&later, at(2, 1));
        let lost = |probe: &Probe| {
            probe.begin().unwrap().acknowledged(at(1, 7), &later);
            probe.passed(1, &later);
        };
        assert_eq!(timed(lost), (0, true));
    }
}

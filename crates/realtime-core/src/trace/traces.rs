//! [`Traces`]: the traces that are on, on this node.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

use super::{
    event::{NodeTrace, TraceTarget},
    ring::Ring,
    watch::Watch,
};

/// The traces that are on, on this node. While there is none, asking for them costs one relaxed load.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    on: AtomicUsize,
    /// Traces that run from this node.
    run: AtomicUsize,
    rings: Mutex<Vec<Arc<Ring>>>,
}

/// Error of a trace that is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} traces run already")]
pub struct TooManyTraces(pub usize);

impl TooManyTraces {
    /// HTTP status of the response to a request that failed with this error.
    pub fn status(&self) -> u16 {
        429
    }
}

/// Permit of a trace that runs from this node. Its drop ends it here; other nodes notice that nobody asks.
#[derive(Debug)]
pub(crate) struct Permit {
    traces: Arc<Traces>,
    id: String,
}

/// Number of traces on a node, those that others run included.
const MOST: usize = 16;
/// Number of traces that run from a node.
const MOST_RUN: usize = 4;
/// Time after which a trace that nobody asks for ends.
const IDLE: Duration = Duration::from_secs(5);
/// Interval at which sockets are looked at that have yet to accept a message.
const LOOK: Duration = Duration::from_millis(20);

impl Traces {
    /// The traces that are on; `None` mostly.
    #[inline]
    pub(crate) fn watch(&self) -> Option<Watch> {
        if self.on.load(Ordering::Relaxed) == 0 { None } else { self.watch_on() }
    }

    #[cold]
    fn watch_on(&self) -> Option<Watch> {
        Some(Watch(self.lock().as_slice().into()))
    }

    /// Has a trace run from this node.
    pub(crate) fn permit(self: &Arc<Self>, id: String) -> Result<Permit, TooManyTraces> {
        let run = self
            .run
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |run| (run < MOST_RUN).then_some(run + 1));
        match run {
            Ok(_) => Ok(Permit { traces: Arc::clone(self), id }),
            Err(_) => Err(TooManyTraces(MOST_RUN)),
        }
    }

    /// The events of a trace from a number on. The first call begins the trace on this node.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn read(
        self: &Arc<Self>,
        node: &str,
        id: &str,
        target: &TraceTarget,
        after: &BTreeMap<String, u64>,
    ) -> Result<NodeTrace, TooManyTraces> {
        let ring = self.begin(id, target)?;
        Ok(ring.read(node, after.get(node).copied().unwrap_or_default()))
    }

    /// The ring of a trace, which begins now if it has not.
    fn begin(self: &Arc<Self>, id: &str, target: &TraceTarget) -> Result<Arc<Ring>, TooManyTraces> {
        let ring = Arc::new(Ring::new(id.to_owned(), target.clone()));
        {
            let mut rings = self.lock();
            if let Some(known) = rings.iter().find(|ring| ring.id == id) {
                return Ok(Arc::clone(known));
            }
            if rings.len() >= MOST {
                return Err(TooManyTraces(MOST));
            }
            rings.push(Arc::clone(&ring));
            self.on.store(rings.len(), Ordering::Relaxed);
        }
        tracing::info!(subject = ?target, "a live trace begins");
        let (traces, swept) = (Arc::clone(self), Arc::clone(&ring));
        tokio::spawn(async move {
            let mut timer = interval(LOOK);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while swept.idle() < IDLE && traces.has(&swept.id) {
                timer.tick().await;
                swept.sweep();
            }
            traces.end(&swept.id);
            tracing::info!(subject = ?swept.target, "a live trace has ended");
        });
        Ok(ring)
    }

    fn has(&self, id: &str) -> bool {
        self.lock().iter().any(|ring| ring.id == id)
    }

    fn end(&self, id: &str) {
        let mut rings = self.lock();
        rings.retain(|ring| ring.id != id);
        self.on.store(rings.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Ring>>> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.traces.end(&self.id);
        self.traces.run.fetch_sub(1, Ordering::AcqRel);
    }
}

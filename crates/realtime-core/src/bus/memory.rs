//! [`MemoryBus`]: the bus of a single process.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{
    future::{self, Ready},
    stream,
};
use slab::Slab;
use tokio::sync::{Mutex as AsyncMutex, Notify};

use self::{
    recent_ids::RecentIds,
    streams::{Checked, Record, Records, check},
};
use super::{Bus, BusError, BusEvent, Published, StreamHead, StreamStore, StreamWrite, StreamWritten};
use crate::{
    Envelope, Position,
    streams::StreamKey,
    sync::{Mutex, MutexGuard, Schedule, lock, timeout},
};

/// The bus of a single process: a cluster of one, with the semantics of a larger one.
///
/// A slow subscriber slows publishers down; nothing is dropped. A publish that finds no room within 5 s, because a
/// subscriber takes nothing, fails ([`BusError::Throttled`]), and nothing is published. An envelope with an
/// [id](crate::EnvelopeId) is published once within five minutes; up to 100,000 ids are kept. Retained messages are
/// kept by the hubs: one that starts later knows those of its own time. Cloning it gives the same bus.
/// Waiting, to publish or for events, needs a tokio runtime with time.
#[derive(Debug, Clone)]
pub struct MemoryBus(Arc<Owner>);

/// All handles of a bus; the subscribers' streams end with it.
#[derive(Debug)]
struct Owner(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Held by the one publisher that waits for room. The others wait for this lock, which is fair: so they publish in
    /// the order in which they came, and one wake-up per free place is enough.
    turn: AsyncMutex<()>,
    /// A full queue has room again, or is gone.
    room: Notify,
}

#[derive(Debug)]
struct State {
    last: Position,
    ids: RecentIds,
    streams: Records,
    queues: Slab<Queue>,
    ended: bool,
}

/// The events that wait for one subscriber.
#[derive(Debug)]
struct Queue {
    events: VecDeque<BusEvent>,
    /// A [`BusEvent::CaughtUp`] is among them.
    marked: bool,
    /// Notified when an empty queue gets an event.
    arrived: Arc<Notify>,
}

/// The number of events that wait for a subscriber before publishers wait too. Few where orders are tried out: a test
/// fills the queue each time.
const QUEUE: usize = if cfg!(feature = "shuttle") { 3 } else { 1024 };

/// Time that a publisher waits for room.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval of `CaughtUp` events.
const CAUGHT_UP_INTERVAL: Duration = Duration::from_secs(1);

impl MemoryBus {
    /// A bus with a history of its own.
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let last = Position { epoch, offset: 0 };
        let state = State {
            last,
            ids: RecentIds::default(),
            streams: Records::new(),
            queues: Slab::new(),
            ended: false,
        };
        let shared = Shared { state: Mutex::new(state), turn: AsyncMutex::default(), room: Notify::new() };
        Self(Arc::new(Owner(Arc::new(shared))))
    }
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new()
    }
}

impl Bus for MemoryBus {
    fn publish<'a>(&'a self, envelope: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>> {
        let shared = &self.0.0;
        Box::pin(async move {
            let position = shared.publish_with_room(|state| state.publish(envelope)).await?;
            Ok(Published { position: Some(position) })
        })
    }

    fn subscribe(&self) -> BoxStream<'static, BusEvent> {
        let subscriber = Subscriber::new(Arc::clone(&self.0.0));
        Box::pin(stream::unfold(subscriber, |mut subscriber| async move {
            let event = subscriber.next().await?;
            Some((event, subscriber))
        }))
    }

    fn streams(&self) -> Option<Arc<dyn StreamStore>> {
        Some(Arc::clone(&self.0.0) as _)
    }

    fn fence(&self) -> BoxFuture<'_, Result<Option<Position>, BusError>> {
        let last: Ready<_> = future::ready(Ok(Some(self.0.0.state().last)));
        Box::pin(last)
    }
}

/// It keeps no texts, so a hub that is added to the bus later does not know the beginning of earlier streams.
impl StreamStore for Shared {
    fn write<'a>(&'a self, write: &'a StreamWrite<'a>) -> BoxFuture<'a, Result<StreamWritten, BusError>> {
        let envelope = Arc::new(write.entry.envelope());
        Box::pin(async move { self.publish_with_room(|state| state.publish_stream(&envelope, write)).await })
    }

    fn heads(&self) -> BoxFuture<'_, Result<Vec<StreamHead>, BusError>> {
        let heads = self.state().streams.iter().map(|(key, record)| record.head(key)).collect();
        Box::pin(future::ready(Ok(heads)))
    }

    fn read<'a>(&'a self, _: &'a StreamKey) -> BoxFuture<'a, Result<Option<(StreamHead, String)>, BusError>> {
        Box::pin(future::ready(Ok(None)))
    }

    fn renew<'a>(&'a self, keys: &'a [StreamKey]) -> BoxFuture<'a, Result<Vec<StreamKey>, BusError>> {
        let mut state = self.state();
        let lost = keys.iter().filter(|key| !state.streams.get_mut(key).is_some_and(Record::renew)).cloned();
        Box::pin(future::ready(Ok(lost.collect())))
    }

    fn abandoned(&self) -> BoxFuture<'_, Result<Vec<StreamHead>, BusError>> {
        let state = self.state();
        let abandoned = state.streams.iter().filter(|(_, record)| record.is_abandoned());
        Box::pin(future::ready(Ok(abandoned.map(|(key, record)| record.head(key)).collect())))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.ended = true;
        for (_, queue) in &state.queues {
            queue.arrived.notify_one();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Publishes what `publish` does, which returns `None` without room: waits for its turn then, and for room. Dropped
    /// before it has returned, it has published nothing.
    async fn publish_with_room<T>(
        &self,
        mut publish: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, BusError> {
        // Without a timer while there is room, and never past those who wait.
        if let Ok(_turn) = self.turn.try_lock()
            && let Some(answer) = publish(&mut self.state())
        {
            return Ok(answer);
        }
        let in_turn = async {
            let _turn = self.turn.lock().await;
            loop {
                if let Some(answer) = publish(&mut self.state()) {
                    return answer;
                }
                self.room.notified().await;
            }
        };
        let late = || BusError::Throttled(format!("a subscriber has left no room for {PUBLISH_TIMEOUT:?}"));
        timeout(PUBLISH_TIMEOUT, in_turn).await.ok_or_else(late)
    }
}

impl State {
    /// Gives an envelope the next position and puts it into all queues; into none when one of them is full. An envelope
    /// whose id was published already keeps its first position.
    fn publish(&mut self, envelope: &Arc<Envelope>) -> Option<Position> {
        let named = envelope.id().map(|id| (id, Instant::now()));
        if let Some((id, now)) = named
            && let Some(position) = self.ids.get(id, now)
        {
            return Some(position);
        }
        if self.queues.iter().any(|(_, queue)| queue.waiting() >= QUEUE) {
            return None;
        }
        self.last = self.last.next();
        if let Some((id, now)) = named {
            self.ids.insert(id.clone(), self.last, now);
        }
        for (_, queue) in &mut self.queues {
            let event = BusEvent::message(Some(self.last), Arc::clone(envelope), Duration::ZERO);
            queue.events.push_back(event);
            if queue.events.len() == 1 {
                queue.arrived.notify_one();
            }
        }
        Some(self.last)
    }
}

impl State {
    /// Publishes an entry of a text stream if it continues the stream. `None` if a queue is full.
    fn publish_stream(&mut self, envelope: &Arc<Envelope>, write: &StreamWrite<'_>) -> Option<StreamWritten> {
        if write.entry.at == 0 {
            let now = Instant::now();
            self.streams.retain(|_, record| record.is_kept(now));
        }
        if let Checked::Answered(answer) = check(self.streams.get(&write.entry.key), write) {
            return Some(answer);
        }
        let position = self.publish(envelope)?;
        self.streams.insert(write.entry.key.clone(), Record::after(write, position));
        Some(StreamWritten::Added(position))
    }
}

impl Queue {
    /// The number of events that count towards [`QUEUE`]; a mark does not.
    fn waiting(&self) -> usize {
        self.events.len() - usize::from(self.marked)
    }
}

/// One subscriber's end of its queue; dropping it takes the queue away.
struct Subscriber {
    shared: Arc<Shared>,
    key: usize,
    arrived: Arc<Notify>,
    caught_up: Schedule,
}

impl Subscriber {
    fn new(shared: Arc<Shared>) -> Self {
        let arrived = Arc::new(Notify::new());
        let key = {
            let mut state = shared.state();
            let events = VecDeque::from([BusEvent::Up(Some(state.last))]);
            state.queues.insert(Queue { events, marked: false, arrived: Arc::clone(&arrived) })
        };
        Self { shared, key, arrived, caught_up: Schedule::new(CAUGHT_UP_INTERVAL) }
    }

    async fn next(&mut self) -> Option<BusEvent> {
        loop {
            let due = self.caught_up.is_due();
            {
                let mut state = self.shared.state();
                let ended = state.ended;
                let queue = &mut state.queues[self.key];
                if due && !queue.marked {
                    // Everything that is published is in the queue, so the mark takes its place behind it.
                    queue.events.push_back(BusEvent::CaughtUp(Instant::now()));
                    queue.marked = true;
                    self.caught_up.restart();
                }
                if let Some(event) = queue.events.pop_front() {
                    if matches!(event, BusEvent::CaughtUp(_)) {
                        queue.marked = false;
                    }
                    if queue.waiting() == QUEUE - 1 {
                        self.shared.room.notify_one();
                    }
                    return Some(event);
                }
                if ended {
                    return None;
                }
            }
            self.caught_up.until_due(self.arrived.notified()).await;
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.shared.state().queues.remove(self.key);
        self.shared.room.notify_one();
    }
}

mod recent_ids;
mod streams;
#[cfg(all(test, not(feature = "shuttle")))]
mod tests;

#[cfg(all(test, feature = "shuttle"))]
mod interleavings;

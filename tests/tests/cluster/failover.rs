//! Readers of a bus whose master changes under a publisher, and the figures of both.

mod look_ups;
mod presence;
mod pubsub;
mod streams;

use std::{
    fmt,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use realtime_core::bus::{Bus, BusEvent};
use realtime_tests::{Published, within};
use tokio::{sync::watch, task::JoinHandle};

/// Events of a bus, as a reader keeps them.
trait Seen: fmt::Debug + Send + 'static {
    /// Takes an event; the bus' outages are not among them.
    fn take(&mut self, event: BusEvent);

    /// Returns true once nothing more is to come after the last number that was acknowledged.
    fn is_complete(&self, last: Option<u64>) -> bool;

    /// Number of messages.
    fn count(&self) -> usize;

    /// Number of gaps.
    fn gaps(&self) -> usize;

    /// Number of acknowledged messages that have not arrived.
    fn missing(&self, published: &Published) -> usize;
}

/// A task that reads until everything has arrived.
struct Reader<S> {
    stop: watch::Sender<Option<u64>>,
    task: JoinHandle<Read<S>>,
}

/// Events that a reader has received.
#[derive(Debug)]
struct Read<S> {
    seen: S,
    /// The longest time that it was down.
    down: Duration,
}

impl<S: Seen> Reader<S> {
    /// Subscribes to a bus, and waits until that is up.
    async fn start(bus: impl Bus, mut seen: S) -> Self {
        let mut events = bus.subscribe();
        let (up, mut is_up) = watch::channel(false);
        let (stop, mut stopped) = watch::channel(None);
        let task = tokio::spawn(async move {
            let (mut since, mut down) = (None, Duration::ZERO);
            let mut ended = |since: &mut Option<Instant>| {
                down = since.take().map_or(down, |since| down.max(since.elapsed()));
                down
            };
            while !seen.is_complete(*stopped.borrow()) {
                let event = tokio::select! {
                    event = events.next() => event.unwrap(),
                    _ = stopped.changed() => continue,
                };
                match event {
                    BusEvent::Up(_) => {
                        up.send_replace(true);
                        ended(&mut since);
                    }
                    BusEvent::Down(_) => {
                        since.get_or_insert_with(Instant::now);
                    }
                    event => seen.take(event),
                }
            }
            Read { seen, down: ended(&mut since) }
        });
        within("a reader to be up", is_up.wait_for(|up| *up)).await.unwrap();
        Self { stop, task }
    }

    /// Waits until everything has arrived, up to the last number that was acknowledged.
    async fn stop(self, last: u64) -> Read<S> {
        self.stop.send_replace(Some(last));
        within("the reader to get everything", self.task).await.unwrap()
    }
}

impl<S: Seen> fmt::Display for Read<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seen, down } = self;
        write!(f, "{} seen, {} gaps, reader down {down:.1?}", seen.count(), seen.gaps())
    }
}

/// Published messages and received ones.
struct Figures<S> {
    published: Published,
    read: Read<S>,
}

impl<S: Seen> fmt::Display for Figures<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, read } = self;
        write!(f, "{published}; {read}, {} lost and announced", read.seen.missing(published))
    }
}

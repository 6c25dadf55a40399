//! [`Publisher`]: publishes continuously while Redis has faults, and keeps the outcome.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use realtime_core::{
    Envelope, Position,
    bus::{Bus, BusError},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::within;

/// Publishes numbers one after the other, about every other millisecond.
#[derive(Debug)]
pub struct Publisher {
    stop: watch::Sender<bool>,
    acknowledged: watch::Receiver<u64>,
    task: JoinHandle<Published>,
}

/// Outcome of the publishes.
#[derive(Debug, Default)]
pub struct Published {
    /// Messages that the bus acknowledged.
    pub acknowledged: Vec<Acknowledged>,
    /// Number of publishes that the bus refused.
    pub refused: u64,
    /// The longest time between two acknowledgements.
    pub pause: Duration,
    /// Duration of the slowest publish, successful or not.
    pub slowest: Duration,
    /// The number that comes next.
    pub next: u64,
}

/// A number that the bus has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// The number.
    pub number: u64,
    /// Its position.
    pub position: Option<Position>,
    /// Time at which the publish began.
    pub at: Instant,
    /// Time at which the bus acknowledged it.
    pub done: Instant,
}

impl Publisher {
    /// Publishes from `first` on, each number as what `envelope` makes of it.
    pub fn start(
        bus: impl Bus,
        first: u64,
        envelope: impl Fn(u64) -> Arc<Envelope> + Send + 'static,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (count, acknowledged) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut published = Published { next: first, ..Published::default() };
            let mut pace = interval(Duration::from_millis(2));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut last = Instant::now();
            // The last one is acknowledged: it proves that everything before it has come.
            let mut refused = false;
            while refused || !*stopped.borrow() {
                pace.tick().await;
                let number = published.next;
                published.next += 1;
                let at = Instant::now();
                let answer = bus.publish(&envelope(number)).await;
                published.slowest = published.slowest.max(at.elapsed());
                refused = answer.is_err();
                match answer {
                    Ok(answer) => {
                        let position = answer.position;
                        let done = Instant::now();
                        published.acknowledged.push(Acknowledged { number, position, at, done });
                        published.pause = published.pause.max(last.elapsed());
                        last = Instant::now();
                        count.send_modify(|count| *count += 1);
                    }
                    Err(BusError::Unavailable(_) | BusError::Refused(_) | BusError::OutcomeUnknown(_)) => {
                        published.refused += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            published
        });
        Self { stop, acknowledged, task }
    }

    /// Waits until some more are acknowledged.
    pub async fn some(&self) {
        let mut acknowledged = self.acknowledged.clone();
        let enough = *acknowledged.borrow() + 200;
        within("publishes to be acknowledged", acknowledged.wait_for(|count| *count >= enough))
            .await
            .unwrap();
    }

    /// Ends it, with a number that is acknowledged.
    pub async fn stop(self) -> Published {
        self.stop.send(true).unwrap();
        within("the publisher to end", self.task).await.unwrap()
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, refused, pause, slowest, .. } = self;
        let acknowledged = acknowledged.len();
        write!(
            f,
            "{acknowledged} acknowledged, {refused} refused, {pause:.1?} without, slowest {slowest:.1?}"
        )
    }
}

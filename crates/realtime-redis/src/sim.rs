//! The decisions of a tail without a connection, for the simulation of this workspace (feature `sim`, unstable).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use realtime_core::{Envelope, Position, bus::BusEvent};

use crate::streams::{Content, Entry, RedisTime, TailState};

/// The content of an entry of the stream.
#[derive(Debug, Clone)]
pub enum Item {
    /// A message.
    Envelope(Arc<Envelope>),
    /// A heartbeat of the node with this incarnation, and its start.
    Heartbeat(String, Instant),
    /// The beginning of an epoch.
    Claim,
}

/// The tail of a node.
#[derive(Debug)]
pub struct Tail {
    state: TailState,
    created: Instant,
    max_age: Duration,
}

impl Tail {
    /// Creates the tail of a node that starts now.
    pub fn new(incarnation: &str, max_age: Duration) -> Self {
        let created = Instant::now();
        Self { state: TailState::new(incarnation.to_owned(), created), created, max_age }
    }

    /// Returns the start of the node, the origin of the times in its heartbeats.
    pub fn created(&self) -> Instant {
        self.created
    }

    /// Returns the entry behind which the next read starts.
    pub fn last(&self) -> Option<Position> {
        self.state.last()
    }

    /// Handles a claimed connection: the end of the stream, and Redis' time in milliseconds.
    pub fn claimed(&mut self, end: Position, millis: u64) {
        self.state.claimed(end, RedisTime { millis, asked: Instant::now() }, self.max_age);
    }

    /// Handles a read of entries, each with Redis' time; `drained` if there are no more.
    ///
    /// # Errors
    /// The reason to discard the connection.
    pub fn read<'a>(
        &mut self,
        entries: impl IntoIterator<Item = (Position, &'a Item, u64)>,
        drained: bool,
    ) -> Result<Vec<BusEvent>, String> {
        let mut events = Vec::new();
        for (position, item, at) in entries {
            let content = match item {
                Item::Envelope(envelope) => Content::Envelope(Arc::clone(envelope)),
                Item::Heartbeat(incarnation, began) => {
                    let began = began.saturating_duration_since(self.created).as_micros();
                    Content::Heartbeat { incarnation: incarnation.clone(), began: u64::try_from(began).ok() }
                }
                Item::Claim => Content::Claim,
            };
            let entry = Entry { content, at: Some(at) };
            events.extend(self.state.read(position, entry, Instant::now()).into_iter().flatten());
        }
        events.extend(self.state.settle(drained, Instant::now())?.events.into_iter().flatten());
        Ok(events)
    }

    /// Handles a message of this node that came back, behind everything that was acknowledged before `began`.
    pub fn came_back(&mut self, began: Instant) {
        self.state.came_back(began, Instant::now());
    }

    /// Handles the loss of the connection.
    pub fn failed(&mut self) -> BusEvent {
        self.state.failed("disconnected".to_owned())
    }
}

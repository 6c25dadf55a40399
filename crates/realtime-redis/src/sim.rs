//! The decisions of a tail without a connection, behind the feature `sim`, with no promise to anybody else.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use realtime_core::{BusEvent, Envelope, Position};

use crate::streams::{Content, Entry, RedisTime, TailState};

/// What an entry of the stream holds.
#[derive(Debug, Clone)]
pub enum Item {
    /// A message.
    Envelope(Arc<Envelope>),
    /// A heartbeat of the node with this incarnation, and when it began.
    Heartbeat(String, Instant),
    /// The begin of an epoch.
    Claim,
}

/// A node's tail.
#[derive(Debug)]
pub struct Tail {
    state: TailState,
    created: Instant,
    max_age: Duration,
}

impl Tail {
    /// The tail of a node that starts now.
    pub fn new(incarnation: &str, max_age: Duration) -> Self {
        let created = Instant::now();
        Self { state: TailState::new(incarnation.to_owned(), created), created, max_age }
    }

    /// When the node started: its heartbeats tell their time from here.
    pub fn created(&self) -> Instant {
        self.created
    }

    /// Behind which entry the next read goes on.
    pub fn last(&self) -> Option<Position> {
        self.state.last()
    }

    /// A connection was claimed: where the stream ends, and Redis' time in milliseconds.
    pub fn claimed(&mut self, end: Position, millis: u64) {
        self.state.claimed(end, RedisTime { millis, asked: Instant::now() }, self.max_age);
    }

    /// Entries were read, each with Redis' time; `drained`: there are no more.
    ///
    /// # Errors
    /// When the connection is to be given up.
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
                    Content::Beat { incarnation: incarnation.clone(), began: u64::try_from(began).ok() }
                }
                Item::Claim => Content::Claim,
            };
            let entry = Entry { content, at: Some(at) };
            events.extend(self.state.read(position, entry, Instant::now()).into_iter().flatten());
        }
        events.extend(self.state.settle(drained, Instant::now())?.events.into_iter().flatten());
        Ok(events)
    }

    /// A message of this node came back, which all that was acknowledged before `began` stands before.
    pub fn came_back(&mut self, began: Instant) {
        self.state.came_back(began, Instant::now());
    }

    /// The connection was given up.
    pub fn failed(&mut self) -> BusEvent {
        self.state.failed("cut off".to_owned())
    }
}

//! [`TailState`]: what a node has read of the stream, and what the hub is told of it.
//!
//! It reads no clock and no socket: events and times come in, [`BusEvent`]s come out, so that a simulation can drive it.

use std::time::{Duration, Instant};

use realtime_core::{BusEvent, Position};

use super::{
    clock::{AgeFilter, RedisTime},
    entry::{Content, Entry},
    publisher::BEAT,
};

/// A node whose own heartbeat has not come back for so long does not get what is published.
const BEAT_LIMIT: Duration = BEAT.saturating_mul(5).checked_div(2).expect("two is not zero");

/// The decisions of one tail.
#[derive(Debug)]
pub(crate) struct TailState {
    /// Tells this node's heartbeats from others'.
    incarnation: String,
    /// The instant from which this node's heartbeats tell their time.
    created: Instant,
    /// The last entry that was read.
    last: Option<Position>,
    /// The hub has been told that it gets everything.
    up: bool,
    /// What is left out before the hub has got anything; `None` before the first claim.
    filter: Option<AgeFilter>,
    /// The hub has got something.
    started: bool,
    /// The stream's end when the connection was claimed.
    end: Option<Position>,
    /// Everything up to the stream's end was read over this connection.
    caught_up: bool,
    /// When this node's heartbeat, or a message of it, came back last.
    beat: Instant,
    /// When the newest of those began, while the hub has not been told.
    proved: Option<Instant>,
    /// No heartbeat came back when it was due, and none has since.
    doubted: bool,
}

/// What follows when all entries of a read were taken.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// What the hub is told, in this order.
    pub(crate) events: [Option<BusEvent>; 2],
    /// A heartbeat came back: the connection is of use.
    pub(crate) proved: bool,
}

impl TailState {
    pub(crate) fn new(incarnation: String, created: Instant) -> Self {
        Self {
            incarnation,
            created,
            last: None,
            up: false,
            filter: None,
            started: false,
            end: None,
            caught_up: false,
            beat: created,
            proved: None,
            doubted: false,
        }
    }

    /// The last entry that was read: the next read goes on behind it.
    pub(crate) fn last(&self) -> Option<Position> {
        self.last
    }

    /// Time for which a read may wait for the next entry: none before the stream was read to its end over this connection,
    /// and none beyond the time at which a heartbeat is overdue.
    pub(crate) fn may_wait(&self, now: Instant) -> Option<Duration> {
        let overdue = BEAT_LIMIT + Duration::from_millis(10);
        let silent = now.saturating_duration_since(self.beat);
        self.caught_up.then(|| overdue.saturating_sub(silent))
    }

    /// A connection was claimed: the stream ends at `end`, and this is Redis' time.
    pub(crate) fn claimed(&mut self, end: Position, time: RedisTime, max_age: Duration) {
        match &mut self.filter {
            Some(filter) => filter.set(time, max_age),
            None => self.filter = Some(AgeFilter::new(time, max_age)),
        }
        (self.end, self.caught_up) = (Some(end), false);
    }

    /// A node that starts reads nothing up to here: its log would not keep it.
    pub(crate) fn begin_behind(&mut self, before: Position) {
        self.last = Some(before);
    }

    /// An entry was read: what the hub is told, in this order.
    pub(crate) fn read(&mut self, position: Position, entry: Entry, now: Instant) -> [Option<BusEvent>; 2] {
        self.last = Some(position);
        if let Content::Beat { incarnation, began } = &entry.content
            && *incarnation == self.incarnation
        {
            (self.beat, self.doubted) = (now, false);
            let began = began.and_then(|micros| self.created.checked_add(Duration::from_micros(micros)));
            self.proved = began.map(|began| began.min(now)).max(self.proved);
        }
        // What was published long before this node started is in nobody's window: the history begins behind it, so that
        // whoever comes with a cursor from before is told of a gap. After an outage all of it is due.
        if !self.started
            && let Some(filter) = &mut self.filter
            && filter.is_too_old(position.epoch, entry.at)
        {
            return [None, None];
        }
        self.started = true;
        match entry.content {
            Content::Envelope(envelope) => [Some(BusEvent::Message(Some(position), envelope)), None],
            Content::Beat { .. } | Content::Claim => [Some(BusEvent::Marker(position)), None],
            Content::Unknown(_) => [Some(BusEvent::Marker(position)), Some(BusEvent::Gap)],
        }
    }

    /// A message of this node came back, which stands for this time as a heartbeat does that began then.
    pub(crate) fn came_back(&mut self, began: Instant, now: Instant) {
        // Not now: an old master that this node has yet to leave sends its messages back, too.
        (self.beat, self.doubted) = (self.beat.max(began.min(now)), false);
        self.proved = self.proved.max(Some(began));
    }

    /// All entries of a read were taken; `drained`: there were fewer than were asked for.
    ///
    /// # Errors
    /// The connection is to be given up: what is published does not come back over it.
    pub(crate) fn settle(&mut self, drained: bool, now: Instant) -> Result<Settled, String> {
        if drained && self.last < self.end {
            // Whatever was between has been trimmed away.
            self.last = self.end;
        }
        if !self.caught_up && (drained || self.last >= self.end) {
            self.caught_up = true;
            // What is written from now on has its time.
            self.beat = now;
        }
        let silent = now.saturating_duration_since(self.beat);
        if self.caught_up && silent > BEAT_LIMIT {
            self.doubted = true;
            return Err(format!("our own heartbeat has not come back for {silent:?}"));
        }
        let up = (self.caught_up && !self.up && !self.doubted).then(|| {
            (self.up, self.started) = (true, true);
            BusEvent::Up(self.last)
        });
        let proved = self.proved.take_if(|_| self.up).map(BusEvent::CaughtUp);
        Ok(Settled { proved: proved.is_some(), events: [up, proved] })
    }

    /// The connection was given up.
    pub(crate) fn failed(&mut self, problem: String) -> BusEvent {
        self.up = false;
        BusEvent::Down(problem)
    }
}

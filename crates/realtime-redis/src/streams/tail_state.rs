//! [`TailState`]: the decisions of a tail, without I/O.
//!
//! It reads no clock and no socket: events and times come in, [`BusEvent`]s come out, so that a simulation can drive it.

use std::{
    mem,
    time::{Duration, Instant},
};

use realtime_core::{Position, bus::BusEvent};

use super::{
    clock::{AgeFilter, HEARTBEAT_INTERVAL, RedisTime},
    entry::{Content, Entry},
};
use crate::millis::millis;

/// Time after which a node whose own heartbeat has not come back must assume that it misses entries.
const HEARTBEAT_LIMIT: Duration =
    HEARTBEAT_INTERVAL.saturating_mul(5).checked_div(2).expect("two is not zero");

/// The read position of one tail, and what has been reported to the hub.
#[derive(Debug)]
pub(crate) struct TailState {
    /// Distinguishes this node's heartbeats from those of other nodes.
    incarnation: String,
    /// The origin of the times in this node's heartbeats.
    created: Instant,
    /// The last entry that was read.
    last: Option<Position>,
    /// Set while the hub has `Up` as its last state: it receives everything.
    up: bool,
    /// Skips old entries before the hub has received anything; `None` before the first claim.
    filter: Option<AgeFilter>,
    /// Set once the hub has received something.
    started: bool,
    /// Redis' time, by which the ages of entries are computed; `None` before the first claim.
    time: Option<RedisTime>,
    /// Set when retained messages may have been missed, until they are read.
    missed: bool,
    /// Set when the log was begun anew with an earlier epoch, until that is reported to the hub.
    begun_anew: bool,
    /// The end of the stream when the connection was claimed.
    end: Option<Position>,
    /// Set when everything up to that end was read over this connection.
    caught_up: bool,
    /// The time at which a heartbeat or a message of this node came back last.
    last_heartbeat: Instant,
    /// The start of the newest of those, until it is reported to the hub.
    proved: Option<Instant>,
    /// Set when a heartbeat was overdue, until one comes back.
    doubted: bool,
}

/// The result of a read after all of its entries were processed.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// Events for the hub, in this order.
    pub(crate) events: [Option<BusEvent>; 2],
    /// Set when a heartbeat came back, which proves that the connection works.
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
            time: None,
            missed: false,
            begun_anew: false,
            end: None,
            caught_up: false,
            last_heartbeat: created,
            proved: None,
            doubted: false,
        }
    }

    /// Returns the last entry that was read; the next read starts behind it.
    pub(crate) fn last(&self) -> Option<Position> {
        self.last
    }

    /// Returns the time for which a read may wait for the next entry: none before the stream was read to its end over this
    /// connection, and none beyond the time at which a heartbeat is overdue.
    pub(crate) fn wait_limit(&self, now: Instant) -> Option<Duration> {
        let overdue = HEARTBEAT_LIMIT + Duration::from_millis(10);
        let silent = now.saturating_duration_since(self.last_heartbeat);
        self.caught_up.then(|| overdue.saturating_sub(silent))
    }

    /// Handles a claimed connection: the stream ends at `end`, and `time` is Redis' time.
    pub(crate) fn claimed(&mut self, end: Position, time: RedisTime, max_age: Duration) {
        match &mut self.filter {
            Some(filter) => filter.set(time, max_age),
            None => self.filter = Some(AgeFilter::new(time, max_age)),
        }
        if self.last.is_some_and(|last| last.epoch > end.epoch) {
            // The log was at the end of time, and is begun anew.
            self.last = None;
            self.begun_anew = true;
        }
        (self.end, self.caught_up) = (Some(end), false);
        (self.time, self.missed) = (Some(time), true);
    }

    /// Returns the gap of a log that was begun anew, once.
    pub(crate) fn take_gap(&mut self) -> Option<BusEvent> {
        mem::take(&mut self.begun_anew).then_some(BusEvent::Gap)
    }

    /// Adjusts Redis' time to a newer answer.
    pub(crate) fn set_time(&mut self, time: RedisTime) {
        self.time = Some(time);
    }

    /// Returns the latest time that an entry can have, in milliseconds since 1970: a minute from now.
    pub(crate) fn latest(&self, now: Instant) -> u64 {
        let ahead = |time: RedisTime| {
            let passed = millis(now.saturating_duration_since(time.asked) + Duration::from_secs(60));
            time.millis.saturating_add(passed)
        };
        self.time.map_or(u64::MAX, ahead)
    }

    /// Returns Redis' time if the retained messages have to be read: after a claim, and after a gap.
    pub(crate) fn take_missed(&mut self) -> Option<RedisTime> {
        self.time.filter(|_| mem::take(&mut self.missed))
    }

    /// Skips the entries up to `before` on a starting node, whose log would not keep them.
    pub(crate) fn begin_behind(&mut self, before: Position) {
        self.last = Some(before);
    }

    /// Passes over an entry at a position that nothing can follow.
    pub(crate) fn pass(&mut self, position: Position) -> BusEvent {
        (self.last, self.missed) = (Some(position), true);
        BusEvent::Gap
    }

    /// Handles an entry. Returns the events for the hub, in this order.
    pub(crate) fn read(&mut self, position: Position, entry: Entry, now: Instant) -> [Option<BusEvent>; 2] {
        self.missed |= self.last.is_some_and(|last| last.next() != position);
        self.last = Some(position);
        if let Content::Heartbeat { incarnation, began } = &entry.content
            && *incarnation == self.incarnation
        {
            (self.last_heartbeat, self.doubted) = (now, false);
            let began = began.and_then(|micros| self.created.checked_add(Duration::from_micros(micros)));
            self.proved = began.map(|began| began.min(now)).max(self.proved);
        }
        // Entries from long before the start of this node are outside of every window: the history begins behind them, so
        // that a client with a cursor from before gets a gap. After an outage all entries are delivered.
        if !self.started
            && let Some(filter) = &mut self.filter
            && filter.is_too_old(position.epoch, entry.at)
        {
            return [None, None];
        }
        self.started = true;
        match entry.content {
            Content::Envelope(envelope) => {
                let age = match (self.time, entry.at) {
                    (Some(time), Some(at)) if envelope.ttl().is_some() => time.age(at, now),
                    _ => Duration::ZERO,
                };
                [Some(BusEvent::message(Some(position), envelope, age)), None]
            }
            Content::Heartbeat { .. } | Content::Claim => [Some(BusEvent::skip(position)), None],
            Content::Unknown(_) => [Some(BusEvent::skip(position)), Some(BusEvent::Gap)],
        }
    }

    /// Handles a message of this node that came back, which proves as much as a heartbeat that began at `began`.
    pub(crate) fn came_back(&mut self, began: Instant, now: Instant) {
        // Not `now`: an old master that this node is still connected to returns its messages, too.
        (self.last_heartbeat, self.doubted) = (self.last_heartbeat.max(began.min(now)), false);
        self.proved = self.proved.max(Some(began));
    }

    /// Handles the end of a read; `drained` if it returned fewer entries than were asked for.
    ///
    /// # Errors
    /// The reason to discard the connection: heartbeats do not come back over it.
    pub(crate) fn settle(&mut self, drained: bool, now: Instant) -> Result<Settled, String> {
        if drained && self.last < self.end {
            // The entries in between were trimmed.
            self.missed = true;
            self.last = self.end;
        }
        if !self.caught_up && (drained || self.last >= self.end) {
            self.caught_up = true;
            // The limit starts anew for heartbeats written from now on.
            self.last_heartbeat = now;
        }
        let silent = now.saturating_duration_since(self.last_heartbeat);
        if self.caught_up && silent > HEARTBEAT_LIMIT {
            self.doubted = true;
            return Err(format!("no heartbeat of this node has come back for {silent:?}"));
        }
        let up = (self.caught_up && !self.up && !self.doubted).then(|| {
            (self.up, self.started) = (true, true);
            BusEvent::Up(self.last)
        });
        let proved = self.proved.take_if(|_| self.up).map(BusEvent::CaughtUp);
        Ok(Settled { proved: proved.is_some(), events: [up, proved] })
    }

    /// Handles the loss of the connection.
    pub(crate) fn failed(&mut self, problem: String) -> BusEvent {
        self.up = false;
        BusEvent::Down(problem)
    }
}

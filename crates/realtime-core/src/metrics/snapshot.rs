//! [`MetricsSnapshot`]: counters and gauges of a node at one time.

use std::time::Duration;

use serde::Serialize;

use super::counter::Counter;
use crate::{Transport, bus::BusError, error::ConnectError, wire::GapReason};

/// Snapshot of a node. Counters count from the node's start; other numbers are those of now, which their texts say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct MetricsSnapshot {
    /// Envelopes that this node published to the bus.
    pub published: u64,
    /// Envelopes that the bus did not accept from this node, or may not have, and attempts to write text streams, by reason.
    pub publish_failures: PublishFailuresSnapshot,
    /// Envelopes that this node received from the bus.
    pub received: u64,
    /// Frames of the live pass, of local sends and of initial entries that entered an outbox.
    pub delivered: u64,
    /// Frames that sessions read from the log to catch up.
    pub replayed: u64,
    /// Number of times that a session fell behind the live pass.
    pub catch_ups: u64,
    /// Gaps that were announced to sessions.
    pub gaps: u64,
    /// The same by reason.
    pub gaps_by: GapsSnapshot,
    /// Gaps of sessions whose wire format cannot announce them (raw WebSocket).
    pub gaps_unreported: u64,
    /// The same by reason.
    pub gaps_unreported_by: GapsSnapshot,
    /// Begins of sessions, by what became of the client's cursor.
    pub recoveries: RecoveriesSnapshot,
    /// Local sends and initial entries that were dropped because an outbox was full.
    pub local_dropped: u64,
    /// Messages that were not sent to a session because their time was over, counted for each session.
    pub expired: u64,
    /// Messages that were not sent to a session because a newer one had replaced them, counted for each session.
    pub collapsed: u64,
    /// Messages that were not sent to a session because enough newer ones of their class were there
    /// ([`SlowPolicy::DropOldest`](crate::SlowPolicy::DropOldest)), counted for each session.
    pub dropped_oldest: u64,
    /// Retained messages that were dropped because of the bounds.
    pub retained_dropped: u64,
    /// Sessions that were opened.
    pub opened: u64,
    /// Sessions that ended.
    pub closed: u64,
    /// Sessions whose connection was taken over from the HTTP dispatcher.
    pub taken_over: u64,
    /// Such sessions that ended; the difference is the number that are open.
    pub taken_over_ended: u64,
    /// The sessions by transport.
    pub transports: Vec<TransportSnapshot>,
    /// Sessions that ended because their socket accepted no data.
    pub slow_consumers: u64,
    /// Connections that were refused: because of a limit, a kick, a start or a drain, their login or their page.
    pub refused: u64,
    /// The same by reason.
    pub refused_by: RefusalsSnapshot,
    /// Sessions that a limit ended, by limit; `slow_consumers` has a counter of its own.
    pub ended_by_limit: EndsByLimitSnapshot,
    /// Messages that were not published or sent because they were too large, or had too many targets.
    pub publishes_refused: u64,
    /// Topics that clients were refused because their sessions were in as many as they may be.
    pub topics_refused: u64,
    /// Connections that were admitted without knowing the user's sessions on other nodes, since presence was unavailable.
    pub cluster_unchecked: u64,
    /// Delivery passes that panicked and were restarted.
    pub panics: u64,
    /// Text streams that had ended and were forgotten before `streams.keep`, to make room.
    pub streams_dropped: u64,
    /// Broken content in the store of a cluster's presence and control: entries that were skipped each time they were read,
    /// and keys that were begun anew. Messages of text streams that this version does not understand, too.
    pub unreadable: u64,
    /// Bytes of sessions that were written to their sockets, or handed to the body that writes them. Heads of responses, and
    /// framing of TLS and HTTP/2, are not among them.
    pub sent_bytes: u64,
    /// Bytes that WebSocket clients sent in frames.
    pub received_bytes: u64,
    /// The frames that wait for sockets now.
    pub outbox: OutboxSnapshot,
    /// The bus now.
    pub bus: BusSnapshot,
    /// The window of recent messages now.
    pub history: HistorySnapshot,
    /// Users that are online on this node now; one whose client is expected back counts.
    pub users: u64,
    /// Sessions that wait to begin now: the bus is not up yet, or this node lags behind their cursors.
    pub waiting: u64,
}

/// The sessions of one transport.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TransportSnapshot {
    /// The transport.
    pub transport: Transport,
    /// Sessions that were opened.
    pub opened: u64,
    /// Sessions that ended.
    pub closed: u64,
    /// The same by reason and code.
    pub closes: Vec<ClosesSnapshot>,
    /// Sessions whose connection was taken over from the HTTP dispatcher.
    pub taken_over: u64,
    /// Such sessions that ended.
    pub taken_over_ended: u64,
}

impl TransportSnapshot {
    /// Number of open sessions whose connection was taken over from the HTTP dispatcher.
    pub fn sessions_taken_over(&self) -> u64 {
        self.taken_over.saturating_sub(self.taken_over_ended)
    }

    /// Number of open sessions that the HTTP dispatcher serves.
    pub fn sessions_dispatched(&self) -> u64 {
        self.opened.saturating_sub(self.closed).saturating_sub(self.sessions_taken_over())
    }
}

/// Sessions of one transport that ended for the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ClosesSnapshot {
    /// The name of the [`CloseReason`](crate::CloseReason).
    pub reason: &'static str,
    /// Its [code](crate::CloseReason::code); 1006 for a client that is gone.
    pub code: u16,
    /// Their number.
    pub count: u64,
}

/// Frames that wait for sockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct OutboxSnapshot {
    /// Sessions for which frames wait.
    pub sessions: u64,
    /// Sessions that have fallen behind the live pass and read the log.
    pub behind: u64,
    /// Frames that wait, over all sessions.
    pub frames: u64,
    /// Frames that wait for the session with the most.
    pub max_frames: u64,
    /// Bytes that wait, over all sessions.
    pub bytes: u64,
    /// Bytes that wait for the session with the most.
    pub max_bytes: u64,
    /// The longest time for which something has waited without the socket accepting anything, to a tick (a second).
    pub age: Duration,
}

/// The bus as this node sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BusSnapshot {
    /// Messages arrive.
    pub up: bool,
    /// Positions between the newest one that the bus has acknowledged to this node and the newest one that this node has
    /// read.
    pub lag_positions: u64,
    /// Everything that the bus acknowledged longer ago has arrived at this node. `None` before the bus has said so: it does
    /// every second or so while it is up.
    pub lag: Option<Duration>,
    /// Entries that have arrived and have yet to be delivered by the worker that is furthest behind.
    pub undelivered: u64,
}

/// The window of recent messages of this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HistorySnapshot {
    /// Entries.
    pub entries: u64,
    /// Their bytes, encodings included.
    pub bytes: u64,
    /// Time since the oldest one arrived.
    pub age: Duration,
}

/// A counter for each of some reasons, with its snapshot.
macro_rules! counters {
    ($(#[$doc:meta])* $counters:ident => $snapshot:ident { $($(#[$field_doc:meta])* $name:ident: $text:literal,)+ }) => {
        #[derive(Debug, Default)]
        pub(crate) struct $counters { $($name: Counter,)+ }

        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        #[serde(rename_all = "camelCase")]
        #[non_exhaustive]
        pub struct $snapshot { $($(#[$field_doc])* pub $name: u64,)+ }

        impl $counters {
            pub(super) fn snapshot(&self) -> $snapshot {
                $snapshot { $($name: self.$name.value(),)+ }
            }
        }

        impl $snapshot {
            /// Each reason as it is in labels, with its number.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$(($text, self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Refused connections, by reason.
    Refusals => RefusalsSnapshot {
        /// The node starts and does not know the refused logins yet.
        starting: "starting",
        /// The node was behind the others for too long to know where the session begins.
        behind: "behind",
        /// The node shuts down, or is cut off from the bus with `bus.onDown: drain`.
        draining: "draining",
        /// The login was kicked or revoked.
        kicked: "kicked",
        /// There is no login, or it is not valid, or it may not connect.
        login: "login",
        /// The login cannot be checked now.
        login_unavailable: "login_unavailable",
        /// The page that connects is of another origin.
        origin: "origin",
        /// `limits.maxConnections`.
        node: "node",
        /// `limits.maxConnectionsPerUser`.
        user: "user",
        /// `limits.maxConnectionsPerUserInCluster`.
        cluster: "cluster",
        /// `limits.maxConnectionsPerToken`.
        token: "token",
        /// `limits.maxConnectionsPerAddress`.
        address: "address",
        /// `limits.maxHandshakeRate`.
        node_rate: "node_rate",
        /// `limits.maxHandshakeRatePerAddress`.
        address_rate: "address_rate",
    }
}

/// Sessions that a limit ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct EndsByLimitSnapshot {
    /// `limits.maxInboundRate`.
    pub rate_limited: u64,
    /// `limits.maxInboundBytes`.
    pub too_big: u64,
    /// `limits.maxConnectionsPer*`, with `limits.onExceeded: endOldest` or over the cluster.
    pub too_many_sessions: u64,
}

counters! {
    /// Gaps, by reason: see [`GapReason`].
    Gaps => GapsSnapshot {
        /// The messages had left the window of recent ones.
        history: "history",
        /// The bus lost its history or was unavailable.
        bus: "bus",
        /// The client's cursor did not belong to the history.
        cursor: "cursor",
        /// A local send was dropped because the outbox was full.
        overflow: "overflow",
    }
}

counters! {
    /// Begins of sessions, by what became of the client's cursor.
    Recoveries => RecoveriesSnapshot {
        /// Everything since the cursor followed.
        restored: "restored",
        /// Something was missing, which was announced.
        gap: "gap",
        /// The client had no cursor.
        no_cursor: "no_cursor",
    }
}

counters! {
    /// Envelopes that the bus did not accept, by reason: see [`BusError`]. Attempts to write a text stream, which are repeated,
    /// count as well.
    PublishFailures => PublishFailuresSnapshot {
        /// The bus cannot be reached.
        unavailable: "unavailable",
        /// The bus accepts nothing for now.
        refused: "refused",
        /// More is published than the bus accepts.
        throttled: "throttled",
        /// The envelope is above a limit of the bus.
        too_large: "too_large",
        /// The bus does not carry such envelopes.
        unsupported: "unsupported",
        /// The bus did not answer: it may have accepted it.
        outcome_unknown: "outcome_unknown",
    }
}

impl Refusals {
    pub(crate) fn count(&self, error: &ConnectError) {
        let counter = match error {
            ConnectError::Starting => &self.starting,
            ConnectError::Draining | ConnectError::BusDown => &self.draining,
            ConnectError::Kicked => &self.kicked,
            ConnectError::Full(_) => &self.node,
            ConnectError::TooManyOfUser(..) => &self.user,
            ConnectError::TooManyInCluster(..) => &self.cluster,
            ConnectError::TooManyOfToken(_) => &self.token,
            ConnectError::TooManyOfAddress(_) => &self.address,
            ConnectError::TooFast { .. } => &self.node_rate,
            ConnectError::TooFastOfAddress { .. } => &self.address_rate,
            ConnectError::Behind => &self.behind,
            // A fault of the application.
            ConnectError::TooManyWires(_) => return,
        };
        counter.add(1);
    }

    /// Counts a login that was refused, or that cannot be checked now.
    pub(crate) fn count_login(&self, is_unavailable: bool) {
        if is_unavailable { &self.login_unavailable } else { &self.login }.add(1);
    }

    /// Counts a page that may not connect.
    pub(crate) fn count_origin(&self) {
        self.origin.add(1);
    }
}

impl PublishFailures {
    pub(crate) fn count(&self, error: &BusError) {
        let counter = match error {
            BusError::Unavailable(_) => &self.unavailable,
            BusError::Refused(_) => &self.refused,
            BusError::Throttled(_) => &self.throttled,
            BusError::TooLarge(_) => &self.too_large,
            BusError::Unsupported(_) => &self.unsupported,
            BusError::OutcomeUnknown(_) => &self.outcome_unknown,
        };
        counter.add(1);
    }
}

impl Gaps {
    pub(crate) fn add(&self, gaps: &GapsSnapshot) {
        let GapsSnapshot { history, bus, cursor, overflow } = *gaps;
        self.history.add(history);
        self.bus.add(bus);
        self.cursor.add(cursor);
        self.overflow.add(overflow);
    }

    pub(crate) fn value(&self) -> u64 {
        self.snapshot().total()
    }
}

impl GapsSnapshot {
    pub(crate) fn count(&mut self, reason: GapReason) {
        *match reason {
            GapReason::History => &mut self.history,
            GapReason::Bus => &mut self.bus,
            GapReason::Cursor => &mut self.cursor,
            GapReason::Overflow => &mut self.overflow,
        } += 1;
    }

    pub(crate) fn total(&self) -> u64 {
        self.history + self.bus + self.cursor + self.overflow
    }
}

impl Recoveries {
    pub(crate) fn add(&self, recoveries: &RecoveriesSnapshot) {
        let RecoveriesSnapshot { restored, gap, no_cursor } = *recoveries;
        self.restored.add(restored);
        self.gap.add(gap);
        self.no_cursor.add(no_cursor);
    }
}

impl RecoveriesSnapshot {
    pub(crate) fn count(&mut self, recovered: Option<bool>) {
        *match recovered {
            Some(true) => &mut self.restored,
            Some(false) => &mut self.gap,
            None => &mut self.no_cursor,
        } += 1;
    }
}

impl OutboxSnapshot {
    /// Adds another part of the node's sessions.
    pub(crate) fn add(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.behind += other.behind;
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.max_frames = self.max_frames.max(other.max_frames);
        self.max_bytes = self.max_bytes.max(other.max_bytes);
        self.age = self.age.max(other.age);
    }
}

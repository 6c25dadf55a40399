//! [`Client`]: a client that knows only what it was sent, and comes back with it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use realtime_core::{
    CloseReason, Message, Position, Session, Topic, Transport, UserId,
    sim::Node,
    wire::{BusState, GapReason, Outbound, WireFormat},
};

/// Acknowledged messages: position and user.
pub(crate) type Acknowledged = BTreeMap<Position, i64>;

/// Condition under which a gap within an epoch is justified.
#[derive(Clone, Copy)]
pub(crate) enum Excuse<'a> {
    /// The nodes' windows are small, and forget what was for others as well.
    SmallWindow,
    /// The epochs of which Redis has trimmed something, or a node that started has left something out.
    Trimmed(&'a [u64]),
}

/// Frames as lines: `m <cursor> <text>`, `g <cursor> <reason>`, `h <cursor>`.
struct Lines;

fn text(cursor: Option<Position>) -> String {
    cursor.map_or_else(|| "-".to_owned(), |cursor| cursor.to_string())
}

impl WireFormat for Lines {
    fn name(&self) -> &'static str {
        "lines"
    }

    fn message(&self, message: &Message, _: Option<&Topic>, position: Option<Position>) -> Bytes {
        format!("m {} {}\n", text(position), message.data).into()
    }

    fn gap(
        &self,
        reason: GapReason,
        cursor: Option<Position>,
        _: Option<SystemTime>,
        _: Duration,
    ) -> Option<Bytes> {
        Some(format!("g {} {}\n", text(cursor), reason.name()).into())
    }

    fn heartbeat(&self, cursor: Option<Position>, _: BusState) -> Bytes {
        format!("h {}\n", text(cursor)).into()
    }

    fn answers_heartbeat(&self) -> bool {
        false
    }
}

pub(crate) struct Client {
    user: i64,
    pub(crate) session: Option<Session>,
    /// The node that it is connected to.
    pub(crate) node: usize,
    /// It knows where it begins on this connection.
    begun: bool,
    /// Cursor that it would come back with.
    cursor: Option<Position>,
    /// It has received everything up to here, or a gap.
    has: Option<Position>,
    /// A piece of a line.
    piece: String,
}

impl Client {
    pub(crate) fn new(user: i64) -> Self {
        Self { user, session: None, node: 0, begun: false, cursor: None, has: None, piece: String::new() }
    }

    pub(crate) fn connect(&mut self, node: usize, to: &Node) {
        let wire: Arc<dyn WireFormat> = Arc::new(Lines);
        let cursor = self.cursor.map(|cursor| cursor.to_string());
        let user = UserId::from(self.user);
        let session = to.connect(&user, Transport::new("sim"), &wire, cursor.as_deref()).unwrap();
        (self.session, self.node, self.begun) = (Some(session), node, false);
        self.piece.clear();
    }

    pub(crate) fn disconnect(&mut self) {
        self.session = None;
    }

    /// Consumes up to about `budget` bytes and checks each whole frame. Returns whether there were any.
    pub(crate) fn read(
        &mut self,
        mut budget: usize,
        acknowledged: &Acknowledged,
        excuse: Excuse<'_>,
    ) -> bool {
        let Some(session) = &mut self.session else { return false };
        let mut cx = Context::from_waker(Waker::noop());
        if !self.begun {
            let Poll::Ready(Some(begin)) = session.poll_begin(&mut cx) else { return false };
            self.begun = true;
            if let Some(cursor) = begin.cursor {
                assert!(self.cursor.is_none_or(|old| old <= cursor), "the cursor went back to {cursor}");
                self.cursor = Some(cursor);
                self.has.get_or_insert(cursor);
            }
        }
        let mut pending = 0;
        while budget > 0 && pending < 3 {
            match session.poll_next(&mut cx) {
                Poll::Ready(Outbound::Bytes(bytes)) => {
                    budget = budget.saturating_sub(bytes.len());
                    self.piece.push_str(str::from_utf8(&bytes).unwrap());
                    pending = 0;
                }
                Poll::Ready(Outbound::Close(CloseReason::Kicked)) => {
                    self.session = None;
                    break;
                }
                Poll::Ready(other) => panic!("{other:?}"),
                Poll::Pending => pending += 1,
            }
        }
        let whole = self.piece.rfind('\n').map_or(0, |end| end + 1);
        let lines: String = self.piece.drain(..whole).collect();
        for line in lines.lines() {
            self.check(line, acknowledged, excuse);
        }
        !lines.is_empty()
    }

    fn check(&mut self, line: &str, acknowledged: &Acknowledged, excuse: Excuse<'_>) {
        let mut words = line.split(' ');
        let (kind, cursor) = (words.next().unwrap(), words.next().unwrap());
        let Ok(cursor) = cursor.parse::<Position>() else { return assert_eq!(kind, "h", "{line}") };
        if kind == "g" && self.has.is_none() {
            // A worker that lags behind a small window doesn't know where a session begins, and sends a gap.
            (self.has, self.cursor) = (Some(cursor), Some(cursor));
            return;
        }
        let has = self.has.unwrap_or_else(|| panic!("{line} before the client knows where it begins"));
        match kind {
            "m" => {
                assert!(cursor > has, "{line}: it was behind {has} already");
                assert_eq!(
                    acknowledged.get(&cursor).copied().unwrap_or(self.user),
                    self.user,
                    "{line}: to another"
                );
                let before = Position { offset: cursor.offset.saturating_sub(1), ..cursor };
                self.nothing_between(has, before, acknowledged);
            }
            "h" => {
                assert!(cursor >= has, "{line}: it goes back from {has}");
                self.nothing_between(has, cursor, acknowledged);
            }
            _ => {
                assert!(cursor >= has, "{line}: it goes back from {has}");
                let excused = match excuse {
                    Excuse::SmallWindow => true,
                    Excuse::Trimmed(epochs) => epochs.contains(&has.epoch),
                };
                let true_gap = cursor.epoch != has.epoch || excused;
                assert!(true_gap, "{line}: nothing is missing behind {has}");
            }
        }
        (self.has, self.cursor) = (Some(cursor), Some(cursor));
    }

    /// Nothing that was acknowledged to this user was passed over.
    fn nothing_between(&self, after: Position, up_to: Position, acknowledged: &Acknowledged) {
        if up_to <= after {
            return;
        }
        let missing = acknowledged.range(after.next()..=up_to).find(|(_, user)| **user == self.user);
        assert_eq!(missing, None, "it is missing without a gap behind {after}");
    }

    /// Everything that was acknowledged to it has come.
    pub(crate) fn has_all(&self, acknowledged: &Acknowledged) {
        let has = self.has.expect("everybody has begun");
        let missing = acknowledged.range(has.next()..).find(|(_, user)| **user == self.user);
        assert_eq!(missing, None, "it never came behind {has}");
    }
}

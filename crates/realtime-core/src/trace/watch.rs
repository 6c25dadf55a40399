//! [`Watch`]: the traces that were on when a piece of work began.

use std::sync::Arc;

use super::{
    event::{TraceEvent, TraceKind, TraceTarget},
    ring::Ring,
};
use crate::{
    CloseReason, Envelope, Position, Topic, Transport, UserId,
    log::{Entry, LeftOut, tally::Recipient},
    session::state::SessionState,
    wire::GapReason,
};

/// The traces that were on when a piece of work, such as a pass, began.
#[derive(Debug, Clone)]
pub(crate) struct Watch(pub(super) Arc<[Arc<Ring>]>);

/// A message that was put into the outbox of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent<'a> {
    pub(crate) position: Option<Position>,
    pub(crate) envelope: &'a Envelope,
    /// Bytes that are behind it in the outbox.
    pub(crate) before_end: u64,
    pub(crate) replayed: bool,
}

impl Watch {
    /// Returns `true` if a trace follows the session's user.
    pub(crate) fn is_on(&self, session: &SessionState) -> bool {
        self.of(session).next().is_some()
    }

    fn of<'a>(&'a self, session: &'a SessionState) -> impl Iterator<Item = &'a Ring> {
        let is_meant = |ring: &&Arc<Ring>| match &ring.target {
            TraceTarget::User(user) => session.is_of(user.into()),
            TraceTarget::Topic(_) => false,
        };
        self.0.iter().filter(is_meant).map(Arc::as_ref)
    }

    /// The traces of a user, and those of topics.
    fn of_topics<'a>(&'a self, topics: &'a [Topic]) -> impl Iterator<Item = &'a Ring> {
        let is_meant = |ring: &&Arc<Ring>| match &ring.target {
            TraceTarget::User(_) => false,
            TraceTarget::Topic(topic) => topics.contains(topic),
        };
        self.0.iter().filter(is_meant).map(Arc::as_ref)
    }

    fn say<'a>(rings: impl Iterator<Item = &'a Ring>, event: impl Fn() -> TraceEvent) {
        for ring in rings {
            if ring.takes() {
                ring.record(event());
            }
        }
    }

    fn say_of(&self, session: &SessionState, event: impl Fn() -> TraceEvent) {
        Self::say(self.of(session), event);
    }

    /// A session was opened.
    pub(crate) fn connected(&self, session: &SessionState) {
        let topics = session.topics();
        let event = || TraceEvent { topics: topics.clone(), ..TraceEvent::of(TraceKind::Connect, session) };
        Self::say(self.of(session).chain(self.of_topics(&topics)), event);
    }

    /// A connection was refused.
    pub(crate) fn refused(&self, user: &UserId, transport: Option<Transport>, reason: &str, text: &str) {
        let is_meant = |ring: &&Arc<Ring>| matches!(&ring.target, TraceTarget::User(own) if own == user);
        let event = || TraceEvent {
            user_id: Some(user.clone()),
            transport: transport.map(|transport| transport.to_string()),
            detail: Some(text.to_owned()),
            ..TraceEvent::new(TraceKind::Refused).because(reason)
        };
        Self::say(self.0.iter().filter(is_meant).map(Arc::as_ref), event);
    }

    /// A session begins, behind a gap if there is one, and reads some entries of the log first.
    pub(crate) fn begun(&self, session: &SessionState, gap: Option<GapReason>, behind: u64) {
        self.say_of(session, || TraceEvent {
            position: session.begin().and_then(|begin| begin.cursor).map(|position| position.to_string()),
            reason: gap.map(|gap| gap.name().to_owned()),
            count: Some(behind),
            ..TraceEvent::of(TraceKind::Begin, session)
        });
    }

    /// A session was added to topics, or removed from them.
    pub(crate) fn moved(&self, session: &SessionState, kind: TraceKind, topics: &[Topic]) {
        if !topics.is_empty() {
            let event = || TraceEvent { topics: topics.to_vec(), ..TraceEvent::of(kind, session) };
            Self::say(self.of(session).chain(self.of_topics(topics)), event);
        }
    }

    /// The node received a message from the bus.
    pub(crate) fn received(&self, position: Option<Position>, envelope: &Envelope) {
        let is_meant = |ring: &&Arc<Ring>| {
            envelope.topics().iter().any(|topic| match &ring.target {
                TraceTarget::User(user) => topic.is_all() || topic.as_user() == Some(user.into()),
                TraceTarget::Topic(own) => topic == own,
            })
        };
        let event = || TraceEvent::new(TraceKind::Received).message(position, envelope);
        Self::say(self.0.iter().filter(is_meant).map(Arc::as_ref), event);
    }

    /// A message was put into the outbox of a session, or written at once.
    pub(crate) fn sent(&self, session: &Arc<SessionState>, sent: Sent<'_>) {
        let mut outbox = None;
        for ring in self.of(session) {
            if !ring.takes() {
                continue;
            }
            let backlog = *outbox.get_or_insert_with(|| session.outbox.backlog());
            let waiting = (backlog.bytes as u64).saturating_sub(sent.before_end);
            let kind = if waiting == 0 { TraceKind::Written } else { TraceKind::Queued };
            let event = TraceEvent {
                waiting: Some(waiting).filter(|bytes| *bytes > 0),
                replayed: sent.replayed,
                local: sent.position.is_none(),
                ..TraceEvent::of(kind, session).message(sent.position, sent.envelope)
            };
            if waiting > 0 {
                let followed = TraceEvent { waiting: None, ..event.clone() };
                ring.follow(Arc::clone(session) as Arc<dyn Recipient>, backlog.taken + waiting, followed);
            }
            ring.record(event);
        }
    }

    /// A message was not sent to a session.
    pub(crate) fn left_out(&self, session: &SessionState, entry: &Entry, reason: LeftOut) {
        let reason = match reason {
            LeftOut::Expired => "expired",
            LeftOut::Collapsed(_) => "collapsed",
            LeftOut::Dropped(_) => "droppedOldest",
        };
        self.dropped(session, entry, reason);
    }

    /// A message was not sent to a session.
    pub(crate) fn dropped(&self, session: &SessionState, entry: &Entry, reason: &str) {
        if let Some(envelope) = entry.envelope() {
            self.say_of(session, || {
                let event = TraceEvent::of(TraceKind::Dropped, session).because(reason);
                event.message(entry.position, envelope)
            });
        }
    }

    /// A session has no room for a message, and reads the log from there on.
    pub(crate) fn behind(&self, session: &SessionState, entry: &Entry) {
        if let Some(envelope) = entry.envelope() {
            self.say_of(session, || {
                TraceEvent::of(TraceKind::Behind, session).message(entry.position, envelope)
            });
        }
    }

    /// A session was sent what is kept for newcomers of its topics.
    pub(crate) fn initial(&self, session: &SessionState, sent: usize, dropped: usize) {
        if sent + dropped > 0 {
            self.say_of(session, || TraceEvent {
                count: Some(sent as u64),
                behind: Some(dropped as u64).filter(|dropped| *dropped > 0),
                ..TraceEvent::of(TraceKind::Initial, session)
            });
        }
    }

    /// A session that read the log has caught up.
    pub(crate) fn live(&self, session: &SessionState) {
        self.say_of(session, || TraceEvent::of(TraceKind::Live, session));
    }

    /// A gap was announced to a session, if its format has gaps.
    pub(crate) fn gap(&self, session: &SessionState, reason: GapReason, is_told: bool) {
        self.say_of(session, || TraceEvent {
            detail: (!is_told).then(|| "the format of this session has no notice of a gap".to_owned()),
            ..TraceEvent::of(TraceKind::Gap, session).because(reason.name())
        });
    }

    /// A session has ended that was in these topics.
    pub(crate) fn closed(&self, session: &SessionState, topics: &[Topic], reason: CloseReason) {
        Self::say(self.of(session).chain(self.of_topics(topics)), || TraceEvent::ended(session, reason));
    }

    /// A worker has handed consecutive messages to the sessions of their topics.
    pub(crate) fn fanned_out(&self, run: &[Arc<Entry>], sessions: u64, behind: u64) {
        if sessions + behind > 0
            && let Some(last) = run.last()
            && let Some(envelope) = last.envelope()
        {
            Self::say(self.of_topics(envelope.topics()), || TraceEvent {
                count: Some(run.len() as u64),
                sessions: Some(sessions),
                behind: Some(behind).filter(|behind| *behind > 0),
                ..TraceEvent::new(TraceKind::Fanout).message(last.position, envelope)
            });
        }
    }
}

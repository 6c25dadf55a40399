//! The last messages of the history that were for a user.

use std::time::Instant;

use super::report::{ExplainedMessage, ExplainedNode, ExplainedSession, MessageState, Reached};
use crate::{
    Envelope, Position, Scope, Topic, UserId,
    log::{Content, Entry, LeftOut, Log},
};

/// Number of entries that are read at once.
const CHUNK: u64 = 1024;

/// The last messages of the history, up to `most`, that were for a user with these sessions on these nodes, newest first.
/// Gaps of the bus are among them.
pub(crate) fn messages(
    log: &Log,
    user: &UserId,
    nodes: &[ExplainedNode],
    sessions: &[ExplainedSession],
    most: usize,
) -> Vec<ExplainedMessage> {
    let own = Topic::user(user);
    let sessions: Vec<_> = sessions.iter().map(|session| (session, is_ahead(log, nodes, session))).collect();
    let concerns = |topic: &&Topic| {
        topic.is_all()
            || **topic == own
            || sessions.iter().any(|(session, _)| session.topics.iter().any(|named| named == topic.as_str()))
    };
    let (mut found, mut end) = (Vec::new(), log.end());
    while end > 0 && found.len() < most {
        let begin = end.saturating_sub(CHUNK);
        let read = log.read(begin, usize::try_from(end - begin).unwrap_or_default());
        let left = end.saturating_sub(read.first);
        for entry in read.entries.iter().take(usize::try_from(left).unwrap_or_default()).rev() {
            let told = match &entry.content {
                Content::Envelope(envelope) => {
                    envelope.topics().iter().find(concerns).map(|topic| of(entry, envelope, topic, &sessions))
                }
                Content::Gap(reason) => Some(ExplainedMessage {
                    gap: Some(reason.name().to_owned()),
                    state: None,
                    ..empty(entry)
                }),
                Content::Skip => None,
            };
            found.extend(told);
            if found.len() >= most {
                break;
            }
        }
        if read.first > begin {
            break;
        }
        end = begin;
    }
    found
}

fn empty(entry: &Entry) -> ExplainedMessage {
    let age = Instant::now().saturating_duration_since(entry.at());
    ExplainedMessage {
        position: entry.position.map(|position| position.to_string()),
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        gap: None,
        id: None,
        topic: None,
        topics: 0,
        transport: None,
        event: None,
        bytes: 0,
        state: None,
        sessions: Vec::new(),
    }
}

/// Whether a session's node had read more of the bus than this log: it may have known a newer message that replaces one.
fn is_ahead(log: &Log, nodes: &[ExplainedNode], session: &ExplainedSession) -> bool {
    let report = nodes.iter().find(|node| node.node == session.node).and_then(|node| node.report.as_ref());
    report.and_then(|report| parse(report.position.as_ref())) > log.cursor()
}

fn parse(position: Option<&String>) -> Option<Position> {
    position?.parse().ok()
}

/// A message, with each session and whether its node [is ahead](is_ahead).
fn of(
    entry: &Entry,
    envelope: &Envelope,
    topic: &Topic,
    sessions: &[(&ExplainedSession, bool)],
) -> ExplainedMessage {
    let left_out = entry.left_out();
    let reached = entry.position.map(|position| {
        let reached = |&(session, is_ahead): &(&ExplainedSession, bool)| Reached {
            session_id: session.session_id.clone(),
            state: state(envelope, position, session, left_out.is_some() || is_ahead),
        };
        sessions.iter().map(reached).collect()
    });
    ExplainedMessage {
        id: envelope.id().map(|id| id.as_str().to_owned()),
        topic: Some(topic.as_str().to_owned()),
        topics: envelope.topics().len(),
        transport: match envelope.scope() {
            Scope::Both => None,
            Scope::Only(transport) => Some(transport.to_string()),
        },
        event: Some(envelope.message().event.as_str().to_owned()),
        bytes: envelope.message().data.as_bytes().len(),
        state: Some(match left_out {
            None => MessageState::Current,
            Some(LeftOut::Expired) => MessageState::Expired,
            Some(LeftOut::Collapsed(_)) => MessageState::Collapsed,
            Some(LeftOut::Dropped(_)) => MessageState::DroppedOldest,
        }),
        sessions: reached.unwrap_or_default(),
        ..empty(entry)
    }
}

/// How far an envelope, which may have been left out, has got in a session.
fn state(
    envelope: &Envelope,
    position: Position,
    session: &ExplainedSession,
    may_be_left_out: bool,
) -> &'static str {
    let Some(outbox) = session.outbox else { return "unknown" };
    let is_in = |topic: &Topic| topic.is_all() || session.topics.iter().any(|named| named == topic.as_str());
    if matches!(envelope.scope(), Scope::Only(only) if only.as_str() != session.transport) {
        "otherTransport"
    } else if envelope.excluded().is_some_and(|id| id.to_string() == session.session_id) {
        "excluded"
    } else if !envelope.topics().iter().any(is_in) {
        "otherTopics"
    } else if parse(session.from.as_ref()) >= Some(position) {
        "before"
    } else if parse(session.served_up_to.as_ref()) < Some(position) {
        "waiting"
    } else if may_be_left_out && session.left_out > 0 {
        "servedOrLeftOut"
    } else if outbox.bytes > 0 {
        "queued"
    } else {
        "written"
    }
}

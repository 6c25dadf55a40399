//! [`Request`]: a message as the HTTP API takes it.

use std::{num::NonZeroU16, time::Duration};

use anyhow::{Context, bail};
use clap::ValueEnum;
use realtime_core::{
    CollapseKey, Envelope, EnvelopeId, EventName, Message, Scope, SessionId, SlowPolicy, Topic, Transport,
    UserId,
};
use serde::Deserialize;

/// A message with its target and options: the body of `POST /api/publish`, without `confirm`.
///
/// Writers of JSON in Java send `null` for what is absent, so every optional field is an `Option`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Request {
    pub(crate) transport: Option<TransportName>,
    pub(crate) user_ids: Option<Vec<UserId>>,
    pub(crate) broadcast: Option<bool>,
    pub(crate) topics: Option<Vec<Topic>>,
    pub(crate) message: String,
    pub(crate) event: Option<EventName>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) except_session: Option<SessionId>,
    /// Milliseconds.
    pub(crate) ttl: Option<u64>,
    pub(crate) collapse_key: Option<String>,
    pub(crate) drop_oldest: Option<DropOldest>,
    pub(crate) retain: Option<bool>,
}

#[derive(Clone, Copy, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TransportName {
    #[value(name = "websocket")]
    WebSocket,
    Sse,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DropOldest {
    class: String,
    keep: NonZeroU16,
}

impl Request {
    /// The envelope.
    pub(crate) fn envelope(self) -> anyhow::Result<Envelope> {
        let scope = match self.transport {
            None => Scope::Both,
            Some(TransportName::WebSocket) => Scope::Only(Transport::new("websocket")),
            Some(TransportName::Sse) => Scope::Only(Transport::new("sse").text_only()),
        };
        let message = Message::new(self.event.unwrap_or_default(), self.message);
        let mut envelope = match (self.user_ids, self.broadcast.unwrap_or_default(), self.topics) {
            (Some(users), false, None) => Envelope::to_users(&users, scope, message).context("userIds")?,
            (None, false, Some(topics)) => Envelope::to_topics(topics, scope, message).context("topics")?,
            (None, true, None) => Envelope::broadcast(scope, message),
            (None, false, None) => bail!("a target is missing: one of userIds, topics, \"broadcast\": true"),
            _ => bail!("only one of userIds, topics and \"broadcast\": true can be the target"),
        };
        if let Some(session) = self.except_session {
            envelope = envelope.except(session);
        }
        if let Some(key) = self.idempotency_key {
            envelope = envelope.with_id(EnvelopeId::new(&key).context("idempotencyKey")?);
        }
        match self.ttl {
            Some(0) => bail!("ttl: must be at least 1"),
            Some(ttl) => envelope = envelope.with_ttl(Duration::from_millis(ttl)),
            None => {}
        }
        match (self.collapse_key, self.drop_oldest) {
            (None, None) => {}
            (Some(key), None) => envelope = envelope.collapse(CollapseKey::new(&key).context("collapseKey")?),
            (None, Some(DropOldest { class, keep })) => {
                let class = CollapseKey::new(&class).context("dropOldest.class")?;
                envelope = envelope.when_slow(SlowPolicy::DropOldest { class, keep });
            }
            (Some(_), Some(_)) => bail!("only one of collapseKey and dropOldest can be given"),
        }
        Ok(if self.retain.unwrap_or_default() { envelope.retain() } else { envelope })
    }
}

//! [`Greeting`]: what a client asks to be told when its stream begins.

use std::time::Duration;

use bytes::Bytes;
use realtime_core::{
    EventName, Session, Topic,
    auth::{Handshake, RefusedTopic, TopicDecision, Unclear},
    wire::Begin,
};
use serde::Serialize;

use super::format;

/// What a client asks to be told when its stream begins, and the topics that it asked for.
#[derive(Debug)]
pub(crate) struct Greeting {
    /// It asked for the event `realtime.hello`.
    hello: bool,
    topics: Option<TopicDecision>,
    ping_interval: Duration,
}

/// Data of the event `realtime.hello`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Hello<'a> {
    session: String,
    recovered: Option<bool>,
    /// Milliseconds, as are all times.
    ping_interval: u128,
    expires_in: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribed: Option<&'a [Topic]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'a [RefusedTopic]>,
}

/// Data of the event `realtime.refused`.
#[derive(Serialize)]
struct Refused<'a> {
    refused: &'a [RefusedTopic],
}

impl Greeting {
    /// The greeting that a request asks for; `None` for most, whose streams are as they always were.
    pub(crate) fn of(
        handshake: &Handshake,
        topics: Option<TopicDecision>,
        ping_interval: Duration,
    ) -> Result<Option<Self>, Unclear> {
        let hello = handshake.query_only("hello")? == Some("1");
        let refuses = topics.as_ref().is_some_and(|topics| !topics.refused.is_empty());
        Ok((hello || refuses).then_some(Self { hello, topics, ping_interval }))
    }

    /// The block that tells it.
    pub(crate) fn block(&self, session: &Session, begin: Begin) -> Bytes {
        let topics = self.topics.as_ref();
        let refused = topics.map(|topics| &topics.refused[..]);
        if !self.hello {
            let refused = Refused { refused: refused.unwrap_or_default() };
            return format::event(EventName::REFUSED, &refused);
        }
        let handle = session.handle();
        let hello = Hello {
            session: handle.id().to_string(),
            recovered: begin.recovered,
            ping_interval: self.ping_interval.as_millis(),
            expires_in: handle.expires_in().map(|left| left.as_millis()),
            subscribed: topics.map(|topics| &topics.granted[..]),
            refused,
        };
        format::event(EventName::HELLO, &hello)
    }
}

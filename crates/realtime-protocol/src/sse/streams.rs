//! [`Streams`]: opens the streams of a hub.

use std::{fmt, sync::Arc, time::Duration};

use realtime_core::{
    Hub, Position, Principal, Topic,
    auth::Handshake,
    error::ConnectError,
    wire::{Admission, ConnectTopics, WireFormat},
};
use tokio::time::timeout;

use super::{
    connection::SseConnection,
    format::{Framing, RETRY, SseFormat, TRANSPORT},
    greeting::Greeting,
    refusal::OpenError,
};
use crate::start::START;

/// Opener of streams, in both framings.
#[derive(Clone)]
#[non_exhaustive]
pub struct Streams {
    plain: Arc<dyn WireFormat>,
    chunked: Arc<dyn WireFormat>,
    /// Time after which a client reconnects when its stream breaks.
    pub retry: Duration,
}

/// What a request asks for besides a stream.
#[derive(Debug, Default)]
struct Asked {
    /// Topics that its client may be in.
    topics: Vec<Topic>,
    /// Those of them whose history begins behind a position.
    after: Vec<(Topic, Position)>,
    fresh: Vec<Topic>,
    greeting: Option<Greeting>,
}

/// Minimum age of the streams that a close request ends: when a page is reloaded, the close request of the old page may
/// arrive after the new page's stream.
pub const SPARE: Duration = Duration::from_secs(2);

impl Default for Streams {
    fn default() -> Self {
        Self::new(RETRY)
    }
}

impl Streams {
    /// Opener of streams whose clients reconnect after `retry`.
    pub fn new(retry: Duration) -> Self {
        let [plain, chunked] =
            [Framing::Plain, Framing::Chunked].map(|framing| Arc::new(SseFormat(framing)) as Arc<_>);
        Self { plain, chunked, retry }
    }

    /// Opens a stream for a principal, from the client's cursor on.
    ///
    /// # Errors
    /// [`ConnectError`] when the hub refuses the connection.
    pub fn open(
        &self,
        hub: &Hub,
        framing: Framing,
        admission: Admission,
        principal: Principal,
        cursor: Option<&str>,
    ) -> Result<SseConnection, ConnectError> {
        self.open_asked(hub, framing, admission, principal, cursor, Asked::default())
    }

    /// Opens a stream for a principal with all that its request asks for. It waits for a starting node, and until the
    /// session has begun, for a bounded time. `framing` is asked for once nothing but the hub can refuse it.
    ///
    /// # Errors
    /// [`OpenError`] when the hub refuses the connection, or a parameter of the request has no single value.
    pub async fn open_request(
        &self,
        hub: &Hub,
        framing: impl FnOnce() -> Framing,
        admission: Admission,
        principal: Principal,
        request: &Handshake,
    ) -> Result<SseConnection, OpenError> {
        // A starting node does not know yet which logins were kicked; mostly it will in a moment.
        timeout(START, hub.started()).await.ok();
        let admission = hub.admit_user(admission, &principal.user).await?;
        let asked = Asked::of(hub, request, &principal).await?;
        let stream = self.open_asked(hub, framing(), admission, principal, request.cursor(), asked)?;
        hub.wait_until_begun(stream.session(), START).await?;
        Ok(stream)
    }

    fn open_asked(
        &self,
        hub: &Hub,
        framing: Framing,
        admission: Admission,
        principal: Principal,
        cursor: Option<&str>,
        asked: Asked,
    ) -> Result<SseConnection, ConnectError> {
        let wire = match framing {
            Framing::Plain => &self.plain,
            Framing::Chunked => &self.chunked,
        };
        let mut topics = ConnectTopics::new(&asked.topics, &asked.fresh);
        topics.after = &asked.after;
        let session = hub.connect_admitted(admission, principal, TRANSPORT, wire, cursor, &topics)?;
        Ok(SseConnection::new(session, self.retry, framing, asked.greeting.map(Box::new)))
    }
}

impl Asked {
    /// Reads what a request asks for, and decides which topics its client may be in.
    async fn of(hub: &Hub, request: &Handshake, principal: &Principal) -> Result<Self, OpenError> {
        let topics = match request.topics()? {
            Some(names) => Some(hub.decide_topics(principal, &principal.topics, names).await),
            None => None,
        };
        let decision = topics.clone().unwrap_or_default();
        Ok(Self {
            fresh: request.fresh_topics(principal)?,
            greeting: Greeting::of(request, topics, hub.settings().heartbeat.interval)?,
            topics: decision.granted,
            after: decision.after,
        })
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").field("retry", &self.retry).finish_non_exhaustive()
    }
}

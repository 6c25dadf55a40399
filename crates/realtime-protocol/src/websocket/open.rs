//! [`Endpoint::open`]: turns a request into a session.

use std::sync::Arc;

use realtime_core::{
    Principal,
    auth::{Handshake, Unclear},
    error::ConnectError,
    wire::{Admission, ConnectTopics},
};
use tokio::time::timeout;

use super::{
    connection::WebSocketConnection,
    endpoint::Endpoint,
    protocol::{Protocol, TRANSPORT},
};
use crate::start::START;

/// Error of a request that is not upgraded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The request does not offer a WebSocket, or not only that.
    #[error("this is a WebSocket endpoint: it needs the header `Upgrade: websocket`, with this value alone")]
    UpgradeRequired,
    /// The handshake is not valid.
    #[error("{0}")]
    Handshake(String),
    /// The hub refused the connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

impl OpenError {
    /// HTTP status of the response.
    pub fn status(&self) -> u16 {
        match self {
            Self::Handshake(_) => 400,
            Self::UpgradeRequired => 426,
            Self::Connect(error) => error.status(),
        }
    }
}

impl From<Unclear> for OpenError {
    fn from(error: Unclear) -> Self {
        Self::Handshake(error.to_string())
    }
}

impl Endpoint {
    /// Opens a session for a principal, from the client's cursor on, in the topics that the request asks for.
    ///
    /// # Errors
    /// [`OpenError`] when the hub refuses the connection, or a parameter of the request has no single value.
    pub async fn open(
        self: &Arc<Self>,
        protocol: Protocol,
        request: &Handshake,
        admission: Admission,
        principal: Principal,
        cursor: Option<&str>,
    ) -> Result<WebSocketConnection, OpenError> {
        let (wire, cursor) = match protocol {
            // Raw clients have no cursor.
            Protocol::Raw => (&self.raw, None),
            Protocol::V1 => (&self.v1, cursor),
        };
        // A starting node does not know yet which logins were kicked; mostly it will in a moment.
        timeout(START, self.hub.started()).await.ok();
        let hub = &self.hub;
        let admission = hub.admit_user(admission, &principal.user).await?;
        let fresh = request.fresh_topics(&principal)?;
        let topics = match request.topics()? {
            Some(names) => Some(hub.decide_topics(&principal, &principal.topics, names).await),
            None => None,
        };
        let granted = match &topics {
            Some(topics) => ConnectTopics::decided(topics, &fresh),
            None => ConnectTopics::new(&[], &fresh),
        };
        let session = hub.connect_admitted(admission, principal, TRANSPORT, wire, cursor, &granted)?;
        hub.wait_until_begun(&session, START).await?;
        Ok(WebSocketConnection::new(session, protocol, Arc::clone(self), topics))
    }
}

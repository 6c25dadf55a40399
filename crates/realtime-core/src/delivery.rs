//! [`Confirmation`]: how far a published envelope has got on each node.

use serde::{Deserialize, Serialize};

use crate::Position;

/// Answer of [`Hub::publish_and_confirm`](crate::Hub::publish_and_confirm).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Confirmation {
    /// The envelope's position.
    pub position: Position,
    /// The nodes that have answered.
    pub nodes: Vec<NodeDelivery>,
    /// Live nodes that have not answered in time, or have not received the envelope by then.
    pub missing: Vec<String>,
}

/// Delivery of an envelope on the nodes of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryReport {
    /// The nodes that have answered, by name.
    pub nodes: Vec<NodeDelivery>,
    /// Live nodes that have not answered in time, or cannot tell.
    pub missing: Vec<String>,
}

/// Delivery of an envelope on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDelivery {
    /// The node's name.
    pub node: String,
    /// Its sessions.
    #[serde(flatten)]
    pub delivery: Delivery,
}

/// Numbers of the sessions that an envelope is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Sessions that the envelope was for when their worker reached it. A session that connects later and is replayed the
    /// envelope is not among them.
    pub sessions: usize,
    /// Those of them whose outbox has accepted it. The others read too slowly and have yet to reach it, or have ended.
    pub queued: usize,
    /// Those of them whose socket has accepted it to the last byte. It is on its way to the client then; only the client
    /// can tell that it has arrived. Where the HTTP dispatcher writes the response, the last 8 KiB may still be in its
    /// buffer.
    pub written: usize,
}

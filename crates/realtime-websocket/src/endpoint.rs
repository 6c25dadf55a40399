//! [`Endpoint`]: the state that connections share.

use std::sync::Arc;

use realtime_core::{Hub, wire::WireFormat};

use crate::{InboundHandler, protocol::Protocol};

/// State that connections share.
pub(crate) struct Endpoint {
    pub(crate) hub: Hub,
    pub(crate) inbound: Arc<dyn InboundHandler>,
    pub(crate) raw: Arc<dyn WireFormat>,
    pub(crate) v1: Arc<dyn WireFormat>,
}

impl Endpoint {
    pub(crate) fn new(hub: Hub, inbound: Arc<dyn InboundHandler>) -> Self {
        Self { hub, inbound, raw: Protocol::Raw.wire(), v1: Protocol::V1.wire() }
    }
}

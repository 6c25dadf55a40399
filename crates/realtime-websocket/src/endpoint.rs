//! [`Endpoint`]: the state that connections share.

use std::sync::Arc;

use realtime_core::{Authenticator, Hub, wire::WireFormat};

use crate::{InboundHandler, protocol::Protocol};

/// State that connections share.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) hub: Hub,
    pub(crate) inbound: Arc<dyn InboundHandler>,
    /// Checks the tokens by which clients renew their logins.
    pub(crate) authenticator: Option<Arc<dyn Authenticator>>,
    pub(crate) raw: Arc<dyn WireFormat>,
    pub(crate) v1: Arc<dyn WireFormat>,
}

impl Endpoint {
    pub(crate) fn new(hub: Hub, inbound: Arc<dyn InboundHandler>) -> Self {
        Self { hub, inbound, authenticator: None, raw: Protocol::Raw.wire(), v1: Protocol::V1.wire() }
    }
}

//! [`Endpoint`]: the state that connections share.

use std::sync::Arc;

use realtime_core::{Authenticator, Hub, auth::TrustedProxies, wire::WireFormat};

use crate::{InboundHandler, protocol::Protocol};

/// State that connections share.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) hub: Hub,
    pub(crate) inbound: Arc<dyn InboundHandler>,
    /// Checks the tokens by which clients renew their logins.
    pub(crate) authenticator: Option<Arc<dyn Authenticator>>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) raw: Arc<dyn WireFormat>,
    pub(crate) v1: Arc<dyn WireFormat>,
}

impl Endpoint {
    pub(crate) fn new(hub: Hub, inbound: Arc<dyn InboundHandler>) -> Self {
        Self {
            hub,
            inbound,
            authenticator: None,
            trusted_proxies: TrustedProxies::default(),
            raw: Protocol::Raw.wire(),
            v1: Protocol::V1.wire(),
        }
    }
}

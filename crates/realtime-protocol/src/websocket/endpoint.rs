//! [`Endpoint`]: the state that connections share.

use std::{fmt, sync::Arc};

use realtime_core::{Authenticator, Hub, auth::TrustedProxies, wire::WireFormat};

use super::{inbound::InboundHandler, protocol::Protocol};

/// State that connections share.
#[derive(Clone)]
#[non_exhaustive]
pub struct Endpoint {
    /// The hub that connections are sessions of.
    pub hub: Hub,
    /// Handler of the clients' texts.
    pub inbound: Arc<dyn InboundHandler>,
    /// Checks the tokens by which clients renew their logins.
    pub authenticator: Option<Arc<dyn Authenticator>>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    pub(crate) raw: Arc<dyn WireFormat>,
    pub(crate) v1: Arc<dyn WireFormat>,
}

impl Endpoint {
    /// State without an authenticator, that believes no proxy.
    pub fn new(hub: Hub, inbound: Arc<dyn InboundHandler>) -> Self {
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

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("hub", &self.hub).finish_non_exhaustive()
    }
}

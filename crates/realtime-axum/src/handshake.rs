//! [`handshake`]: a request as an authenticator sees it.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, RawPathParams},
    http::{header, request::Parts},
};
use realtime_core::{
    Transport,
    auth::{Extensions, Handshake},
};

/// Extension of requests that came over TLS which ends in this server: `Router::layer(Extension(OverTls))`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverTls;

/// A request as an [`Authenticator`](realtime_core::Authenticator) sees it: with its path parameters, its peer
/// (`ConnectInfo`), and what layers have left in it ([`Extensions`]). Both transports have it with their own name; other
/// handlers give one, such as `http`.
///
/// `Host` is that of the request's target where it has one, as in HTTP/2 (RFC 9112, section 3.2.2; RFC 9113, section 8.3.1).
pub fn handshake(transport: Transport, request: &Parts, params: &RawPathParams) -> Handshake {
    let target = request.uri.authority().map(|host| (header::HOST.as_str(), host.as_str().as_bytes()));
    let headers = request.headers.iter().filter(|(name, _)| target.is_none() || **name != header::HOST);
    let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes())).chain(target);
    let peer = request.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0);
    let query = request.uri.query().unwrap_or_default();
    let handshake = Handshake::new(transport, query, headers, peer).with_params(params);
    let handshake = match request.extensions.get::<OverTls>() {
        Some(OverTls) => handshake.over_tls(),
        None => handshake,
    };
    match request.extensions.get::<Extensions>() {
        Some(extensions) => handshake.with_extensions(extensions.clone()),
        None => handshake,
    }
}

//! [`Client`]: the address that a request comes from.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use actix_web::HttpRequest;
use realtime_core::{Transport, auth::TrustedProxies};

/// What requests that are no connections come by.
pub(crate) const HTTP: Transport = Transport::new("http");

/// The client's address, behind proxies that the configuration trusts; `None` without one. Of an IPv6 address it is the
/// network of 64 bits, since a client has all addresses of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Client(Option<IpAddr>);

impl Client {
    fn new(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            address @ IpAddr::V4(_) => address,
        }))
    }

    /// The client of a request.
    pub(crate) fn of(request: &HttpRequest, proxies: &TrustedProxies) -> Self {
        Self::new(realtime_server::handshake(HTTP, request).behind(proxies).client_ip())
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let client = |text: &str| Client::new(Some(text.parse().unwrap()));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:0:0:2"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }
}

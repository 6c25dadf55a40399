//! [`LoginSource`]: the place of a login in a request.

/// Place in a request that its login was taken from; see [`Handshake::login_source`](super::Handshake::login_source).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoginSource {
    /// The query parameter `Authorization`.
    Query,
    /// The header `Authorization`.
    Header,
    /// An entry of `Sec-WebSocket-Protocol`.
    Subprotocol,
    /// A cookie.
    Cookie,
    /// A single-use ticket.
    Ticket,
    /// A message over an open connection.
    Message,
}

impl LoginSource {
    /// Returns `true` for a login that browsers add to requests of any page, so that the request proves nothing about the
    /// page that made it: the page's origin has to be checked, for requests that are no WebSocket as well (RFC 6265,
    /// section 8.2).
    pub fn is_ambient(self) -> bool {
        self == Self::Cookie
    }
}

//! [`Authenticator`]: who may connect, and what it is told about the request.

use std::{fmt, net::SocketAddr, sync::Arc, time::SystemTime};

use futures_core::future::BoxFuture;
use sha2::{Digest, Sha256};

use crate::{Topic, Transport, UserId};

/// Decides who a connection belongs to, before anything is upgraded or streamed.
///
/// It is called once per connection, on the worker that serves it, so it must not block the thread.
pub trait Authenticator: Send + Sync + 'static {
    /// The principal of the request.
    ///
    /// # Errors
    /// [`AuthError::Unauthorized`] for a bad or missing login, [`AuthError::Forbidden`] for a login that may not
    /// connect, [`AuthError::Unavailable`] when the answer cannot be had now.
    fn authenticate<'a>(&'a self, handshake: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>>;
}

/// Whom a session belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user.
    pub user: UserId,
    /// The kind of application (`clientid`): shared by all browsers of a kind, no device.
    pub client_id: Option<String>,
    /// Which login it is.
    pub token: TokenHash,
    /// When the login began, where that is known.
    pub issued_at: Option<SystemTime>,
    /// When the login ends; its sessions end with it.
    pub expires_at: Option<SystemTime>,
    /// Named topics that its sessions are in from the start.
    pub topics: Vec<Topic>,
    /// The login itself, kept where it has to be looked up again while its sessions live.
    pub credential: Option<Credential>,
}

impl Principal {
    /// A user with a token, and no client id, end or named topics.
    pub fn new(user: UserId, token: &str) -> Self {
        Self {
            user,
            client_id: None,
            token: TokenHash::of(token),
            issued_at: None,
            expires_at: None,
            topics: Vec::new(),
            credential: None,
        }
    }
}

/// A token that is kept. Its `Debug` output does not show it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credential(Arc<str>);

impl Credential {
    /// Keeps a token.
    pub fn new(token: &str) -> Self {
        Self(token.into())
    }

    /// The token.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

/// The first 128 bits of a token's SHA-256: tells tokens apart without keeping them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 16]);

impl TokenHash {
    /// The hash of a token.
    pub fn of(token: &str) -> Self {
        let digest = Sha256::digest(token.as_bytes());
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        Self(hash)
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to tell two apart in a log, too little to look one up.
        write!(f, "TokenHash({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// Why a connection was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No login, or one that is not valid.
    #[error("{0}")]
    Unauthorized(String),
    /// A valid login that may not connect.
    #[error("{0}")]
    Forbidden(String),
    /// Nobody can say now: the store of logins is away.
    #[error("{0}")]
    Unavailable(String),
}

impl AuthError {
    /// The HTTP status that goes with it: 401, 403 or 503.
    pub fn status(&self) -> u16 {
        match self {
            Self::Unauthorized(_) => 401,
            Self::Forbidden(_) => 403,
            Self::Unavailable(_) => 503,
        }
    }
}

/// The request that asks for a connection, as an [`Authenticator`] sees it.
///
/// It owns what it shows, and it does not show itself: its `Debug` output has no token in it.
#[derive(Clone)]
pub struct Handshake {
    transport: Transport,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    peer: Option<SocketAddr>,
}

impl Handshake {
    /// The query parameter and header that carry the token.
    pub const AUTHORIZATION: &'static str = "Authorization";
    /// The query parameter and header that carry the client id.
    pub const CLIENT_ID: &'static str = "clientid";

    /// A handshake from a request's raw query string and headers. A header that is not text is left out.
    pub fn new<'a>(
        transport: Transport,
        query: &str,
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        peer: Option<SocketAddr>,
    ) -> Self {
        let headers = headers
            .into_iter()
            .filter_map(|(name, value)| {
                Some((name.to_ascii_lowercase(), std::str::from_utf8(value).ok()?.to_owned()))
            })
            .collect();
        let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Self { transport, query, headers, peer }
    }

    /// Which transport is asked for.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The address at the other end of the socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The first query parameter of that name, decoded.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first header of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The raw `Authorization`: a parameter that is not empty beats the header, as in Sa-Token.
    pub fn authorization(&self) -> Option<&str> {
        self.query(Self::AUTHORIZATION)
            .filter(|value| !value.is_empty())
            .or_else(|| self.header(Self::AUTHORIZATION))
            .filter(|value| !value.is_empty())
    }

    /// The token: [`Self::authorization`] without a leading `Bearer `.
    pub fn token(&self) -> Option<&str> {
        let value = self.authorization()?;
        let bare = match value.split_at_checked(7) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer ") => rest,
            _ => value,
        };
        Some(bare.trim()).filter(|token| !token.is_empty())
    }

    /// Where a returning client stands: `Last-Event-ID`, else `lastEventId` or `cursor` in the query.
    pub fn cursor(&self) -> Option<&str> {
        self.header("Last-Event-ID")
            .or_else(|| self.query("lastEventId"))
            .or_else(|| self.query("cursor"))
            .filter(|cursor| !cursor.is_empty())
    }

    /// Checks the client id against the one in the token: either of the two that the request may carry (query,
    /// header) has to be it.
    ///
    /// # Errors
    /// [`AuthError::Unauthorized`] when one was given and none equals `expected`, or when none was given though
    /// `policy` asks for one.
    pub fn check_client_id(&self, expected: Option<&str>, policy: ClientIdPolicy) -> Result<(), AuthError> {
        let unauthorized = |problem: &str| Err(AuthError::Unauthorized(problem.to_owned()));
        let given = [self.header(Self::CLIENT_ID), self.query(Self::CLIENT_ID)];
        let mut given = given.into_iter().flatten().filter(|id| !id.is_empty()).peekable();
        if given.peek().is_none() {
            return match policy {
                ClientIdPolicy::Optional => Ok(()),
                ClientIdPolicy::Required => unauthorized("clientid is missing"),
            };
        }
        if given.any(|id| Some(id) == expected) {
            Ok(())
        } else {
            unauthorized("clientid does not match the token")
        }
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("transport", &self.transport)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Whether a request has to name its client id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientIdPolicy {
    /// It is checked when given. The seed's SSE snippet sends none.
    #[default]
    Optional,
    /// It must be given.
    Required,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(query: &str, headers: &[(&str, &str)]) -> Handshake {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        Handshake::new(Transport::new("sse"), query, headers, None)
    }

    #[test]
    fn the_token_comes_bare_or_as_bearer_and_the_parameter_beats_the_header() {
        for (query, header, token) in [
            ("Authorization=Bearer%20T", None, Some("T")),
            ("Authorization=bearer+T", None, Some("T")),
            ("Authorization=T", Some("Bearer H"), Some("T")),
            ("Authorization=", Some("Bearer H"), Some("H")),
            ("", Some("H"), Some("H")),
            ("Authorization=Bearer%20", None, None),
            ("", None, None),
        ] {
            let headers: Vec<_> = header.map(|value| ("authorization", value)).into_iter().collect();
            assert_eq!(handshake(query, &headers).token(), token, "{query} {header:?}");
        }
    }

    #[test]
    fn either_client_id_may_be_the_tokens() {
        let both = handshake("clientid=a", &[("ClientId", "b")]);
        for (expected, ok) in [(Some("a"), true), (Some("b"), true), (Some("c"), false), (None, false)] {
            assert_eq!(both.check_client_id(expected, ClientIdPolicy::Optional).is_ok(), ok, "{expected:?}");
        }
        let none = handshake("", &[]);
        assert!(none.check_client_id(Some("a"), ClientIdPolicy::Optional).is_ok());
        assert!(none.check_client_id(Some("a"), ClientIdPolicy::Required).is_err());
    }

    #[test]
    fn the_header_cursor_beats_the_query() {
        assert_eq!(handshake("cursor=1.1&lastEventId=2.2", &[]).cursor(), Some("2.2"));
        assert_eq!(handshake("lastEventId=2.2", &[("Last-Event-Id", "3.3")]).cursor(), Some("3.3"));
    }

    #[test]
    fn no_debug_output_shows_a_token() {
        let shown = format!("{:?} {:?}", handshake("Authorization=secret", &[]), TokenHash::of("secret"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}

//! [`Authenticator`]: checks the login of a connection.

use std::{
    fmt, mem,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use futures_core::future::BoxFuture;
use sha2::{Digest, Sha256};

use super::{extensions::Extensions, proxies::TrustedProxies};
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
#[non_exhaustive]
pub struct Principal {
    /// The user.
    pub user: UserId,
    /// The kind of application (`clientid`): shared by all browsers of a kind, no device.
    pub client_id: Option<Arc<str>>,
    /// The login's token.
    pub token: TokenHash,
    /// Beginning of the login, where it is known.
    pub issued_at: Option<SystemTime>,
    /// End of the login; its sessions end with it.
    pub expires_at: Option<SystemTime>,
    /// Named topics that its sessions are in from the start.
    pub topics: Vec<Topic>,
    /// The login itself, kept where it has to be looked up again while its sessions live.
    pub credential: Option<Credential>,
    /// Data of the application, for each session of the login: see
    /// [`SessionHandle::get`](crate::SessionHandle::get).
    pub extensions: Extensions,
}

impl Principal {
    /// A user with a token, and no client id, end or named topics.
    ///
    /// The token should be the login's own and secret: a kick refuses it to this user from then on, on every node, so
    /// a constant one would keep the user out for good. Where a login has no token, let it be empty: then a kick ends
    /// the user's sessions and refuses nothing.
    pub fn new(user: UserId, token: &str) -> Self {
        Self {
            user,
            client_id: None,
            token: TokenHash::of(token),
            issued_at: None,
            expires_at: None,
            topics: Vec::new(),
            credential: None,
            extensions: Extensions::new(),
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

    /// Whether it is the hash of the empty text.
    pub(crate) fn is_of_nothing(self) -> bool {
        self == Self::OF_NOTHING
    }

    const OF_NOTHING: Self = Self([
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    ]);

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

/// Error of an [`Authenticator`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// No login, or one that is not valid.
    #[error("{0}")]
    Unauthorized(String),
    /// A valid login that may not connect.
    #[error("{0}")]
    Forbidden(String),
    /// The login cannot be checked: the store of logins is unavailable. The text is for the log; it is not shown to the
    /// client, which is not known yet.
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

    /// The text for the client. That of [`Self::Unavailable`] says nothing of the reason, which may name hosts, tables
    /// or users; [`Self::report`] does.
    pub fn answer(&self) -> &str {
        match self {
            Self::Unauthorized(text) | Self::Forbidden(text) => text,
            Self::Unavailable(_) => "the login cannot be checked now",
        }
    }

    /// Logs why logins cannot be checked, at most once a second; clients do not get the reason.
    pub fn report(&self) {
        if let Self::Unavailable(reason) = self {
            warn_now_and_then(reason);
        }
    }
}

/// During an outage every reconnecting client fails: one line a second is enough.
fn warn_now_and_then(reason: &str) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if NEXT.swap(now + 1, Ordering::Relaxed) <= now {
        tracing::warn!(reason, "logins cannot be checked");
    }
}

/// The request that asks for a connection, as an [`Authenticator`] sees it.
///
/// It owns what it shows, and it does not show itself: its `Debug` output has no token in it.
#[derive(Clone)]
pub struct Handshake {
    transport: Transport,
    query: Pairs,
    headers: Pairs,
    params: Pairs,
    peer: Option<SocketAddr>,
    client: Option<IpAddr>,
    extensions: Extensions,
}

/// Names and values in their order, in one text: a handshake has too many for an allocation each.
#[derive(Clone, Default)]
struct Pairs {
    text: String,
    /// Where each name ends in the text, and where its value ends.
    ends: Vec<(usize, usize)>,
}

impl Pairs {
    fn push(&mut self, name: &str, value: &str) {
        self.text.push_str(name);
        let name = self.text.len();
        self.text.push_str(value);
        self.ends.push((name, self.text.len()));
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.ends.iter().scan(0, |begin, &(name, end)| {
            let begin = mem::replace(begin, end);
            Some((&self.text[begin..name], &self.text[name..end]))
        })
    }
}

impl Handshake {
    /// The query parameter and header that carry the token.
    pub const AUTHORIZATION: &'static str = "Authorization";
    /// The beginning of the entry in `Sec-WebSocket-Protocol` that carries the token: a page can set no header of a
    /// WebSocket, and a token in the URL is in many a log. `new WebSocket(url, ["realtime.v1", "bearer." + token])`
    pub const BEARER_PROTOCOL: &'static str = "bearer.";
    /// The query parameter and header that carry the client id.
    pub const CLIENT_ID: &'static str = "clientid";

    /// A handshake from a request's raw query string and headers.
    ///
    /// A header that is not UTF-8 is not as good as absent: what is wrong in it becomes U+FFFD, which equals nothing
    /// that is expected. The headers `Cookie`, of which HTTP/2 may send several (RFC 9113, section 8.2.3), become one.
    pub fn new<'a>(
        transport: Transport,
        query: &str,
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        peer: Option<SocketAddr>,
    ) -> Self {
        let (mut pairs, mut cookies) = (Pairs::default(), Vec::new());
        for (name, value) in headers {
            let value = String::from_utf8_lossy(value);
            if name.eq_ignore_ascii_case(COOKIE) {
                cookies.push(value);
            } else {
                pairs.push(name, &value);
            }
        }
        if !cookies.is_empty() {
            pairs.push(COOKIE, &cookies.join("; "));
        }
        let headers = mem::take(&mut pairs);
        form_urlencoded::parse(query.as_bytes()).for_each(|(name, value)| pairs.push(&name, &value));
        let client = peer.map(|peer| peer.ip().to_canonical());
        let params = Pairs::default();
        Self { transport, query: pairs, headers, params, peer, client, extensions: Extensions::new() }
    }

    /// Adds the parameters of the request's path: in a resource `/rooms/{room}`, the value of `room`.
    #[must_use]
    pub fn with_params<'a>(mut self, params: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        params.into_iter().for_each(|(name, value)| self.params.push(name, value));
        self
    }

    /// Adds the values that middleware has left with the request.
    #[must_use]
    pub fn with_extensions(mut self, extensions: Extensions) -> Self {
        self.extensions = extensions;
        self
    }

    /// Takes the client's address from `X-Forwarded-For`, as far as these proxies have written it.
    #[must_use]
    pub fn behind(mut self, proxies: &TrustedProxies) -> Self {
        self.client = self.peer.map(|peer| proxies.client(peer.ip(), self.header_all("X-Forwarded-For")));
        self
    }

    /// The requested transport.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The address at the other end of the socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The client's address: the peer's, or where that is a trusted proxy, the one that the proxy has forwarded for. See
    /// [`TrustedProxies`].
    pub fn client_ip(&self) -> Option<IpAddr> {
        self.client
    }

    /// A parameter of the request's path, decoded: in a resource `/rooms/{room}`, `room`.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Values that middleware has left with the request, in an [`Extensions`] among the request's own extensions.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// The first query parameter of that name, decoded.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The first header of that name, case-insensitive; of `Cookie`, all of them, joined with `; `.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_all(name).next()
    }

    /// The headers of that name, case-insensitive, in their order; `Cookie` is one.
    pub fn header_all(&self, name: &str) -> impl Iterator<Item = &str> {
        let same = move |key: &str| key.eq_ignore_ascii_case(name);
        self.headers.iter().filter(move |(key, _)| same(key)).map(|(_, value)| value)
    }

    /// The value of the first cookie of that name, as it was sent; without the quotes around it, if there are any.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let pairs = self.header(COOKIE)?.split(';').filter_map(|pair| pair.split_once('='));
        let value = pairs.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == name)?.1;
        Some(value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value))
    }

    /// The raw `Authorization`: a parameter that is not empty beats the header, as in Sa-Token. Without either it is the
    /// token that a page offers as subprotocol: see [`Self::BEARER_PROTOCOL`].
    pub fn authorization(&self) -> Option<&str> {
        let given = [self.query(Self::AUTHORIZATION), self.header(Self::AUTHORIZATION)];
        let mut given = given.into_iter().flatten();
        given.find(|value| !value.is_empty()).or_else(|| self.offered_token())
    }

    fn offered_token(&self) -> Option<&str> {
        let mut offered = self.header_all("Sec-WebSocket-Protocol").flat_map(|list| list.split(','));
        offered.find_map(|entry| entry.trim().strip_prefix(Self::BEARER_PROTOCOL))
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

    /// Cursor of a returning client: `Last-Event-ID`, else `lastEventId` or `cursor` in the query.
    pub fn cursor(&self) -> Option<&str> {
        let places = [self.header("Last-Event-ID"), self.query("lastEventId"), self.query("cursor")];
        places.into_iter().flatten().find(|cursor| !cursor.is_empty())
    }

    /// Checks the client id against the one in the token: either of the two that the request may carry (query,
    /// header) has to be it. A token that names none matches any.
    ///
    /// # Errors
    /// [`AuthError::Unauthorized`] when one was given and none equals what is expected, or when none was given though
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
        if expected.is_none_or(|expected| given.any(|id| id == expected)) {
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

const COOKIE: &str = "cookie";

/// Whether a request has to name its client id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientIdPolicy {
    /// It is checked when given. RuoYi's SSE snippet sends none.
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
        for (expected, ok) in [(Some("a"), true), (Some("b"), true), (Some("c"), false), (Some(""), false)] {
            assert_eq!(both.check_client_id(expected, ClientIdPolicy::Optional).is_ok(), ok, "{expected:?}");
        }
        let none = handshake("", &[]);
        assert!(none.check_client_id(Some("a"), ClientIdPolicy::Optional).is_ok());
        assert!(none.check_client_id(Some("a"), ClientIdPolicy::Required).is_err());
    }

    #[test]
    fn a_token_without_a_client_id_matches_any_and_still_asks_for_one_where_one_is_required() {
        let (some, none) = (handshake("clientid=a", &[]), handshake("", &[]));
        for policy in [ClientIdPolicy::Optional, ClientIdPolicy::Required] {
            assert!(some.check_client_id(None, policy).is_ok());
        }
        assert!(none.check_client_id(None, ClientIdPolicy::Optional).is_ok());
        assert!(none.check_client_id(None, ClientIdPolicy::Required).is_err());
    }

    #[test]
    fn cookies_of_several_headers_are_one_and_are_found_by_name() {
        let headers =
            [("Cookie", "a=1; b=2"), ("Host", "h"), ("cookie", "session=\"x=y\""), ("COOKIE", "b=3;c=")];
        let several = handshake("", &headers);
        assert_eq!(several.header("Cookie"), Some("a=1; b=2; session=\"x=y\"; b=3;c="));
        assert_eq!(several.header_all("cookie").count(), 1);
        for (name, value) in [
            ("a", Some("1")),
            ("b", Some("2")),
            ("session", Some("x=y")),
            ("c", Some("")),
            ("A", None),
            ("ession", None),
            ("d", None),
        ] {
            assert_eq!(several.cookie(name), value, "{name}");
        }
        assert_eq!(handshake("", &[]).cookie("a"), None);
    }

    #[test]
    fn of_a_header_that_came_twice_the_first_counts_and_all_can_be_seen() {
        let twice = handshake("", &[("authorization", "Bearer A"), ("Authorization", "Bearer B")]);
        assert_eq!(twice.token(), Some("A"));
        assert_eq!(twice.header_all("AUTHORIZATION").collect::<Vec<_>>(), ["Bearer A", "Bearer B"]);
    }

    #[test]
    fn a_header_that_is_not_text_is_there_and_equals_nothing() {
        let headers = [("origin", b"https://\xff.com".as_slice()), ("cookie", b"a=1"), ("cookie", b"b=\xfe")];
        let handshake = Handshake::new(Transport::new("sse"), "", headers, None);
        assert_eq!(handshake.header("Origin"), Some("https://\u{fffd}.com"));
        assert_eq!(
            handshake.cookie("a"),
            Some("1"),
            "what another cookie holds is none of this one's business"
        );
    }

    #[test]
    fn why_logins_cannot_be_checked_is_not_the_clients_to_know() {
        let away = AuthError::Unavailable("db-7.internal: password of `push` is wrong".into());
        assert_eq!(away.answer(), "the login cannot be checked now");
        assert_eq!(AuthError::Forbidden("you may not".into()).answer(), "you may not");
    }

    #[test]
    fn the_header_cursor_beats_the_query() {
        assert_eq!(handshake("cursor=1.1", &[("Last-Event-ID", "")]).cursor(), Some("1.1"));
        assert_eq!(handshake("cursor=1.1&lastEventId=2.2", &[]).cursor(), Some("2.2"));
        assert_eq!(handshake("lastEventId=2.2", &[("Last-Event-Id", "3.3")]).cursor(), Some("3.3"));
    }

    #[test]
    fn the_empty_token_is_known_by_its_hash() {
        assert!(TokenHash::of("").is_of_nothing());
        assert!(!TokenHash::of("t").is_of_nothing());
    }

    #[test]
    fn no_debug_output_shows_a_token() {
        let shown = format!("{:?} {:?}", handshake("Authorization=secret", &[]), TokenHash::of("secret"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}

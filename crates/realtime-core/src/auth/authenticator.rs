//! [`Authenticator`]: checks the login of a connection.

use std::{
    fmt, mem,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

use futures_core::future::BoxFuture;

use super::{
    extensions::Extensions,
    login_source::LoginSource,
    proxies::TrustedProxies,
    token_hash::TokenHash,
    topic_pattern::TopicPattern,
    unclear::{Unclear, only},
};
use crate::{Position, Topic, Transport, UserId, line_limit::LineLimit};

/// Identifies the user of a connection before the connection is upgraded or streamed.
///
/// Called once per connection, on the worker that serves it, and with each token that renews a login
/// ([`Handshake::renews`]). It must not block the thread.
pub trait Authenticator: Send + Sync + 'static {
    /// Authenticates the request and returns its principal.
    ///
    /// # Errors
    /// [`AuthError::Unauthorized`] for a bad or missing login, [`AuthError::Forbidden`] for a login that may not
    /// connect, [`AuthError::Unavailable`] if the login cannot be checked at the moment.
    fn authenticate<'a>(&'a self, handshake: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>>;
}

/// An authenticator that is chosen at run time: `Arc<dyn Authenticator>`.
impl<A: Authenticator + ?Sized> Authenticator for Arc<A> {
    fn authenticate<'a>(&'a self, handshake: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
        (**self).authenticate(handshake)
    }
}

/// User and login that a session belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Principal {
    /// The user.
    pub user: UserId,
    /// The kind of application (`clientid`). All browsers of a kind share it; it does not identify a device.
    pub client_id: Option<Arc<str>>,
    /// The login's token.
    pub token: TokenHash,
    /// Time when the login was issued, if known.
    pub issued_at: Option<SystemTime>,
    /// Time when the login expires. Its sessions are closed then.
    pub expires_at: Option<SystemTime>,
    /// Named topics that its sessions are subscribed to when they open. Others are left out: a login gives neither another
    /// user's topic nor `all`.
    pub topics: Vec<Topic>,
    /// Named topics that its clients may subscribe to.
    pub grants: Vec<TopicPattern>,
    /// Position at which the history of its sessions begins: what was published before, or at it, is not replayed to them, in
    /// whatever topic, even if a client brings an older cursor. Default: `None`, no such bound. See
    /// [`TopicGrant::after`](super::TopicGrant::after) for that of a single topic.
    pub history_after: Option<Position>,
    /// The credential itself, kept if the login has to be checked again while its sessions are open, and when a ticket for it
    /// is used.
    pub credential: Option<Credential>,
    /// Application data that every session of the login can read: see
    /// [`SessionHandle::get`](crate::SessionHandle::get).
    pub extensions: Extensions,
}

impl Principal {
    /// Creates a principal with a user and a token, without client id, expiry and named topics.
    ///
    /// The token should be secret and unique to the login. A kick refuses the token to this user from then on, on every
    /// node, so a constant token would lock the user out permanently. For a login without a token, pass an empty
    /// string: a kick then closes the user's sessions and refuses nothing.
    pub fn new(user: UserId, token: &str) -> Self {
        Self {
            user,
            client_id: None,
            token: TokenHash::of(token),
            issued_at: None,
            expires_at: None,
            topics: Vec::new(),
            grants: Vec::new(),
            history_after: None,
            credential: None,
            extensions: Extensions::new(),
        }
    }
}

/// A stored token. Its `Debug` output does not show it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credential(Arc<str>);

impl Credential {
    /// Stores a token.
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

/// Error of an [`Authenticator`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The login is missing or invalid.
    #[error("{0}")]
    Unauthorized(String),
    /// The login is valid but may not connect.
    #[error("{0}")]
    Forbidden(String),
    /// The login cannot be checked because the store of logins is unavailable. The text is logged and not sent to the
    /// client, which is not authenticated yet.
    #[error("{0}")]
    Unavailable(String),
}

impl AuthError {
    /// The HTTP status of the response: 401, 403 or 503.
    pub fn status(&self) -> u16 {
        match self {
            Self::Unauthorized(_) => 401,
            Self::Forbidden(_) => 403,
            Self::Unavailable(_) => 503,
        }
    }

    /// The text for the client. For [`Self::Unavailable`] it omits the reason, which may name hosts, tables or users;
    /// [`Self::report`] logs the reason.
    pub fn answer(&self) -> &str {
        match self {
            Self::Unauthorized(text) | Self::Forbidden(text) => text,
            Self::Unavailable(_) => "the login cannot be checked now",
        }
    }

    /// Logs the reason why logins cannot be checked, at most once a second. It is not sent to clients.
    pub fn report(&self) {
        if let Self::Unavailable(reason) = self {
            warn_once_per_second(reason);
        }
    }
}

/// A login that is given in two ways, or in a way that cannot be read, is none.
impl From<Unclear> for AuthError {
    fn from(error: Unclear) -> Self {
        Self::Unauthorized(error.to_string())
    }
}

/// During an outage every reconnecting client fails, so one line a second is enough.
fn warn_once_per_second(reason: &str) {
    static LINES: LineLimit = LineLimit::per_second();
    if let Some(unlogged) = LINES.next() {
        tracing::warn!(reason, unlogged, "logins cannot be checked");
    }
}

/// A connection request as an [`Authenticator`] sees it.
///
/// It owns its data. Its `Debug` output contains no token.
#[derive(Clone)]
pub struct Handshake {
    transport: Transport,
    query: Pairs,
    headers: Pairs,
    params: Pairs,
    peer: Option<SocketAddr>,
    client: Option<IpAddr>,
    extensions: Extensions,
    over_tls: bool,
    renewal: Option<Box<Renewal>>,
    /// Name of the cookie that may carry the token.
    login_cookie: Option<Arc<str>>,
    tickets: bool,
}

/// A token that is to renew the login of a live session.
#[derive(Clone)]
struct Renewal {
    token: String,
    login: Arc<Principal>,
}

/// Names and values in their original order, stored in one string: a handshake has too many for an allocation each.
#[derive(Clone, Default)]
struct Pairs {
    text: String,
    /// End offsets in the text of each name and of its value.
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
    /// The prefix of the `Sec-WebSocket-Protocol` entry that carries the token. A page cannot set headers of a
    /// WebSocket request, and a token in the URL would end up in logs. Example: `new WebSocket(url, ["realtime.v1",
    /// "bearer." + token])`
    pub const BEARER_PROTOCOL: &'static str = "bearer.";
    /// The query parameter and header that carry the client id.
    pub const CLIENT_ID: &'static str = "clientid";

    /// Creates a handshake from a request's raw query string and headers.
    ///
    /// In a header that is not UTF-8, invalid bytes become U+FFFD: the header counts as present and its value equals no
    /// expected value. `Cookie` headers, of which HTTP/2 may send several (RFC 9113, section 8.2.3), are joined into
    /// one.
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
        let extensions = Extensions::new();
        Self {
            transport,
            query: pairs,
            headers,
            params,
            peer,
            client,
            extensions,
            over_tls: false,
            renewal: None,
            login_cookie: None,
            tickets: false,
        }
    }

    /// Creates a handshake for a token that a client sends over its open connection, to renew the login of its session; also
    /// for the [credential](Principal::credential) of a login, to check it when its ticket is used.
    ///
    /// [`Self::authorization`] and [`Self::token`] are that token, the header `Authorization` is the token after
    /// `Bearer `, and the header `clientid` is that of the session's login. Nothing else of the first request is known:
    /// an authenticator that needs more has [`Self::renews`].
    pub fn renewal(transport: Transport, token: &str, login: Arc<Principal>) -> Self {
        let bearer = format!("Bearer {}", bare(token));
        let client_id = login.client_id.clone();
        let client_id = client_id.as_deref().map(|id| (Self::CLIENT_ID, id.as_bytes()));
        let headers = [(Self::AUTHORIZATION, bearer.as_bytes())].into_iter().chain(client_id);
        let mut handshake = Self::new(transport, "", headers, None);
        handshake.renewal = Some(Box::new(Renewal { token: token.to_owned(), login }));
        handshake
    }

    /// The login that the token is to renew: that of a live session, or the one that a ticket was made for, when the ticket is
    /// used and the login has a [credential](Principal::credential). `None` for other new connections.
    pub fn renews(&self) -> Option<&Principal> {
        self.renewal.as_ref().map(|renewal| &*renewal.login)
    }

    /// Adds the path parameters of the request: for the resource `/rooms/{room}`, the value of `room`.
    #[must_use]
    pub fn with_params<'a>(mut self, params: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        params.into_iter().for_each(|(name, value)| self.params.push(name, value));
        self
    }

    /// Adds the values that middleware has stored in the request.
    #[must_use]
    pub fn with_extensions(mut self, extensions: Extensions) -> Self {
        self.extensions = extensions;
        self
    }

    /// Takes the token from the cookie of that name where the request has none elsewhere. `None`: no cookie is a login.
    ///
    /// Browsers add cookies to the requests of any page. Where [`Self::login_source`] is
    /// [ambient](LoginSource::is_ambient), requests of foreign origins have to be refused.
    #[must_use]
    pub fn with_login_cookie(mut self, name: Option<&Arc<str>>) -> Self {
        self.login_cookie = name.cloned();
        self
    }

    /// Sets whether the query parameter `ticket` is a login.
    #[must_use]
    pub fn with_tickets(mut self, tickets: bool) -> Self {
        self.tickets = tickets;
        self
    }

    /// Takes the client's address from the entries of `X-Forwarded-For` that these proxies have added.
    #[must_use]
    pub fn behind(mut self, proxies: &TrustedProxies) -> Self {
        self.client = self.peer.map(|peer| proxies.client(peer.ip(), self.header_all("X-Forwarded-For")));
        self
    }

    /// Records that the connection is over TLS that ends in this server.
    #[must_use]
    pub fn over_tls(mut self) -> Self {
        self.over_tls = true;
        self
    }

    /// Returns whether the connection is over TLS that ends in this server.
    pub fn is_over_tls(&self) -> bool {
        self.over_tls
    }

    /// The requested transport.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The address of the socket's peer.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The client's address: the peer's, or the forwarded address if the peer is a trusted proxy. See
    /// [`TrustedProxies`].
    pub fn client_ip(&self) -> Option<IpAddr> {
        self.client
    }

    /// A decoded path parameter: `room` for the resource `/rooms/{room}`.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Values that middleware has stored in the request's extensions as an [`Extensions`].
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// The first query parameter of that name, decoded. [`Self::query_only`] does not choose among several.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The query parameter of that name, decoded; an empty one is none.
    ///
    /// # Errors
    /// [`Unclear`] if it is given with different values, or is not UTF-8: see [`only`].
    pub fn query_only(&self, name: &str) -> Result<Option<&str>, Unclear> {
        only(name, self.query.iter().filter(|(key, _)| *key == name).map(|(_, value)| value))
    }

    /// The header of that name, case-insensitive; an empty one is none.
    ///
    /// # Errors
    /// As [`Self::query_only`].
    pub fn header_only(&self, name: &str) -> Result<Option<&str>, Unclear> {
        only(name, self.header_all(name))
    }

    /// The first header of that name, case-insensitive. For `Cookie` it is all cookies, joined with `; `.
    /// [`Self::header_only`] does not choose among several.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_all(name).next()
    }

    /// All headers of that name, case-insensitive, in their original order. `Cookie` headers are joined into one.
    pub fn header_all(&self, name: &str) -> impl Iterator<Item = &str> {
        let same = move |key: &str| key.eq_ignore_ascii_case(name);
        self.headers.iter().filter(move |(key, _)| same(key)).map(|(_, value)| value)
    }

    /// The value of the first cookie of that name as it was sent, without surrounding quotes.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies(name).next()
    }

    fn cookies(&self, name: &str) -> impl Iterator<Item = &str> {
        let pairs =
            self.header_all(COOKIE).flat_map(|all| all.split(';')).filter_map(|pair| pair.split_once('='));
        let values = pairs.filter(move |(key, _)| key.trim() == name).map(|(_, value)| value.trim());
        values.map(|value| value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value))
    }

    /// The raw `Authorization` value. A query parameter takes precedence over the header, as in Sa-Token. Without either,
    /// it is the token that a page offers as a subprotocol ([`Self::BEARER_PROTOCOL`]), and else that of the [login
    /// cookie](Self::with_login_cookie). `None` if it is [unclear](Self::require_token).
    pub fn authorization(&self) -> Option<&str> {
        Some(self.login().ok()??.1)
    }

    /// Place of the login: of the [ticket](Self::ticket), or else of [`Self::authorization`]; `None` without either.
    pub fn login_source(&self) -> Option<LoginSource> {
        match self.ticket() {
            Ok(None) => Some(self.login().ok()??.0),
            Ok(Some(_)) | Err(_) => Some(LoginSource::Ticket),
        }
    }

    /// The single-use ticket in the query parameter `ticket`, where [tickets](Self::with_tickets) are logins. It takes
    /// precedence over everything else: see [`Hub::authenticate`](crate::Hub::authenticate).
    ///
    /// # Errors
    /// As [`Self::query_only`].
    pub fn ticket(&self) -> Result<Option<&str>, Unclear> {
        if self.tickets { self.query_only("ticket") } else { Ok(None) }
    }

    fn login(&self) -> Result<Option<(LoginSource, &str)>, Unclear> {
        if let Some(renewal) = &self.renewal {
            return Ok(Some((LoginSource::Message, &renewal.token)));
        }
        // All are read: an unclear one beside another is no request of an honest client.
        let query = given(LoginSource::Query, self.query_only(Self::AUTHORIZATION)?);
        let header = given(LoginSource::Header, self.header_only(Self::AUTHORIZATION)?);
        let offered = given(LoginSource::Subprotocol, self.offered_token()?);
        let cookie = match &self.login_cookie {
            Some(name) => given(LoginSource::Cookie, only(name, self.cookies(name))?),
            None => None,
        };
        Ok(query.or(header).or(offered).or(cookie))
    }

    /// A login's text, given as a query parameter or else as a header of that name.
    ///
    /// # Errors
    /// As [`Self::query_only`].
    pub fn credential(&self, name: &str) -> Result<Option<&str>, Unclear> {
        // Both are read: an unclear header beside a parameter is no request of an honest client.
        let (parameter, header) = (self.query_only(name)?, self.header_only(name)?);
        Ok(parameter.or(header))
    }

    fn offered_token(&self) -> Result<Option<&str>, Unclear> {
        let offered = self.header_all("Sec-WebSocket-Protocol").flat_map(|list| list.split(','));
        let tokens = offered.filter_map(|entry| entry.trim().strip_prefix(Self::BEARER_PROTOCOL));
        only("Sec-WebSocket-Protocol", tokens)
    }

    /// The token: [`Self::authorization`] without a leading `Bearer `.
    pub fn token(&self) -> Option<&str> {
        Some(bare(self.authorization()?)).filter(|token| !token.is_empty())
    }

    /// The token of a request that needs one.
    ///
    /// # Errors
    /// [`AuthError::Unauthorized`] if there is none, and if several are given or one that is not text.
    pub fn require_token(&self) -> Result<&str, AuthError> {
        let given = self.login()?.map(|(_, value)| bare(value)).filter(|token| !token.is_empty());
        given.ok_or_else(|| AuthError::Unauthorized(format!("{} is missing", Self::AUTHORIZATION)))
    }

    /// The topics that the client asks for: those in the query parameter `topics`, separated by commas. `None` without
    /// the parameter. A topic whose name contains a comma cannot be asked for in this way.
    ///
    /// # Errors
    /// As [`Self::query_only`].
    pub fn topics(&self) -> Result<Option<impl Iterator<Item = &str>>, Unclear> {
        self.list("topics")
    }

    /// The topics of which the client has had nothing yet, in the query parameter `fresh`: some of [`Self::topics`], and
    /// `*` for those of the login and the user's own, as after a reload of a page. A session that is replayed everything
    /// since its client's cursor gets what is kept for newcomers of these topics only. Each topic comes once, in the order of
    /// their names.
    ///
    /// # Errors
    /// As [`Self::query_only`].
    pub fn fresh_topics(&self, principal: &Principal) -> Result<Vec<Topic>, Unclear> {
        let (mut topics, mut all) = (Vec::new(), false);
        for name in self.list("fresh")?.into_iter().flatten() {
            if name == "*" {
                all = true;
            } else {
                topics.extend(name.parse::<Topic>());
            }
        }
        // Once, however often it is asked for: a query has room for thousands of asterisks.
        if all {
            topics.extend(principal.topics.iter().cloned());
            topics.push(Topic::user(&principal.user));
        }
        topics.sort_unstable();
        topics.dedup();
        Ok(topics)
    }

    fn list(&self, name: &str) -> Result<Option<impl Iterator<Item = &str>>, Unclear> {
        Ok(self.query_only(name)?.map(|list| list.split(',')))
    }

    /// Cursor of a reconnecting client: `Last-Event-ID`, else `lastEventId` or `cursor` in the query. One that is
    /// [unclear](Self::query_only) is a text that is no cursor, so that its session begins with a gap.
    pub fn cursor(&self) -> Option<&str> {
        let places =
            [self.header_only("Last-Event-ID"), self.query_only("lastEventId"), self.query_only("cursor")];
        places.into_iter().find_map(|cursor| cursor.unwrap_or(Some(NO_CURSOR)))
    }

    /// Checks the client id of the request against the one in the token. At least one of the two places that may carry
    /// it (query, header) has to match. A token without a client id matches any. A [renewal](Self::renewal) need not bring one:
    /// its connection was asked for it.
    ///
    /// # Errors
    /// [`AuthError::Unauthorized`] if client ids were given and none matches, if none was given although `policy`
    /// requires one, or if one is [unclear](Self::query_only).
    pub fn check_client_id(&self, expected: Option<&str>, policy: ClientIdPolicy) -> Result<(), AuthError> {
        let unauthorized = |problem: &str| Err(AuthError::Unauthorized(problem.to_owned()));
        let given = [self.header_only(Self::CLIENT_ID)?, self.query_only(Self::CLIENT_ID)?];
        let mut given = given.into_iter().flatten().peekable();
        if given.peek().is_none() {
            return match policy {
                ClientIdPolicy::Required if self.renewal.is_none() => unauthorized("clientid is missing"),
                _ => Ok(()),
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

fn given(source: LoginSource, value: Option<&str>) -> Option<(LoginSource, &str)> {
    Some((source, value.filter(|value| !value.is_empty())?))
}

/// A token without a leading `Bearer `.
fn bare(value: &str) -> &str {
    let bare = match value.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer ") => rest,
        _ => value,
    };
    bare.trim()
}

const COOKIE: &str = "cookie";

/// Stands for a cursor that is unclear.
const NO_CURSOR: &str = "?";

/// Requirement to send a client id with a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientIdPolicy {
    /// The client id is checked if present. RuoYi's SSE snippet sends none.
    #[default]
    Optional,
    /// The client id is required.
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
    fn fresh_topics_are_those_named_and_for_an_asterisk_those_of_the_login() {
        let mut principal = Principal::new(7.into(), "t");
        principal.topics = vec![Topic::new("shop").unwrap()];
        let fresh = |query| {
            let topics = handshake(query, &[]).fresh_topics(&principal).unwrap();
            topics.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(fresh("fresh=a,b%2Cc"), "a b c");
        assert_eq!(fresh("fresh=*,a"), "a shop user:7");
        assert_eq!(fresh("fresh=*,*,b,a,shop,a,*"), "a b shop user:7", "each once");
        assert_eq!(fresh("fresh="), "");
        assert_eq!(fresh("fresh=no%20topic"), "");
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
    fn a_renewal_brings_the_client_id_of_its_session_and_none_is_missing() {
        let mut login = Principal::new(7.into(), "t");
        let renewal =
            |login: &Principal| Handshake::renewal(Transport::new("websocket"), "N", Arc::new(login.clone()));
        for expected in [None, Some("web")] {
            assert_eq!(renewal(&login).check_client_id(expected, ClientIdPolicy::Required), Ok(()));
        }
        login.client_id = Some("web".into());
        assert_eq!(renewal(&login).check_client_id(Some("web"), ClientIdPolicy::Required), Ok(()));
        assert!(renewal(&login).check_client_id(Some("app"), ClientIdPolicy::Optional).is_err());
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
    fn a_cookie_is_a_login_only_where_it_is_named_and_nothing_else_is_given() {
        let name: Arc<str> = "sid".into();
        let cookie = ("Cookie", "theme=dark; sid=C");
        for (query, headers, source, token) in [
            ("", &[cookie][..], Some(LoginSource::Cookie), Some("C")),
            ("", &[("Cookie", "sid=\"C\"")], Some(LoginSource::Cookie), Some("C")),
            ("Authorization=", &[cookie, ("Authorization", "")], Some(LoginSource::Cookie), Some("C")),
            ("Authorization=Q", &[cookie], Some(LoginSource::Query), Some("Q")),
            ("", &[cookie, ("Authorization", "Bearer H")], Some(LoginSource::Header), Some("H")),
            (
                "",
                &[cookie, ("Sec-WebSocket-Protocol", "realtime.v1, bearer.P")],
                Some(LoginSource::Subprotocol),
                Some("P"),
            ),
            ("", &[("Cookie", "sid=; xsid=C; SID=C")], None, None),
            ("", &[("Cookie", "sid=C; a=b"), ("Cookie", "sid=C")], Some(LoginSource::Cookie), Some("C")),
            ("", &[("Cookie", "sid=C; sid=D")], None, None),
        ] {
            let named = handshake(query, headers).with_login_cookie(Some(&name));
            assert_eq!((named.login_source(), named.token()), (source, token), "{query} {headers:?}");
            assert_eq!(named.login_source().is_some_and(LoginSource::is_ambient), token == Some("C"));
        }
        assert_eq!(handshake("", &[cookie]).token(), None, "off by default");
        let ticket = handshake("ticket=T", &[cookie]).with_login_cookie(Some(&name));
        assert_eq!((ticket.login_source(), ticket.ticket()), (Some(LoginSource::Cookie), Ok(None)));
        let ticket = ticket.with_tickets(true);
        assert_eq!((ticket.login_source(), ticket.ticket()), (Some(LoginSource::Ticket), Ok(Some("T"))));
        let principal = Arc::new(Principal::new(7.into(), "t"));
        let renewal = Handshake::renewal(Transport::new("sse"), "N", principal);
        assert_eq!(renewal.login_source(), Some(LoginSource::Message));
    }

    #[test]
    fn of_two_tokens_none_counts_and_all_are_available() {
        let twice = handshake("", &[("authorization", "Bearer A"), ("Authorization", "Bearer B")]);
        assert_eq!(twice.token(), None);
        assert_eq!(twice.header_all("AUTHORIZATION").collect::<Vec<_>>(), ["Bearer A", "Bearer B"]);
        for (query, headers, reason) in [
            ("Authorization=A&Authorization=B", &[][..], "Authorization: given more than once"),
            ("Authorization=%FF", &[], "Authorization: not UTF-8"),
            ("Authorization=A", &[("Authorization", "B"), ("Authorization", "C")], "Authorization: given"),
            ("", &[("Sec-WebSocket-Protocol", "bearer.A, bearer.B")], "Sec-WebSocket-Protocol: given"),
            ("Authorization=", &[("Authorization", "Bearer ")], "Authorization is missing"),
        ] {
            let error = handshake(query, headers).require_token().unwrap_err();
            assert!(error.to_string().starts_with(reason), "{query} {headers:?}: {error}");
        }
        let same = handshake("Authorization=A&Authorization=A&Authorization=", &[]);
        assert_eq!(same.require_token(), Ok("A"));
    }

    #[test]
    fn unclear_client_ids_and_topics_are_errors_and_empty_ones_are_none() {
        for query in
            ["clientid=a&clientid=b", "clientid=%FF", "topics=a&topics=b", "topics=%FF", "fresh=a&fresh=b"]
        {
            let unclear = handshake(query, &[]);
            let client_id = unclear.check_client_id(None, ClientIdPolicy::Optional);
            let fresh = unclear.fresh_topics(&Principal::new(7.into(), "t"));
            let errors = [client_id.is_err(), unclear.topics().is_err(), fresh.is_err()];
            assert_eq!(errors.iter().filter(|is_error| **is_error).count(), 1, "{query}");
        }
        let empty = handshake("clientid=&topics=&fresh=&cursor=", &[("clientid", "")]);
        assert_eq!(empty.check_client_id(Some("a"), ClientIdPolicy::Optional), Ok(()));
        assert!(empty.topics().unwrap().is_none());
        assert_eq!(empty.cursor(), None);
    }

    #[test]
    fn a_header_that_is_not_text_is_present_and_equals_no_expected_value() {
        let headers = [("origin", b"https://\xff.com".as_slice()), ("cookie", b"a=1"), ("cookie", b"b=\xfe")];
        let handshake = Handshake::new(Transport::new("sse"), "", headers, None);
        assert_eq!(handshake.header("Origin"), Some("https://\u{fffd}.com"));
        assert_eq!(handshake.cookie("a"), Some("1"), "an invalid cookie does not affect the others");
    }

    #[test]
    fn the_reason_of_an_unavailable_check_is_not_sent_to_clients() {
        let unavailable = AuthError::Unavailable("db-7.internal: password of `push` is wrong".into());
        assert_eq!(unavailable.answer(), "the login cannot be checked now");
        assert_eq!(AuthError::Forbidden("you may not".into()).answer(), "you may not");
    }

    #[test]
    fn the_header_cursor_beats_the_query() {
        assert_eq!(handshake("cursor=1.1", &[("Last-Event-ID", "")]).cursor(), Some("1.1"));
        assert_eq!(handshake("cursor=1.1&lastEventId=2.2", &[]).cursor(), Some("2.2"));
        assert_eq!(handshake("lastEventId=2.2", &[("Last-Event-Id", "3.3")]).cursor(), Some("3.3"));
    }

    #[test]
    fn an_unclear_cursor_is_one_that_cannot_be_read() {
        let headers = [("Last-Event-ID", "1.1"), ("last-event-id", "1.2")];
        for unclear in [
            handshake("", &headers),
            handshake("cursor=1.1", &headers),
            handshake("lastEventId=1.1&lastEventId=1.2", &[]),
            handshake("cursor=1.1&cursor=%FF", &[]),
        ] {
            assert!(unclear.cursor().unwrap().parse::<Position>().is_err());
        }
        assert_eq!(handshake("cursor=1.1&cursor=1.1&cursor=", &[]).cursor(), Some("1.1"));
    }

    #[test]
    fn no_debug_output_shows_a_token() {
        let shown = format!("{:?} {:?}", handshake("Authorization=secret", &[]), TokenHash::of("secret"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}

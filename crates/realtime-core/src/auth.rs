//! Authentication: the user and the login behind each connection.
//!
//! An [`Authenticator`] turns a [`Handshake`] into a [`Principal`]. `JwtAuthenticator` (feature `jwt`) verifies JSON
//! Web Tokens; `realtime-redis` has an authenticator for Sa-Token. A [`TopicPolicy`] decides which topics clients may
//! subscribe to, and [`AllowedOrigins`] which web pages may connect.

mod allowed_origins;
mod authenticator;
mod extensions;
#[cfg(feature = "jwt")]
mod jwt;
mod login_source;
mod origin;
mod proxies;
mod tickets;
mod token_hash;
mod topic_pattern;
mod topics;
mod unclear;

#[cfg(feature = "jwks")]
pub use self::jwt::JwkUrl;
#[cfg(all(test, feature = "jwt"))]
pub(crate) use self::jwt::test_keys as jwt_test_keys;
#[cfg(feature = "jwt")]
pub use self::jwt::{
    Claims, JwkFile, JwkSource, JwkSourceError, JwtAlgorithm, JwtAuthenticator, JwtKey, JwtKeyError,
    JwtSigningKey, PublicKeyAlgorithm, RotatingKeys, RotatingKeysBuilder, SignError, UnknownAlgorithm,
};
pub(crate) use self::tickets::TicketRate;
pub use self::{
    allowed_origins::{AllowedOrigins, OriginError, Page},
    authenticator::{AuthError, Authenticator, ClientIdPolicy, Credential, Handshake, Principal},
    extensions::Extensions,
    login_source::LoginSource,
    proxies::{TrustedProxies, TrustedProxiesError},
    tickets::{MemoryTickets, Ticket, TicketError, TicketKey, TicketStore},
    token_hash::TokenHash,
    topic_pattern::TopicPattern,
    topics::{RefusedTopic, TopicDecision, TopicGrant, TopicPolicy, TopicRefusal},
    unclear::{Unclear, only},
};

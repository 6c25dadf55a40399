//! Logins: who may connect, and as whom.
//!
//! An [`Authenticator`] turns a [`Handshake`] into a [`Principal`]. `JwtAuthenticator` (feature `jwt`) is one;
//! `realtime-redis` has another, for Sa-Token.

mod authenticator;
mod extensions;
#[cfg(feature = "jwt")]
mod jwt;
mod proxies;

#[cfg(feature = "jwt")]
pub use self::jwt::{Claims, EmptySecret, JwtAlgorithm, JwtAuthenticator, UnknownAlgorithm};
pub use self::{
    authenticator::{AuthError, Authenticator, ClientIdPolicy, Credential, Handshake, Principal, TokenHash},
    extensions::Extensions,
    proxies::{TrustedProxies, TrustedProxiesError},
};

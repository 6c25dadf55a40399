//! [`SaTokenAuthenticator`]: logins that Sa-Token issued and stores in Redis, as in RuoYi-Vue-Plus.
//!
//! A token is a JWT of the style "simple", signed but without an expiry, or an opaque string. Only Redis knows whether the
//! login is still valid, so it is asked at every handshake, and repeatedly while sessions are open.

mod authenticator;
mod claims;
mod config;
mod connections;
mod login_rejection;
mod record;
mod store;
mod watch;

pub use self::{
    authenticator::SaTokenAuthenticator,
    config::{SaTokenConfig, SaTokenConfigError, SaTokenStyle, SaTokenStyleError},
    watch::SaTokenWatch,
};

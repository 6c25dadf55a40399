//! Sections of what a build leaves out. Their keys are accepted, since a file may be shared with other builds; asking for the
//! module itself is an error (`checks`).
//!
//! That a key exists is known from the reference, so nothing is listed here that is not read.

use serde::Deserialize;
#[cfg(not(feature = "redis"))]
use serde::{Deserializer, de::IgnoredAny};

/// The section of a transport.
#[cfg(not(all(feature = "websocket", feature = "sse")))]
#[derive(Debug, Clone, Deserialize)]
pub struct Transport {
    /// Switches the module on.
    pub enabled: bool,
    /// Path of the endpoint.
    pub path: String,
}

/// The section `redis`, which names a server.
#[cfg(not(feature = "redis"))]
#[derive(Debug, Clone)]
pub struct Redis;

/// The section `auth.saToken`.
#[cfg(not(feature = "redis"))]
#[derive(Debug, Clone, Deserialize)]
pub struct SaToken {}

#[cfg(not(feature = "redis"))]
impl Redis {
    pub(super) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        #[derive(Deserialize)]
        struct Section {
            url: Option<IgnoredAny>,
        }
        Ok(Section::deserialize(deserializer)?.url.map(|_| Self))
    }
}

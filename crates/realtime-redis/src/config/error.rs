//! [`RedisConfigError`]: why a configuration is invalid.

use std::path::PathBuf;

/// An invalid configuration.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisConfigError {
    /// An invalid URL. It is not shown, since it may contain a password.
    #[error("{what} is no Redis URL: {problem}")]
    Url {
        /// The name of the URL, such as `sentinel 2`.
        what: String,
        /// The problem.
        problem: String,
    },
    /// A value that cannot work, alone or beside the others.
    #[error("{key}: {problem}")]
    Key {
        /// The dotted key, below the section.
        key: &'static str,
        /// The problem.
        problem: String,
    },
    /// A file that cannot be read, or has nothing usable in it.
    #[error("{key} (`{}`): {problem}", file.display())]
    File {
        /// The dotted key that names it, below the section.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// The problem.
        problem: String,
    },
    /// Unusable certificates.
    #[error("TLS: {0}")]
    Tls(String),
    /// A list of URLs is empty.
    #[error("{0}: at least one URL is needed")]
    NoUrl(&'static str),
}

impl RedisConfigError {
    /// The dotted key whose value is invalid, below the section, if it is known. The error's text begins with it.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Key { key, .. } | Self::File { key, .. } => Some(key),
            Self::Url { .. } | Self::Tls(_) | Self::NoUrl(_) => None,
        }
    }
}

//! [`ConfigError`]: the problem, the key, and the source of the value. [`ConfigErrors`]: all that there are.

use std::{fmt, path::PathBuf};

/// All problems of a configuration that cannot be used; at least one. It reads as one line for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    problems: Vec<ConfigError>,
    warnings: Vec<String>,
}

/// A problem of a configuration.
///
/// It reads ``server.port (file app.yml): expected a whole number, found text``, and never shows a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The dotted key; `None` when a file as a whole cannot be used.
    pub key: Option<String>,
    /// Source of the value; `None` where the problem names it or no value was set.
    pub source: Option<Source>,
    /// The problem.
    pub problem: String,
}

/// Source of a value; a stronger one is greater.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The built-in reference.
    Defaults,
    /// RuoYi's file of that path.
    Ruoyi(PathBuf),
    /// The file of that path.
    File(PathBuf),
    /// The environment variable of that name.
    Environment(String),
    /// The file that the environment variable of that name names.
    VariableFile(String, PathBuf),
}

impl Source {
    /// Number of the layer; each sets a key once.
    pub(super) fn layer(&self) -> u8 {
        match self {
            Self::Defaults => 0,
            Self::Ruoyi(_) => 1,
            Self::File(_) => 2,
            Self::Environment(_) | Self::VariableFile(..) => 3,
        }
    }
}

impl ConfigError {
    /// A problem with a key, before it is known where its value was set.
    pub(super) fn at(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: Some(key.into()), source: None, problem: problem.into() }
    }

    /// A problem with a source as a whole.
    pub(super) fn unreadable(source: Source, problem: impl Into<String>) -> Self {
        Self { key: None, source: Some(source), problem: problem.into() }
    }

    /// The same problem, set in `source`.
    pub(super) fn found_in(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.key, &self.source) {
            (Some(key), Some(source)) => write!(f, "{key} ({source}): {}", self.problem),
            (Some(key), None) => write!(f, "{key}: {}", self.problem),
            (None, Some(source)) => write!(f, "{source}: {}", self.problem),
            (None, None) => f.write_str(&self.problem),
        }
    }
}

impl std::error::Error for ConfigError {}

impl ConfigErrors {
    /// The problems, in the order of their discovery.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.problems.iter()
    }

    /// Warnings that may be the cause of a problem: variables that are ignored.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.warnings.iter().map(String::as_str)
    }

    /// The same problems with warnings.
    pub(super) fn warned(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }
}

impl From<Vec<ConfigError>> for ConfigErrors {
    fn from(errors: Vec<ConfigError>) -> Self {
        Self { problems: errors, warnings: Vec::new() }
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self::from(vec![error])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.problems.iter().enumerate() {
            write!(f, "{}{error}", if n > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults => f.write_str("built-in defaults"),
            Self::Ruoyi(path) | Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::VariableFile(name, path) => {
                write!(f, "file {} of environment variable {name}", path.display())
            }
        }
    }
}

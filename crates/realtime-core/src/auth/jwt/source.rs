//! [`JwkSource`]: a place of a JSON Web Key Set.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    thread,
};

use futures_core::future::BoxFuture;
use tokio::sync::oneshot;

/// A place that a JSON Web Key Set is read from, again and again.
pub trait JwkSource: fmt::Debug + Send + Sync + 'static {
    /// Reads the set as JSON (RFC 7517, section 5). Never called again before it has ended, and ended after some seconds.
    ///
    /// # Errors
    /// [`JwkSourceError`]; the keys of the last read stay.
    fn read(&self) -> BoxFuture<'_, Result<String, JwkSourceError>>;
}

/// Error of a set that could not be read. The text names the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JwkSourceError(pub String);

/// A set in a file.
#[derive(Debug, Clone)]
pub struct JwkFile(PathBuf);

impl JwkFile {
    /// Creates the source.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl JwkSource for JwkFile {
    fn read(&self) -> BoxFuture<'_, Result<String, JwkSourceError>> {
        let path = self.0.clone();
        Box::pin(on_thread(move || read_file(&path)))
    }
}

fn read_file(path: &Path) -> Result<String, JwkSourceError> {
    let failed = |error: io::Error| JwkSourceError(format!("{}: {error}", path.display()));
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > MAX_BYTES {
        return Err(JwkSourceError(format!("{}: longer than {MAX_BYTES} bytes", path.display())));
    }
    fs::read_to_string(path).map_err(failed)
}

/// Length of a set at most.
pub(super) const MAX_BYTES: u64 = 256 << 10;

/// Runs a read that blocks. Its thread is none of the runtime's, whose end would wait for it.
pub(super) async fn on_thread<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, JwkSourceError> + Send + 'static,
) -> Result<T, JwkSourceError> {
    let (answer, answered) = oneshot::channel();
    thread::Builder::new()
        .name("key set".to_owned())
        .spawn(move || answer.send(read()).ok())
        .map_err(|error| JwkSourceError(format!("no thread: {error}")))?;
    answered.await.unwrap_or_else(|_| Err(JwkSourceError("the read has panicked".to_owned())))
}

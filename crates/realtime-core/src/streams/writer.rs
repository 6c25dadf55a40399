//! [`StreamWriter`]: the writer of a text stream.

use std::{fmt, sync::Arc};

use super::{
    entry::{Outcome, StreamEnd},
    id::StreamKey,
    local::NodeStreams,
    writer_state::{StreamError, WriterState},
};

/// The writer of a text stream, from [`Hub::stream`](crate::Hub::stream).
///
/// Dropped without [`finish`](Self::finish), it ends the stream as failed. If its node dies, the other nodes end the
/// stream as interrupted, within 12 s; on a single node with Redis, the next one that starts. A writer that waits for long,
/// say for a tool that its model calls, keeps its stream.
///
/// ```
/// use realtime_core::streams::{Outcome, StreamError, StreamWriter};
///
/// # async fn next_token() -> Option<String> { None }
/// async fn answer(stream: StreamWriter) -> Result<(), StreamError> {
///     loop {
///         tokio::select! {
///             token = next_token() => match token {
///                 Some(token) => stream.append(&token).await?,
///                 None => return stream.finish(Outcome::Done).await,
///             },
///             () = stream.stopped() => return stream.finish(Outcome::Stopped).await,
///         }
///     }
/// }
/// ```
#[must_use = "a stream whose writer is dropped has failed"]
pub struct StreamWriter {
    state: Arc<WriterState>,
    node: Arc<NodeStreams>,
}

/// Bytes that may wait to be published before [`StreamWriter::append`] waits.
const MAX_WAITING: usize = 64 << 10;

impl StreamWriter {
    pub(super) fn new(state: Arc<WriterState>, node: Arc<NodeStreams>) -> Self {
        Self { state, node }
    }

    /// The stream.
    pub fn key(&self) -> &StreamKey {
        &self.state.key
    }

    /// Number of this writer: higher than that of any before that is known, and at least the time at which it began, in
    /// milliseconds since 1970. So it is higher than those that are forgotten, too, as far as the clocks of nodes agree. It
    /// grows if the bus has lost the stream, which is then published anew.
    pub fn run(&self) -> u64 {
        self.state.lock().run
    }

    /// Appends a text.
    ///
    /// It is published at once, or with what is appended within `streams.maxDelay` of the last publish. While the bus is
    /// unavailable it is kept and tried again; the call waits while 64 KiB wait. It may be cancelled: the text is appended
    /// whole or not at all.
    ///
    /// # Errors
    /// [`StreamError::Fenced`] once the stream has another writer or was ended by other nodes: nothing is published any
    /// more. It may come from a text that was appended before. [`StreamError::TooLong`] and [`StreamError::NoRoom`] end the
    /// stream as failed.
    pub async fn append(&self, text: &str) -> Result<(), StreamError> {
        self.state
            .wait_for(|state| match &state.over {
                Some(over) => Some(over.clone()),
                None if state.text.len() - state.published < MAX_WAITING => Some(Ok(())),
                None => None,
            })
            .await?;
        let limits = self.node.limits();
        let mut state = self.state.lock();
        let ended = || StreamError::Ended(self.state.key.clone());
        if let Some(over) = &state.over {
            return Err(over.clone().err().unwrap_or_else(ended));
        }
        if state.finish.is_some() {
            return Err(ended());
        }
        let error = if state.text.len() + text.len() > limits.max_bytes {
            StreamError::TooLong { key: self.state.key.clone(), limit: limits.max_bytes }
        } else if !self.node.has_room(text.len()) {
            StreamError::NoRoom { limit: limits.max_node_bytes }
        } else {
            state.text.push_str(text);
            drop(state);
            self.state.work.notify_one();
            return Ok(());
        };
        drop(state);
        tracing::warn!(%error, "a text stream has failed");
        self.state.finish(StreamEnd::Failed);
        Err(error)
    }

    /// Waits until everything that was appended has been published.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub async fn flush(&self) -> Result<(), StreamError> {
        let flushed = |state: &super::writer_state::Text| match &state.over {
            Some(over) => Some(over.clone()),
            None => (state.published == state.text.len()).then_some(Ok(())),
        };
        self.state.wait_for(flushed).await
    }

    /// Waits until somebody has asked to [stop](crate::Hub::stop_stream) the stream, or nothing is published any more since
    /// it has another writer or was ended.
    pub async fn stopped(&self) {
        self.state.wait_for(|state| (state.stop || state.over.is_some()).then_some(())).await;
    }

    /// Ends the stream, behind everything that was appended. Returns when the end is published. Cancelled, the stream ends
    /// all the same.
    ///
    /// # Errors
    /// As [`Self::append`]; the stream ended otherwise then, or before: [`StreamError::Ended`].
    pub async fn finish(self, outcome: Outcome) -> Result<(), StreamError> {
        let end = outcome.into();
        let published = self.state.finish(end);
        self.state.wait_for(|state| state.over.clone()).await?;
        if published == end { Ok(()) } else { Err(StreamError::Ended(self.state.key.clone())) }
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        // Without effect on a stream that was finished.
        self.state.finish(StreamEnd::Failed);
    }
}

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamWriter").field(&self.state.key).finish()
    }
}

//! [`WriterState`]: what a writer, its publishing task and the node share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{
    entry::{StreamEnd, StreamEntry},
    id::{StreamIdError, StreamKey},
};
use crate::{bus::BusError, error::TopicError};

/// Error of a text stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The id is invalid.
    #[error(transparent)]
    Id(#[from] StreamIdError),
    /// The topic's name is invalid.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The bus carries no text streams.
    #[error("this bus carries no text streams: it has no positions")]
    Unsupported,
    /// Another writer has taken the stream over, or other nodes have ended it, since nothing was heard of this one.
    #[error("the stream {0} has another writer, or has ended")]
    Fenced(StreamKey),
    /// The text is above `streams.maxBytes`. The stream was ended as failed.
    #[error("the stream {key} is above {limit} bytes (streams.maxBytes)")]
    TooLong {
        /// The stream.
        key: StreamKey,
        /// The limit.
        limit: usize,
    },
    /// The texts that are being written are above `streams.maxNodeBytes`. The stream was ended as failed.
    #[error("the texts that are being written are above {limit} bytes (streams.maxNodeBytes)")]
    NoRoom {
        /// The limit.
        limit: usize,
    },
    /// The stream has ended: it was finished, or its hub has ended.
    #[error("the stream {0} has ended")]
    Ended(StreamKey),
    /// The bus failed.
    #[error("failed to write the stream {key}: {source}")]
    Bus {
        /// The stream.
        key: StreamKey,
        /// The bus's error.
        source: BusError,
    },
}

impl StreamError {
    /// HTTP status of the response to a request that failed with this error.
    pub fn status(&self) -> u16 {
        match self {
            Self::Id(_) | Self::Topic(_) => 400,
            Self::Fenced(_) | Self::Ended(_) => 409,
            Self::TooLong { .. } => 413,
            Self::Unsupported => 422,
            Self::NoRoom { .. } => 503,
            Self::Bus { source, .. } => source.status(),
        }
    }
}

/// State that a writer, its publishing task and the node share.
#[derive(Debug)]
pub(super) struct WriterState {
    pub(super) key: StreamKey,
    /// The writer's name, unlike any other.
    pub(super) writer: String,
    text: Mutex<Text>,
    /// Notified when there is something for the publishing task.
    pub(super) work: Notify,
    /// Notified when something was published, when a stop was asked for, and at the end.
    pub(super) progress: Notify,
}

#[derive(Debug)]
pub(super) struct Text {
    pub(super) run: u64,
    /// Everything that was appended, in case that the bus loses some of it.
    pub(super) text: String,
    /// Length of what was published.
    pub(super) published: usize,
    /// The end that is to be published behind the text.
    pub(super) finish: Option<StreamEnd>,
    /// The bus is to be asked for the state of the stream.
    pub(super) doubted: bool,
    pub(super) stop: bool,
    /// The result, once nothing more is published.
    pub(super) over: Option<Result<(), StreamError>>,
}

impl WriterState {
    pub(super) fn new(key: StreamKey, writer: String, run: u64) -> Self {
        let text = Text {
            run,
            text: String::new(),
            published: 0,
            finish: None,
            doubted: false,
            stop: false,
            over: None,
        };
        Self { key, writer, text: Mutex::new(text), work: Notify::new(), progress: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Text> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the writing, unless it has ended.
    pub(super) fn end(&self, result: Result<(), StreamError>) {
        self.lock().over.get_or_insert(result);
        self.work.notify_one();
        self.progress.notify_waiters();
    }

    /// Ends the writing if a message of the stream proves that it was fenced.
    pub(super) fn see(&self, entry: &StreamEntry) {
        let (run, finish) = {
            let text = self.lock();
            (text.run, text.finish)
        };
        let end = entry.change.end();
        if entry.run > run || (entry.run == run && end.is_some() && end != finish) {
            self.end(Err(StreamError::Fenced(self.key.clone())));
        }
    }

    /// Has an end published behind the text, unless there is one. Returns the one that is published.
    pub(super) fn finish(&self, end: StreamEnd) -> StreamEnd {
        let published = *self.lock().finish.get_or_insert(end);
        self.work.notify_one();
        published
    }

    /// Asks the writer to stop. Returns `true` if it had not been asked and has not ended.
    pub(super) fn stop(&self) -> bool {
        let mut text = self.lock();
        let asked = !text.stop && text.finish.is_none() && text.over.is_none();
        text.stop = true;
        drop(text);
        self.progress.notify_waiters();
        asked
    }

    /// Has the bus asked for the state of the stream, since it may have lost it.
    pub(super) fn doubt(&self) {
        self.lock().doubted = true;
        self.work.notify_one();
    }

    /// Waits until `ready` returns something.
    pub(super) async fn wait_for<T>(&self, mut ready: impl FnMut(&Text) -> Option<T>) -> T {
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            // Enabled before the check, so that no notification in between is lost.
            progress.as_mut().enable();
            if let Some(ready) = ready(&self.lock()) {
                return ready;
            }
            progress.await;
        }
    }
}

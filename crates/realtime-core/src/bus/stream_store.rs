//! [`StreamStore`]: a bus's account of its text streams.

use std::{fmt, time::Duration};

use futures_core::future::BoxFuture;

use super::error::BusError;
use crate::{
    Position,
    streams::{StreamEnd, StreamEntry, StreamKey},
};

/// A bus's account of its text streams: who may write, how far the text is, and the text itself.
///
/// It decides about an entry together with publishing it, in one step for the whole cluster. So of each run everything is
/// published once, in order and without holes, and nothing after its end.
///
/// Every method returns within a bounded time.
pub trait StreamStore: Send + Sync + fmt::Debug + 'static {
    /// Publishes an entry if it continues the stream:
    ///
    /// - a higher run than any before begins with a text at 0;
    /// - an entry of the current run continues it if it comes from the same writer, at the end of the text, and the
    ///   stream has not ended.
    ///
    /// The last entry of a writer may be written again: it is published once, and the answer is the same. Each text renews
    /// the writer's lease.
    ///
    /// # Errors
    /// [`BusError`] as of [`Bus::publish`](super::Bus::publish).
    fn write<'a>(&'a self, write: &'a StreamWrite<'a>) -> BoxFuture<'a, Result<StreamWritten, BusError>>;

    /// The streams that are being written, or have ended and are still kept.
    ///
    /// # Errors
    /// [`BusError`] if they cannot be read.
    fn heads(&self) -> BoxFuture<'_, Result<Vec<StreamHead>, BusError>>;

    /// A stream and its text up to now; `None` if it is not kept, or the text is not.
    ///
    /// # Errors
    /// [`BusError`] if it cannot be read.
    fn read<'a>(
        &'a self,
        key: &'a StreamKey,
    ) -> BoxFuture<'a, Result<Option<(StreamHead, String)>, BusError>>;

    /// Renews the leases of streams that are being written. Returns those that have none any more: they were ended, or
    /// the store has lost them.
    ///
    /// # Errors
    /// [`BusError`] if they may not have been renewed.
    fn renew<'a>(&'a self, keys: &'a [StreamKey]) -> BoxFuture<'a, Result<Vec<StreamKey>, BusError>>;

    /// The streams whose writers' leases have ended, some of them if there are many. Called once a second by nodes that
    /// know of streams of other nodes.
    ///
    /// # Errors
    /// [`BusError`] if they cannot be read.
    fn abandoned(&self) -> BoxFuture<'_, Result<Vec<StreamHead>, BusError>>;
}

/// An entry to publish.
#[derive(Debug)]
pub struct StreamWrite<'a> {
    /// The entry.
    pub entry: &'a StreamEntry,
    /// The writer, unlike any other. For an end by another node: the writer that is ended.
    pub writer: &'a str,
    /// Further condition.
    pub condition: WriteCondition,
    /// Time for which the stream is kept after its end.
    pub keep: Duration,
}

/// Further condition of a [`StreamWrite`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteCondition {
    /// None.
    Always,
    /// The writer has no lease any more. A stream that the store does not know counts as such.
    IfAbandoned,
}

/// Answer to a [`StreamWrite`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamWritten {
    /// It was published, now or by an earlier attempt.
    Added(Position),
    /// It was not: the stream has ended, or has another writer.
    Fenced {
        /// The current run.
        run: u64,
    },
    /// It was not: the store knows nothing of this run, or less of its text, since it has lost data.
    Lost,
}

/// The state of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHead {
    /// The stream.
    pub key: StreamKey,
    /// Number of its newest writer.
    pub run: u64,
    /// That writer.
    pub writer: String,
    /// Length of the text in bytes.
    pub len: u64,
    /// The end, unless it is being written.
    pub end: Option<StreamEnd>,
}

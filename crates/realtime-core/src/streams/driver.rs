//! The task that publishes what a writer appends.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytestring::ByteString;
use tokio::time::sleep;

use super::{
    entry::{StreamChange, StreamEnd, StreamEntry},
    id::StreamKey,
    local::NodeStreams,
    writer::StreamWriter,
    writer_state::{StreamError, WriterState},
};
use crate::{
    bus::{BusError, StreamStore, StreamWrite, StreamWritten, WriteCondition},
    metrics::stopwatch::Stopwatch,
    node::Node,
};

/// Bytes of text in one message: JSON may need six bytes for one.
const CHUNK: usize = 8 << 10;

/// Pauses between attempts while the bus is unavailable.
const RETRY: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// Attempts to begin a stream whose number others take at the same time.
const BEGINS: usize = 10;

/// Begins a run of a stream. Returns its writer and the future that publishes for it, which ends with the stream.
///
/// # Errors
/// [`StreamError::Bus`], also when others begin the same stream all the time.
pub(crate) async fn begin(
    node: &Arc<Node>,
    store: Arc<dyn StreamStore>,
    key: StreamKey,
) -> Result<(StreamWriter, impl Future<Output = ()> + Send + use<>), StreamError> {
    let writer = format!("{:032x}", rand::random::<u128>());
    // A stream that was begun before may be forgotten here, or everywhere: the time counts on.
    let millis = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let millis = u64::try_from(millis).unwrap_or_default();
    let mut run = node.streams.table.run(&key).saturating_add(1).max(millis);
    let fail = |source| StreamError::Bus { key: key.clone(), source };
    for _ in 0..BEGINS {
        let entry =
            StreamEntry { key: key.clone(), run, at: 0, change: StreamChange::Text(ByteString::new()) };
        match write(node, &*store, &writer, &entry, WriteCondition::Always).await.map_err(fail)? {
            StreamWritten::Added(_) => {
                let state = Arc::new(WriterState::new(key, writer, run));
                node.streams.add(&state);
                let over = Over(Arc::clone(&state), Arc::clone(&node.streams));
                let driver = Driver { node: Arc::clone(node), store, state: Arc::clone(&state), _over: over };
                return Ok((StreamWriter::new(state, Arc::clone(&node.streams)), driver.run()));
            }
            StreamWritten::Fenced { run: newest } => run = newest.max(run).saturating_add(1),
            StreamWritten::Lost => {
                return Err(fail(BusError::Unavailable("it has lost the stream that begins".into())));
            }
        }
    }
    Err(fail(BusError::Throttled("other writers begin it all the time".into())))
}

/// Publishes an entry, and counts and times it as [`Hub::publish`](crate::Hub::publish) does.
async fn write(
    node: &Node,
    store: &dyn StreamStore,
    writer: &str,
    entry: &StreamEntry,
    condition: WriteCondition,
) -> Result<StreamWritten, BusError> {
    let keep = node.settings.streams.keep;
    let watch = Stopwatch::start();
    let answer = store.write(&StreamWrite { entry, writer, condition, keep }).await;
    watch.record_publish(answer.is_ok());
    match &answer {
        Ok(StreamWritten::Added(position)) => {
            node.acknowledge(Some(*position));
            node.metrics.published.add(1);
        }
        Ok(StreamWritten::Fenced { .. } | StreamWritten::Lost) => {}
        Err(error) => node.metrics.publish_failures.count(error),
    }
    answer
}

/// Publishes what a writer appends, in order and each once.
struct Driver {
    node: Arc<Node>,
    store: Arc<dyn StreamStore>,
    state: Arc<WriterState>,
    /// A part of it, since a task may end before it has run.
    _over: Over,
}

/// Next entry of a writer.
enum Next {
    Entry(StreamEntry),
    /// Nothing is to be published.
    Nothing,
    Over,
}

impl Driver {
    async fn run(self) {
        let (mut retry, mut pending) = (RETRY[0], None);
        loop {
            let entry = match self.next(pending.take()) {
                Next::Entry(entry) => entry,
                Next::Nothing => {
                    self.state.work.notified().await;
                    continue;
                }
                Next::Over => return,
            };
            let Self { node, store, state, .. } = &self;
            match write(node, &**store, &state.writer, &entry, WriteCondition::Always).await {
                Ok(StreamWritten::Added(_)) => {
                    retry = RETRY[0];
                    if self.published(&entry) {
                        return self.state.end(Ok(()));
                    }
                    // What is appended meanwhile is published together.
                    sleep(self.node.settings.streams.max_delay).await;
                }
                Ok(StreamWritten::Fenced { .. }) => return self.fenced(),
                Ok(StreamWritten::Lost) => {
                    tracing::warn!(stream = %entry.key.id, "the bus has lost a text stream, which is published anew");
                    let mut text = self.state.lock();
                    (text.run, text.published) = (entry.run.saturating_add(1), 0);
                    // Begins the run, even if there is no text.
                    text.doubted = true;
                }
                Err(error @ (BusError::TooLarge(_) | BusError::Unsupported(_))) => {
                    let key = self.state.key.clone();
                    return self.state.end(Err(StreamError::Bus { key, source: error }));
                }
                // The same entry again, which is published once; with more text it would be another one.
                Err(error) => {
                    tracing::debug!(%error, stream = %entry.key.id, "failed to write a text stream, which is tried again");
                    pending = Some(entry);
                    sleep(retry).await;
                    retry = (retry * 2).min(RETRY[1]);
                }
            }
        }
    }

    fn next(&self, pending: Option<StreamEntry>) -> Next {
        let text = self.state.lock();
        if text.over.is_some() {
            return Next::Over;
        }
        if let Some(entry) = pending {
            return Next::Entry(entry);
        }
        let rest = &text.text[text.published..];
        let change = if !(rest.is_empty() || text.doubted && text.published == 0) {
            StreamChange::Text(chunk(rest).to_owned().into())
        } else if text.doubted {
            StreamChange::Text(ByteString::new())
        } else if let Some(end) = text.finish {
            StreamChange::End(end)
        } else {
            return Next::Nothing;
        };
        let key = self.state.key.clone();
        Next::Entry(StreamEntry { key, run: text.run, at: text.published as u64, change })
    }

    /// Records what was published. Returns `true` for the end.
    fn published(&self, entry: &StreamEntry) -> bool {
        let mut text = self.state.lock();
        text.published += entry.change.text().len();
        text.doubted = false;
        drop(text);
        self.state.progress.notify_waiters();
        entry.change.end().is_some()
    }

    fn fenced(&self) {
        tracing::info!(stream = %self.state.key.id, "the writer of a text stream was fenced");
        self.state.end(Err(StreamError::Fenced(self.state.key.clone())));
    }
}

/// The beginning of a text, cut between characters.
fn chunk(text: &str) -> &str {
    let ends = (1..=text.len().min(CHUNK)).rev();
    let end = ends.into_iter().find(|end| text.is_char_boundary(*end)).unwrap_or(text.len());
    &text[..end]
}

/// Ends a writer whose task ends, also with its hub.
struct Over(Arc<WriterState>, Arc<NodeStreams>);

impl Drop for Over {
    fn drop(&mut self) {
        self.1.remove(&self.0);
        self.0.end(Err(StreamError::Ended(self.0.key.clone())));
    }
}

/// Publishes the end of a stream whose writer has no lease any more. Exactly one node's end is published.
pub(super) async fn interrupt(
    node: &Node,
    store: &dyn StreamStore,
    writer: &str,
    entry: (StreamKey, u64, u64),
) -> Result<StreamWritten, BusError> {
    let (key, run, at) = entry;
    let entry = StreamEntry { key, run, at, change: StreamChange::End(StreamEnd::Interrupted) };
    let written = write(node, store, writer, &entry, WriteCondition::IfAbandoned).await?;
    if let StreamWritten::Added(_) = written {
        tracing::info!(stream = %entry.key.id, "a text stream was interrupted, since its writer's node does not answer");
    }
    Ok(written)
}

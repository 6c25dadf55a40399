//! Text streams of a hub: writers, stops, texts.

use std::sync::PoisonError;

use super::Hub;
use crate::{
    Topic,
    control::{Command, CommandResult, ControlError},
    streams::{StreamError, StreamId, StreamKey, StreamText, StreamWriter, begin},
};

impl Hub {
    /// Begins a text stream to the sessions of a topic, and fences an earlier writer of the same topic and id, on any
    /// node. See [`streams`](crate::streams).
    ///
    /// # Errors
    /// [`StreamError::Id`]; [`StreamError::Unsupported`] on a bus without positions; [`StreamError::Bus`] if the bus did
    /// not accept it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn stream(&self, topic: &Topic, id: &str) -> Result<StreamWriter, StreamError> {
        let key = StreamKey { topic: topic.clone(), id: StreamId::new(id)? };
        let store = self.0.streams.clone().ok_or(StreamError::Unsupported)?;
        let (writer, driver) = begin(&self.0.registry.node, store, key).await?;
        let mut writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        while writing.try_join_next().is_some() {}
        writing.spawn(driver);
        drop(writing);
        Ok(writer)
    }

    /// Asks the writer of a text stream to stop, on any node: its [`StreamWriter::stopped`] resolves, and it is up to it
    /// to finish. [`CommandResult::changed`] is the number of writers that were asked: 0 or 1.
    ///
    /// A stream whose writer's node has died has nobody to ask; the other nodes end it.
    ///
    /// # Errors
    /// [`ControlError`] if the other nodes could not be reached.
    pub async fn stop_stream(&self, topic: &Topic, id: &StreamId) -> Result<CommandResult, ControlError> {
        self.0.control.dispatch(Command::StopStream { topic: topic.clone(), id: id.clone() }).await
    }

    /// A text stream as this node knows it: being written, or ended at most `streams.keep` ago. `None` if it knows none,
    /// or has yet to read its beginning.
    pub fn stream_text(&self, topic: &Topic, id: &StreamId) -> Option<StreamText> {
        self.0.registry.node.streams.text(&StreamKey { topic: topic.clone(), id: id.clone() })
    }
}

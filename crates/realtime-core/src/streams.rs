//! Text streams: texts that one writer appends to while clients read, such as the answer of a language model.
//!
//! [`Hub::stream`](crate::Hub::stream) begins a stream and returns its [`StreamWriter`]. What is appended is published to
//! the stream's topic as messages of the event [`EventName::STREAM`](crate::EventName::STREAM), so it rides log, replay
//! and cursors as everything else does. Beside the log each node keeps the text of each stream so far: a session that
//! begins without a cursor, or enters the topic, gets it as one message, the *prefix*.
//!
//! ```
//! use realtime_core::{Hub, Topic, streams::Outcome};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let hub = Hub::builder().start()?;
//! let stream = hub.stream(&Topic::user(&42.into()), "answer-7").await?;
//! for token in ["Hel", "lo"] {
//!     stream.append(token).await?;
//! }
//! stream.finish(Outcome::Done).await?;
//! # Ok(())
//! # }
//! ```
//!
//! **One writer.** Each writer has a *run*, a number of its own. A second writer of the same topic and id gets a higher
//! one and fences the first, whose appends fail from then on. Of one run everything is published once, in order, and
//! nothing after its end: the bus decides it together with the publish ([`StreamStore`](crate::bus::StreamStore)).
//!
//! **An end in any case.** A writer that is dropped ends its stream as failed. A writer whose node has died is ended as
//! interrupted by the other nodes.

mod driver;
mod entry;
mod id;
pub(crate) mod keeper;
pub(crate) mod loader;
pub(crate) mod local;
mod table;
#[cfg(all(test, not(feature = "shuttle")))]
mod tests;
mod writer;
mod writer_state;

pub(crate) use self::driver::begin;
pub use self::{
    entry::{Outcome, StreamChange, StreamEnd, StreamEntry},
    id::{StreamId, StreamIdError, StreamKey},
    table::StreamText,
    writer::StreamWriter,
    writer_state::StreamError,
};

//! [`History`]: everything that was seen in an audit, in the order in which it was seen.
//!
//! It is all that the checker knows. Written to a file it can be judged again, and looked into.

use std::{
    fmt,
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    str::FromStr,
    sync::Mutex,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use realtime_core::Position;
use serde::{Deserialize, Serialize};

use crate::{audit::fault::Fault, pool_shared::lock};

/// A position, as cursors and acknowledgements name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Cursor {
    pub(crate) epoch: u64,
    pub(crate) offset: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.offset)
    }
}

impl FromStr for Cursor {
    type Err = realtime_core::error::CursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Position { epoch, offset } = text.parse()?;
        Ok(Self { epoch, offset })
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}

impl TryFrom<String> for Cursor {
    type Error = realtime_core::error::CursorError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// The recipients of a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Target {
    /// A user.
    User(u32),
    /// A topic of some users' tokens.
    Topic(u32),
    /// All users.
    All,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user:{user}"),
            Self::Topic(topic) => write!(f, "topic:{topic}"),
            Self::All => f.write_str("all"),
        }
    }
}

impl FromStr for Target {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            Some(("user", user)) => user.parse().map(Self::User).map_err(drop),
            Some(("topic", topic)) => topic.parse().map(Self::Topic).map_err(drop),
            None if text == "all" => Ok(Self::All),
            _ => Err(()),
        }
    }
}

/// A client's behaviour beyond what the protocol requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Behaviour {
    /// Comes back with its cursor, elsewhere.
    Steady,
    /// Moves to another node and transport every few seconds.
    Mover,
    /// Reads slowly.
    Slow,
    /// Stays away for some time, now and then for longer than the window.
    Away,
    /// Dials the same node again at once, until its port opens.
    Eager,
    /// As eager, but never brings a cursor: each connection is a chain of its own.
    Fresh,
    /// Is kicked, and does not come back.
    Kicked,
}

/// One of the two transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Transport {
    Sse,
    WebSocket,
}

/// The end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// The connection was refused.
    Unreached,
    /// The answer was a refusal.
    Refused(u16),
    /// The response asked the client to retry later.
    Later,
    /// No answer, or nothing at all for longer than the protocol allows; the client gave up.
    Silent,
    /// The connection broke, or ended without an orderly end.
    Broken,
    /// An event stream's orderly end.
    Ended,
    /// A Close frame with this code; `bye` before it is in `reason`.
    Closed(u16),
    /// The client left on its own.
    Left,
}

/// Something that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// Parameters of the run; the first record.
    Run { seed: u64, epoch_ms: u64, window_ms: u64, late_ms: u64 },
    /// A fault begins.
    FaultBegins { fault: Fault, detail: String },
    /// It has been made good.
    FaultEnds { fault: Fault },
    /// Faults are over; everything catches up.
    Quiet,
    /// Everything was to have caught up by now.
    Finish,
    /// The stream was trimmed: nothing up to there is left in Redis.
    Trimmed { upto: Cursor },
    /// Something that an own process should not have done.
    Problem { what: String },
    /// A message was acknowledged; `began` is when its request was sent.
    Acknowledged { n: u64, target: Target, began: u64, cursor: Option<Cursor> },
    /// It was rejected, or its outcome is unknown; `status` is 0 for the latter.
    Unacknowledged { n: u64, target: Target, began: u64, status: u16 },
    /// A client that begins without a cursor.
    ChainBegins { chain: u32, user: u32, topics: Vec<u32>, behaviour: Behaviour },
    /// It dials.
    Dial { chain: u32, node: u32, transport: Transport, cursor: Option<Cursor> },
    /// It was accepted.
    Hello { chain: u32, recovered: Option<bool>, cursor: Option<Cursor> },
    /// A message came.
    Message { chain: u32, n: u64, target: Target, cursor: Option<Cursor> },
    /// A heartbeat came.
    Beat { chain: u32, cursor: Option<Cursor> },
    /// A gap came.
    Gap { chain: u32, reason: String, cursor: Option<Cursor> },
    /// Something came that is none of this.
    Malformed { chain: u32, text: String },
    /// A closing frame came, with the delay that the client is asked to keep, in milliseconds.
    Bye { chain: u32, retry: Option<u64> },
    /// The client stops reading on purpose.
    Stall { chain: u32 },
    /// The connection ended, or was not opened.
    End { chain: u32, end: End },
    /// The client is no more; what came later was not for it.
    ChainEnds { chain: u32 },
    /// A kick was answered with 200. `missing`: nodes that had not confirmed it; `why`: what had been acknowledged to
    /// the user just before.
    Kicked { chains: Vec<u32>, user: u32, missing: Vec<String>, why: Option<u64> },
    /// A token that was kicked was tried again. `kept`: it was let in, and its session did not end soon.
    TokenProbed { user: u32, node: u32, transport: Transport, began: u64, let_in: bool, kept: bool },
}

/// Something that was seen, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Microseconds since the start.
    pub(crate) at: u64,
    #[serde(flatten)]
    pub(crate) event: Event,
}

/// Takes down what is seen, from all tasks.
#[derive(Debug)]
pub(crate) struct History {
    began: Instant,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    records: Vec<Record>,
    file: Option<BufWriter<File>>,
}

impl History {
    /// An empty one, that is written to a file as well if one is named.
    pub(crate) fn new(file: Option<&Path>) -> anyhow::Result<Self> {
        let create = |path: &Path| File::create(path).with_context(|| format!("{}", path.display()));
        let file = file.map(create).transpose()?.map(BufWriter::new);
        Ok(Self { began: Instant::now(), kept: Mutex::new(Kept { records: Vec::new(), file }) })
    }

    /// Microseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Takes something down.
    pub(crate) fn push(&self, event: Event) {
        let mut kept = lock(&self.kept);
        // Under the lock, so that the order of the records is the order of their times.
        let record = Record { at: self.now(), event };
        if let Some(file) = &mut kept.file
            && serde_json::to_writer(&mut *file, &record).is_ok()
        {
            // What cannot be written is still judged.
            file.write_all(b"\n").ok();
        }
        kept.records.push(record);
    }

    /// All of it.
    pub(crate) fn take(&self) -> Vec<Record> {
        let mut kept = lock(&self.kept);
        if let Some(mut file) = kept.file.take() {
            file.flush().ok();
        }
        std::mem::take(&mut kept.records)
    }
}

/// Reads a history from its file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    text.lines()
        .enumerate()
        .map(|(line, text)| {
            serde_json::from_str(text).with_context(|| format!("{}:{}", path.display(), line + 1))
        })
        .collect()
}

/// Milliseconds since 1970.
pub(crate) fn wall_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_file() {
        let cursor = Some(Cursor { epoch: 1_795_488_734_770, offset: 3 });
        for event in [
            Event::Quiet,
            Event::Message { chain: 1, n: 2, target: Target::Topic(3), cursor },
            Event::End { chain: 1, end: End::Closed(4409) },
            Event::TokenProbed {
                user: 1,
                node: 2,
                transport: Transport::Sse,
                began: 3,
                let_in: true,
                kept: false,
            },
        ] {
            let record = Record { at: 5, event };
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record, "{text}");
        }
    }
}

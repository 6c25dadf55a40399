//! [`Entry`]: an element of the log, with its encodings in each wire format.

#[cfg(feature = "opentelemetry")]
use std::sync::atomic::AtomicU32;
use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use once_cell::race::OnceBox;

use super::tally::Tally;
#[cfg(feature = "opentelemetry")]
use crate::TraceContext;
use crate::{
    Envelope, Position, SessionId, Topic, Transport,
    wire::{GapReason, MAX_WIRES, WireFormatId},
};

/// An envelope or a gap in the log, with its encodings.
pub(crate) struct Entry {
    pub(crate) position: Option<Position>,
    pub(crate) content: Content,
    pub(crate) at: Instant,
    pub(super) footprint: usize,
    /// Boxed, since most entries have one or two. The cost of an entry is mostly that its memory is not cached when it
    /// is created and freed.
    encoded: [OnceBox<Bytes>; MAX_WIRES],
    /// Hashes of the topics, ascending; computed for the first session that searches many topics for its own.
    hashes: OnceBox<Vec<u64>>,
    pub(super) charge: Option<Charge>,
    rare: Option<Box<Rare>>,
    /// Counter of its deliveries, for an envelope whose publisher asks for it.
    tally: Option<Box<Tally>>,
    /// Number of its writes that may still become spans of their own; `None` unless its trace is recorded.
    #[cfg(feature = "opentelemetry")]
    spans: Option<AtomicU32>,
}

/// Sessions of a message and node whose writes are spans of their own.
#[cfg(feature = "opentelemetry")]
const SESSION_SPANS: u32 = 16;

/// State that few entries have.
#[derive(Debug, Default)]
struct Rare {
    /// The message is not sent any more from then on.
    end: Option<Instant>,
    /// The sequence number of the newer message that replaces it; 0 if there is none.
    replaced_by: AtomicU64,
    /// In a gap: messages may be missing from then on.
    since: Option<Instant>,
}

/// Reason why a message is not sent to a session that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeftOut {
    /// Its time is over.
    Expired,
    /// The newer message with this sequence number replaces it.
    Collapsed(u64),
    /// It is beyond those that are kept of its class, since the one with this sequence number.
    Dropped(u64),
}

/// Accounting of an entry's encodings, which count while the entry is in the window.
pub(super) struct Charge {
    total: Arc<AtomicUsize>,
    /// The bytes that were added for this entry, or [`Charge::CLOSED`].
    own: AtomicUsize,
}

impl Charge {
    const CLOSED: usize = usize::MAX;

    /// Counts an entry's encodings into a total.
    pub(super) fn new(total: Arc<AtomicUsize>) -> Self {
        Self { total, own: AtomicUsize::new(0) }
    }

    fn add(&self, bytes: usize) {
        let added = self.own.fetch_update(Ordering::AcqRel, Ordering::Acquire, |own| {
            (own != Self::CLOSED).then(|| own.saturating_add(bytes).min(Self::CLOSED - 1))
        });
        if added.is_ok() {
            self.total.fetch_add(bytes, Ordering::AcqRel);
        }
    }

    /// Ends the accounting, since the entry leaves the window.
    pub(super) fn close(&self) {
        let own = self.own.swap(Self::CLOSED, Ordering::AcqRel);
        if own != Self::CLOSED {
            // `add` updates the total after this entry's count, so the total may lack bytes for a moment.
            self.total
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |total| Some(total.saturating_sub(own)))
                .ok();
        }
    }
}

pub(crate) enum Content {
    Envelope(Arc<Envelope>),
    /// Positions that are not messages, the last of which is the entry's. They are not sent to clients.
    Skip,
    /// Something is missing here. The position of the next entry is known if the bus has positions.
    Gap(GapReason),
}

impl Entry {
    pub(crate) fn new(position: Option<Position>, content: Content) -> Self {
        let tally = match &content {
            Content::Envelope(envelope) if envelope.wants_confirmation() => Some(Box::default()),
            _ => None,
        };
        #[cfg(feature = "opentelemetry")]
        let spans = match &content {
            Content::Envelope(envelope) if envelope.trace_context().is_some_and(TraceContext::is_sampled) => {
                Some(AtomicU32::new(SESSION_SPANS))
            }
            _ => None,
        };
        let footprint = size_of::<Self>()
            + match &content {
                Content::Envelope(envelope) => envelope.footprint(),
                Content::Skip | Content::Gap(_) => 0,
            };
        Self {
            position,
            content,
            at: Instant::now(),
            footprint,
            encoded: Default::default(),
            hashes: OnceBox::new(),
            charge: None,
            rare: None,
            tally,
            #[cfg(feature = "opentelemetry")]
            spans,
        }
    }

    /// Counter of its deliveries, if its publisher asks for it.
    pub(crate) fn tally(&self) -> Option<&Tally> {
        self.tally.as_deref()
    }

    /// Returns `true` if its trace is recorded.
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn is_sampled(&self) -> bool {
        self.spans.is_some()
    }

    /// Takes one of the spans of its writes; `false` if none is left.
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn take_span(&self) -> bool {
        let left = |left: u32| left.checked_sub(1);
        let spans = self.spans.as_ref();
        spans.is_some_and(|spans| spans.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok())
    }

    /// Sets the time from which on the message is not sent any more.
    pub(crate) fn with_end(mut self, end: Option<Instant>) -> Self {
        if end.is_some() {
            self.rare_mut().end = end;
        }
        self
    }

    /// Prepares for a newer message that replaces this one.
    pub(super) fn replaceable(mut self) -> Self {
        self.rare_mut();
        self
    }

    /// Sets the time since when messages may be missing at this gap.
    pub(super) fn with_since(mut self, since: Option<Instant>) -> Self {
        if since.is_some() {
            self.rare_mut().since = since;
        }
        self
    }

    fn rare_mut(&mut self) -> &mut Rare {
        let footprint = &mut self.footprint;
        self.rare.get_or_insert_with(|| {
            *footprint += size_of::<Rare>();
            Box::default()
        })
    }

    /// The time at which this node received it.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    /// The time from which on the message is not sent any more.
    pub(super) fn end(&self) -> Option<Instant> {
        self.rare.as_ref()?.end
    }

    /// Returns `true` unless it is a gap or a skip.
    pub(crate) fn is_message(&self) -> bool {
        matches!(self.content, Content::Envelope(_))
    }

    /// The envelope, unless it is a gap or a skip.
    pub(crate) fn envelope(&self) -> Option<&Envelope> {
        match &self.content {
            Content::Envelope(envelope) => Some(envelope),
            Content::Skip | Content::Gap(_) => None,
        }
    }

    /// The time since when messages may be missing at this gap, if it is known.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.rare.as_ref()?.since
    }

    /// Records that a newer message replaces this one.
    pub(super) fn replace_by(&self, seq: u64) {
        if let Some(rare) = &self.rare {
            rare.replaced_by.store(seq, Ordering::Release);
        }
    }

    /// Reason why the message is not to be sent any more; `None` for most.
    pub(crate) fn left_out(&self) -> Option<LeftOut> {
        let rare = self.rare.as_ref()?;
        match rare.replaced_by.load(Ordering::Acquire) {
            0 if rare.end.is_some_and(|end| end <= Instant::now()) => Some(LeftOut::Expired),
            0 => None,
            seq if self.envelope().is_some_and(|envelope| envelope.collapse_key().is_some()) => {
                Some(LeftOut::Collapsed(seq))
            }
            seq => Some(LeftOut::Dropped(seq)),
        }
    }

    /// The shared bytes of an envelope in one wire format. `None` for skips, which are not sent, and for gaps, which each
    /// session gets in a frame of its own.
    pub(crate) fn encode(&self, slot: &WireFormatId) -> Option<&Bytes> {
        let Content::Envelope(envelope) = &self.content else { return None };
        let cell = &self.encoded[slot.index];
        let bytes = cell.get().or_else(|| {
            let bytes = slot.wire.message(envelope.message(), envelope.named_topic(), self.position);
            let len = bytes.len();
            // Another worker may have been first: all use its bytes then.
            if cell.set(Box::new(bytes)).is_ok()
                && let Some(charge) = &self.charge
            {
                charge.add(len);
            }
            cell.get()
        })?;
        // A format may leave a message out, and an empty chunk would end a chunked body.
        Some(bytes).filter(|bytes| !bytes.is_empty())
    }

    /// Returns `true` if the entry is an envelope for a session of this id, transport and topics.
    pub(crate) fn is_for(&self, id: SessionId, transport: Transport, topics: &OwnTopics) -> bool {
        let Content::Envelope(envelope) = &self.content else { return false };
        if !envelope.scope().covers(transport) || envelope.excluded() == Some(id) {
            return false;
        }
        if topics.after.is_some() && self.position.is_some() && self.position <= topics.after {
            return false;
        }
        let targets = envelope.topics();
        if targets.len() <= FEW_TOPICS {
            return targets.iter().any(|topic| topic.is_all() || topics.contains(topic, self.position));
        }
        let hashes = self.hashes.get_or_init(|| {
            let mut hashes: Vec<u64> = targets.iter().map(hash).collect();
            hashes.sort_unstable();
            Box::new(hashes)
        });
        topics.begun(self.position).any(|(own, topic)| {
            // Topics with equal hashes are compared: another topic may have the same hash.
            hashes.binary_search(own).is_ok() && targets.contains(topic)
        }) || (hashes.binary_search(&topics.all).is_ok() && targets.iter().any(Topic::is_all))
    }
}

/// Maximum number of targets of an envelope that are compared one by one.
const FEW_TOPICS: usize = 8;

/// The topics of a session that reads the log, with their hashes.
pub(crate) struct OwnTopics {
    topics: Vec<OwnTopic>,
    all: u64,
    /// Position behind which its history begins in all topics.
    after: Option<Position>,
}

/// A topic of a session that reads the log.
struct OwnTopic {
    hash: u64,
    topic: Topic,
    /// Position behind which its history begins.
    after: Option<Position>,
}

impl OwnTopic {
    /// Returns `true` if an entry at the position belongs to the history of the topic. What has no position is never
    /// replayed.
    fn has_begun(&self, position: Option<Position>) -> bool {
        self.after.is_none() || position.is_none() || position > self.after
    }
}

impl OwnTopics {
    pub(crate) fn new(topics: Vec<Topic>) -> Self {
        let topics = topics.into_iter().map(|topic| OwnTopic { hash: hash(&topic), topic, after: None });
        Self { topics: topics.collect(), all: hash(&Topic::all()), after: None }
    }

    /// Begins its history behind a position in all topics, and in some of them behind positions of their own.
    pub(crate) fn after(mut self, all: Option<Position>, topics: &[(Topic, Position)]) -> Self {
        self.after = all;
        for own in &mut self.topics {
            let of_topic = topics.iter().find(|(topic, _)| *topic == own.topic);
            own.after = of_topic.map(|(_, position)| *position);
        }
        self
    }

    /// Returns `true` if its history has begun in all topics at a position, and at every later one.
    pub(crate) fn has_begun(&self, position: Option<Position>) -> bool {
        let has_begun = self.after.is_none() || position.is_none() || position > self.after;
        has_begun && self.topics.iter().all(|own| own.has_begun(position))
    }

    fn contains(&self, topic: &Topic, position: Option<Position>) -> bool {
        self.topics.iter().any(|own| own.topic == *topic && own.has_begun(position))
    }

    /// The topics whose history has begun at a position, with their hashes.
    fn begun(&self, position: Option<Position>) -> impl Iterator<Item = (&u64, &Topic)> {
        let begun = self.topics.iter().filter(move |own| own.has_begun(position));
        begun.map(|own| (&own.hash, &own.topic))
    }
}

fn hash(topic: &Topic) -> u64 {
    let mut hasher = DefaultHasher::new();
    topic.hash(&mut hasher);
    hasher.finish()
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("position", &self.position).finish_non_exhaustive()
    }
}

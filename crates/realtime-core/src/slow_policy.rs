//! [`SlowPolicy`]: what a client gets of messages that wait for it.

use std::num::NonZeroU16;

use crate::CollapseKey;

/// What a session gets of messages that it could not be sent in time, by class of message: of orders all, of ticks the
/// last few, of a gauge the last one.
///
/// In each case a session whose socket takes nothing for `outbox.maxStall` ends. Messages of a class have the same key,
/// topics (in the same order), scope and excluded session. What an outbox has taken counts as sent.
///
/// ```
/// use std::num::NonZeroU16;
/// use realtime_core::{CollapseKey, Envelope, Message, Scope, SlowPolicy, Topic};
///
/// let tick = Envelope::to_topic(Topic::new("dashboard")?, Scope::Both, Message::text("17"));
/// let keep = NonZeroU16::new(20).expect("it is not 0");
/// let tick = tick.when_slow(SlowPolicy::DropOldest { class: CollapseKey::new("cpu")?, keep });
/// assert_eq!(tick.collapse_key(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowPolicy {
    /// All of them: the session reads on in the history, which announces a gap where it ends. It is the default.
    #[default]
    Disconnect,
    /// The newest `keep` of its class. Older ones are left out and counted, and no gap is announced.
    DropOldest {
        /// The class.
        class: CollapseKey,
        /// Number of messages, up to 1,024: a larger one counts as that.
        keep: NonZeroU16,
    },
    /// The newest of its key: see [`Envelope::collapse`](crate::Envelope::collapse).
    Collapse(CollapseKey),
}

/// Largest number of messages that are kept of a class.
const MOST_KEPT: u16 = 1024;

impl SlowPolicy {
    /// The class, and the number of its newest messages that a session gets.
    pub(crate) fn class(&self) -> Option<(&CollapseKey, u16)> {
        match self {
            Self::Disconnect => None,
            Self::DropOldest { class, keep } => Some((class, keep.get().min(MOST_KEPT))),
            Self::Collapse(key) => Some((key, 1)),
        }
    }

    /// Returns `true` if messages of the two are of one class.
    pub(crate) fn shares_class(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::DropOldest { class, .. }, Self::DropOldest { class: other, .. })
            | (Self::Collapse(class), Self::Collapse(other)) => class == other,
            _ => false,
        }
    }
}

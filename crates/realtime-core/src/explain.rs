//! Why a user got a message or did not: the answer of [`Hub::explain`](crate::Hub::explain).

pub(crate) mod gather;
pub(crate) mod messages;
pub(crate) mod report;

pub use self::report::{
    ExplainedGap, ExplainedMessage, ExplainedNode, ExplainedOutbox, ExplainedSession, Explanation,
    MessageState, NodeExplanation, NodeReport, Reached, SessionMode,
};
pub use crate::recent::{EndedSession, RefusedConnection};

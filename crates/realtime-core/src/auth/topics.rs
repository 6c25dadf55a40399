//! [`TopicPolicy`]: decides which topics a client may subscribe to.

use std::sync::Arc;

use futures_core::future::BoxFuture;
use serde::Serialize;

use crate::{Position, Principal, Topic};

/// Decides which topics clients may subscribe to, beyond those that their logins name.
///
/// A client may always subscribe to its user's own topic and to what its login names: [`Principal::topics`], in which its
/// sessions are in any case, and [`Principal::grants`]. The policy is asked for every other topic, one at a time. It must
/// not block the thread. While it decides about a client's frame, the client's next frames wait.
///
/// Without a policy every other topic is refused.
///
/// It is implemented for closures that decide at once:
///
/// ```
/// use realtime_core::{Hub, Principal, Topic};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hub = Hub::builder()
///     .topic_policy(|_: &Principal, topic: &Topic| topic.as_str().starts_with("news:"))
///     .start()?;
/// # Ok(())
/// # }
/// ```
pub trait TopicPolicy: Send + Sync + 'static {
    /// Decides whether sessions of the principal may be in the topic, which may also be another user's, or `all`.
    ///
    /// # Errors
    /// [`TopicRefusal`] with the reason, which the client is told.
    fn may_subscribe<'a>(
        &'a self,
        principal: &'a Principal,
        topic: &'a Topic,
    ) -> BoxFuture<'a, Result<TopicGrant, TopicRefusal>>;
}

impl<F> TopicPolicy for F
where
    F: Fn(&Principal, &Topic) -> bool + Send + Sync + 'static,
{
    fn may_subscribe<'a>(
        &'a self,
        principal: &'a Principal,
        topic: &'a Topic,
    ) -> BoxFuture<'a, Result<TopicGrant, TopicRefusal>> {
        let decision =
            if self(principal, topic) { Ok(TopicGrant::default()) } else { Err(TopicRefusal::default()) };
        Box::pin(std::future::ready(decision))
    }
}

/// A policy that is chosen at run time: `Arc<dyn TopicPolicy>`.
impl<P: TopicPolicy + ?Sized> TopicPolicy for Arc<P> {
    fn may_subscribe<'a>(
        &'a self,
        principal: &'a Principal,
        topic: &'a Topic,
    ) -> BoxFuture<'a, Result<TopicGrant, TopicRefusal>> {
        (**self).may_subscribe(principal, topic)
    }
}

/// Grant of a topic to a client. The default one is of all that can be replayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TopicGrant {
    pub(crate) after: Option<Position>,
}

impl TopicGrant {
    /// A grant of what is published behind a position, for somebody who was let in late: the client may bring an older
    /// cursor, and gets nothing of the topic that was published before, or at the position. Nothing is announced for it.
    ///
    /// Take [`Hub::cursor`](crate::Hub::cursor) when the topic is granted, and keep it with the membership. Without a
    /// position, as on a bus that has none, it is the default grant: there, nothing is replayed.
    ///
    /// It concerns what was published, not state: [retained](crate::Envelope::retain) messages and text streams of the topic
    /// are sent to newcomers as to all.
    pub fn after(position: impl Into<Option<Position>>) -> Self {
        Self { after: position.into() }
    }
}

/// Reason for which a client may not subscribe to a topic, as the client is told it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TopicRefusal(String);

impl TopicRefusal {
    /// Creates a refusal with a reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// `not allowed`.
impl Default for TopicRefusal {
    fn default() -> Self {
        Self::new("not allowed")
    }
}

/// Topics that a client asked for: those that it may be in, and the others with the reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicDecision {
    /// The topics that it may be in, in the order in which it named them.
    pub granted: Vec<Topic>,
    /// Those of them whose history begins behind a position for this client.
    pub after: Vec<(Topic, Position)>,
    /// The others.
    pub refused: Vec<RefusedTopic>,
}

/// A topic that a client may not subscribe to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedTopic {
    /// The topic as the client named it; it may be no valid name.
    pub topic: String,
    /// The reason.
    pub reason: String,
}

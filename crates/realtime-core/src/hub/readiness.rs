//! [`NotReady`]: reasons for which a node is not ready, and [`Hub::not_ready`].

use std::{fmt, sync::atomic::Ordering, time::Duration};

use super::Hub;
use crate::error::ConnectError;

/// A reason for which envelopes do not arrive at a node, or connections are not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotReady {
    /// The node stops.
    Draining,
    /// The node does not know the refused logins yet.
    Starting,
    /// An essential task has ended: the process has to be restarted.
    Failed(String),
    /// The bus is unavailable.
    BusDown {
        /// The problem.
        problem: String,
        /// Time since the bus was lost; `None` if it was never available since the start.
        since: Option<Duration>,
    },
    /// Connections are refused because the bus is unavailable (`bus.onDown: drain`).
    BusDrained,
}

impl NotReady {
    /// The reason's name, for programs: `draining`, `starting`, `failed`, `bus-down` or `bus-drained`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Starting => "starting",
            Self::Failed(_) => "failed",
            Self::BusDown { .. } => "bus-down",
            Self::BusDrained => "bus-drained",
        }
    }

    /// Returns `true` if the reason is an outage of the bus for less than `grace`, of which nothing else has followed yet.
    pub fn is_within(&self, grace: Duration) -> bool {
        matches!(self, Self::BusDown { since: Some(since), .. } if *since < grace)
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Draining => ConnectError::Draining.fmt(f),
            Self::Starting => f.write_str("the refused logins have not been read yet"),
            Self::Failed(problem) | Self::BusDown { problem, .. } => f.write_str(problem),
            Self::BusDrained => ConnectError::BusDown.fmt(f),
        }
    }
}

impl Hub {
    /// All reasons for which this node is not ready, the most lasting first; none if envelopes arrive and connections are
    /// accepted.
    pub fn not_ready(&self) -> Vec<NotReady> {
        let mut reasons = Vec::new();
        if self.0.draining.load(Ordering::SeqCst) {
            reasons.push(NotReady::Draining);
        }
        if !self.0.control.is_started() {
            reasons.push(NotReady::Starting);
        }
        reasons.extend(self.0.health.failure().map(NotReady::Failed));
        reasons.extend(self.0.health.down().map(|(problem, since)| NotReady::BusDown { problem, since }));
        if self.0.outage.is_draining() {
            reasons.push(NotReady::BusDrained);
        }
        reasons
    }

    /// Returns `Ok` if envelopes arrive at this node and connections are accepted.
    ///
    /// # Errors
    /// A text that names the problem, the first of [`Self::not_ready`].
    pub fn ready(&self) -> Result<(), String> {
        self.not_ready().first().map_or(Ok(()), |reason| Err(reason.to_string()))
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_reason_is_named() {
        let hub = Hub::builder().start().unwrap();
        let names = |hub: &Hub| hub.not_ready().iter().map(NotReady::name).collect::<Vec<_>>();
        // At once: nobody else has to answer.
        assert_eq!(names(&hub), [""; 0]);
        hub.0.health.set(Some("lost".to_owned()));
        let reasons = hub.not_ready();
        assert_eq!(reasons[0].to_string(), "lost");
        assert!(reasons[0].is_within(Duration::from_secs(30)) && !reasons[0].is_within(Duration::ZERO));
        hub.drain().await;
        assert_eq!(names(&hub), ["draining", "bus-down"]);
    }
}

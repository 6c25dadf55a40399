//! Publishing with a confirmation of every node.

use std::time::Duration;

use tokio::time::Instant;

use super::Hub;
use crate::{
    Envelope, Position,
    control::{Confirmation, ControlError, DeliveryReport},
    error::PublishError,
};

/// Error of [`Hub::publish_and_confirm`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfirmError {
    /// The envelope was not published, or may not have been.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The envelope was published on a bus without positions, by which nobody can ask about it.
    #[error("it was published on a bus without positions, which cannot confirm it")]
    NoPosition,
    /// The envelope was published, and the nodes could not be asked about it.
    #[error("it was published at {position}, and not confirmed: {source}")]
    Control {
        /// The envelope's position.
        position: Position,
        /// The error.
        source: ControlError,
    },
}

impl ConfirmError {
    /// HTTP status of the response to a request that failed with this error.
    pub fn status(&self) -> u16 {
        match self {
            Self::Publish(error) => error.status(),
            Self::NoPosition => 422,
            Self::Control { source, .. } => source.status(),
        }
    }
}

impl Hub {
    /// Publishes an envelope and waits until the sockets of all sessions that it is for have accepted it, or until the
    /// timeout, at most 30 s, has passed. Returns the numbers of each node.
    ///
    /// Nodes that have not answered by then are named. A node that has not been heard of for 9 s does not belong to the
    /// cluster any more, and is not named. An envelope whose [id](crate::EnvelopeId) was published before, without a
    /// confirmation, was not counted, so that all nodes are missing.
    ///
    /// It costs each node a list of the sessions that the envelope is for, until the answer or, on a node that is not asked,
    /// for a minute, and one command of the cluster's control. Other envelopes cost nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use realtime_core::{Envelope, Hub, Scope};
    /// # let hub = Hub::builder().start()?;
    /// let envelope = Envelope::to_users([42], Scope::Both, "your order has been paid".into())?;
    /// let confirmation = hub.publish_and_confirm(envelope, Duration::from_secs(2)).await?;
    /// let written: usize = confirmation.nodes.iter().map(|node| node.delivery.written).sum();
    /// println!("{written} sockets have it; no answer from {:?}", confirmation.missing);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ConfirmError`] if the envelope was not published, if the nodes could not be asked, or if Redis, new or emptied, has
    /// not come to know all live nodes within the timeout, which takes it 3 s.
    pub async fn publish_and_confirm(
        &self,
        envelope: Envelope,
        timeout: Duration,
    ) -> Result<Confirmation, ConfirmError> {
        let deadline = Instant::now() + timeout.min(LONGEST);
        let published = self.publish(envelope.with_confirmation()).await?;
        let position = published.position.ok_or(ConfirmError::NoPosition)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let report = self.0.control.report(position, left).await;
        let DeliveryReport { nodes, missing } =
            report.map_err(|source| ConfirmError::Control { position, source })?;
        Ok(Confirmation { position, nodes, missing })
    }
}

/// The longest time that a confirmation is waited for.
const LONGEST: Duration = Duration::from_secs(30);

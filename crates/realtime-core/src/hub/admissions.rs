//! Limits that are checked before a connection has a session: [`Hub::admit`].

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use tokio::time::timeout;

use super::Hub;
use crate::{
    Session, Transport, UserId,
    auth::{AuthError, Handshake},
    error::ConnectError,
    node::Node,
    recent::Refusal,
    settings::{Limits, OnExceeded},
    wire::Admission,
};

impl Hub {
    /// Admits a connection of a client, before its login is checked: counts it in the rates of handshakes, of this node
    /// and of the client's address, and among the connections of that address. [`Self::connect_admitted`] gives the
    /// admission to the session; where none follows, dropping it is enough.
    ///
    /// The address is [`Handshake::client_ip`](crate::auth::Handshake::client_ip), behind the proxies that the application
    /// trusts. A client without one counts in the node's rate alone.
    ///
    /// # Errors
    /// [`ConnectError::TooManyOfAddress`], [`ConnectError::TooFastOfAddress`], [`ConnectError::TooFast`].
    pub fn admit(&self, client: Option<IpAddr>) -> Result<Admission, ConnectError> {
        self.0.registry.node.admissions.admit(client).inspect_err(|error| {
            self.count_refusal(error);
            self.record_refusal(None, None, client, error);
            tracing::debug!(?client, %error, "connection refused");
        })
    }

    /// Admits a request that has a login checked and is no connection, such as that for the refresh of a stream: it counts
    /// in the same rates.
    ///
    /// # Errors
    /// [`ConnectError::TooFastOfAddress`], [`ConnectError::TooFast`].
    pub fn admit_request(&self, client: Option<IpAddr>) -> Result<(), ConnectError> {
        let admitted = self.0.registry.node.admissions.admit_request(client);
        admitted.inspect_err(|error| self.count_refusal(error))
    }

    /// Counts a user's sessions on other nodes into the admission, for `limits.maxConnectionsPerUserInCluster`. Without
    /// that limit, and with `limits.onExceeded: endOldest`, nothing is asked. While presence is unavailable, only the limits
    /// of this node hold, which is logged and counted.
    ///
    /// # Errors
    /// [`ConnectError::TooManyInCluster`] if the user has as many sessions as it may have.
    pub async fn admit_user(
        &self,
        mut admission: Admission,
        user: &UserId,
    ) -> Result<Admission, ConnectError> {
        let node = &self.0.registry.node;
        let limits = self.limits();
        let limit = limits.max_connections_per_user_in_cluster;
        if limit == 0 || limits.on_exceeded == OnExceeded::EndOldest {
            return Ok(admission);
        }
        let Some(elsewhere) = self.0.cluster_limit.elsewhere(&*self.0.presence, &self.0.name, user).await
        else {
            node.metrics.cluster_unchecked.add(1);
            return Ok(admission);
        };
        admission.elsewhere = elsewhere;
        if Limits::exceeds(elsewhere + 1, limit) {
            let error = ConnectError::TooManyInCluster(user.clone(), limit);
            self.count_refusal(&error);
            self.record_refusal(Some(user), None, admission.client, &error);
            return Err(error);
        }
        Ok(admission)
    }

    /// Waits until a session has begun: a client gets everything that is published after the answer to its request, so a
    /// transport waits for it before it answers.
    ///
    /// # Errors
    /// [`ConnectError::Behind`] if it has not begun in time.
    pub async fn wait_until_begun(&self, session: &Session, patience: Duration) -> Result<(), ConnectError> {
        timeout(patience, session.begun()).await.map(drop).map_err(|_| {
            let (error, session) = (ConnectError::Behind, session.handle());
            self.count_refusal(&error);
            self.record_refusal(Some(session.user()), Some(session.transport()), None, &error);
            error
        })
    }

    /// Counts a connection that a transport has refused because the page that makes it is of another origin.
    pub fn count_foreign_page(&self) {
        let metrics = &self.0.registry.node.metrics;
        metrics.refused.add(1);
        metrics.refused_by.count_origin();
    }

    /// Records a refusal for [`Self::explain`] and [`Self::trace`].
    pub(super) fn record_refusal(
        &self,
        user: Option<&UserId>,
        transport: Option<Transport>,
        address: Option<IpAddr>,
        error: &ConnectError,
    ) {
        let Node { recent, traces, .. } = &*self.0.registry.node;
        let text = error.to_string();
        if let (Some(trace), Some(user)) = (traces.watch(), user) {
            trace.refused(user, transport, error.name(), &text);
        }
        recent.refused(Refusal {
            at: SystemTime::now(),
            user: user.cloned(),
            transport,
            address,
            reason: error.name(),
            status: error.status(),
            error: text,
        });
    }

    /// Records a login that was refused.
    pub(super) fn record_login(&self, handshake: &Handshake, error: &AuthError) {
        self.0.registry.node.recent.refused(Refusal {
            at: SystemTime::now(),
            user: None,
            transport: Some(handshake.transport()),
            address: handshake.client_ip(),
            reason: match error {
                AuthError::Unauthorized(_) => "login",
                AuthError::Forbidden(_) => "forbidden",
                AuthError::Unavailable(_) => "unavailable",
            },
            status: error.status(),
            error: error.answer().to_owned(),
        });
    }

    pub(super) fn count_refusal(&self, error: &ConnectError) {
        let Node { metrics, admissions, .. } = &*self.0.registry.node;
        metrics.refused.add(1);
        metrics.refused_by.count(error);
        admissions.report(error);
    }
}

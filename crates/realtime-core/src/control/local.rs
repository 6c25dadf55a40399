//! [`LocalControl`]: carries out commands on this node.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Answer, Answers, Command, CommandResult, Control, ControlError, Delivery, DeliveryReport, NodeDelivery,
    Question, Revocation, RevokedToken,
};
use crate::{
    CloseReason, Position, Principal, UserId, auth::TokenHash, explain::gather::explain, log::tally,
    node::Node, registry::Registry, renewal::renew, revocation_list::RevocationList,
    session::state::SessionState, streams::StreamKey,
};

/// Carries out commands on this node.
#[derive(Debug, Clone)]
pub struct LocalControl {
    node: Arc<Node>,
    registry: Arc<Registry>,
    revoked: Arc<RevocationList>,
    name: Arc<str>,
}

/// Result of a command on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalResult {
    /// Number of sessions that it ended.
    pub closed: usize,
    /// Number of sessions or text streams that it changed without ending them.
    pub changed: usize,
    /// The tokens of the kicked user's sessions on this node, from this kick and earlier ones. The other nodes have to
    /// refuse them too.
    pub revoked: Vec<RevokedToken>,
}

impl LocalControl {
    pub(crate) fn new(registry: Arc<Registry>, revoked: Arc<RevocationList>, name: Arc<str>) -> Self {
        Self { node: Arc::clone(&registry.node), registry, revoked, name }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.name
    }

    /// Carries out a command. Repeating it has no further effect.
    pub fn apply(&self, command: &Command) -> LocalResult {
        match command {
            Command::Kick { user, session, after } => self.kick(user, session.as_deref(), *after),
            Command::Revoke { user, tokens, after } => {
                let mut hashes = HashSet::new();
                // Without a token there is nothing to refuse.
                for RevokedToken { token, until } in
                    tokens.iter().filter(|token| !token.token.is_of_nothing())
                {
                    self.revoked.revoke(user.as_ref(), *token, *until);
                    hashes.insert(*token);
                }
                let mut sessions = self.sessions(user.as_ref());
                sessions.retain(|session| hashes.contains(&session.token()));
                LocalResult { closed: end(sessions, CloseReason::Kicked, *after), ..LocalResult::default() }
            }
            Command::RevokeToken { token, .. } if token.token.is_of_nothing() => LocalResult::default(),
            Command::RevokeToken { token: RevokedToken { token, until }, after } => {
                self.revoked.revoke(None, *token, *until);
                let sessions = self.node.directory.filter(|session| session.token() == *token);
                LocalResult { closed: end(sessions, CloseReason::Revoked, *after), ..LocalResult::default() }
            }
            Command::RevokeUser { user, issued_before, after } => {
                self.revoked.revoke_before(user, *issued_before);
                let mut sessions = self.sessions(Some(user));
                sessions.retain(|session| self.revoked.is_too_old(&session.login()));
                LocalResult { closed: end(sessions, CloseReason::Revoked, *after), ..LocalResult::default() }
            }
            Command::Renew { user, session, token, issued_at, expires_at, client_id, topics, grants } => {
                let login = Principal {
                    client_id: client_id.as_deref().map(Into::into),
                    token: *token,
                    issued_at: *issued_at,
                    expires_at: *expires_at,
                    topics: topics.clone(),
                    grants: grants.clone(),
                    ..Principal::new(user.clone(), "")
                };
                LocalResult { changed: self.renew(session, login), ..LocalResult::default() }
            }
            Command::EndSessions { user, sessions: ids } => {
                let mut sessions = self.sessions(Some(user));
                sessions.retain(|session| {
                    session.outbox.closing().is_none() && ids.contains(&session.id.to_string())
                });
                for session in &sessions {
                    session.close_in_order(CloseReason::TooManySessions);
                }
                LocalResult { closed: sessions.len(), ..LocalResult::default() }
            }
            Command::StopStream { topic, id } => {
                let key = StreamKey { topic: topic.clone(), id: id.clone() };
                LocalResult { changed: self.node.streams.stop(&key), ..LocalResult::default() }
            }
            // See `delivered`, which takes its time, and `answer`.
            Command::Report { .. } | Command::Ask { .. } => LocalResult::default(),
        }
    }

    /// Carries out [`Command::Report`]: waits until the sockets of all sessions of this node that the envelope is for have
    /// accepted it, up to `within`. Returns the numbers until then; `None` if the envelope was not counted here, or has
    /// not been served in time.
    pub async fn delivered(&self, position: Position, within: Duration) -> Option<Delivery> {
        let begin = Instant::now();
        let deadline = begin + within.min(tally::LONGEST);
        loop {
            // Asked for first: what comes in between is found.
            let has_come = self.node.log.cursor() >= Some(position);
            let found = self.node.log.find(position);
            let is_late = Instant::now() >= deadline;
            if let Some((seq, entry)) = &found {
                let tally = entry.tally()?;
                if self.registry.shards().iter().all(|shard| shard.has_passed(*seq)) {
                    let (delivery, is_final) = tally.count();
                    if is_final || is_late {
                        tally.close();
                        return Some(delivery);
                    }
                }
            } else if has_come {
                return None;
            }
            if is_late {
                return None;
            }
            // Each look takes the locks of all workers, and of the outboxes that wait for their clients.
            let pause = (begin.elapsed() / 10).clamp(LOOK, LONGEST_LOOK);
            timeout_at(deadline, sleep(pause)).await.ok();
        }
    }

    /// This node's answer to a question.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn answer(&self, question: &Question) -> Answer {
        match question {
            Question::User { user } => Answer::User(Box::new(explain(&self.node, &self.name, user))),
            Question::Trace { id, target, after } => {
                match self.node.traces.read(&self.name, id, target, after) {
                    Ok(trace) => Answer::Trace(trace),
                    Err(error) => Answer::Refused(error.to_string()),
                }
            }
        }
    }

    /// Counts content of a cluster's store that cannot be read, as `unreadable` of [`Hub::metrics`](crate::Hub::metrics).
    pub fn count_unreadable(&self) {
        self.node.metrics.unreadable.add(1);
    }

    /// All revocations of this node, to be sent to nodes that may not have them.
    pub fn revocations(&self) -> Vec<Revocation> {
        self.revoked.all()
    }

    /// Applies revocations of other nodes and ends the sessions that they refuse.
    pub fn revoke(&self, revocations: &[Revocation]) {
        let mut news = false;
        for revocation in revocations {
            news |= match revocation {
                Revocation::Token { token, .. } if token.token.is_of_nothing() => false,
                Revocation::Token { user, token: RevokedToken { token, until } } => {
                    self.revoked.revoke(user.as_ref(), *token, *until)
                }
                Revocation::IssuedBefore { user, time } => self.revoked.revoke_before(user, *time),
            };
        }
        if news {
            let refused = |session: &SessionState| self.revoked.is_revoked(&session.login());
            for session in self.node.directory.filter(refused) {
                if let Some(reason) = self.revoked.reason(&session.login()) {
                    end(vec![session], reason, None);
                }
            }
        }
    }

    fn kick(&self, user: &UserId, session: Option<&str>, after: Option<Position>) -> LocalResult {
        let mut meant = self.sessions(Some(user));
        meant.retain(|state| session.is_none_or(|session| session == state.id.to_string()));
        // Closing sessions too: their clients may have been asked to reconnect.
        let tokens = self.refuse(user, &meant);
        // Looked up again: a session may have been registered before the tokens were refused.
        let ids: HashSet<_> = meant.iter().map(|state| state.id).collect();
        let mut sessions = self.sessions(Some(user));
        sessions.retain(|state| ids.contains(&state.id) || tokens.contains(&state.token()));
        let closed = end(sessions, CloseReason::Kicked, after);
        // A login may have been renewed before its session was closed; none is renewed afterwards.
        self.refuse(user, &meant);
        LocalResult { closed, revoked: self.revoked.own_of(user), ..LocalResult::default() }
    }

    /// Refuses the tokens of sessions. Returns them.
    fn refuse(&self, user: &UserId, sessions: &[Arc<SessionState>]) -> HashSet<TokenHash> {
        let logins = sessions.iter().map(|session| session.login());
        let logins: Vec<_> = logins.filter(|login| !login.token.is_of_nothing()).collect();
        for login in &logins {
            self.revoked.revoke_own(user, login.token, login.expires_at);
        }
        logins.iter().map(|login| login.token).collect()
    }

    /// Replaces the login of a session of this node. Returns the number of sessions that it changed.
    fn renew(&self, id: &str, login: Principal) -> usize {
        let sessions = self.sessions(Some(&login.user));
        let Some(session) = sessions.iter().find(|session| session.id.to_string() == id) else { return 0 };
        match renew(&self.node, &self.revoked, session, login) {
            Ok(()) => 1,
            Err(error) => {
                tracing::debug!(session = id, %error, "a login was not renewed");
                0
            }
        }
    }

    fn sessions(&self, user: Option<&UserId>) -> Vec<Arc<SessionState>> {
        let directory = &self.node.directory;
        user.map_or_else(|| directory.all(), |user| directory.of(user))
    }
}

/// Interval at which the sockets are looked at that have yet to accept an envelope. It grows with the time that they take.
const LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(100);

/// Ends sessions. Returns the number of those that were not closing already.
fn end(mut sessions: Vec<Arc<SessionState>>, reason: CloseReason, after: Option<Position>) -> usize {
    sessions.retain(|session| session.outbox.closing().is_none());
    for session in &sessions {
        session.close_after(reason, after);
    }
    sessions.len()
}

impl Control for LocalControl {
    fn dispatch(&self, command: Command) -> BoxFuture<'_, Result<CommandResult, ControlError>> {
        let LocalResult { closed, changed, .. } = self.apply(&command);
        Box::pin(async move { Ok(CommandResult { closed, changed, unconfirmed: Vec::new() }) })
    }

    fn report(
        &self,
        position: Position,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<DeliveryReport, ControlError>> {
        Box::pin(async move {
            let node = self.name.to_string();
            Ok(match self.delivered(position, timeout).await {
                Some(delivery) => {
                    DeliveryReport { nodes: vec![NodeDelivery { node, delivery }], missing: Vec::new() }
                }
                None => DeliveryReport { nodes: Vec::new(), missing: vec![node] },
            })
        })
    }

    fn ask(&self, question: Question, _: Duration) -> BoxFuture<'_, Result<Answers, ControlError>> {
        Box::pin(async move {
            let nodes = vec![(self.name.to_string(), self.answer(&question))];
            Ok(Answers { nodes, missing: Vec::new() })
        })
    }
}

//! [`Hub::explain`]: what the cluster knows of a user.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use futures_util::future::join;
use tokio::time::timeout;

use super::Hub;
use crate::{
    UserId,
    control::{Answer, Answers, Question},
    explain::{ExplainedNode, ExplainedSession, Explanation, NodeExplanation, messages::messages},
    presence::OnlineSession,
};

/// Time that the other nodes have to answer.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// Time that the cluster's store has, beyond that.
const STORE_TIME: Duration = Duration::from_millis(500);

impl Hub {
    /// Explains why a user got a message or did not: the user's sessions over the cluster and how far each has been served,
    /// the last sessions that ended and the last connections that were refused, with the reasons, and the last messages in
    /// this node's history, up to `messages`, that were for the user.
    ///
    /// It asks all nodes and takes up to 1.5 s. What could not be asked is named in the answer; what this node knows is always
    /// there. The answer contains no text of a message and no token; it contains addresses of clients that were refused.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let hub = realtime_core::Hub::builder().start()?;
    /// let explanation = hub.explain(&42.into(), 20).await;
    /// for message in &explanation.messages {
    ///     println!("{:?}: {:?}", message.position, message.sessions);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn explain(&self, user: &UserId, messages: usize) -> Explanation {
        let mut problems = Vec::new();
        let limit = ANSWER_TIME + STORE_TIME;
        let asked = self.0.control.ask(Question::User { user: user.clone() }, ANSWER_TIME);
        let (answers, known) =
            join(timeout(limit, asked), timeout(limit, self.0.presence.sessions(user))).await;
        let Answers { nodes: answers, missing } = match answers {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => {
                problems.push(format!("only this node has been asked: {error}"));
                Answers::default()
            }
            Err(_) => {
                problems.push("only this node has been asked: the others did not answer in time".to_owned());
                Answers::default()
            }
        };
        let known = match known {
            Ok(Ok(sessions)) => Some(sessions),
            Ok(Err(error)) => {
                problems.push(error.to_string());
                None
            }
            Err(_) => {
                problems.push("presence did not answer in time".to_owned());
                None
            }
        };
        let mut explanation = Explanation {
            user_id: user.clone(),
            at: SystemTime::now(),
            online: known.as_ref().map(|sessions| !sessions.is_empty()),
            problems,
            nodes: Vec::new(),
            sessions: Vec::new(),
            closes: Vec::new(),
            refusals: Vec::new(),
            unknown_refusals: Vec::new(),
            messages: Vec::new(),
        };
        // Its own answer, which needs no other node.
        let own = self.0.local.answer(&Question::User { user: user.clone() });
        explanation.add(self.0.name.to_string(), own);
        for (node, answer) in answers {
            if *node != *self.0.name {
                explanation.add(node, answer);
            }
        }
        missing.into_iter().for_each(|node| explanation.add_silent(node));
        explanation.add_known(known.unwrap_or_default());
        explanation.sort();
        let Explanation { nodes, sessions, .. } = &explanation;
        explanation.messages = self::messages(&self.0.registry.node.log, user, nodes, sessions, messages);
        explanation
    }
}

impl Explanation {
    fn add(&mut self, node: String, answer: Answer) {
        let Answer::User(answer) = answer else { return self.add_silent(node) };
        let NodeExplanation { report, sessions, closes, refusals, unknown_refusals } = *answer;
        self.nodes.push(ExplainedNode { node, answered: true, report: Some(report) });
        self.sessions.extend(sessions);
        self.closes.extend(closes);
        self.refusals.extend(refusals);
        self.unknown_refusals.extend(unknown_refusals);
    }

    fn add_silent(&mut self, node: String) {
        if self.nodes.iter().all(|known| known.node != node) {
            self.nodes.push(ExplainedNode { node, answered: false, report: None });
        }
    }

    /// Adds the sessions that presence knows and no node has told.
    fn add_known(&mut self, known: Vec<OnlineSession>) {
        let told: BTreeSet<_> = self.sessions.iter().map(|session| session.session_id.clone()).collect();
        for session in known.into_iter().filter(|session| !told.contains(&session.session_id)) {
            self.add_silent(session.node.clone());
            self.sessions.push(ExplainedSession::known(session));
        }
    }

    fn sort(&mut self) {
        self.nodes.sort_by(|a, b| a.node.cmp(&b.node));
        self.sessions.sort_by_key(|session| session.since);
        self.closes.sort_by_key(|end| std::cmp::Reverse(end.at));
        for refusals in [&mut self.refusals, &mut self.unknown_refusals] {
            refusals.sort_by_key(|refusal| std::cmp::Reverse(refusal.at));
        }
    }
}

impl ExplainedSession {
    /// A session of which only presence knows.
    fn known(session: OnlineSession) -> Self {
        let OnlineSession { session_id, transport, client_id, node, since } = session;
        Self {
            node,
            session_id,
            transport,
            client_id,
            since,
            mode: None,
            lane: None,
            topics: Vec::new(),
            expires_at: None,
            from: None,
            recovered: None,
            served_up_to: None,
            behind: None,
            outbox: None,
            left_out: 0,
            gap: None,
            closing: None,
        }
    }
}

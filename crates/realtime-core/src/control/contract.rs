//! [`Control`]: commands that every node of a cluster carries out.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_core::future::BoxFuture;
use futures_util::future::ready;
use serde::{Deserialize, Serialize};

use super::question::{Answers, Question};
use crate::{
    Position, Topic, UserId,
    auth::{TokenHash, TopicPattern},
    delivery::DeliveryReport,
    streams::StreamId,
};

/// A command that every node of a cluster carries out.
///
/// `after` is a position of the bus: messages acknowledged up to there are delivered to a session before it ends. Nodes
/// of another version may omit it, like every field that is optional here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Command {
    /// Ends a user's sessions, or one of them with all others of its token, and refuses their tokens.
    Kick {
        /// The user.
        user: UserId,
        /// The id of the session to end; `None`: all of the user's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<String>,
        /// Position up to which messages are delivered first.
        #[serde(
            default,
            with = "super::encoding::optional_position",
            skip_serializing_if = "Option::is_none"
        )]
        after: Option<Position>,
    },
    /// Refuses tokens and ends their sessions. Follows a kick, from each node that had sessions of the user, since only
    /// that node knows their tokens.
    Revoke {
        /// The user that the tokens belong to. `None`, from older nodes: they are refused for every user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<UserId>,
        /// The tokens.
        tokens: Vec<RevokedToken>,
        /// Position up to which messages are delivered first.
        #[serde(
            default,
            with = "super::encoding::optional_position",
            skip_serializing_if = "Option::is_none"
        )]
        after: Option<Position>,
    },
    /// Refuses a token for every user and ends its sessions.
    RevokeToken {
        /// The token.
        #[serde(flatten)]
        token: RevokedToken,
        /// Position up to which messages are delivered first.
        #[serde(
            default,
            with = "super::encoding::optional_position",
            skip_serializing_if = "Option::is_none"
        )]
        after: Option<Position>,
    },
    /// Refuses a user's tokens that were issued before a time and ends their sessions.
    RevokeUser {
        /// The user.
        user: UserId,
        /// The time, in whole seconds. Tokens without a time of issue count as older than any time.
        #[serde(with = "super::encoding::seconds")]
        issued_before: SystemTime,
        /// Position up to which messages are delivered first.
        #[serde(
            default,
            with = "super::encoding::optional_position",
            skip_serializing_if = "Option::is_none"
        )]
        after: Option<Position>,
    },
    /// Replaces the login of a session by another one of the same user.
    Renew {
        /// The user.
        user: UserId,
        /// The session's id.
        session: String,
        /// The hash of the new login's token.
        token: TokenHash,
        /// Time when the new login was issued, in whole seconds.
        #[serde(
            default,
            with = "super::encoding::optional_seconds",
            skip_serializing_if = "Option::is_none"
        )]
        issued_at: Option<SystemTime>,
        /// Time when it expires.
        #[serde(
            default,
            with = "super::encoding::optional_seconds",
            skip_serializing_if = "Option::is_none"
        )]
        expires_at: Option<SystemTime>,
        /// Its client id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_id: Option<String>,
        /// Its topics.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        topics: Vec<Topic>,
        /// What its clients may subscribe to. Earlier nodes ignore it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        grants: Vec<TopicPattern>,
    },
    /// Ends sessions of a user that are more than the cluster allows (`limits.maxConnectionsPerUserInCluster`), and refuses
    /// nothing. Earlier nodes skip it.
    EndSessions {
        /// The user.
        user: UserId,
        /// The sessions' ids.
        sessions: Vec<String>,
    },
    /// Reports how far an envelope has got on each node: see [`Control::report`].
    Report {
        /// The envelope's position.
        #[serde(with = "super::encoding::position")]
        position: Position,
        /// Milliseconds that a node waits for its sockets.
        within: u64,
    },
    /// Asks each node something: see [`Control::ask`].
    Ask {
        /// The question.
        question: Question,
    },
    /// Asks the writer of a text stream to stop.
    StopStream {
        /// The stream's topic.
        topic: Topic,
        /// The stream.
        id: StreamId,
    },
}

impl Command {
    /// The revocations that follow from this command. A kick does not contain them: see
    /// [`LocalResult::revoked`](crate::control::LocalResult::revoked).
    pub fn revocations(&self) -> Vec<Revocation> {
        match self {
            Self::Kick { .. }
            | Self::Renew { .. }
            | Self::EndSessions { .. }
            | Self::Report { .. }
            | Self::Ask { .. }
            | Self::StopStream { .. } => Vec::new(),
            Self::Revoke { user, tokens, .. } => {
                let of =
                    |token: &RevokedToken| Revocation::Token { user: user.clone(), token: token.clone() };
                tokens.iter().map(of).collect()
            }
            Self::RevokeToken { token, .. } => vec![Revocation::Token { user: None, token: token.clone() }],
            Self::RevokeUser { user, issued_before, .. } => {
                vec![Revocation::IssuedBefore { user: user.clone(), time: *issued_before }]
            }
        }
    }
}

/// A refused token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedToken {
    /// Its hash.
    pub token: TokenHash,
    /// Time at which it would have expired anyway. `None`: it never expires, and is refused for [`Revocation::LONGEST`]
    /// at least.
    #[serde(default, with = "super::encoding::optional_seconds", skip_serializing_if = "Option::is_none")]
    pub until: Option<SystemTime>,
}

/// Refused logins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// One token.
    Token {
        /// The user for whom the token is refused; `None`: every user.
        user: Option<UserId>,
        /// The token.
        token: RevokedToken,
    },
    /// The tokens of a user that were issued before a time.
    IssuedBefore {
        /// The user.
        user: UserId,
        /// The time, in whole seconds.
        time: SystemTime,
    },
}

impl Revocation {
    /// Time after which the refusal of a token without expiry, and an [`Self::IssuedBefore`], may be removed: a year.
    pub const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

    /// The command that sends it to other nodes.
    pub fn into_command(self) -> Command {
        match self {
            Self::Token { user: None, token } => Command::RevokeToken { token, after: None },
            Self::Token { user, token } => Command::Revoke { user, tokens: vec![token], after: None },
            Self::IssuedBefore { user, time } => {
                Command::RevokeUser { user, issued_before: time, after: None }
            }
        }
    }
}

/// Sends commands to every node of a cluster, this one included.
pub trait Control: Send + Sync + 'static {
    /// Sends a command and waits, for a bounded time, until every live node has carried out the command and the
    /// commands that follow from it. A disconnected node carries it out when it returns. A failed command may be sent
    /// again.
    ///
    /// # Errors
    /// [`ControlError`] if the command could not be sent, or if it is not known which nodes have to carry it out; it may or
    /// may not have been carried out then.
    fn dispatch(&self, command: Command) -> BoxFuture<'_, Result<CommandResult, ControlError>>;

    /// Asks every live node for the deliveries of an envelope that was published with
    /// [`Envelope::with_confirmation`](crate::Envelope::with_confirmation). A node answers once the sockets of all
    /// sessions that the envelope is for have accepted it, and in time for this to return within the timeout.
    ///
    /// # Errors
    /// [`ControlError`] if the nodes could not be asked, or if it is not known which nodes are alive. A control that has no
    /// such command, the default, always fails.
    fn report(
        &self,
        position: Position,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<DeliveryReport, ControlError>> {
        let _ = (position, timeout);
        Box::pin(ready(Err(ControlError("this control cannot ask the nodes for deliveries".to_owned()))))
    }

    /// Asks every live node, this one included, and waits for the answers up to the timeout. Nodes that have not answered by
    /// then are named.
    ///
    /// # Errors
    /// [`ControlError`] if the nodes could not be asked, or if it is not known which nodes are alive. A control that has no
    /// such command, the default, always fails.
    fn ask(&self, question: Question, timeout: Duration) -> BoxFuture<'_, Result<Answers, ControlError>> {
        let _ = (question, timeout);
        Box::pin(ready(Err(ControlError("this control cannot ask the nodes".to_owned()))))
    }

    /// Resolves when this node knows the logins that the cluster refuses. Until then its hub refuses connections.
    fn started(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    /// `true` once [`Self::started`] resolves.
    fn is_started(&self) -> bool {
        true
    }

    /// Announces that this node stops and has no sessions left, so that other nodes need not wait for it.
    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }
}

/// A control that is chosen at run time: `Arc<dyn Control>`.
impl<C: Control + ?Sized> Control for Arc<C> {
    fn dispatch(&self, command: Command) -> BoxFuture<'_, Result<CommandResult, ControlError>> {
        (**self).dispatch(command)
    }

    fn report(
        &self,
        position: Position,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<DeliveryReport, ControlError>> {
        (**self).report(position, timeout)
    }

    fn ask(&self, question: Question, timeout: Duration) -> BoxFuture<'_, Result<Answers, ControlError>> {
        (**self).ask(question, timeout)
    }

    fn started(&self) -> BoxFuture<'_, ()> {
        (**self).started()
    }

    fn is_started(&self) -> bool {
        (**self).is_started()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        (**self).leave()
    }
}

/// Result of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandResult {
    /// Number of sessions that it ended.
    pub closed: usize,
    /// Number of sessions or text streams that it changed without ending them.
    pub changed: usize,
    /// Live nodes that have not confirmed the command in time.
    pub unconfirmed: Vec<String>,
}

/// Error of a command that could not be sent, or that may not have been carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the command has failed: {0}")]
pub struct ControlError(pub String);

impl ControlError {
    /// HTTP status of the response to a request that failed with this error.
    pub fn status(&self) -> u16 {
        503
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::trace::TraceTarget;

    #[test]
    fn commands_survive_a_round_trip() {
        let until = Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let revoked = RevokedToken { token: TokenHash::of("a"), until };
        let after = Some(Position { epoch: 7, offset: 3 });
        for command in [
            Command::Kick { user: 5.into(), session: None, after: None },
            Command::Kick { user: "u-7".parse().unwrap(), session: Some("0a".into()), after },
            Command::Revoke {
                user: Some(5.into()),
                tokens: vec![revoked.clone(), RevokedToken { until: None, ..revoked.clone() }],
                after,
            },
            Command::RevokeToken { token: revoked.clone(), after: None },
            Command::RevokeToken { token: RevokedToken { until: None, ..revoked }, after },
            Command::RevokeUser {
                user: 5.into(),
                issued_before: UNIX_EPOCH + Duration::from_secs(7),
                after: None,
            },
            Command::Renew {
                user: 5.into(),
                session: "0a".into(),
                token: TokenHash::of("b"),
                issued_at: Some(UNIX_EPOCH + Duration::from_secs(7)),
                expires_at: until,
                client_id: Some("web".into()),
                topics: vec![Topic::new("role:seller").unwrap()],
                grants: vec![TopicPattern::new("order:*").unwrap()],
            },
            Command::EndSessions { user: 5.into(), sessions: vec!["0a".into(), "0b".into()] },
            Command::Report { position: Position { epoch: 7, offset: 3 }, within: 500 },
            Command::Renew {
                user: 5.into(),
                session: "0a".into(),
                token: TokenHash::of("b"),
                issued_at: None,
                expires_at: None,
                client_id: None,
                topics: Vec::new(),
                grants: Vec::new(),
            },
            Command::StopStream { topic: Topic::user(&5.into()), id: StreamId::new("answer-7").unwrap() },
            Command::Ask { question: Question::User { user: 5.into() } },
            Command::Ask {
                question: Question::Trace {
                    id: "0a".into(),
                    target: TraceTarget::Topic(Topic::new("role:seller").unwrap()),
                    after: [("b".to_owned(), 7)].into(),
                },
            },
        ] {
            let json = serde_json::to_string(&command).unwrap();
            assert_eq!(serde_json::from_str::<Command>(&json).unwrap(), command, "{json}");
        }
    }

    #[test]
    fn commands_of_older_and_newer_nodes_are_parsed() {
        let token = RevokedToken { token: TokenHash::from_bytes([1; 16]), until: None };
        let hash = "01010101010101010101010101010101";
        for (json, command) in [
            (
                r#"{"command":"kick","user":5}"#.to_owned(),
                Command::Kick { user: 5.into(), session: None, after: None },
            ),
            (
                r#"{"command":"kick","user":5,"after":"a position of another kind","more":[1]}"#.to_owned(),
                Command::Kick { user: 5.into(), session: None, after: None },
            ),
            (
                format!(r#"{{"command":"revoke","tokens":[{{"token":"{hash}"}}]}}"#),
                Command::Revoke { user: None, tokens: vec![token.clone()], after: None },
            ),
            (
                format!(r#"{{"command":"revokeToken","token":"{hash}"}}"#),
                Command::RevokeToken { token, after: None },
            ),
            (
                r#"{"command":"revokeUser","user":5,"issuedBefore":7}"#.to_owned(),
                Command::RevokeUser {
                    user: 5.into(),
                    issued_before: UNIX_EPOCH + Duration::from_secs(7),
                    after: None,
                },
            ),
            (
                format!(r#"{{"command":"renew","user":5,"session":"0a","token":"{hash}"}}"#),
                Command::Renew {
                    user: 5.into(),
                    session: "0a".into(),
                    token: TokenHash::from_bytes([1; 16]),
                    issued_at: None,
                    expires_at: None,
                    client_id: None,
                    topics: Vec::new(),
                    grants: Vec::new(),
                },
            ),
        ] {
            assert_eq!(serde_json::from_str::<Command>(&json).unwrap(), command, "{json}");
        }
    }
}

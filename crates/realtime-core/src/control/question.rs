//! [`Question`]: what one node asks all nodes of a cluster, and [`Answer`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    UserId,
    explain::NodeExplanation,
    trace::{NodeTrace, TraceTarget},
};

/// Question to every node of a cluster. It changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "about", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Question {
    /// What a node knows of a user: see [`Hub::explain`](crate::Hub::explain).
    User {
        /// The user.
        user: UserId,
    },
    /// What has happened on a node to the subject of a trace since the last question. The first one begins the trace there;
    /// it ends when nobody has asked for 5 s. See [`Hub::trace`](crate::Hub::trace).
    Trace {
        /// The trace's id.
        id: String,
        /// Its subject.
        target: TraceTarget,
        /// The number of the event from which on a node is asked, by the node's name. The others are asked for all.
        #[serde(default)]
        after: BTreeMap<String, u64>,
    },
}

/// Answer of one node to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Answer {
    /// To [`Question::User`].
    User(Box<NodeExplanation>),
    /// To [`Question::Trace`].
    Trace(NodeTrace),
    /// The node cannot answer, and why.
    Refused(String),
}

/// The answers of the nodes of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// The answers, each with the name of its node.
    pub nodes: Vec<(String, Answer)>,
    /// Live nodes that have not answered in time, or are of a version that cannot.
    pub missing: Vec<String>,
}

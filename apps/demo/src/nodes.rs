//! `GET /api/nodes`: the nodes of the cluster.

#![allow(unused_qualifications, reason = "utoipa's macros write paths in full")]

use std::time::Duration;

use actix_web::web::{self, Data, Json, ServiceConfig};
use realtime_core::presence::OnlineNode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{api::ApiKey, schema::NodeErrors, state::State};

pub(crate) fn routes(services: &mut ServiceConfig) {
    services.service(web::resource("/api/nodes").get(nodes));
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodesAnswer {
    /// The node that answers.
    node: String,
    nodes: Vec<NodeAnswer>,
    /// The reason for which only the node that answers is listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    problem: Option<String>,
}

/// A node of the cluster.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeAnswer {
    /// Its name.
    node: String,
    /// Number of its sessions.
    sessions: usize,
    /// Milliseconds since the node was last heard of.
    silence: u64,
}

/// List the nodes of the cluster.
///
/// Those that presence knows. Without presence it is the node that answers.
#[utoipa::path(
    get,
    path = "/api/nodes",
    operation_id = "listNodes",
    tag = "nodes",
    responses((status = 200, description = "The nodes, by name.", body = NodesAnswer), NodeErrors),
    security(("apiKey" = [])),
)]
pub(crate) async fn nodes(_: ApiKey, state: Data<State>) -> Json<NodesAnswer> {
    let node = state.hub.node().to_owned();
    let (nodes, problem) = match state.hub.presence().nodes().await {
        Ok(nodes) => (nodes, None),
        Err(error) => {
            let sessions = state.hub.all_sessions().len();
            let own = OnlineNode { node: node.clone(), sessions, silence: Duration::ZERO };
            (vec![own], Some(error.to_string()))
        }
    };
    let nodes = nodes.into_iter().map(|OnlineNode { node, sessions, silence }| NodeAnswer {
        node,
        sessions,
        silence: u64::try_from(silence.as_millis()).unwrap_or(u64::MAX),
    });
    Json(NodesAnswer { node, nodes: nodes.collect(), problem })
}

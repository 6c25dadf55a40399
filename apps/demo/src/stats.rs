//! `GET /api/stats`: the state and the counters of this node, as JSON.

#![allow(unused_qualifications, reason = "utoipa's macros write paths in full")]

use actix_web::web::{self, Data, Json, ServiceConfig};
use realtime_core::metrics::MetricsSnapshot;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::ApiKey,
    config::PresenceMode,
    schema::NodeErrors,
    state::{SSE, State, WEBSOCKET},
};

pub(crate) fn routes(services: &mut ServiceConfig) {
    services.service(web::resource("/api/stats").get(stats));
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatsAnswer {
    /// Its name.
    node: String,
    version: &'static str,
    /// Time of its start.
    #[schema(format = DateTime)]
    started_at: String,
    /// Messages arrive at this node, and connections are accepted. Nothing is forgiven.
    ready: bool,
    /// The first of the `reasons` of `/health/ready`.
    #[schema(required = true)]
    problem: Option<String>,
    bus: BusName,
    presence: PresenceName,
    /// Sessions of this node by transport.
    sessions: TransportCounts,
    /// Its counters.
    #[schema(value_type = Object)]
    metrics: MetricsSnapshot,
}

/// Sessions by transport.
#[derive(Serialize, ToSchema)]
pub(crate) struct TransportCounts {
    websocket: u64,
    sse: u64,
}

/// Where messages pass.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BusName {
    Memory,
    Redis,
}

/// Extent of presence.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PresenceName {
    Off,
    Local,
    Redis,
}

/// Show state and counters of this node.
#[utoipa::path(
    get,
    path = "/api/stats",
    operation_id = "showStats",
    tag = "nodes",
    responses((status = 200, description = "The node that answers.", body = StatsAnswer), NodeErrors),
    security(("apiKey" = [])),
)]
pub(crate) async fn stats(_: ApiKey, state: Data<State>) -> Json<StatsAnswer> {
    let State { hub, config, started_at, .. } = &**state;
    let problem = hub.ready().err();
    let metrics = hub.metrics();
    Json(StatsAnswer {
        node: hub.node().to_owned(),
        version: env!("CARGO_PKG_VERSION"),
        started_at: humantime::format_rfc3339_millis(*started_at).to_string(),
        ready: problem.is_none(),
        problem,
        bus: if config.redis.is_some() { BusName::Redis } else { BusName::Memory },
        presence: match config.presence_mode() {
            PresenceMode::Off => PresenceName::Off,
            PresenceMode::Local => PresenceName::Local,
            PresenceMode::Redis => PresenceName::Redis,
        },
        sessions: TransportCounts::of(&metrics),
        metrics,
    })
}

impl TransportCounts {
    fn of(metrics: &MetricsSnapshot) -> Self {
        let of = |transport| {
            let of = metrics.transports.iter().filter(|of| of.transport == transport);
            of.map(|of| of.opened.saturating_sub(of.closed)).sum()
        };
        Self { websocket: of(WEBSOCKET), sse: of(SSE) }
    }
}

//! Liveness and readiness.

use std::time::Duration;

use actix_web::{
    HttpResponse,
    web::{self, Data, ServiceConfig},
};
use realtime_core::NotReady;
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::State;

pub(crate) fn routes(services: &mut ServiceConfig) {
    services
        .service(web::resource("/health/live").get(live).route(web::head().to(live)))
        .service(web::resource("/health/ready").get(ready).route(web::head().to(ready)));
}

/// Answer of a health check.
#[derive(Debug, Serialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Health {
    /// `up` or `down`.
    #[schema(pattern = "^(up|down)$")]
    status: &'static str,
    /// The first of the reasons that take the node down.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    reason: Option<String>,
    /// All that keeps messages or connections away, also what is forgiven for a while.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    reasons: Vec<Reason>,
}

/// A reason for which a node is not ready.
#[derive(Debug, Serialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reason {
    /// `draining`, `starting`, `failed`, `bus-down` or `bus-drained`.
    kind: &'static str,
    problem: String,
    /// Seconds since the begin of an outage of the bus.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u64, required = false)]
    for_seconds: Option<u64>,
    /// Seconds for which it is forgiven still.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u64, required = false)]
    grace_left: Option<u64>,
}

/// Check that the process answers.
#[utoipa::path(
    get,
    path = "/health/live",
    operation_id = "live",
    tag = "health",
    responses((status = 200, description = "The process answers.", body = Health)),
    security(()),
)]
pub(crate) async fn live() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "up", reason: None, reasons: Vec::new() })
}

/// Check that this node delivers.
#[utoipa::path(
    get,
    path = "/health/ready",
    operation_id = "ready",
    tag = "health",
    responses(
        (status = 200, description = "The node delivers.", body = Health),
        (status = 503, description = "The node starts or stops, or is cut off.", body = Health),
    ),
    security(()),
)]
pub(crate) async fn ready(state: Data<State>) -> HttpResponse {
    let health = Health::of(&state.hub.not_ready(), state.config.health.grace);
    let mut answer =
        if health.status == "up" { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.json(health)
}

impl Health {
    /// The health of a node with these problems, of which an outage of the bus is forgiven for `grace`.
    fn of(problems: &[NotReady], grace: Duration) -> Self {
        let taking_down = problems.iter().find(|problem| !problem.is_within(grace));
        Self {
            status: if taking_down.is_some() { "down" } else { "up" },
            reason: taking_down.map(ToString::to_string),
            reasons: problems.iter().map(|problem| Reason::of(problem, grace)).collect(),
        }
    }
}

impl Reason {
    fn of(problem: &NotReady, grace: Duration) -> Self {
        let since = match problem {
            NotReady::BusDown { since, .. } => *since,
            _ => None,
        };
        let left = since.filter(|_| problem.is_within(grace)).map(|since| grace.saturating_sub(since));
        Self {
            kind: problem.name(),
            problem: problem.to_string(),
            for_seconds: since.map(|since| since.as_secs()),
            grace_left: left.map(|left| left.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down(since: Option<u64>) -> NotReady {
        NotReady::BusDown { problem: "refused".to_owned(), since: since.map(Duration::from_secs) }
    }

    #[test]
    fn a_blink_of_the_bus_is_forgiven_and_named() {
        let grace = Duration::from_secs(30);
        let health = Health::of(&[down(Some(10))], grace);
        assert_eq!((health.status, health.reason), ("up", None));
        assert_eq!((health.reasons[0].for_seconds, health.reasons[0].grace_left), (Some(10), Some(20)));
        for (problems, reason) in [
            (vec![down(Some(30))], "refused"),
            (vec![down(None)], "refused"),
            (vec![down(Some(1)), NotReady::BusDrained], "this node is cut off from the others"),
            (vec![NotReady::Starting, down(None)], "the refused logins have not been read yet"),
        ] {
            let health = Health::of(&problems, grace);
            assert_eq!((health.status, health.reasons.len()), ("down", problems.len()));
            assert!(health.reason.unwrap().contains(reason), "{problems:?}");
        }
        assert_eq!(Health::of(&[down(Some(0))], Duration::ZERO).status, "down");
    }

    #[test]
    fn a_healthy_node_says_only_that() {
        let health = serde_json::to_string(&Health::of(&[], Duration::ZERO)).unwrap();
        assert_eq!(health, r#"{"status":"up"}"#);
    }
}

//! `GET /api/openapi.json`: the HTTP interface as an OpenAPI 3.1 document, made from its types.

mod transports;

use actix_web::{
    HttpResponse,
    http::header::ContentType,
    web::{self, ServiceConfig},
};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        OpenApi as Description,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::{api, explain, health, login, metrics, nodes, schema, state::State, stats, ticket, trace};

/// The path of the document, at both addresses.
pub(crate) const PATH: &str = "/api/openapi.json";

/// What every address has.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "realtime",
        description = "Push to users over WebSocket and Server-Sent Events. Errors have one body, `Error`; its `code` is \
            what counts.",
    ),
    servers((url = "..", description = "This server, also behind a path of its own.")),
    paths(health::live, health::ready, document),
    components(schemas(schema::Error)),
    tags(
        (name = "publish", description = "Messages from backends."),
        (name = "presence", description = "Who is online, and kicks."),
        (name = "nodes", description = "The cluster and the node that answers."),
        (name = "support", description = "Why a user got a message or did not."),
        (name = "logins", description = "Tokens and tickets."),
        (name = "websocket", description = "The WebSocket endpoint (websocket.path)."),
        (name = "sse", description = "The event streams (sse.path)."),
        (name = "health", description = "Checks by supervisors and load balancers."),
    ),
    modifiers(&Security),
)]
struct Basics;

/// What backends have, with the key: at `server.internal`, or else at the only address.
#[derive(OpenApi)]
#[openapi(
    paths(
        api::publish,
        api::online,
        api::online_user,
        api::kick,
        explain::explain,
        trace::trace,
        nodes::nodes,
        stats::stats,
    ),
    components(schemas(schema::TraceEvent))
)]
struct Backends;

/// What `server.internal` alone has.
#[derive(OpenApi)]
#[openapi(paths(metrics::metrics))]
struct Internal;

/// What clients have.
#[derive(OpenApi)]
#[openapi(paths(login::login))]
struct Clients;

#[derive(OpenApi)]
#[openapi(paths(ticket::ticket))]
struct Tickets;

/// Ways to prove who asks.
struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut Description) {
        let components = document.components.get_or_insert_default();
        let key = ApiKeyValue::with_description("X-API-Key", "The key of `api.key`.");
        components.add_security_scheme("apiKey", SecurityScheme::ApiKey(ApiKey::Header(key)));
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
        let token = token.description(Some("A token of `/auth/login`, or of another issuer.")).build();
        components.add_security_scheme("login", SecurityScheme::Http(token));
        let token = ApiKeyValue::with_description(
            "Authorization",
            "The same as a parameter, bare or after `Bearer `, where no header can be set.",
        );
        components.add_security_scheme("loginParameter", SecurityScheme::ApiKey(ApiKey::Query(token)));
        let ticket = ApiKeyValue::with_description("ticket", "A ticket, which opens one connection.");
        components.add_security_scheme("ticket", SecurityScheme::ApiKey(ApiKey::Query(ticket)));
    }
}

/// An address of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// Everything, at the only address.
    All,
    /// What clients use, beside `server.internal`.
    Clients,
    /// What backends use, at `server.internal`.
    Backends,
}

/// Serves the document of an address.
pub(crate) fn routes(state: &State, served: Served) -> impl FnOnce(&mut ServiceConfig) + use<> {
    let text = web::Bytes::from(description(state, served).to_json().expect("text keys make valid JSON"));
    move |services| {
        let document = move || {
            let text = text.clone();
            async move { HttpResponse::Ok().content_type(ContentType::json()).body(text) }
        };
        services.service(web::resource(PATH).get(document));
    }
}

/// Describe this interface.
///
/// Needs no key.
#[utoipa::path(
    get,
    path = "/api/openapi.json",
    operation_id = "describe",
    tag = "health",
    responses((status = 200, description = "This document.", body = Object)),
    security(()),
)]
#[expect(dead_code, reason = "the handler owns the document")]
fn document() {}

/// The routes of an address, as configured.
fn description(state: &State, served: Served) -> Description {
    let config = &state.config;
    let mut description = Basics::openapi();
    description.info.version = env!("CARGO_PKG_VERSION").to_owned();
    if served != Served::Clients {
        description.merge(Backends::openapi());
    }
    if served == Served::Backends {
        description.merge(Internal::openapi());
    }
    if served != Served::Backends {
        description.merge(Clients::openapi());
        if config.auth.tickets {
            description.merge(Tickets::openapi());
        }
        if cfg!(feature = "websocket") && config.websocket.enabled {
            description =
                description.nest(&config.websocket.path, transports::websocket(config.auth.tickets));
        }
        if cfg!(feature = "sse") && config.sse.enabled {
            description = description.nest(&config.sse.path, transports::sse(config.auth.tickets));
        }
    }
    description
}

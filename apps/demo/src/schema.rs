//! Schemas of the HTTP interface for types that are defined elsewhere, and its errors.

#![allow(unused_qualifications, reason = "utoipa's macros write paths in full")]

mod explanation;
mod user_id;

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::{
    IntoResponses, PartialSchema, ToSchema,
    openapi::{
        ContentBuilder, Header, Ref, RefOr, Response, ResponseBuilder, Schema,
        schema::{ObjectBuilder, Type},
    },
};

pub(crate) use self::{
    explanation::{Explanation, TraceEvent},
    user_id::UserId,
};

/// A user who is online.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OnlineUser {
    user_id: UserId,
    /// Number of its sessions; 0 for a user who is about to go offline.
    sessions: usize,
}

/// A session that is online.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OnlineSession {
    session_id: String,
    /// `websocket` or `sse`.
    transport: String,
    /// The kind of application.
    #[schema(required = true)]
    client_id: Option<String>,
    /// The node that serves it.
    node: String,
    /// Time when it was opened (RFC 3339).
    #[schema(format = DateTime)]
    since: String,
}

/// The sessions of a node that a message is for.
#[derive(Serialize, ToSchema)]
pub(crate) struct NodeDelivery {
    node: String,
    /// Sessions that it was for when it arrived.
    sessions: usize,
    /// Those of them whose outbox has accepted it.
    queued: usize,
    /// Those of them whose socket has accepted it to the last byte.
    written: usize,
}

/// A login of one connection.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ticket {
    ticket: String,
    /// Milliseconds in which it can be used.
    expires_in: u64,
}

/// A login that was renewed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Refreshed {
    /// Milliseconds until the login ends; `null`: it never does.
    #[schema(required = true)]
    expires_in: Option<u64>,
}

/// RuoYi's reply.
#[derive(Serialize, ToSchema)]
pub(crate) struct Reply<T: ToSchema> {
    /// 200.
    code: u16,
    /// A text for people.
    msg: String,
    data: T,
}

/// RuoYi's reply to a request that has failed.
#[derive(Serialize, ToSchema)]
pub(crate) struct Error {
    /// The status of the error, also where `auth.errorStatus` gives the response another one.
    #[schema(minimum = 400, maximum = 599)]
    code: u16,
    /// What is wrong, for people.
    msg: String,
    data: Null,
}

/// Nothing.
#[derive(Serialize)]
pub(crate) struct Null;

impl PartialSchema for Null {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Null).into()
    }
}

impl ToSchema for Null {}

/// Responses to requests that fail, each with the body [`Error`].
macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident: $($status:literal)*;)*) => {
        $(
            $(#[$doc])*
            pub(crate) struct $name;

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    [$($status),*].map(|status: u16| (status.to_string(), error(status).into())).into()
                }
            }
        )*
    };
}

errors! {
    /// Errors of a publish.
    PublishErrors: 400 401 408 409 413 422 429 503;
    /// Errors of a look at who is online.
    OnlineErrors: 400 401 429 503;
    /// Errors of a look at the nodes.
    NodeErrors: 401 429;
    /// Errors of an explanation.
    ExplainErrors: 400 401 429;
    /// Errors of a trace.
    TraceErrors: 400 401 408 413 429;
    /// Errors of a kick.
    KickErrors: 400 401 408 413 422 429 503;
    /// Errors of a login.
    LoginErrors: 400 401 408 409 413 429 503;
    /// Errors of a request for a ticket.
    TicketErrors: 400 401 403 409 429 503;
    /// Errors of a WebSocket's handshake.
    WebSocketErrors: 400 401 403 426 429 503;
    /// Errors of a request for an event stream. What passes is an empty event stream that has its client come back.
    StreamErrors: 400 401 403 429;
    /// Errors of a request that ends streams.
    CloseErrors: 403 429 503;
    /// Errors of a login that is not renewed.
    RefreshErrors: 400 401 403 404 429 503;
}

fn error(status: u16) -> Response {
    let description = match status {
        400 => "The request is not valid; `msg` begins with the name of the field.",
        401 => "Key or login are missing, wrong, expired or revoked.",
        403 => "The login, or the page of another origin, may not do this.",
        404 => "There is no such session of this user.",
        408 => "The body did not arrive within 30 s.",
        409 => "The part of the server that this needs is switched off.",
        413 => "The body is too large.",
        422 => "The bus of this server cannot do this, so a retry does not help.",
        426 => "This is a WebSocket endpoint, and the request no handshake.",
        429 => "Too many: of wrong keys, logins, tickets, sessions or messages.",
        _ => "It cannot be done now: the node starts or stops, or what it depends on is away.",
    };
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Error"))).build();
    let response = ResponseBuilder::new().description(description).content("application/json", body);
    match status {
        429 | 503 => {
            let mut wait = Header::new(ObjectBuilder::new().schema_type(Type::Integer));
            wait.description = Some("Seconds after which a retry may help, where they are known.".to_owned());
            response.header("Retry-After", wait)
        }
        _ => response,
    }
    .build()
}

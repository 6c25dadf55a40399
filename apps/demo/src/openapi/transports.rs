//! The endpoints of the transports, below their paths.

#![expect(dead_code, reason = "the handlers are those of the transports; these describe them")]

use utoipa::{OpenApi, openapi::OpenApi as Description};

use crate::schema::{
    CloseErrors, Null, RefreshErrors, Refreshed, Reply, StreamErrors, Ticket, TicketErrors, WebSocketErrors,
};

/// The endpoint of the WebSockets.
pub(super) fn websocket(tickets: bool) -> Description {
    with_tickets(WebSocket::openapi(), tickets.then(WebSocketTicket::openapi))
}

/// The endpoints of the event streams.
pub(super) fn sse(tickets: bool) -> Description {
    with_tickets(Sse::openapi(), tickets.then(SseTicket::openapi))
}

fn with_tickets(mut endpoint: Description, tickets: Option<Description>) -> Description {
    if let Some(tickets) = tickets {
        endpoint.merge(tickets);
    }
    endpoint
}

#[derive(OpenApi)]
#[openapi(paths(open_socket))]
struct WebSocket;

#[derive(OpenApi)]
#[openapi(paths(socket_ticket))]
struct WebSocketTicket;

#[derive(OpenApi)]
#[openapi(paths(open_stream, close_by_get, close, refresh))]
struct Sse;

#[derive(OpenApi)]
#[openapi(paths(stream_ticket))]
struct SseTicket;

/// Open a WebSocket.
///
/// The handshake of RFC 6455. Without a subprotocol, or with `realtime.raw`, messages are bare texts, as RuoYi-Vue-Plus
/// sends them; with `realtime.v1` they are envelopes with positions. Where a page can set no header, its token is a second
/// subprotocol, after `bearer.`.
#[utoipa::path(
    get,
    path = "",
    operation_id = "openWebSocket",
    tag = "websocket",
    params(
        ("clientid" = Option<String>, Query, description = "The kind of application, compared with the token's."),
        ("topics" = Option<String>, Query, description = "Named topics to subscribe to, separated by commas."),
        ("fresh" = Option<String>, Query, description = "Topics of which the client has had nothing yet, separated by \
            commas, to get what is kept for newcomers."),
        ("cursor" = Option<String>, Query, description = "The position after which messages are replayed."),
        ("Sec-WebSocket-Protocol" = Option<String>, Header,
            description = "`realtime.v1` or `realtime.raw`, and beside it `bearer.` and the token."),
    ),
    responses((status = 101, description = "The WebSocket is open."), WebSocketErrors),
    security(("login" = []), ("loginParameter" = []), ("ticket" = [])),
)]
fn open_socket() {}

/// Get a ticket for a WebSocket.
#[utoipa::path(
    post,
    path = "/ticket",
    operation_id = "getWebSocketTicket",
    tag = "websocket",
    responses((status = 200, description = "A ticket.", body = Reply<Ticket>), TicketErrors),
    security(("login" = [])),
)]
fn socket_ticket() {}

/// Open an event stream.
///
/// A condition that passes is answered with an empty event stream, which has its client come back later.
#[utoipa::path(
    get,
    path = "",
    operation_id = "openEventStream",
    tag = "sse",
    params(
        ("clientid" = Option<String>, Query, description = "The kind of application, compared with the token's."),
        ("topics" = Option<String>, Query, description = "Named topics to subscribe to, separated by commas."),
        ("lastEventId" = Option<String>, Query, description = "As the header `Last-Event-ID`, where none can be set."),
        ("hello" = Option<String>, Query, description = "`1`: an event with the session's id follows the first block."),
        ("fresh" = Option<String>, Query, description = "Topics of which the client has had nothing yet, separated by \
            commas, to get what is kept for newcomers."),
        ("Last-Event-ID" = Option<String>, Header, description = "The position after which messages are replayed."),
    ),
    responses(
        (status = 200, description = "The stream.", body = String, content_type = "text/event-stream"),
        (status = 204, description = "The login was ended; its client must not come back."),
        StreamErrors,
    ),
    security(("login" = []), ("loginParameter" = []), ("ticket" = [])),
)]
fn open_stream() {}

/// End the streams of a token.
///
/// A token that is not valid has no streams, and is no error.
#[utoipa::path(
    get,
    path = "/close",
    operation_id = "closeEventStreamsByGet",
    tag = "sse",
    responses((status = 200, description = "None is open.", body = Reply<Null>), CloseErrors),
    security(("login" = []), ("loginParameter" = [])),
)]
fn close_by_get() {}

/// End the streams of a token.
///
/// A token that is not valid has no streams, and is no error.
#[utoipa::path(
    post,
    path = "/close",
    operation_id = "closeEventStreams",
    tag = "sse",
    responses((status = 200, description = "None is open.", body = Reply<Null>), CloseErrors),
    security(("login" = []), ("loginParameter" = [])),
)]
fn close() {}

/// Renew the login of a stream.
///
/// With the new token where a login has it.
#[utoipa::path(
    post,
    path = "/refresh",
    operation_id = "refreshEventStream",
    tag = "sse",
    params(("session" = String, Query, description = "The id of the stream's session.")),
    responses((status = 200, description = "The session goes on with the new login.", body = Reply<Refreshed>), RefreshErrors),
    security(("login" = []), ("loginParameter" = [])),
)]
fn refresh() {}

/// Get a ticket for an event stream.
#[utoipa::path(
    post,
    path = "/ticket",
    operation_id = "getEventStreamTicket",
    tag = "sse",
    responses((status = 200, description = "A ticket.", body = Reply<Ticket>), TicketErrors),
    security(("login" = [])),
)]
fn stream_ticket() {}

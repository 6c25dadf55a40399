//! [`routes`]: the WebSocket endpoint.

use std::{fmt, rc::Rc, sync::Arc, time::Duration};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse,
    body::BoxBody,
    dev::Payload,
    http::{StatusCode, Version, header},
    rt::time::timeout,
    web::{self, ServiceConfig},
};
use realtime_core::{
    AuthError, Authenticator, ConnectError, ErrorStatus, Handshake, Hub, Reply, Shard, Wire, random_retry,
};

use realtime_server::{ConnectionBody, Takeover};

use crate::{
    AllowedOrigins, Echo, InboundHandler, SUBPROTOCOL, TRANSPORT, connection::WebSocketConnection,
    protocol::Protocol,
};

/// Configuration of the endpoint.
#[derive(Clone)]
pub struct WebSocketConfig {
    /// Path of the endpoint. Default: `/resource/websocket`.
    pub path: String,
    /// Origins that may connect besides the server's own. Default: none.
    pub allowed_origins: AllowedOrigins,
    /// Handler of the clients' texts. Default: [`Echo`].
    pub inbound: Arc<dyn InboundHandler>,
    /// Status of the response to a refused login. Default: 401 or 403.
    pub error_status: ErrorStatus,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            path: "/resource/websocket".to_owned(),
            allowed_origins: AllowedOrigins::same_origin(),
            inbound: Arc::new(Echo),
            error_status: ErrorStatus::default(),
        }
    }
}

impl fmt::Debug for WebSocketConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketConfig")
            .field("path", &self.path)
            .field("allowed_origins", &self.allowed_origins)
            .field("error_status", &self.error_status)
            .finish_non_exhaustive()
    }
}

/// Routes of the endpoint, `GET {path}`, for `App::configure`.
///
/// Build the hub outside of `HttpServer::new`: its closure runs once per worker.
pub fn routes(
    hub: Hub,
    authenticator: Arc<dyn Authenticator>,
    config: WebSocketConfig,
) -> impl FnOnce(&mut ServiceConfig) {
    move |services| {
        let WebSocketConfig { path, allowed_origins, inbound, error_status } = config;
        if allowed_origins.allows_any() {
            tracing::warn!(path, "pages of every origin may open a WebSocket and act as their visitor");
        }
        let state = Rc::new(State {
            _shard: hub.shard(),
            hub,
            authenticator,
            allowed_origins,
            inbound,
            error_status,
            raw: Protocol::Raw.wire(),
            v1: Protocol::V1.wire(),
        });
        let handler = move |request: HttpRequest, payload: web::Payload| {
            let state = Rc::clone(&state);
            async move { connect(&state, &request, payload).await.unwrap_or_else(Refusal::respond) }
        };
        services.service(web::resource(path).get(handler));
    }
}

/// State that the handlers and connections of one worker share.
pub(crate) struct State {
    /// Keeps the worker's shard alive between connections.
    _shard: Arc<Shard>,
    pub(crate) hub: Hub,
    authenticator: Arc<dyn Authenticator>,
    allowed_origins: AllowedOrigins,
    pub(crate) inbound: Arc<dyn InboundHandler>,
    error_status: ErrorStatus,
    raw: Arc<dyn Wire>,
    v1: Arc<dyn Wire>,
}

/// Upgrades a request. Everything that can refuse it comes before the upgrade.
async fn connect(
    state: &Rc<State>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Refusal> {
    check_upgrade(request)?;
    // Only the handshake of actix-ws is used: its session and its stream would each keep a queue.
    let unused = web::Payload::from_request(request, &mut Payload::None).into_inner();
    let unused = unused.expect("a payload is always extracted from a request");
    let (response, ..) = actix_ws::handle_with_protocols(request, unused, &[SUBPROTOCOL])
        .map_err(|error| Refusal::new(400, error))?;

    let headers = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let handshake = Handshake::new(TRANSPORT, request.query_string(), headers, request.peer_addr());
    let host = handshake.header("Host");
    // Browsers send one. If there are several, all have to be allowed.
    let refused =
        handshake.header_all("Origin").find(|origin| !state.allowed_origins.allow(Some(origin), host));
    if let Some(origin) = refused {
        tracing::warn!(
            origin,
            "refused the WebSocket of another origin; websocket.allowedOrigins can name it"
        );
        return Err(Refusal::new(403, format_args!("origin {origin:?} is not allowed")));
    }
    let principal = state
        .authenticator
        .authenticate(&handshake)
        .await
        .map_err(|error| Refusal::from(error).of_login(state.error_status))?;
    let (protocol, wire) = if response.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        (Protocol::V1, &state.v1)
    } else {
        (Protocol::Raw, &state.raw)
    };
    // Raw clients have no cursor.
    let cursor = handshake.cursor().filter(|_| protocol == Protocol::V1);
    // A starting node does not know yet which logins were kicked; mostly it will in a moment.
    timeout(START, state.hub.started()).await.ok();
    let session = state
        .hub
        .connect(principal, TRANSPORT, wire, cursor)
        .map_err(|error| Refusal::from(error).of_login(state.error_status))?;
    // A client gets everything that is published after its upgrade, so the session's position has to be known before.
    if timeout(START, session.begun()).await.is_err() {
        return Err(ConnectError::Behind.into());
    }
    let connection = WebSocketConnection::new(session, protocol, Rc::clone(state));
    let body = ConnectionBody::new(connection, Takeover::claim(request), payload.into_inner());
    Ok(response.set_body(BoxBody::new(body)))
}

/// Checks that actix-ws does not make (RFC 6455, section 4.2.1).
fn check_upgrade(request: &HttpRequest) -> Result<(), Refusal> {
    let upgrades = request.headers().get_all(header::UPGRADE).filter_map(|value| value.to_str().ok());
    let mut tokens = upgrades.flat_map(|value| value.split(',')).map(str::trim);
    if request.version() < Version::HTTP_11 {
        Err(Refusal::new(400, "a WebSocket needs HTTP/1.1"))
    } else if !tokens.any(|token| token.eq_ignore_ascii_case("websocket")) {
        Err(Refusal::new(426, "this is a WebSocket endpoint: the header `Upgrade: websocket` is missing"))
    } else {
        Ok(())
    }
}

/// Time that a handshake waits for the node to start.
const START: Duration = Duration::from_secs(5);

/// Mean of the `Retry-After` of a temporary refusal.
const RETRY: Duration = Duration::from_secs(3);

/// Response to a request that is not upgraded.
struct Refusal {
    status: u16,
    code: u16,
    msg: String,
}

impl Refusal {
    fn new(status: u16, msg: impl fmt::Display) -> Self {
        tracing::debug!(status, %msg, "WebSocket refused");
        Self { status, code: status, msg: msg.to_string() }
    }

    /// The same for a refused login, whose status is configurable.
    fn of_login(self, errors: ErrorStatus) -> Self {
        Self { status: errors.of(self.code), ..self }
    }

    fn respond(self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).expect("all statuses here are valid");
        let mut response = HttpResponse::build(status);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // In whole seconds (RFC 9110, section 10.2.3), randomized.
            let seconds = random_retry(RETRY).as_secs_f64().ceil();
            response.insert_header((header::RETRY_AFTER, format!("{seconds:.0}")));
        }
        match status {
            // RFC 9110, section 15.5.22.
            StatusCode::UPGRADE_REQUIRED => {
                response.insert_header((header::UPGRADE, "websocket"));
            }
            // RFC 6455, section 4.4: the version may be unsupported.
            StatusCode::BAD_REQUEST => {
                response.insert_header((header::SEC_WEBSOCKET_VERSION, "13"));
            }
            _ => {}
        }
        response.json(Reply::error(self.code, self.msg))
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        error.report();
        Self::new(error.status(), error.answer())
    }
}

impl From<ConnectError> for Refusal {
    fn from(error: ConnectError) -> Self {
        let status = match error {
            ConnectError::Starting
            | ConnectError::Behind
            | ConnectError::Draining
            | ConnectError::BusDown
            | ConnectError::Full(_) => 503,
            ConnectError::Kicked => 401,
            ConnectError::TooManyOfUser(..) => 429,
            ConnectError::TooManyWires(_) => 500,
        };
        Self::new(status, error)
    }
}

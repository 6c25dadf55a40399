//! [`routes`]: the stream and its close endpoint.

use std::{rc::Rc, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    rt::time::timeout,
    web::{self, ServiceConfig},
};
use realtime_core::{
    AuthError, Authenticator, ConnectError, ErrorStatus, Handshake, Hub, Reply, Shard, random_retry,
};

use crate::{
    SseEmitters, TRANSPORT,
    emitters::{EmitterError, RETRY},
    stream::response,
    wire,
};

/// Where the stream is and how it behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseConfig {
    /// The path of the stream; `<path>/close` ends it. Default `/resource/sse`.
    pub path: String,
    /// After what time a client comes back when its stream breaks. Default 3 s.
    pub retry: Duration,
    /// Under which status a refused login is told of. Default: 401 or 403, and 204 for one that was kicked.
    pub error_status: ErrorStatus,
}

impl Default for SseConfig {
    fn default() -> Self {
        Self { path: "/resource/sse".to_owned(), retry: RETRY, error_status: ErrorStatus::default() }
    }
}

/// Adds `GET {path}` and `GET|POST {path}/close` to an `App`; give it to `App::configure`.
///
/// Build the hub outside of `HttpServer::new`: its closure runs once per worker.
pub fn routes(
    hub: Hub,
    authenticator: Arc<dyn Authenticator>,
    config: SseConfig,
) -> impl FnOnce(&mut ServiceConfig) {
    move |services| {
        let state = Rc::new(State {
            _shard: hub.shard(),
            emitters: SseEmitters::new(hub).retry(config.retry),
            authenticator,
            retry: config.retry,
            error_status: config.error_status,
        });
        let close = web::resource(format!("{}/close", config.path))
            .get(with(&state, close))
            .post(with(&state, close));
        services.service(web::resource(config.path).get(with(&state, connect))).service(close);
    }
}

/// What the handlers of one worker share.
struct State {
    /// Keeps the worker's shard alive between connections.
    _shard: Arc<Shard>,
    emitters: SseEmitters,
    authenticator: Arc<dyn Authenticator>,
    retry: Duration,
    error_status: ErrorStatus,
}

/// How long a request waits for the node to start.
const START: Duration = Duration::from_secs(5);

async fn connect(state: Rc<State>, request: HttpRequest) -> HttpResponse {
    let handshake = handshake(&request);
    let principal = match state.authenticator.authenticate(&handshake).await {
        Ok(principal) => principal,
        Err(error) => return refuse_login(&error, &state),
    };
    if let Ok(hub) = state.emitters.hub() {
        // A node that starts does not know yet who was kicked. It soon will, mostly.
        timeout(START, hub.started()).await.ok();
    }
    match state.emitters.open_for(&request, principal, handshake.cursor()) {
        // Whoever is connected is owed what is published from then on: not before it can be told where that begins.
        Ok(stream) if timeout(START, stream.begun()).await.is_err() => {
            refuse(&EmitterError::Connect(ConnectError::Behind), &state)
        }
        Ok(stream) => stream.respond(),
        Err(error) => refuse(&error, &state),
    }
}

/// Ends the streams of the request's token. Without a valid one there is nothing to end, and that is no error.
async fn close(state: Rc<State>, request: HttpRequest) -> HttpResponse {
    let handshake = handshake(&request);
    if let Ok(principal) = state.authenticator.authenticate(&handshake).await {
        state.emitters.end(&principal.user, principal.token);
    }
    HttpResponse::Ok().json(Reply::ok())
}

fn handshake(request: &HttpRequest) -> Handshake {
    let headers = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    Handshake::new(TRANSPORT, request.query_string(), headers, request.peer_addr())
}

fn refuse_login(error: &AuthError, state: &State) -> HttpResponse {
    tracing::debug!(%error, "login refused");
    error.report();
    match error {
        AuthError::Unauthorized(_) | AuthError::Forbidden(_) => {
            let code = error.status();
            answer(state.error_status.of(code), code, error)
        }
        AuthError::Unavailable(_) => come_back(state.retry),
    }
}

/// A native `EventSource` gives up for good on anything but 200 with the right type, and 204 says "do not come back".
fn refuse(error: &EmitterError, state: &State) -> HttpResponse {
    match error {
        EmitterError::Connect(
            ConnectError::Starting
            | ConnectError::Behind
            | ConnectError::Draining
            | ConnectError::BusDown
            | ConnectError::Full(_),
        ) => come_back(state.retry),
        EmitterError::Connect(ConnectError::Kicked) => match state.error_status {
            ErrorStatus::Http => HttpResponse::NoContent().finish(),
            // No stream either, and this one says why.
            ErrorStatus::Always200 => answer(200, 401, error),
        },
        EmitterError::Connect(ConnectError::TooManyOfUser(..)) => answer(429, 429, error),
        EmitterError::Connect(ConnectError::TooManyWires(_)) | EmitterError::Facade(_) => {
            answer(500, 500, error)
        }
    }
}

/// Each client is told another time: those that are refused together must not come back together.
fn come_back(retry: Duration) -> HttpResponse {
    response().body(wire::unavailable(random_retry(retry)))
}

fn answer(status: u16, code: u16, error: &impl ToString) -> HttpResponse {
    let status = StatusCode::from_u16(status).expect("statuses here are literals of this crate and core");
    HttpResponse::build(status).json(Reply::error(code, error.to_string()))
}

/// A handler with the worker's state in its first argument, so that nothing of ours is in the app's data.
fn with<Fut>(
    state: &Rc<State>,
    handler: fn(Rc<State>, HttpRequest) -> Fut,
) -> impl Fn(HttpRequest) -> Fut + Clone + use<Fut> {
    let state = Rc::clone(state);
    move |request| handler(Rc::clone(&state), request)
}

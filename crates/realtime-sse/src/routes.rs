//! [`routes`]: the stream and its close endpoint.

use std::{
    future::ready,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use actix_web::{
    HttpRequest, HttpResponse, Resource,
    http::{ConnectionType, Method},
    rt::time::timeout,
    web::{self, ServiceConfig},
};
use realtime_core::{
    Authenticator, Hub,
    auth::{AllowedOrigins, AuthError, Handshake},
    error::ConnectError,
    ruoyi::{ErrorStatus, Reply},
    wire::Shard,
};
use realtime_server::{announces_body, issue_ticket};
use serde::Serialize;

use crate::{
    EmitterError, SseConfig, SseEmitters,
    cors::Cors,
    refusal::{answer, reconnect_later, refuse},
};

/// Routes of the endpoint, `GET {path}`, `GET|POST {path}/close`, `POST {path}/refresh` and, with
/// [tickets](SseConfig::tickets), `POST {path}/ticket`, for `App::configure`; none when it is not
/// [enabled](SseConfig::enabled).
///
/// Each also answers the `OPTIONS` of pages of [other origins](SseConfig::allowed_origins). A request with cookies of a page
/// that is not among them is refused with 403.
///
/// Build the hub outside of `HttpServer::new`: its closure runs once per worker.
///
/// # Panics
/// When the `App` is built outside a tokio runtime; actix-web builds it in its workers.
pub fn routes(
    hub: Hub,
    authenticator: Arc<dyn Authenticator>,
    config: SseConfig,
) -> impl FnOnce(&mut ServiceConfig) {
    move |services| {
        if !config.enabled {
            return;
        }
        let state = Rc::new(State {
            _shard: hub.shard(),
            emitters: SseEmitters::new(hub.clone())
                .retry(config.retry)
                .trusted_proxies(config.trusted_proxies),
            hub,
            authenticator,
            retry: config.retry,
            allowed_origins: config.allowed_origins,
            error_status: config.error_status,
            login_cookie: config.login_cookie,
            tickets: config.tickets,
        });
        if config.tickets {
            let path = format!("{}/ticket", config.path);
            services.service(resource(&path, &state, "POST").post(with(&state, ticket)));
        }
        let close = resource(&format!("{}/close", config.path), &state, "GET, POST")
            .get(with(&state, close))
            .post(with(&state, close));
        let refresh =
            resource(&format!("{}/refresh", config.path), &state, "POST").post(with(&state, refresh));
        let stream = resource(&config.path, &state, "GET").get(with(&state, connect));
        services.service(stream).service(close).service(refresh);
    }
}

/// State that the handlers of one worker share.
struct State {
    /// Keeps the worker's shard alive between connections.
    _shard: Arc<Shard>,
    hub: Hub,
    emitters: SseEmitters,
    authenticator: Arc<dyn Authenticator>,
    retry: Duration,
    allowed_origins: AllowedOrigins,
    error_status: ErrorStatus,
    login_cookie: Option<Arc<str>>,
    tickets: bool,
}

impl State {
    /// The handshake of a request. A cookie is a login only if no page of another origin has made the request.
    fn handshake(&self, request: &HttpRequest) -> Handshake {
        let handshake = self.emitters.handshake(request);
        let cookie = self.login_cookie.as_ref().filter(|_| self.allowed_origins.trusts_cookies(&handshake));
        handshake.with_login_cookie(cookie)
    }
}

/// Time that a request waits for the node to start.
const START: Duration = Duration::from_secs(5);

async fn connect(state: Rc<State>, request: HttpRequest, handshake: Handshake) -> HttpResponse {
    if announces_body(&request) {
        let mut refusal = answer(400, 400, &"the request of an event stream must not have a body");
        refusal.head_mut().set_connection_type(ConnectionType::Close);
        return refusal;
    }
    // Before anything that costs more.
    let admission = match state.emitters.admit(&handshake) {
        Ok(admission) => admission,
        Err(error) => return refuse(&error, state.retry, state.error_status),
    };
    let handshake = handshake.with_tickets(state.tickets);
    let principal = match state.hub.authenticate(&*state.authenticator, &handshake).await {
        Ok(principal) => principal,
        Err(error) => return refuse_login(&error, &state),
    };
    // A starting node does not know yet which logins were kicked; mostly it will in a moment.
    timeout(START, state.hub.started()).await.ok();
    match state.emitters.open_asked(&request, &handshake, admission, principal).await {
        // A client gets everything that is published after the response's head, so the position has to be known before.
        Ok(stream) if timeout(START, stream.begun()).await.is_err() => {
            refuse(&EmitterError::Connect(ConnectError::Behind), state.retry, state.error_status)
        }
        Ok(stream) => stream.respond(),
        Err(error) => refuse(&error, state.retry, state.error_status),
    }
}

/// Ends the streams of the request's token. An invalid token has no streams, and is not an error.
async fn close(state: Rc<State>, _: HttpRequest, handshake: Handshake) -> HttpResponse {
    if let Some(refusal) = too_many(&state, &handshake) {
        return refusal;
    }
    if let Ok(principal) = state.authenticator.authenticate(&handshake).await {
        state.emitters.end(&principal.user, principal.token);
    }
    HttpResponse::Ok().json(Reply::ok())
}

/// Makes a ticket for the login of the request.
async fn ticket(state: Rc<State>, _: HttpRequest, handshake: Handshake) -> HttpResponse {
    if let Some(refusal) = too_many(&state, &handshake) {
        return refusal;
    }
    issue_ticket(&state.hub, &*state.authenticator, &handshake, state.error_status).await
}

/// Renews the login of a stream with the token of the request.
async fn refresh(state: Rc<State>, _: HttpRequest, handshake: Handshake) -> HttpResponse {
    if let Some(refusal) = too_many(&state, &handshake) {
        return refusal;
    }
    let refuse = |code: u16, problem: &dyn std::fmt::Display| {
        answer(state.error_status.of(code), code, &problem.to_string())
    };
    let session = match handshake.query_only("session") {
        Ok(session) => session.and_then(|id| id.parse().ok()),
        Err(error) => return refuse(400, &error),
    };
    let Some(session) = session else {
        return refuse(400, &"session: the id of the stream's session is missing");
    };
    let principal = match state.authenticator.authenticate(&handshake).await {
        Ok(principal) => principal,
        Err(error) => {
            error.report();
            return refuse(error.status(), &error.answer());
        }
    };
    let expires_at = principal.expires_at;
    match state.hub.renew_session(session, principal).await {
        Ok(()) => {
            let left = |end: SystemTime| end.duration_since(SystemTime::now()).unwrap_or_default();
            let expires_in = expires_at.map(|end| left(end).as_millis());
            HttpResponse::Ok().json(Reply::data(Refreshed { expires_in }))
        }
        Err(error) => refuse(error.status(), &error),
    }
}

/// Answer to a request about a stream that is beyond the rates of handshakes: its login is checked, too.
fn too_many(state: &State, handshake: &Handshake) -> Option<HttpResponse> {
    let error = state.hub.admit_request(handshake.client_ip()).err()?;
    Some(answer(error.status(), error.status(), &error))
}

/// Answer to a renewed login.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refreshed {
    /// Milliseconds until the login ends; `None`: it never does.
    expires_in: Option<u128>,
}

fn refuse_login(error: &AuthError, state: &State) -> HttpResponse {
    tracing::debug!(%error, "login refused");
    error.report();
    match error.status() {
        503 => reconnect_later(state.retry),
        code => answer(state.error_status.of(code), code, error),
    }
}

/// A resource that answers the preflight requests of browsers, for these methods.
fn resource(path: &str, state: &Rc<State>, methods: &'static str) -> Resource {
    let preflight = move |state: Rc<State>, _: HttpRequest, handshake: Handshake| {
        ready(Cors::preflight(&state.allowed_origins, &handshake, methods))
    };
    web::resource(path).route(web::method(Method::OPTIONS).to(with(state, preflight)))
}

/// Handler with the worker's state as its first argument, so that the app's data stays the application's. Its response says
/// what pages of other origins may do with it.
fn with<F, Fut>(state: &Rc<State>, handler: F) -> impl Fn(HttpRequest) -> Answering + Clone + use<F, Fut>
where
    F: Fn(Rc<State>, HttpRequest, Handshake) -> Fut + Copy + 'static,
    Fut: Future<Output = HttpResponse> + 'static,
{
    let state = Rc::clone(state);
    move |request: HttpRequest| {
        let state = Rc::clone(&state);
        Box::pin(async move {
            let handshake = state.handshake(&request);
            let (cors, mut response) = match Cors::of(&state.allowed_origins, &handshake) {
                Ok(cors) => (cors, handler(state, request, handshake).await),
                Err(page) => (Cors::None, page.refuse()),
            };
            cors.apply(response.headers_mut());
            response
        })
    }
}

type Answering = Pin<Box<dyn Future<Output = HttpResponse>>>;

#[cfg(test)]
mod tests {
    use actix_web::{App, http::StatusCode, test};
    use realtime_core::{BoxFuture, Principal};

    use super::*;

    struct Nobody;

    impl Authenticator for Nobody {
        fn authenticate<'a>(&'a self, _: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
            Box::pin(async { Err(AuthError::Unauthorized("nobody".to_owned())) })
        }
    }

    #[actix_web::test]
    async fn an_endpoint_that_is_off_is_a_route_that_does_not_exist() {
        let hub = Hub::builder().start().unwrap();
        for (enabled, status) in [(true, StatusCode::UNAUTHORIZED), (false, StatusCode::NOT_FOUND)] {
            let config = SseConfig { enabled, ..SseConfig::default() };
            let app = App::new().configure(routes(hub.clone(), Arc::new(Nobody), config));
            let request = test::TestRequest::get().uri("/resource/sse").to_request();
            let response = test::call_service(&test::init_service(app).await, request).await;
            assert_eq!(response.status(), status);
        }
    }
}

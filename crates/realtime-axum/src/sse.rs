//! [`sse_routes`]: the endpoint of event streams.

use std::{future::ready, sync::Arc};

use axum::{
    Router,
    extract::{RawPathParams, Request},
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use realtime_core::{Authenticator, Hub, auth::Handshake};
use realtime_protocol::{
    announces_body,
    sse::{Framing, Service, SseConfig, TRANSPORT},
};

use crate::{
    handshake::handshake,
    respond::{append, respond},
    shards::Shards,
    stream,
};

/// Router with the endpoint, `GET {path}`, `GET|POST {path}/close`, `POST {path}/refresh` and, with
/// [tickets](SseConfig::tickets), `POST {path}/ticket`; empty when it is not [enabled](SseConfig::enabled).
///
/// Each also answers the `OPTIONS` of pages of [other origins](SseConfig::allowed_origins). A request with cookies of a page
/// that is not among them is refused with 403. `path` is one of axum, which may have parameters.
///
/// # Panics
/// When the path is none that axum takes.
pub fn sse_routes<S>(hub: Hub, authenticator: Arc<dyn Authenticator>, config: SseConfig) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    if !config.enabled {
        return Router::new();
    }
    let (path, tickets) = (config.path.clone(), config.tickets);
    let service = Service::new(hub.clone(), authenticator, config);
    let state = Arc::new(State { service, hub, shards: Shards::default() });
    let get_or_post = MethodFilter::GET.or(MethodFilter::POST);
    let mut router = Router::new()
        .route(&path, resource(&state, "GET", MethodFilter::GET, connect))
        .route(&format!("{path}/close"), resource(&state, "GET, POST", get_or_post, close))
        .route(&format!("{path}/refresh"), resource(&state, "POST", MethodFilter::POST, refresh));
    if tickets {
        let ticket = resource(&state, "POST", MethodFilter::POST, ticket);
        router = router.route(&format!("{path}/ticket"), ticket);
    }
    router
}

/// State that the handlers share.
struct State {
    service: Service,
    hub: Hub,
    shards: Shards,
}

async fn connect(state: Arc<State>, request: Parts, handshake: Handshake) -> Response {
    let lengths = request.headers.get_all(header::CONTENT_LENGTH).iter().map(HeaderValue::as_bytes);
    if announces_body(request.headers.contains_key(header::TRANSFER_ENCODING), lengths) {
        return respond(state.service.refuse_body());
    }
    state.shards.keep(&state.hub);
    match state.service.connect(handshake, || Framing::Plain).await {
        Ok(connection) => stream::respond(connection),
        Err(answer) => respond(answer),
    }
}

async fn close(state: Arc<State>, _: Parts, handshake: Handshake) -> Response {
    respond(state.service.close(&handshake).await)
}

async fn refresh(state: Arc<State>, _: Parts, handshake: Handshake) -> Response {
    respond(state.service.refresh(&handshake).await)
}

async fn ticket(state: Arc<State>, _: Parts, handshake: Handshake) -> Response {
    respond(state.service.ticket(&handshake).await)
}

/// A resource with a handler of some methods, which also answers the preflight requests of browsers. Its responses say what
/// pages of other origins may do with them.
fn resource<S, F, Fut>(
    state: &Arc<State>,
    methods: &'static str,
    filter: MethodFilter,
    handler: F,
) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
    F: Fn(Arc<State>, Parts, Handshake) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Response> + Send + 'static,
{
    let preflight = move |state: Arc<State>, _: Parts, handshake: Handshake| {
        ready(respond(state.service.preflight(&handshake, methods)))
    };
    let (requests, preflights) = (Arc::clone(state), Arc::clone(state));
    let requests = move |params: RawPathParams, request: Request| {
        answer(Arc::clone(&requests), params, request, methods, handler)
    };
    on(filter, requests).on(MethodFilter::OPTIONS, move |params: RawPathParams, request: Request| {
        answer(Arc::clone(&preflights), params, request, methods, preflight)
    })
}

async fn answer<F, Fut>(
    state: Arc<State>,
    params: RawPathParams,
    request: Request,
    methods: &'static str,
    handler: F,
) -> Response
where
    F: Fn(Arc<State>, Parts, Handshake) -> Fut,
    Fut: Future<Output = Response>,
{
    let (request, _) = request.into_parts();
    if request.method == Method::HEAD {
        // axum serves it by the routes of GET.
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, methods)]).into_response();
    }
    let handshake = state.service.handshake(handshake(TRANSPORT, &request, &params));
    let page = match state.service.page(&handshake) {
        Ok(page) => page,
        Err(refusal) => return respond(refusal),
    };
    let mut response = handler(state, request, handshake).await;
    append(&mut response, page);
    response
}

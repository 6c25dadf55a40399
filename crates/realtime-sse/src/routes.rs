//! [`routes`]: the stream and its close endpoint.

use std::{future::ready, pin::Pin, rc::Rc, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse, Resource,
    http::{
        Method,
        header::{HeaderName, HeaderValue},
    },
    web::{self, ServiceConfig},
};
use realtime_core::{Authenticator, Hub, auth::Handshake, wire::Shard};
use realtime_protocol::sse::Service;
use realtime_server::{Takeover, announces_body, respond};

use crate::{SseConfig, SseStream, emitters::framing, handshake::handshake};

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
        let (path, tickets, shard) = (config.path.clone(), config.tickets, hub.shard());
        let state = Rc::new(State { _shard: shard, service: Service::new(hub, authenticator, config) });
        if tickets {
            let path = format!("{path}/ticket");
            services.service(resource(&path, &state, "POST").post(with(&state, ticket)));
        }
        let close = resource(&format!("{path}/close"), &state, "GET, POST")
            .get(with(&state, close))
            .post(with(&state, close));
        let refresh = resource(&format!("{path}/refresh"), &state, "POST").post(with(&state, refresh));
        let stream = resource(&path, &state, "GET").get(with(&state, connect));
        services.service(stream).service(close).service(refresh);
    }
}

/// State that the handlers of one worker share.
struct State {
    /// Keeps the worker's shard alive between connections.
    _shard: Arc<Shard>,
    service: Service,
}

async fn connect(state: Rc<State>, request: HttpRequest, handshake: Handshake) -> HttpResponse {
    if announces_body(&request) {
        return respond(state.service.refuse_body());
    }
    let mut takeover = None;
    let opened = state.service.connect(handshake, || {
        takeover = Takeover::claim(&request);
        framing(takeover.as_ref())
    });
    match opened.await {
        Ok(connection) => SseStream::new(connection, takeover).respond(),
        Err(answer) => respond(answer),
    }
}

async fn close(state: Rc<State>, _: HttpRequest, handshake: Handshake) -> HttpResponse {
    respond(state.service.close(&handshake).await)
}

async fn ticket(state: Rc<State>, _: HttpRequest, handshake: Handshake) -> HttpResponse {
    respond(state.service.ticket(&handshake).await)
}

async fn refresh(state: Rc<State>, _: HttpRequest, handshake: Handshake) -> HttpResponse {
    respond(state.service.refresh(&handshake).await)
}

/// A resource that answers the preflight requests of browsers, for these methods.
fn resource(path: &str, state: &Rc<State>, methods: &'static str) -> Resource {
    let preflight = move |state: Rc<State>, _: HttpRequest, handshake: Handshake| {
        ready(respond(state.service.preflight(&handshake, methods)))
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
            let handshake = state.service.handshake(handshake(&request));
            let cors = match state.service.page(&handshake) {
                Ok(cors) => cors,
                Err(refusal) => return respond(refusal),
            };
            let mut response = handler(state, request, handshake).await;
            for (name, value) in cors {
                if let Ok(value) = HeaderValue::try_from(value) {
                    response.headers_mut().append(HeaderName::from_static(name), value);
                }
            }
            response
        })
    }
}

type Answering = Pin<Box<dyn Future<Output = HttpResponse>>>;

#[cfg(test)]
mod tests {
    use actix_web::{App, http::StatusCode, test};
    use realtime_core::{BoxFuture, Principal, auth::AuthError};

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
            let mut config = SseConfig::default();
            config.enabled = enabled;
            let app = App::new().configure(routes(hub.clone(), Arc::new(Nobody), config));
            let request = test::TestRequest::get().uri("/resource/sse").to_request();
            let response = test::call_service(&test::init_service(app).await, request).await;
            assert_eq!(response.status(), status);
        }
    }
}

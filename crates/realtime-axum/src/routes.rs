//! [`routes`]: both endpoints.

use std::sync::Arc;

use axum::Router;
use realtime_core::{Authenticator, Hub};

use crate::{Config, sse_routes, websocket_routes};

/// Router with both endpoints: see [`websocket_routes`] and [`sse_routes`].
///
/// ```
/// # use std::sync::Arc;
/// use axum::{Router, routing::get};
/// use realtime_axum::{Authenticator, Config, Hub, routes};
///
/// fn app(hub: Hub, authenticator: Arc<dyn Authenticator>) -> Router {
///     Router::new().route("/", get(async || "hello")).merge(routes(hub, authenticator, Config::default()))
/// }
/// ```
pub fn routes<S>(hub: Hub, authenticator: Arc<dyn Authenticator>, config: Config) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let Config { websocket, sse } = config;
    websocket_routes(hub.clone(), Arc::clone(&authenticator), websocket).merge(sse_routes(
        hub,
        authenticator,
        sse,
    ))
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        http::{Method, Request, StatusCode},
    };
    use realtime_core::{
        BoxFuture, Principal,
        auth::{AuthError, Handshake},
    };
    use tower::ServiceExt;

    use super::*;

    struct Nobody;

    impl Authenticator for Nobody {
        fn authenticate<'a>(&'a self, _: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
            Box::pin(async { Err(AuthError::Unauthorized("nobody".to_owned())) })
        }
    }

    async fn status(router: &Router, method: Method, path: &str) -> StatusCode {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn an_endpoint_that_is_off_is_a_route_that_does_not_exist() {
        let hub = Hub::builder().start().unwrap();
        for enabled in [true, false] {
            let mut config = Config::default();
            (config.websocket.enabled, config.sse.enabled) = (enabled, enabled);
            let router = routes(hub.clone(), Arc::new(Nobody), config);
            for (path, open) in [
                ("/resource/websocket", StatusCode::UPGRADE_REQUIRED),
                ("/resource/sse", StatusCode::UNAUTHORIZED),
                ("/resource/sse/close", StatusCode::OK),
            ] {
                let expected = if enabled { open } else { StatusCode::NOT_FOUND };
                assert_eq!(status(&router, Method::GET, path).await, expected, "{path}");
            }
        }
    }

    #[tokio::test]
    async fn a_head_request_opens_nothing() {
        let hub = Hub::builder().start().unwrap();
        let router = routes(hub, Arc::new(Nobody), Config::default());
        for path in ["/resource/websocket", "/resource/sse"] {
            assert_eq!(status(&router, Method::HEAD, path).await, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
    }

    #[tokio::test]
    async fn a_path_may_have_parameters_that_the_authenticator_sees() {
        struct Rooms;
        impl Authenticator for Rooms {
            fn authenticate<'a>(
                &'a self,
                request: &'a Handshake,
            ) -> BoxFuture<'a, Result<Principal, AuthError>> {
                Box::pin(async {
                    match request.param("room") {
                        Some("open") => Ok(Principal::new(1.into(), "")),
                        _ => Err(AuthError::Forbidden("this room is closed".to_owned())),
                    }
                })
            }
        }
        let hub = Hub::builder().start().unwrap();
        let config = Config::default().sse(crate::SseConfig::default().path("/rooms/{room}"));
        let router = routes(hub, Arc::new(Rooms), config);
        assert_eq!(status(&router, Method::GET, "/rooms/open").await, StatusCode::OK);
        assert_eq!(status(&router, Method::GET, "/rooms/other").await, StatusCode::FORBIDDEN);
    }
}

//! The demo with its transports on axum: everything else is passed on to the demo itself, in the same process and over the
//! same hub.

use std::{env, net::SocketAddr, process::exit, sync::Arc, thread, time::Duration};

use anyhow::Context;
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    response::Response,
    serve::ListenerExt,
};
use realtime_axum::{Hub, socket_options};
use realtime_demo::{config::Config, log, run, token};
use realtime_tests::free_port;
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// Bytes that a request to the demo has at most.
const MAX_BODY: usize = 8 << 20;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut config = Config::load(None, env::vars())?;
    log::init(&config.log.level, config.log.format)?;
    let listener = TcpListener::bind((config.server.host.as_str(), config.server.port)).await?;
    config.server.port = free_port();
    let demo = SocketAddr::from(([127, 0, 0, 1], config.server.port));

    let behind = config.clone();
    thread::spawn(move || {
        let result = actix_web::rt::System::new().block_on(run(behind, None));
        if let Err(error) = &result {
            log::line(format_args!("error: {error:#}"));
        }
        log::flush();
        exit(i32::from(result.is_err()));
    });
    let hub = hub().await;
    while TcpStream::connect(demo).await.is_err() {
        sleep(Duration::from_millis(5)).await;
    }

    let max_stall = hub.settings().outbox.max_stall;
    let router = transports(hub, &config)?.fallback(pass_on).with_state((reqwest::Client::new(), demo));
    log::line(format_args!("axum is ready at http://{}/", listener.local_addr()?));
    let listener = listener.tap_io(move |tcp| socket_options(tcp, max_stall));
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

/// The hub of the demo, once it has one.
async fn hub() -> Hub {
    loop {
        if let Some(hub) = realtime_core::hub() {
            return hub.clone();
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// The transports as the demo configures them.
fn transports(hub: Hub, config: &Config) -> anyhow::Result<Router<(reqwest::Client, SocketAddr)>> {
    let (auth, proxies) = (&config.auth, &config.server.trusted_proxies);
    let websocket = config.websocket.clone().error_status(auth.error_status);
    let websocket = websocket.trusted_proxies(proxies.clone()).login_cookie(auth.cookie.as_deref());
    let sse = config.sse.clone().error_status(auth.error_status);
    let sse = sse.trusted_proxies(proxies.clone()).login_cookie(auth.cookie.as_deref());
    let config_of_both = realtime_axum::Config::default()
        .websocket(websocket.tickets(auth.tickets))
        .sse(sse.tickets(auth.tickets));
    let authenticator = token::live_authenticator(config, &token::random_secret()).context("auth")?;
    Ok(realtime_axum::routes(hub, Arc::new(authenticator), config_of_both))
}

/// Passes a request on to the demo.
async fn pass_on(
    State((client, demo)): State<(reqwest::Client, SocketAddr)>,
    request: Request,
) -> Result<Response, (StatusCode, String)> {
    let problem = |error: &dyn std::fmt::Display| (StatusCode::BAD_GATEWAY, error.to_string());
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY).await.map_err(|error| problem(&error))?;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let request = client.request(parts.method, format!("http://{demo}{path}")).headers(parts.headers);
    let answer = request.body(body).send().await.map_err(|error| problem(&error))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    // Those of the connection that it came over.
    for name in [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        response.headers_mut().remove(name);
    }
    let body = answer.bytes().await.map_err(|error| problem(&error))?;
    *response.body_mut() = Body::from(body);
    Ok(response)
}

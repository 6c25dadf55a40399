//! Both transports on axum: `cargo run -p realtime-examples --bin axum`.
//!
//! Nothing of actix-web is compiled for it in an application of your own: it depends on `realtime-axum` alone.

use std::{env, error::Error, net::SocketAddr, sync::Arc, time::SystemTime};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::post,
    serve::ListenerExt,
};
use realtime_axum::{
    Config, Envelope, Hub, Message, Scope, UserId,
    auth::{Claims, JwtAlgorithm, JwtAuthenticator},
    routes, socket_options,
};
use tokio::{net::TcpListener, signal::ctrl_c};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder().start()?;
    let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?);
    let app = Router::new()
        .route("/push/{user}", post(push))
        .with_state(hub.clone())
        .route("/login/{user}", post(login))
        .with_state(jwt.clone())
        .merge(routes(hub.clone(), jwt, Config::default()));

    let max_stall = hub.settings().outbox.max_stall;
    let listener = TcpListener::bind(env::args().nth(1).as_deref().unwrap_or("127.0.0.1:8080")).await?;
    let address = listener.local_addr()?;
    eprintln!("listening on {address}");
    eprintln!("get a token for user 42: curl -X POST http://{address}/login/42");
    eprintln!("connect: ws://{address}/resource/websocket?Authorization=<token>");
    eprintln!("or: curl -N 'http://{address}/resource/sse?Authorization=<token>'");
    eprintln!("push: curl -X POST http://{address}/push/42 -d paid");
    let listener = listener.tap_io(move |tcp| socket_options(tcp, max_stall));
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async move {
            ctrl_c().await.ok();
            // Clients are asked to come back, to another node or to this one once it is up again.
            hub.drain().await;
        })
        .await?;
    Ok(())
}

async fn push(
    State(hub): State<Hub>,
    Path(user): Path<UserId>,
    text: String,
) -> Result<(), (StatusCode, String)> {
    let problem = |error: &dyn Error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    let envelope =
        Envelope::to_users([&user], Scope::Both, Message::text(text)).map_err(|error| problem(&error))?;
    hub.publish(envelope).await.map_err(|error| problem(&error))?;
    Ok(())
}

/// Stands for your login, which would ask for a password.
async fn login(
    State(jwt): State<Arc<JwtAuthenticator>>,
    Path(user): Path<UserId>,
) -> Result<String, (StatusCode, String)> {
    let problem = |error: &dyn Error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    let exp = SystemTime::UNIX_EPOCH.elapsed().map_err(|error| problem(&error))?.as_secs() + 3600;
    jwt.sign(&Claims::new(user, exp)).map_err(|error| problem(&error))
}

//! Socket.IO as socketioxide's documentation has it, on axum. A peer of `realtime-bench compare`: clients at `/socket.io/`,
//! and `POST /publish` emits its body to all as the event `message`. Its argument is the port.

use anyhow::Context;
use axum::{Router, extract::State, http::StatusCode, routing::post, serve::ListenerExt};
use socketioxide::SocketIo;
use tokio::net::TcpListener;

async fn publish(State(io): State<SocketIo>, text: String) -> StatusCode {
    match io.emit("message", &text).await {
        Ok(()) => StatusCode::OK,
        Err(error) => {
            eprintln!("failed to emit: {error}");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port: u16 = std::env::args().nth(1).context("the argument is missing: a port")?.parse()?;
    let (layer, io) = SocketIo::new_layer();
    // Every client of the namespace is in the audience of `emit`.
    io.ns("/", async || {});
    let routes = Router::new().route("/publish", post(publish)).layer(layer).with_state(io);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?.tap_io(|socket| {
        socket.set_nodelay(true).ok();
    });
    axum::serve(listener, routes).await.context("the server")
}

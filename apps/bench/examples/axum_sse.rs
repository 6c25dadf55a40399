//! Event streams as axum's and tokio's documentation has them: `Sse` over a broadcast channel. A peer of `realtime-bench
//! compare`: streams at `/sse`, and `POST /publish` sends its body to all. Its argument is the port.

use std::sync::Arc;

use anyhow::Context;
use axum::{
    Router,
    extract::State,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
    routing::{get, post},
    serve::ListenerExt,
};
use futures_util::{Stream, TryStreamExt};
use tokio::{net::TcpListener, sync::broadcast};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

/// Messages that the channel keeps for its slowest reader.
const QUEUE: usize = 1024;

type Messages = broadcast::Sender<Arc<str>>;

/// A stream ends when its reader has fallen behind by more than the channel keeps.
async fn stream(
    State(messages): State<Messages>,
) -> Sse<impl Stream<Item = Result<Event, BroadcastStreamRecvError>>> {
    let events = BroadcastStream::new(messages.subscribe()).map_ok(|text| Event::default().data(&*text));
    Sse::new(events).keep_alive(KeepAlive::default())
}

async fn publish(State(messages): State<Messages>, text: String) {
    // Without readers there is nobody to send it to.
    messages.send(text.into()).ok();
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port: u16 = std::env::args().nth(1).context("the argument is missing: a port")?.parse()?;
    let messages = Messages::new(QUEUE);
    let routes =
        Router::new().route("/sse", get(stream)).route("/publish", post(publish)).with_state(messages);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?.tap_io(|socket| {
        socket.set_nodelay(true).ok();
    });
    axum::serve(listener, routes).await.context("the server")
}

//! [`Internal`]: the publish API on an address and a thread of its own.

use actix_web::{
    App, HttpServer,
    dev::{Server, ServerHandle},
    web::{Data, ServiceConfig},
};
use anyhow::Context;

use crate::{
    api,
    config::Address,
    server::{KEEP_ALIVE, basics},
    state::State,
};

/// The server of `server.internal`: `/api` and health, for backends and not for the world.
///
/// Its one worker has no connections of clients, so a request does not wait until a message has been delivered.
pub(crate) struct Internal {
    address: Address,
    server: Server,
}

impl Internal {
    /// Listens where the configuration says, if it says so.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub(crate) fn bind(state: &Data<State>) -> anyhow::Result<Option<Self>> {
        let Some(address) = state.config.server.internal.clone() else { return Ok(None) };
        let server = HttpServer::new({
            let state = state.clone();
            move || App::new().configure(routes(&state))
        })
        .workers(1)
        .keep_alive(KEEP_ALIVE)
        .tcp_nodelay(true)
        .disable_signals()
        .bind((address.host.as_str(), address.port))
        .with_context(|| format!("failed to bind {address} (server.internal)"))?;
        let port = server.addrs().first().map_or(address.port, std::net::SocketAddr::port);
        Ok(Some(Self { address: Address { port, ..address }, server: server.run() }))
    }

    /// Where it listens, with the port that it got.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// What stops it; it goes on answering until then.
    pub(crate) fn handle(&self) -> ServerHandle {
        self.server.handle()
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// When the server fails.
    pub(crate) async fn serve(self) -> std::io::Result<()> {
        self.server.await
    }
}

fn routes(state: &Data<State>) -> impl FnOnce(&mut ServiceConfig) {
    let state = state.clone();
    move |services| {
        services.configure(basics).configure(api::routes).app_data(state);
    }
}

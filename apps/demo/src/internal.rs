//! [`Internal`]: the publish API on an address of its own.

use std::{io, pin::pin, time::Duration};

use actix_http::HttpService;
use actix_service::{IntoServiceFactory, map_config};
use actix_web::{
    App,
    dev::{AppConfig, Service, ServiceFactory},
    web::{Data, ServiceConfig},
};
use anyhow::{Context, anyhow};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    api,
    config::Address,
    server::{KEEP_ALIVE, basics},
    state::State,
};

/// The server of `server.internal`: `/api` and health, for backends and not for the world.
///
/// It runs on the thread that awaits [`Self::serve`]: the hub's, which has no connections of clients. So a request does not
/// wait until a message has been delivered, and its answer has been written when this thread goes on to wake the workers
/// that deliver what was published. From a thread of its own the answer would come after them where processors are few.
pub(crate) struct Internal {
    address: Address,
    listener: TcpListener,
    stop: watch::Sender<bool>,
}

/// How long requests may take to be answered once the server stops.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// How long nothing is accepted after an error such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

impl Internal {
    /// Listens where the configuration says, if it says so.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub(crate) async fn bind(state: &State) -> anyhow::Result<Option<Self>> {
        let Some(address) = state.config.server.internal.clone() else { return Ok(None) };
        let listen = async {
            let listener = TcpListener::bind((address.host.as_str(), address.port)).await?;
            io::Result::Ok((listener.local_addr()?.port(), listener))
        };
        let (port, listener) =
            listen.await.with_context(|| format!("failed to bind {address} (server.internal)"))?;
        Ok(Some(Self { address: Address { port, ..address }, listener, stop: watch::Sender::new(false) }))
    }

    /// Where it listens, with the port that it got.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// What stops it when it is set; it goes on answering until then.
    pub(crate) fn stop(&self) -> watch::Sender<bool> {
        self.stop.clone()
    }

    /// Serves until it is stopped and the requests that have come are answered.
    ///
    /// # Errors
    /// When the routes cannot be set up.
    pub(crate) async fn serve(self, state: &Data<State>) -> anyhow::Result<()> {
        let Self { listener, stop, .. } = self;
        let app =
            IntoServiceFactory::<_, actix_http::Request>::into_factory(App::new().configure(routes(state)));
        let service = HttpService::build()
            .keep_alive(KEEP_ALIVE)
            .tcp_nodelay(true)
            // Idle connections end then, and others behind their answers.
            .graceful_shutdown_signal({
                let stopped = stop.subscribe();
                move || until_set(stopped.clone())
            })
            // No route asks what the server is called.
            .finish(map_config(app, |()| AppConfig::default()))
            .tcp()
            .new_service(())
            .await
            .map_err(|()| anyhow!("failed to set up the routes of server.internal"))?;
        let mut connections = JoinSet::new();
        let mut stopped = pin!(until_set(stop.subscribe()));
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((socket, _)) => drop(connections.spawn_local(service.call(socket))),
                    Err(error) => {
                        tracing::warn!(%error, "server.internal accepts no connections for a moment");
                        sleep(PAUSE).await;
                    }
                },
                // A client that goes away is no fault; what else ends a connection, its peer is told of.
                Some(_) = connections.join_next() => {}
                () = &mut stopped => break,
            }
        }
        drop(listener);
        let answered = async { while connections.join_next().await.is_some() {} };
        if timeout(LAST_ANSWERS, answered).await.is_err() {
            tracing::warn!(left = connections.len(), "requests to server.internal were not answered in time");
        }
        Ok(())
    }
}

async fn until_set(mut stopped: watch::Receiver<bool>) {
    // The sender is kept for as long as connections are served; if it goes, they end too.
    stopped.wait_for(|stopped| *stopped).await.ok();
}

fn routes(state: &Data<State>) -> impl FnOnce(&mut ServiceConfig) {
    let state = state.clone();
    move |services| {
        services.configure(basics).configure(api::routes).app_data(state);
    }
}

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
    api, audit,
    basics::{KEEP_ALIVE, basics, headers},
    config::Address,
    console, explain, metrics, nodes,
    openapi::{self, Served},
    state::State,
    stats, trace,
};

/// The server of `server.internal`: `/api`, health and the console, for backends and operators and not for the world.
///
/// It runs on the thread that awaits [`Self::serve`]: the hub's, which has no client connections. So a request does not wait
/// for deliveries, and its response is written before this thread wakes the workers that deliver the message. On a thread of
/// its own, the response would come after the workers if there are few processors.
pub(crate) struct Internal {
    address: Address,
    listener: TcpListener,
    stop: watch::Sender<bool>,
}

/// Time for pending requests to be answered when the server stops.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Pause after an error of `accept`, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

impl Internal {
    /// Binds the configured address, if there is one.
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

    /// The bound address, with the actual port.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Switch that stops the server when it is set to true.
    pub(crate) fn stop(&self) -> watch::Sender<bool> {
        self.stop.clone()
    }

    /// Serves until it is stopped and the requests that have come are answered.
    ///
    /// # Errors
    /// When the routes cannot be set up.
    pub(crate) async fn serve(self, state: &Data<State>) -> anyhow::Result<()> {
        let Self { listener, stop, .. } = self;
        let app = App::new().configure(routes(state)).wrap_fn(audit::record).wrap(headers());
        let app = app.wrap_fn(realtime_server::conform);
        let app = IntoServiceFactory::<_, actix_http::Request>::into_factory(app);
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
                // A disconnect is not an error, and other errors are reported to the peer.
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

/// Adds to an `App` what this address has.
pub(crate) fn routes(state: &Data<State>) -> impl FnOnce(&mut ServiceConfig) {
    let state = state.clone();
    move |services| {
        services
            .configure(|services| basics(services, state.max_body))
            .configure(api::routes)
            .configure(explain::routes)
            .configure(trace::routes)
            .configure(nodes::routes)
            .configure(stats::routes)
            .configure(openapi::routes(&state, Served::Backends))
            .configure(console::routes)
            .configure(metrics::routes)
            .app_data(state);
    }
}

//! [`run`]: serves hub, transports and routes as configured, until a signal.

use std::{future::pending, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use actix_web::{
    App,
    dev::{Server, ServerHandle},
    web::{Data, ServiceConfig},
};
use anyhow::{Context, bail};
use futures_util::future::{OptionFuture, try_join};
use realtime_core::{Authenticator, Hub, HubBuilder, Principal, Topic, presence::NoPresence};
use tokio::{sync::watch, time::sleep};
use tracing::Level;

#[cfg(feature = "redis")]
use crate::connect::{Reached, Unreached, connect};
use crate::{
    api, audit,
    basics::{KEEP_ALIVE, basics, headers},
    config::{Address, AuthMode, Config, PresenceMode, ServerKind},
    explain, hosts,
    internal::Internal,
    log, login,
    logins::Logins,
    metrics::Recorder,
    nodes, online,
    openapi::{self, Served},
    page,
    reload::{ReadConfig, Reload},
    scenes,
    signals::{HangUps, Signals},
    state::State,
    stats, ticket,
    tls::ServedCertificate,
    token, trace,
};

/// Connections that may wait to be accepted, so that a storm of reconnects finds the door open.
const BACKLOG: u32 = 8192;

/// Connections that one worker serves at once; `limits.maxConnections` bounds sessions.
const MAX_CONNECTIONS: usize = 200_000;

/// Time beyond `drain.window` for what is open then: requests that are answered, and responses that are read.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Serves until SIGINT or SIGTERM, then drains. At SIGHUP it takes over what `read` gives, as far as that
/// needs no restart; without it SIGHUP ends the process.
///
/// # Errors
/// When the hub's settings contradict each other, the address cannot be bound, or a task ends that must not.
pub async fn run(config: Config, read: Option<ReadConfig>) -> anyhow::Result<()> {
    let signals = Signals::start(if read.is_some() { HangUps::Received } else { HangUps::Final })?;
    for note in &config.notes {
        tracing::info!("ruoyi: {note}");
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    // Before the hub: what is not recorded costs nothing, and nobody could read it without this address.
    let _recorder = config.server.internal.as_ref().map(|_| Recorder::install()).transpose()?;
    #[cfg(feature = "opentelemetry")]
    let _exporter = crate::exporter::Exporter::start()?;
    let hub = hub(&config)?.start()?;
    realtime_core::install(hub.clone())?;
    let (authenticator, logins, _recheck) = match config.auth.mode {
        AuthMode::Jwt => {
            let logins = Arc::new(Logins::start(&config)?);
            (Arc::clone(&logins) as Arc<dyn Authenticator>, Some(logins), None::<Recheck>)
        }
        #[cfg(feature = "redis")]
        AuthMode::SaToken => {
            let sa_token = crate::cluster::sa_token(&config)?;
            // It ends live sessions whose logins have ended, for as long as it is kept.
            let recheck = sa_token.watch(hub.clone(), config.auth.sa_token.recheck);
            (Arc::new(sa_token) as Arc<dyn Authenticator>, None, Some(recheck))
        }
        #[cfg(not(feature = "redis"))]
        AuthMode::SaToken => bail!("auth.mode: sa-token needs the feature `redis`"),
    };
    let state = Data::new(State::new(config, hub.clone(), authenticator, logins));

    let reached = reach(&state.config).await;
    let internal = Internal::bind(&state).await?;
    let certificate = ServedCertificate::load(&state.config.server.tls)?;
    let (server, address) = serve(&state, certificate.as_ref())?;
    let reload = read.map(|read| Reload { read, state: state.clone(), certificate });
    let hang_ups = signals.hang_ups();
    let mut reload = pin!(async {
        match reload {
            Some(reload) => reload.run(&hang_ups).await,
            None => pending().await,
        }
    });
    announce(
        &state,
        &reached,
        internal.as_ref().map(Internal::address),
        address.map_or(state.config.server.port, |address| address.port()),
    );

    let failed = hub.failed();
    let limit = hub.settings().drain.window.saturating_add(LAST_ANSWERS);
    let (begin, draining) = watch::channel(false);
    let stop_internal = internal.as_ref().map(Internal::stop);
    let mut stop = tokio::spawn(stop(signals, hub, server.handle(), stop_internal, begin));
    let internal = OptionFuture::from(internal.map(|internal| internal.serve(&state)));
    let servers = try_join(async { anyhow::Ok(server.await?) }, async { internal.await.unwrap_or(Ok(())) });
    let mut stopping = pin!(async {
        let problem = match (&mut stop).await {
            Ok(Ok(())) => return pending().await,
            Ok(Err(error)) => error,
            Err(error) => error.into(),
        };
        // The process could not be stopped in order any more, so it ends now.
        problem.context("the task that waits for signals has ended")
    });
    let result = tokio::select! {
        result = servers => result,
        error = &mut stopping => bail!(error),
        () = out_of_time(draining, limit) => {
            tracing::warn!("the time for the drain is over: what is still open is broken off");
            Ok(((), ()))
        }
        // Published messages would not arrive any more: the supervisor has to restart the process.
        problem = failed => bail!("{problem}"),
        never = &mut reload => never,
    };
    result.map(|_| ())
}

/// The server that the configuration asks for, and the first address that it is bound to.
fn serve(
    state: &Data<State>,
    certificate: Option<&Arc<ServedCertificate>>,
) -> anyhow::Result<(Server, Option<SocketAddr>)> {
    let app = {
        let state = state.clone();
        move || {
            App::new().configure(routes(&state)).wrap_fn(audit::record).wrap_fn(hosts::check).wrap(headers())
        }
    };
    let max_stall = state.config.settings().outbox.max_stall;
    // Both servers have the same methods, and types of their own.
    macro_rules! start {
        ($server:expr) => {{
            let server = &state.config.server;
            let mut http = $server
                .backlog(BACKLOG)
                .max_connections(MAX_CONNECTIONS)
                .keep_alive(KEEP_ALIVE)
                .disable_signals();
            if server.workers > 0 {
                http = http.workers(server.workers);
            }
            let (host, port) = (server.host.as_str(), server.port);
            let bound = match certificate {
                Some(certificate) => http.bind_rustls_0_23((host, port), certificate.server_config()?),
                None => http.bind((host, port)),
            };
            let http =
                bound.with_context(|| format!("failed to bind {host}:{port} (server.host, server.port)"))?;
            let address = http.addrs().first().copied();
            (http.run(), address)
        }};
    }
    Ok(match state.config.server.kind {
        ServerKind::Realtime => {
            let most = u64::try_from(state.max_body).unwrap_or(u64::MAX);
            start!(realtime_server::HttpServer::new(app).max_stall(max_stall).max_expected_body(most))
        }
        ServerKind::Actix => start!(
            actix_web::HttpServer::new(move || app().wrap_fn(realtime_server::conform))
                .on_connect(realtime_server::socket_options(max_stall))
                // A client that left is noticed at once, not at the next write that fails.
                .h1_allow_half_closed(false)
                // Any longer, and every WebSocket's FIN comes that much after its Close frame.
                .client_disconnect_timeout(Duration::ZERO)
        ),
    })
}

/// Drains the hub at the first signal, and then stops the server. `draining` is set when it begins.
async fn stop(
    signals: Signals,
    hub: Hub,
    server: ServerHandle,
    internal: Option<watch::Sender<bool>>,
    draining: watch::Sender<bool>,
) -> anyhow::Result<()> {
    signals.first().await?;
    tracing::info!("draining");
    draining.send_replace(true);
    // A task of its own: if a part of the hub panics as it leaves, the server stops all the same.
    let drained = tokio::spawn(async move { hub.drain().await }).await;
    match &drained {
        Ok(0) => {}
        Ok(left) => tracing::warn!(left, "connections that did not end were broken off"),
        Err(error) => tracing::error!(%error, "the drain has failed"),
    }
    // Requests are answered, however many sessions are broken off.
    if let Some(internal) = internal {
        internal.send_replace(true);
    }
    server.stop(drained.is_ok()).await;
    Ok(())
}

/// Pending until a drain has had its time.
async fn out_of_time(mut draining: watch::Receiver<bool>, limit: Duration) {
    if draining.wait_for(|draining| *draining).await.is_err() {
        // The task that would begin it has ended, which is reported.
        pending::<()>().await;
    }
    sleep(limit).await;
}

/// The hub as configured; without Redis its bus is in memory.
fn hub(config: &Config) -> anyhow::Result<HubBuilder> {
    let public = config.topics.public.clone();
    let policy = move |_: &Principal, topic: &Topic| public.iter().any(|pattern| pattern.includes(topic));
    let mut hub = Hub::builder().settings(config.settings()).topic_policy(policy);
    if let Some(node) = &config.server.node {
        hub = hub.node(node.clone());
    }
    #[cfg(feature = "redis")]
    if let Some(redis) = &config.redis {
        hub = crate::cluster::join(hub, redis, config)?;
    }
    Ok(if config.presence_mode() == PresenceMode::Off { hub.presence(|_| NoPresence) } else { hub })
}

/// Keeps the periodic check of live sessions going.
#[cfg(feature = "redis")]
type Recheck = realtime_redis::SaTokenWatch;
#[cfg(not(feature = "redis"))]
type Recheck = std::convert::Infallible;

/// Checks what only the parts themselves can check, and the variables of the environment that are none of the configuration's,
/// without starting anything. Returns all problems.
pub fn check(config: &Config) -> Vec<anyhow::Error> {
    let log = log::filter(&config.log.level).map(drop);
    #[cfg(feature = "opentelemetry")]
    let exporter = crate::exporter::Exporter::check();
    #[cfg(not(feature = "opentelemetry"))]
    let exporter = Ok(());
    let logins = match config.auth.mode {
        AuthMode::Jwt => token::authenticator(config, &token::random_secret()).map(drop),
        #[cfg(feature = "redis")]
        AuthMode::SaToken => crate::cluster::sa_token(config).map(drop),
        #[cfg(not(feature = "redis"))]
        AuthMode::SaToken => Ok(()),
    };
    [log, exporter, logins, hub(config).map(drop)].into_iter().filter_map(Result::err).collect()
}

/// Adds to an `App` what the configuration switches on.
pub(crate) fn routes(state: &Data<State>) -> impl FnOnce(&mut ServiceConfig) {
    let state = state.clone();
    move |services| {
        services.configure(|services| basics(services, state.max_body));
        // First, since routes are tried in their order and all clients come back at once.
        #[cfg(feature = "websocket")]
        services.configure(websocket(&state));
        #[cfg(feature = "sse")]
        services.configure(sse(&state));
        services
            .configure(login::routes)
            .configure(ticket::routes(state.config.auth.tickets))
            .configure(online::routes)
            .configure(scenes::routes)
            .configure(page::routes);
        if state.config.server.internal.is_none() {
            services.configure(api::routes).configure(explain::routes).configure(trace::routes);
            services.configure(nodes::routes).configure(stats::routes);
            services.configure(openapi::routes(&state, Served::All));
        } else {
            services.configure(openapi::routes(&state, Served::Clients));
        }
        services.app_data(state);
    }
}

#[cfg(feature = "websocket")]
fn websocket(state: &Data<State>) -> impl FnOnce(&mut ServiceConfig) + use<> {
    let config = state.config.websocket.clone().inbound(crate::chat::Chat(state.clone()));
    let config = config
        .error_status(state.config.auth.error_status)
        .trusted_proxies(state.config.server.trusted_proxies.clone())
        .login_cookie(state.config.auth.cookie.as_deref())
        .tickets(state.config.auth.tickets);
    realtime_websocket::routes(state.hub.clone(), Arc::clone(&state.authenticator), config)
}

#[cfg(feature = "sse")]
fn sse(state: &Data<State>) -> impl FnOnce(&mut ServiceConfig) + use<> {
    let config = state
        .config
        .sse
        .clone()
        .error_status(state.config.auth.error_status)
        .trusted_proxies(state.config.server.trusted_proxies.clone())
        .login_cookie(state.config.auth.cookie.as_deref())
        .tickets(state.config.auth.tickets);
    realtime_sse::routes(state.hub.clone(), Arc::clone(&state.authenticator), config)
}

/// Time that a start waits to find out whether Redis answers.
#[cfg(feature = "redis")]
const REACH: Duration = Duration::from_secs(3);

/// Tries each Redis, and returns lines that say whether it answers. The node starts in any case, and goes on trying.
#[cfg(feature = "redis")]
async fn reach(config: &Config) -> Vec<(Level, String)> {
    let Ok(results) = tokio::time::timeout(REACH, connect(config)).await else {
        return vec![(Level::WARN, format!("redis: no answer within {REACH:?}; the node goes on trying"))];
    };
    let line = |result: Result<Reached, Unreached>| match result {
        Ok(reached) => (Level::INFO, reached.to_string()),
        Err(unreached) => {
            let level = if unreached.is_permanent() { Level::ERROR } else { Level::WARN };
            (level, format!("{unreached}; the node goes on trying"))
        }
    };
    results.into_iter().map(line).collect()
}

#[cfg(not(feature = "redis"))]
async fn reach(_: &Config) -> Vec<(Level, String)> {
    Vec::new()
}

/// Prints the addresses and paths to stderr. Scripts wait for the last line.
fn announce(state: &State, reached: &[(Level, String)], internal: Option<&Address>, port: u16) {
    let config = &state.config;
    let module = |name: &str, enabled: bool, path: &str| {
        if enabled {
            log::line(format_args!("{name}: {path}"));
        } else {
            log::line(format_args!("{name}: disabled ({name}.enabled)"));
        }
    };
    module("websocket", config.websocket.enabled, &config.websocket.path);
    module("sse", config.sse.enabled, &config.sse.path);
    match &config.redis {
        #[cfg(feature = "redis")]
        Some(redis) => {
            let mode = match redis.mode {
                realtime_redis::RedisMode::Streams => "streams",
                realtime_redis::RedisMode::PubSub => "pubsub",
            };
            log::line(format_args!("bus: Redis {mode} over {} (redis.*)", redis.addresses()));
        }
        _ => log::line(format_args!("bus: in memory (redis.url is not set)")),
    }
    reached.iter().for_each(|(level, line)| log::line_at(*level, line));
    match config.api.key {
        Some(_) => log::line(format_args!("api key: as configured (api.key)")),
        None => log::line(format_args!(
            "api key: {} (for this start; api.key sets a lasting one)",
            state.live().api_key
        )),
    }
    if let Some(address) = internal {
        log::line(format_args!("internal api: http://{address}/ (server.internal)"));
        log::line(format_args!("console: http://{address}/console/ (server.internal)"));
    }
    let host = &config.server.host;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let scheme = if config.server.tls.cert.is_some() { "https" } else { "http" };
    log::line(format_args!("realtime-demo is ready at {scheme}://{host}:{port}/"));
}

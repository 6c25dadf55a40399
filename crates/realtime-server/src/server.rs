//! [`HttpServer`]: actix-web's server, with connections that can be taken over.

use std::{
    any::Any,
    fmt, io,
    marker::PhantomData,
    net::{self, SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix_http::{Extensions, HttpService, KeepAlive, Request, Response, body::MessageBody};
use actix_server::{GracefulShutdownSignal, Server, ServerBuilder};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, map_config};
use actix_web::{Error, dev::AppConfig};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    expect::Expect,
    io::ServerIo,
    patience::RequestTimes,
    request::WatchFactory,
    serve::{Accept, ServeFactory},
};

/// Types of the application, of which no value is kept.
type Made<I, S, B> = fn() -> (I, S, B);

type OnConnect = Arc<dyn Fn(&dyn Any, &mut Extensions) + Send + Sync>;

/// HTTP server for an `App` of actix-web, with the methods of `actix_web::HttpServer`.
///
/// Its defaults are those for pushing; nothing else has to be set. Messages leave at once ([`Self::tcp_nodelay`]), a client
/// that takes nothing is closed ([`Self::max_stall`]), and one that has left is removed at once
/// ([`Self::h1_allow_half_closed`]).
///
/// ```no_run
/// use actix_web::{App, web};
/// use realtime_server::HttpServer;
///
/// #[actix_web::main]
/// async fn main() -> std::io::Result<()> {
///     HttpServer::new(|| App::new().route("/", web::get().to(async || "hello")))
///         .bind(("127.0.0.1", 8080))?
///         .run()
///         .await
/// }
/// ```
///
/// # Differences to actix-web's server
///
/// - A handler can take over a connection of plain HTTP/1.1 ([`Takeover`](crate::Takeover)); on Linux only. Taken
///   connections count in [`Self::max_connections`], and an orderly stop waits for them.
/// - Requests have time limits on connections that are kept alive, too, and bodies as well
///   ([`Self::client_body_timeout`]).
/// - The rest of a body whose request was refused is read for up to 5 s after the response, 16 MiB at most, so that a
///   client that sends all of it first gets the response.
/// - A client that closes its side behind a request still gets the response, unless that is a stream.
/// - Responses follow [`conform`](crate::conform).
/// - Of a connection of HTTP/1.1, one request is read at a time: its head, its body, and then some KiB at most until it
///   has been answered. If a client sends more than 64 KiB behind a response without a known length, such as an event
///   stream, they are discarded, and the connection ends with the response.
/// - `TCP_NODELAY` is on by default, and on Linux the kernel holds some KiB unsent of a connection at most
///   (`TCP_NOTSENT_LOWAT`).
/// - `AppConfig` is the default one, since actix-web makes no other for a server that is not its own: without a `Host`
///   header, `ConnectionInfo::host` and `url_for` give `localhost:8080`; over TLS `ConnectionInfo::scheme` is `http`
///   unless a proxy sets another one, and there is no `server_hostname`.
/// - There are no Unix sockets, no OpenSSL and no rustls older than 0.23.
#[must_use = "a server does nothing until it is run"]
pub struct HttpServer<F, I, S, B> {
    factory: F,
    config: Arc<Mutex<Config>>,
    backlog: u32,
    max_stall: Duration,
    sockets: Vec<(SocketAddr, &'static str)>,
    builder: ServerBuilder,
    shutdown: GracefulShutdownSignal,
    _app: PhantomData<Made<I, S, B>>,
}

/// Settings that a worker reads when it starts, so that the order of the builder's calls does not matter.
#[derive(Clone)]
struct Config {
    keep_alive: KeepAlive,
    nodelay: bool,
    max_connections: usize,
    client_request_timeout: Duration,
    client_body_timeout: Duration,
    max_expected_body: u64,
    client_disconnect_timeout: Duration,
    h1_allow_half_closed: bool,
    h1_write_buffer_size: Option<usize>,
    h2_initial_window_size: Option<u32>,
    h2_initial_connection_window_size: Option<u32>,
    on_connect: Option<OnConnect>,
}

/// Time for which a client may take nothing by default: that of `outbox.maxStall`.
const MAX_STALL: Duration = Duration::from_secs(8);

/// Connections that a worker serves at once by default: actix-server's own number.
const MAX_CONNECTIONS: usize = 25_600;

impl Default for Config {
    fn default() -> Self {
        Self {
            keep_alive: KeepAlive::default(),
            nodelay: true,
            max_connections: MAX_CONNECTIONS,
            client_request_timeout: Duration::from_secs(5),
            client_body_timeout: Duration::from_secs(30),
            max_expected_body: u64::MAX,
            client_disconnect_timeout: Duration::from_secs(1),
            h1_allow_half_closed: false,
            h1_write_buffer_size: None,
            h2_initial_window_size: None,
            h2_initial_connection_window_size: None,
            on_connect: None,
        }
    }
}

impl<F, I, S, B> HttpServer<F, I, S, B>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    /// A server of the application that `factory` makes; it is called once for each worker and address.
    pub fn new(factory: F) -> Self {
        let builder = Server::build();
        Self {
            factory,
            config: Arc::default(),
            backlog: 1024,
            max_stall: MAX_STALL,
            sockets: Vec::new(),
            shutdown: builder.graceful_shutdown_signal(),
            builder,
            _app: PhantomData,
        }
    }

    /// Number of worker threads. Default: the number of CPUs.
    ///
    /// # Panics
    /// When it is 0.
    pub fn workers(self, workers: usize) -> Self {
        self.build(|builder| builder.workers(workers))
    }

    /// Time for which an idle connection is kept. Default: 5 s.
    pub fn keep_alive(self, keep_alive: impl Into<KeepAlive>) -> Self {
        self.set(|config| config.keep_alive = keep_alive.into())
    }

    /// Sends small writes at once (`TCP_NODELAY`). Default: true.
    pub fn tcp_nodelay(self, enabled: bool) -> Self {
        self.set(|config| config.nodelay = enabled)
    }

    /// Connections that may wait to be accepted; to be set before [`Self::bind`]. Default: 1024.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
        self.build(|builder| builder.backlog(backlog))
    }

    /// Time for which a client may take nothing of what is sent to it before the kernel breaks its connection off, 0 for no
    /// limit (`TCP_USER_TIMEOUT`, on Linux); to be set before [`Self::bind`]. Default: 8 s, as `outbox.maxStall`.
    ///
    /// Connections that are taken over are watched by their worker instead.
    pub fn max_stall(mut self, max_stall: Duration) -> Self {
        self.max_stall = max_stall;
        self
    }

    /// Connections that each worker serves at once, taken ones included. Default: 25,600.
    ///
    /// Further ones are accepted up to the same number, and wait.
    pub fn max_connections(self, max: usize) -> Self {
        self.set(|config| config.max_connections = max)
            .build(|builder| builder.max_concurrent_connections(max))
    }

    /// TLS handshakes that each worker carries out at once. Default: 256.
    #[cfg(feature = "rustls-0_23")]
    pub fn max_connection_rate(self, max: usize) -> Self {
        actix_tls::accept::max_concurrent_tls_connect(max);
        self
    }

    /// TLS handshakes that each worker carries out at once; without a feature for TLS there are none.
    #[cfg(not(feature = "rustls-0_23"))]
    pub fn max_connection_rate(self, _: usize) -> Self {
        self
    }

    /// Threads of each worker for blocking work. Default: 512 divided by the number of CPUs.
    pub fn worker_max_blocking_threads(self, threads: usize) -> Self {
        self.build(|builder| builder.worker_max_blocking_threads(threads))
    }

    /// Time for which a client may keep the server waiting for a request's head, 0 for no limit: from the begin of the
    /// connection, and from the first byte of each further one. Default: 5 s. A client that takes longer gets 408.
    pub fn client_request_timeout(self, timeout: Duration) -> Self {
        self.set(|config| config.client_request_timeout = timeout)
    }

    /// Time for which a client may keep the server waiting for the body of an HTTP/1.1 request, 0 for no limit. Each KiB
    /// that comes extends it by a second. Default: 30 s. A client that takes longer gets 408, or, once the response has
    /// begun, the end of the connection. Behind a request that offers an upgrade only the time counts in which the handler
    /// waits for the payload; one that waits no longer, for instance behind a timeout of its own, drops it.
    pub fn client_body_timeout(self, timeout: Duration) -> Self {
        self.set(|config| config.client_body_timeout = timeout)
    }

    /// Largest body that a client may announce in a request with `Expect: 100-continue`: a larger one is refused with
    /// 413, without being sent. Default: no limit.
    pub fn max_expected_body(self, bytes: u64) -> Self {
        self.set(|config| config.max_expected_body = bytes)
    }

    /// Time for a connection to be closed in order, 0 for at once. Default: 1 s.
    ///
    /// Connections that are taken over do not wait for it. Over TLS the end of the connection follows a WebSocket's Close
    /// frame after up to this time; at 0 a response to a request whose body is still arriving may be lost.
    pub fn client_disconnect_timeout(self, timeout: Duration) -> Self {
        self.set(|config| config.client_disconnect_timeout = timeout)
    }

    /// Sends a client that has closed its side the rest of its response. Default: false, unlike actix-web's: that
    /// a client of an event stream has left is known at once, also over TLS. Connections that are taken over end in any case.
    pub fn h1_allow_half_closed(self, allow: bool) -> Self {
        self.set(|config| config.h1_allow_half_closed = allow)
    }

    /// Bytes of an HTTP/1.1 response that are collected before they are written.
    pub fn h1_write_buffer_size(self, bytes: usize) -> Self {
        self.set(|config| config.h1_write_buffer_size = Some(bytes))
    }

    /// Initial window of an HTTP/2 stream, in bytes.
    pub fn h2_initial_window_size(self, bytes: u32) -> Self {
        self.set(|config| config.h2_initial_window_size = Some(bytes))
    }

    /// Initial window of an HTTP/2 connection, in bytes.
    pub fn h2_initial_connection_window_size(self, bytes: u32) -> Self {
        self.set(|config| config.h2_initial_connection_window_size = Some(bytes))
    }

    /// Callback for each new connection, with its stream and the data that its requests will see: an
    /// `actix_web::rt::net::TcpStream`, or actix-tls' `TlsStream` of one.
    pub fn on_connect(self, callback: impl Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static) -> Self {
        self.set(|config| config.on_connect = Some(Arc::new(callback)))
    }

    /// Has the actix `System` end with the server.
    pub fn system_exit(self) -> Self {
        self.build(ServerBuilder::system_exit)
    }

    /// Leaves signals to the application.
    pub fn disable_signals(self) -> Self {
        self.build(ServerBuilder::disable_signals)
    }

    /// Stops the server in order when a future is ready, instead of at a signal.
    pub fn shutdown_signal(self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.build(|builder| builder.shutdown_signal(signal))
    }

    /// Seconds that an orderly stop waits for connections, taken ones included. Default: 30.
    pub fn shutdown_timeout(self, seconds: u64) -> Self {
        self.build(|builder| builder.shutdown_timeout(seconds))
    }

    /// Addresses that are bound.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|(addr, _)| *addr).collect()
    }

    /// Addresses that are bound, with `http` or `https`.
    pub fn addrs_with_scheme(&self) -> Vec<(SocketAddr, &str)> {
        self.sockets.clone()
    }

    /// Binds HTTP/1.1 in clear to all addresses that `addrs` resolves to.
    ///
    /// # Errors
    /// When it resolves to none, or none can be bound.
    pub fn bind(self, addrs: impl ToSocketAddrs) -> io::Result<Self> {
        bind(addrs, self.backlog)?.into_iter().try_fold(self, Self::listen)
    }

    /// Serves HTTP/1.1 in clear on a listener.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn listen(self, listener: net::TcpListener) -> io::Result<Self> {
        self.add(listener, "http", Accept::Plain)
    }

    /// Binds HTTP/1.1 and HTTP/2 in clear.
    ///
    /// # Errors
    /// As [`Self::bind`].
    #[cfg(feature = "http2")]
    pub fn bind_auto_h2c(self, addrs: impl ToSocketAddrs) -> io::Result<Self> {
        bind(addrs, self.backlog)?.into_iter().try_fold(self, Self::listen_auto_h2c)
    }

    /// Serves HTTP/1.1 and HTTP/2 in clear on a listener.
    ///
    /// # Errors
    /// When the listener cannot be used.
    #[cfg(feature = "http2")]
    pub fn listen_auto_h2c(self, listener: net::TcpListener) -> io::Result<Self> {
        self.add(listener, "http", Accept::AutoH2c)
    }

    /// Binds HTTP over TLS; `http/1.1` and, with the feature `http2`, `h2` are offered by ALPN.
    ///
    /// # Errors
    /// As [`Self::bind`].
    #[cfg(feature = "rustls-0_23")]
    #[expect(clippy::needless_pass_by_value, reason = "actix-web's server takes it in the same way")]
    pub fn bind_rustls_0_23(
        self,
        addrs: impl ToSocketAddrs,
        config: actix_tls::accept::rustls_0_23::reexports::ServerConfig,
    ) -> io::Result<Self> {
        let listen = |server: Self, listener| server.listen_rustls_0_23(listener, config.clone());
        bind(addrs, self.backlog)?.into_iter().try_fold(self, listen)
    }

    /// Serves HTTP over TLS on a listener.
    ///
    /// # Errors
    /// When the listener cannot be used.
    #[cfg(feature = "rustls-0_23")]
    pub fn listen_rustls_0_23(
        self,
        listener: net::TcpListener,
        mut config: actix_tls::accept::rustls_0_23::reexports::ServerConfig,
    ) -> io::Result<Self> {
        let mut protocols = vec![b"http/1.1".to_vec()];
        if cfg!(feature = "http2") {
            protocols.insert(0, b"h2".to_vec());
        }
        protocols.append(&mut config.alpn_protocols);
        config.alpn_protocols = protocols;
        let acceptor = actix_tls::accept::rustls_0_23::Acceptor::new(config);
        self.add(listener, "https", Accept::Tls(acceptor))
    }

    /// Starts the workers; the server runs until it is stopped by a signal or its handle.
    ///
    /// # Panics
    /// When no address is bound, or outside a tokio runtime.
    pub fn run(self) -> Server {
        self.builder.run()
    }

    fn add(mut self, listener: net::TcpListener, scheme: &'static str, accept: Accept) -> io::Result<Self> {
        let address = listener.local_addr()?;
        #[cfg(target_os = "linux")]
        crate::options::set_for_listener(&listener, self.max_stall)?;
        self.sockets.push((address, scheme));
        let (factory, config, shutdown) =
            (self.factory.clone(), Arc::clone(&self.config), self.shutdown.clone());
        self.builder = self.builder.listen(format!("realtime-server-{address}"), listener, move || {
            let config = config.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let (shutdown, stop) = (shutdown.clone(), shutdown.clone());
            let mut http = HttpService::<ServerIo, _, _>::build()
                .graceful_shutdown_signal(move || {
                    let shutdown = shutdown.clone();
                    async move { shutdown.notified().await }
                })
                .keep_alive(config.keep_alive)
                .client_request_timeout(config.client_request_timeout)
                .client_disconnect_timeout(config.client_disconnect_timeout)
                .h1_allow_half_closed(config.h1_allow_half_closed)
                .local_addr(address)
                .expect(Expect { most: config.max_expected_body });
            if scheme == "https" {
                http = http.secure();
            }
            if let Some(bytes) = config.h1_write_buffer_size {
                http = http.h1_write_buffer_size(bytes);
            }
            if let Some(bytes) = config.h2_initial_window_size {
                http = http.h2_initial_window_size(bytes);
            }
            if let Some(bytes) = config.h2_initial_connection_window_size {
                http = http.h2_initial_connection_window_size(bytes);
            }
            let on_connect = config.on_connect;
            let http = http.on_connect_ext(move |io: &ServerIo, data: &mut Extensions| {
                data.insert(io.shared());
                if let Some(on_connect) = &on_connect {
                    io.shared().with_stream(|stream| on_connect(stream, data));
                }
            });
            let app = factory().into_factory().map_err(|error| error.into().error_response());
            let app = map_config(app, |()| AppConfig::default());
            ServeFactory {
                http: http.finish(WatchFactory::new(app)),
                accept: accept.clone(),
                nodelay: config.nodelay,
                max_connections: config.max_connections,
                times: RequestTimes { head: config.client_request_timeout, body: config.client_body_timeout },
                shutdown: stop,
                half_closes: config.h1_allow_half_closed,
            }
        })?;
        Ok(self)
    }

    fn set(self, set: impl FnOnce(&mut Config)) -> Self {
        set(&mut self.config.lock().unwrap_or_else(PoisonError::into_inner));
        self
    }

    fn build(self, set: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        Self { builder: set(self.builder), ..self }
    }
}

/// Listeners on all addresses that can be bound.
fn bind(addrs: impl ToSocketAddrs, backlog: u32) -> io::Result<Vec<net::TcpListener>> {
    let (mut listeners, mut last) = (Vec::new(), None);
    for address in addrs.to_socket_addrs()? {
        match listen(address, backlog) {
            Ok(listener) => listeners.push(listener),
            Err(error) => last = Some(error),
        }
    }
    match last {
        _ if !listeners.is_empty() => Ok(listeners),
        Some(error) => Err(error),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "the address resolves to nothing")),
    }
}

fn listen(address: SocketAddr, backlog: u32) -> io::Result<net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

impl<F, I, S, B> fmt::Debug for HttpServer<F, I, S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer").field("sockets", &self.sockets).finish_non_exhaustive()
    }
}

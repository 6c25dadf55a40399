//! [`Serve`]: a worker's service for accepted sockets.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_http::{Protocol, error::DispatchError};
use actix_rt::net::TcpStream;
use actix_server::GracefulShutdownSignal;
use actix_service::{Service, ServiceFactory};
use futures_core::future::LocalBoxFuture;
use tokio::{select, time::timeout};

use crate::{
    counts::Counts,
    io::{ServerIo, Shared, Stream, TOO_SLOW},
    patience::RequestTimes,
};

/// Protocols of a listener's sockets.
#[derive(Clone)]
pub(crate) enum Accept {
    /// HTTP/1.1 in clear.
    Plain,
    /// HTTP/1.1 or HTTP/2 in clear, detected by the first bytes.
    #[cfg(feature = "http2")]
    AutoH2c,
    /// TLS; the protocol is negotiated by ALPN.
    #[cfg(feature = "rustls-0_23")]
    Tls(actix_tls::accept::rustls_0_23::Acceptor),
}

/// Factory of [`Serve`].
pub(crate) struct ServeFactory<F> {
    pub(crate) http: F,
    pub(crate) accept: Accept,
    pub(crate) nodelay: bool,
    pub(crate) max_connections: usize,
    pub(crate) times: RequestTimes,
    pub(crate) shutdown: GracefulShutdownSignal,
    pub(crate) half_closes: bool,
}

impl<F> ServiceFactory<TcpStream> for ServeFactory<F>
where
    F: ServiceFactory<
            (ServerIo, Protocol, Option<SocketAddr>),
            Config = (),
            Response = (),
            Error = DispatchError,
            InitError = (),
        >,
    F::Service: 'static,
    F::Future: 'static,
{
    type Response = ();
    type Error = DispatchError;
    type Config = ();
    type Service = Serve<F::Service>;
    type InitError = ();
    type Future = LocalBoxFuture<'static, Result<Self::Service, ()>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let http = self.http.new_service(());
        let (accept, nodelay, limit) = (self.accept.clone(), self.nodelay, self.max_connections);
        let (times, shutdown) = (self.times, self.shutdown.clone());
        let half_closes = self.half_closes;
        Box::pin(async move {
            let (accept, http) = (Acceptor::new(accept).await?, Rc::new(http.await?));
            let counts = Counts::of_thread();
            Ok(Serve { http, accept, nodelay, limit, times, shutdown, half_closes, counts })
        })
    }
}

/// Serves accepted sockets.
pub(crate) struct Serve<S> {
    http: Rc<S>,
    accept: Acceptor,
    nodelay: bool,
    limit: usize,
    times: RequestTimes,
    shutdown: GracefulShutdownSignal,
    half_closes: bool,
    counts: Rc<Counts>,
}

impl<S> Service<TcpStream> for Serve<S>
where
    S: Service<(ServerIo, Protocol, Option<SocketAddr>), Response = (), Error = DispatchError> + 'static,
{
    type Response = ();
    type Error = DispatchError;
    type Future = LocalBoxFuture<'static, Result<(), DispatchError>>;

    /// Pending while the worker has `limit` connections: actix-server counts only those that the dispatcher serves.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        ready!(self.counts.poll_room(cx, self.limit));
        ready!(self.accept.poll_ready(cx));
        self.http.poll_ready(cx)
    }

    fn call(&self, tcp: TcpStream) -> Self::Future {
        let (http, counts) = (Rc::clone(&self.http), Rc::clone(&self.counts));
        let peer = tcp.peer_addr().ok();
        // On Linux the listener passes it on.
        if self.nodelay != cfg!(target_os = "linux")
            && let Err(error) = tcp.set_nodelay(self.nodelay)
        {
            tracing::debug!(%error, "failed to set TCP_NODELAY");
        }
        let (half_closes, times) = (self.half_closes, self.times);
        let dispatched = Dispatched::new(&self.counts);
        let begin = Begin { limit: times.head, shutdown: self.shutdown.clone() };
        let accepted = self.accept.accept(tcp, begin);
        Box::pin(async move {
            let Some((stream, protocol)) = accepted.await.map_err(DispatchError::Io)? else { return Ok(()) };
            let shared = Shared::new(stream, protocol == Protocol::Http2, half_closes, times);
            // Boxed, so that this future does not have the dispatcher's size.
            let mut serving = Box::pin(http.call((shared.io(), protocol, peer)));
            let served = poll_fn(|cx| match serving.as_mut().poll(cx) {
                // A dispatcher whose socket was taken over has nothing left to do.
                Poll::Pending if shared.is_taken() => Poll::Ready(Ok(())),
                served => served,
            });
            let served = served.await;
            drop((dispatched, http, serving));
            shared.close();
            if shared.is_taken() {
                // A graceful stop of actix-server waits for this future, so one of them waits for all that were taken over.
                Representative { counts, waits: false }.await;
            }
            served
        })
    }
}

/// A connection that the dispatcher serves.
struct Dispatched(Rc<Counts>);

impl Dispatched {
    fn new(counts: &Rc<Counts>) -> Self {
        counts.dispatched();
        Self(Rc::clone(counts))
    }
}

impl Drop for Dispatched {
    fn drop(&mut self) {
        self.0.dispatch_ended();
    }
}

/// Future that represents all taken-over connections of a worker, if it is the first.
struct Representative {
    counts: Rc<Counts>,
    waits: bool,
}

impl Future for Representative {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { counts, waits } = &mut *self;
        counts.poll_none_taken(cx, waits)
    }
}

impl Drop for Representative {
    fn drop(&mut self) {
        if self.waits {
            self.counts.no_longer_represented();
        }
    }
}

/// [`Accept`] of one worker.
enum Acceptor {
    Plain,
    #[cfg(feature = "http2")]
    AutoH2c,
    #[cfg(feature = "rustls-0_23")]
    Tls(actix_tls::accept::rustls_0_23::AcceptorService),
}

/// Stream of an accepted socket; `None` when it ended before its client had sent anything.
type Accepted = LocalBoxFuture<'static, io::Result<Option<(Stream, Protocol)>>>;

impl Acceptor {
    async fn new(accept: Accept) -> Result<Self, ()> {
        match accept {
            Accept::Plain => Ok(Self::Plain),
            #[cfg(feature = "http2")]
            Accept::AutoH2c => Ok(Self::AutoH2c),
            #[cfg(feature = "rustls-0_23")]
            Accept::Tls(acceptor) => {
                ServiceFactory::<TcpStream>::new_service(&acceptor, ()).await.map(Self::Tls)
            }
        }
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            #[cfg(feature = "rustls-0_23")]
            // It never fails.
            Self::Tls(tls) => Service::<TcpStream>::poll_ready(tls, cx).map(drop),
            _ => {
                let _ = cx;
                Poll::Ready(())
            }
        }
    }

    fn accept(&self, tcp: TcpStream, begin: Begin) -> Accepted {
        match self {
            Self::Plain => {
                Box::pin(
                    async move { Ok(begin.wait(&tcp).await?.then_some((Stream::Tcp(tcp), Protocol::Http1))) },
                )
            }
            #[cfg(feature = "http2")]
            Self::AutoH2c => Box::pin(async move {
                if !begin.wait(&tcp).await? {
                    return Ok(None);
                }
                let protocol =
                    if begins_with_preface(&tcp).await? { Protocol::Http2 } else { Protocol::Http1 };
                Ok(Some((Stream::Tcp(tcp), protocol)))
            }),
            // The handshake has a time limit of its own.
            #[cfg(feature = "rustls-0_23")]
            Self::Tls(tls) => {
                let handshake = tls.call(tcp);
                Box::pin(async move {
                    let stream = handshake.await.map_err(io::Error::other)?;
                    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
                    Ok(Some((Stream::Tls(Box::new(stream)), protocol)))
                })
            }
        }
    }
}

/// Wait for the first bytes of a connection in clear. The dispatcher allocates two buffers, so it is created afterwards.
struct Begin {
    /// Time limit for the client's first bytes; 0 means none.
    limit: Duration,
    shutdown: GracefulShutdownSignal,
}

impl Begin {
    /// Waits for the client's first bytes. Returns whether they arrived within the limit, before the server stops.
    async fn wait(self, tcp: &TcpStream) -> io::Result<bool> {
        let readable = async {
            match self.limit.is_zero() {
                true => Ok(tcp.readable().await),
                false => timeout(self.limit, tcp.readable()).await,
            }
        };
        let readable = select! {
            readable = readable => readable,
            () = self.shutdown.notified() => return Ok(false),
        };
        if let Ok(readable) = readable {
            return readable.map(|()| true);
        }
        if let Err(error) = tcp.try_write(TOO_SLOW) {
            tracing::debug!(%error, "failed to answer a client that has sent nothing");
        }
        Ok(false)
    }
}

/// Detects HTTP/2 by its preface (RFC 9113, section 3.4).
#[cfg(feature = "http2")]
async fn begins_with_preface(tcp: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8; 12] = b"PRI * HTTP/2";
    let mut begin = [0; PREFACE.len()];
    let read = tcp.peek(&mut begin).await?;
    Ok(begin[..read] == PREFACE[..])
}

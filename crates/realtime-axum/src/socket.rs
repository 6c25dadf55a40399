//! [`serve`]: runs a connection on the socket that its HTTP server has given up.

use std::{
    cell::Cell,
    future::poll_fn,
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::{
    rt::TokioIo,
    server::conn::auto::upgrade::{Parts, downcast},
};
use realtime_protocol::{Connection, Step};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};

/// Serves a connection once the response's head has been written, until its end.
pub(crate) async fn serve<C: Connection>(on_upgrade: OnUpgrade, mut connection: C) {
    let mut on_upgrade = on_upgrade;
    let upgraded = poll_fn(|cx| {
        if let Poll::Ready(upgraded) = Pin::new(&mut on_upgrade).poll(cx) {
            return Poll::Ready(upgraded.map_err(|error| tracing::debug!(%error, "upgrade failed")).ok());
        }
        // Its HTTP server has the socket still, and ends it with the task.
        connection.poll_aborted(cx).map(|_| None)
    });
    let Some(upgraded) = upgraded.await else { return };
    match downcast::<TokioIo<TcpStream>>(upgraded) {
        Ok(Parts { io, read_buf, .. }) => run(io.into_inner(), read_buf, connection).await,
        Err(upgraded) => run(TokioIo::new(upgraded), Bytes::new(), connection).await,
    }
}

async fn run<S: Socket, C: Connection>(socket: S, ahead: Bytes, mut connection: C) {
    if !ahead.is_empty() {
        connection.received();
    }
    let mut running =
        Running { socket, connection, output: Bytes::new(), input: ahead, closed: false, lifted: None };
    match poll_fn(|cx| running.poll(cx)).await {
        Ending::Orderly => {
            // What is unread would have the kernel reset the connection, and the client lose the last bytes.
            let Running { mut socket, .. } = running;
            let end = async {
                socket.shutdown().await.ok();
                poll_fn(|cx| discard(&mut socket, cx)).await;
            };
            timeout(LAST_BYTES, end).await.ok();
        }
        Ending::BrokenOff => running.socket.abort(),
        Ending::Lost => {}
    }
}

/// Time for the end of a connection that has written everything.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// Bytes that are read of one connection before others have their turn.
const READ_TURN: usize = 64 << 10;

thread_local! {
    /// Buffer that the connections of a thread read into one after the other, so that none keeps one.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Socket that a connection was given.
trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// Has the connection reset when it is dropped, and what the kernel holds for it discarded.
    fn abort(&self) {}

    /// Lifts the kernel's limit for the client's acknowledgements (`TCP_USER_TIMEOUT`), if there is one, and returns it.
    ///
    /// A client that takes nothing of a full socket is found by its session, which can tell it from a slow reader; the kernel
    /// would also end one whose window does not open within the time.
    fn lift_limit(&self) -> Option<Duration> {
        None
    }

    /// Restores the limit. While the socket takes everything, nobody else finds a client that has vanished.
    fn restore_limit(&self, _: Duration) {}
}

impl Socket for TcpStream {
    fn abort(&self) {
        if let Err(error) = SockRef::from(self).set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "failed to have a socket reset");
        }
    }

    #[cfg(target_os = "linux")]
    fn lift_limit(&self) -> Option<Duration> {
        let socket = SockRef::from(self);
        let limit = socket.tcp_user_timeout().ok().flatten().filter(|limit| !limit.is_zero())?;
        socket.set_tcp_user_timeout(None).ok().map(|()| limit)
    }

    #[cfg(target_os = "linux")]
    fn restore_limit(&self, limit: Duration) {
        if let Err(error) = SockRef::from(self).set_tcp_user_timeout(Some(limit)) {
            tracing::debug!(%error, "failed to set the time limit of a socket");
        }
    }
}

/// The stream of a server of another kind, such as TLS.
impl Socket for TokioIo<Upgraded> {}

/// A connection on its socket.
struct Running<S, C> {
    socket: S,
    connection: C,
    /// Bytes that the socket has not accepted yet. The connection is not asked for more before it has.
    output: Bytes,
    /// Input that the connection has not taken yet. No more is read before it has.
    input: Bytes,
    /// The end of the input has been reported.
    closed: bool,
    /// The kernel's limit while it is lifted, since the socket is full.
    lifted: Option<Duration>,
}

/// End of a connection.
enum Ending {
    /// Everything has been written.
    Orderly,
    /// It has to be broken off.
    BrokenOff,
    /// The socket is broken.
    Lost,
}

impl<S: Socket, C: Connection> Running<S, C> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let mut buffer = BUFFER.take();
        buffer.resize(READ_TURN, 0);
        let ending = self.poll_with(cx, &mut buffer);
        BUFFER.set(buffer);
        ending
    }

    fn poll_with(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Ending> {
        loop {
            let kept = mem::take(&mut self.input);
            let mut input = &kept[..];
            let polled = self.poll_connection(cx, &mut input);
            self.input = kept.slice_ref(input);
            if let Poll::Ready(Some(ending)) = polled {
                return Poll::Ready(ending);
            }
            if polled.is_pending() || !self.input.is_empty() || self.closed {
                return Poll::Pending;
            }
            let mut read = ReadBuf::new(buffer);
            match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => {
                    self.connection.received();
                    let mut input = read.filled();
                    let polled = self.poll_connection(cx, &mut input);
                    self.input = Bytes::copy_from_slice(input);
                    if let Poll::Ready(Some(ending)) = polled {
                        return Poll::Ready(ending);
                    }
                }
                Ok(()) | Err(_) => {
                    self.closed = true;
                    self.connection.closed();
                }
            }
        }
    }

    /// Writes what the connection has, and gives it its input. Ready without an ending when it waits for more input, or for
    /// its session; pending when it waits for the socket.
    fn poll_connection(&mut self, cx: &mut Context<'_>, input: &mut &[u8]) -> Poll<Option<Ending>> {
        loop {
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) => {
                    if let Some(limit) = self.lifted.take() {
                        self.socket.restore_limit(limit);
                    }
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Some(Ending::Lost)),
                Poll::Pending => {
                    if self.lifted.is_none() {
                        self.lifted = self.socket.lift_limit();
                    }
                    return self.connection.poll_aborted(cx).map(|_| Some(Ending::BrokenOff));
                }
            }
            match self.connection.poll_next(cx, input) {
                Poll::Ready(Step::Write(bytes)) => self.output = bytes,
                Poll::Ready(Step::End) => return Poll::Ready(Some(Ending::Orderly)),
                Poll::Ready(Step::Abort(_)) => return Poll::Ready(Some(Ending::BrokenOff)),
                Poll::Pending => return Poll::Ready(None),
            }
        }
    }

    /// Writes the rest of the output.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, &self.output))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.output.advance(written),
            }
        }
        // A stream of TLS keeps bytes.
        Pin::new(&mut self.socket).poll_flush(cx)
    }
}

/// Reads what has come of the input.
fn discard<S: AsyncRead + Unpin>(socket: &mut S, cx: &mut Context<'_>) -> Poll<()> {
    let mut buffer = [0; 4 << 10];
    let mut left = READ_TURN;
    while left > 0 {
        let mut read = ReadBuf::new(&mut buffer);
        match Pin::new(&mut *socket).poll_read(cx, &mut read) {
            Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                left = left.saturating_sub(read.filled().len())
            }
            _ => break,
        }
    }
    Poll::Ready(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use realtime_core::wire::DirectWrite;
    use realtime_protocol::Aborted;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;

    impl Socket for DuplexStream {}

    /// Sends back what comes, at most three bytes at once, and ends behind a full stop.
    #[derive(Default)]
    struct Echo {
        ends: bool,
        closed: bool,
    }

    impl Connection for Echo {
        fn poll_next(&mut self, cx: &mut Context<'_>, input: &mut &[u8]) -> Poll<Step> {
            if self.ends || self.closed {
                return Poll::Ready(Step::End);
            }
            if input.is_empty() {
                return Poll::Pending;
            }
            if input[0] == b'-' {
                // Others have their turn first.
                *input = &input[1..];
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let end = input.iter().take(3).position(|byte| *byte == b'-').unwrap_or(input.len().min(3));
            let (now, rest) = input.split_at(end);
            *input = rest;
            self.ends = now.contains(&b'.');
            Poll::Ready(Step::Write(Bytes::copy_from_slice(now)))
        }

        fn closed(&mut self) {
            self.closed = true;
        }

        fn poll_aborted(&mut self, _: &mut Context<'_>) -> Poll<Aborted> {
            Poll::Pending
        }

        fn attach(&mut self, _: Arc<dyn DirectWrite>) {}
    }

    #[tokio::test]
    async fn bytes_cross_a_small_socket_in_order_from_those_ahead_to_the_last() {
        let (server, mut client) = duplex(5);
        let served = tokio::spawn(run(server, Bytes::from_static(b"ahead "), Echo::default()));
        let (mut read, mut write) = tokio::io::split(&mut client);
        let sending = async { write.write_all(b"-of-all others. unread").await.ok() };
        let mut text = String::new();
        let receiving = async { read.read_to_string(&mut text).await };
        let (_, received) = tokio::join!(sending, receiving);
        received.unwrap();
        assert_eq!(text.split('.').next(), Some("ahead ofall others"));
        served.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_reported() {
        let (server, client) = duplex(5);
        let served = tokio::spawn(run(server, Bytes::new(), Echo::default()));
        drop(client);
        served.await.unwrap();
    }
}

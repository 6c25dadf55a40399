//! [`ServerIo`]: the IO that actix-http's dispatcher reads from and writes to.
//!
//! The socket is in a cell that the dispatcher shares with the handlers of the connection. So a handler can ask for the
//! socket ([`Takeover`](crate::Takeover)), and the gate decides how far the dispatcher reads ahead.

use std::{
    any::Any,
    cell::RefCell,
    fmt, io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use actix_rt::net::TcpStream;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::gate::{Announced, Gate};

/// Bytes that a connection may send ahead of the answers that it is owed; a request head that is larger is read in
/// pieces.
const READ_AHEAD: usize = 4096;

/// Socket of a connection, possibly within TLS.
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(feature = "rustls-0_23")]
    Tls(Box<actix_tls::accept::rustls_0_23::TlsStream<TcpStream>>),
}

/// A connection as the dispatcher sees it.
pub(crate) struct ServerIo(Shared);

/// A connection as its handlers see it.
#[derive(Clone)]
pub(crate) struct Shared(Rc<RefCell<State>>);

/// Receives the socket, and what was read from it and not yet handed to the dispatcher.
pub(crate) type OnTaken = Box<dyn FnOnce(TcpStream, Bytes)>;

struct State {
    /// Empty once the socket was taken over.
    stream: Option<Stream>,
    gate: Gate,
    /// What was read and may not pass yet.
    ahead: BytesMut,
    /// The client has closed its side.
    eof: bool,
    /// The answer under way has no known end: what the client sends behind it is discarded.
    streaming: bool,
    /// Bytes were discarded, so no further request can be told from the middle of one.
    discarded: bool,
    /// The socket took less than it was given; no new request is begun until it has taken the rest.
    blocked: bool,
    /// Woken when the gate lets something through.
    reader: Option<Waker>,
    takeover: Claim,
}

/// Progress of a takeover.
enum Claim {
    None,
    /// A handler has asked for the socket, and its response is on its way.
    Claimed,
    /// The head is in the dispatcher's buffer; the socket goes to this once the buffer is empty.
    Armed(OnTaken),
    Taken,
}

impl ServerIo {
    pub(crate) fn shared(&self) -> Shared {
        self.0.clone()
    }
}

impl Shared {
    pub(crate) fn new(stream: Stream, is_http2: bool) -> Self {
        let gate = if is_http2 { Gate::open() } else { Gate::closed() };
        Self(Rc::new(RefCell::new(State {
            stream: Some(stream),
            gate,
            ahead: BytesMut::new(),
            eof: false,
            streaming: false,
            discarded: false,
            blocked: false,
            reader: None,
            takeover: Claim::None,
        })))
    }

    pub(crate) fn io(&self) -> ServerIo {
        ServerIo(self.clone())
    }

    /// Runs `f` on the socket's stream as `HttpServer::on_connect` sees it.
    pub(crate) fn with_stream(&self, f: impl FnOnce(&dyn Any)) {
        match &self.0.borrow().stream {
            Some(Stream::Tcp(tcp)) => f(tcp),
            #[cfg(feature = "rustls-0_23")]
            Some(Stream::Tls(tls)) => f(&**tls as &dyn Any),
            None => {}
        }
    }

    /// Claims the socket for the response of the current request. Only plain HTTP/1.1 can be taken over.
    #[cfg(target_os = "linux")]
    pub(crate) fn claim(&self) -> bool {
        let mut state = self.0.borrow_mut();
        let free = matches!(state.takeover, Claim::None)
            && matches!(state.stream, Some(Stream::Tcp(_)))
            // Behind a gate that is open, bytes may have gone past this request's end.
            && state.gate.is_holding();
        if free {
            state.takeover = Claim::Claimed;
        }
        free
    }

    /// Gives a claim back: its response was not sent.
    pub(crate) fn unclaim(&self) {
        let mut state = self.0.borrow_mut();
        if matches!(state.takeover, Claim::Claimed | Claim::Armed(_)) {
            state.takeover = Claim::None;
        }
    }

    /// Has the socket handed over as soon as everything in the dispatcher's buffer has been written.
    pub(crate) fn arm(&self, on_taken: OnTaken) {
        self.0.borrow_mut().takeover = Claim::Armed(on_taken);
    }

    /// Whether the socket is with whoever took it over.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self.0.borrow().takeover, Claim::Taken)
    }

    /// Ends the connection with a reset; what the kernel still holds for the client is thrown away.
    pub(crate) fn reset(&self) {
        if let Some(stream) = &self.0.borrow().stream {
            crate::options::reset_on_close(stream.tcp());
        }
    }

    pub(crate) fn asked(&self, body: Announced) {
        let mut state = self.0.borrow_mut();
        state.gate.asked(body);
        state.wake();
    }

    pub(crate) fn body_ended(&self) {
        let mut state = self.0.borrow_mut();
        state.gate.body_ended();
        state.wake();
    }

    /// Records that the response has begun.
    pub(crate) fn answering(&self, has_known_end: bool, upgrades: bool) {
        let mut state = self.0.borrow_mut();
        if upgrades && matches!(state.takeover, Claim::None) {
            state.gate.let_through();
        }
        state.streaming = !has_known_end && !upgrades;
        state.wake();
    }

    pub(crate) fn answered(&self) {
        let mut state = self.0.borrow_mut();
        state.streaming = false;
        state.gate.answered();
        state.wake();
    }
}

impl Stream {
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(tcp) => tcp,
            #[cfg(feature = "rustls-0_23")]
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    /// The socket, unless it is within TLS.
    pub(crate) fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            #[cfg(feature = "rustls-0_23")]
            Self::Tls(_) => None,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            #[cfg(feature = "rustls-0_23")]
            Self::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, buf),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            #[cfg(feature = "rustls-0_23")]
            Self::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            #[cfg(feature = "rustls-0_23")]
            Self::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            #[cfg(feature = "rustls-0_23")]
            Self::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
        }
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Hands what may pass of the bytes read ahead to the dispatcher.
    fn hand_out(&mut self, buf: &mut ReadBuf<'_>) {
        let most = self.ahead.len().min(buf.remaining());
        let passed = self.gate.pass(&self.ahead[..most]);
        buf.put_slice(&self.ahead[..passed]);
        self.ahead.advance(passed);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
    }

    /// Reads what the gate lets through. The dispatcher reads until it gets nothing.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.gate.is_at_head() && self.discarded {
            return Poll::Ready(Ok(()));
        }
        if self.gate.is_holding() || (self.gate.is_at_head() && self.blocked) {
            return self.poll_held(cx);
        }
        if !self.ahead.is_empty() {
            self.hand_out(buf);
            return Poll::Ready(Ok(()));
        }
        let Some(stream) = self.stream.as_mut().filter(|_| !self.eof) else {
            return Poll::Ready(Ok(()));
        };
        let begin = buf.filled().len();
        match stream.poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {}
            other => return other,
        }
        let read = &buf.filled()[begin..];
        self.eof = read.is_empty();
        let passed = self.gate.pass(read);
        if passed < read.len() {
            self.ahead = BytesMut::from(&read[passed..]);
            buf.set_filled(begin + passed);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads ahead a little while nothing may pass, so that it is noticed when the client leaves.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.reader {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        let Some(stream) = &mut self.stream else {
            return Poll::Pending;
        };
        while !self.eof {
            if self.streaming && !self.ahead.is_empty() {
                self.ahead = BytesMut::new();
                self.discarded = true;
            }
            let room = READ_AHEAD.saturating_sub(self.ahead.len());
            if room == 0 {
                return Poll::Pending;
            }
            let mut scratch = [std::mem::MaybeUninit::uninit(); READ_AHEAD];
            let mut scratch = ReadBuf::uninit(&mut scratch[..room]);
            match stream.poll_read(cx, &mut scratch) {
                Poll::Ready(Ok(())) => {
                    self.eof = scratch.filled().is_empty();
                    self.ahead.extend_from_slice(scratch.filled());
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        // A request that is complete is served before the end of what the client sends is reported.
        if self.ahead.is_empty() || self.streaming || self.discarded {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

impl AsyncRead for ServerIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.0.borrow_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for ServerIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.0.borrow_mut();
        let Some(stream) = &mut state.stream else {
            // The end of a response whose connection was taken over.
            return Poll::Ready(Ok(bytes.len()));
        };
        let written = stream.poll_write(cx, bytes);
        state.blocked = written.is_pending();
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.0.borrow_mut();
        // The dispatcher flushes when all that it had to write is written.
        if matches!((&state.takeover, &state.stream), (Claim::Armed(_), Some(Stream::Tcp(_)))) {
            let claim = std::mem::replace(&mut state.takeover, Claim::Taken);
            let ahead = std::mem::take(&mut state.ahead).freeze();
            let stream = state.stream.take();
            drop(state);
            if let (Claim::Armed(on_taken), Some(Stream::Tcp(tcp))) = (claim, stream) {
                on_taken(tcp, ahead);
            }
            return Poll::Ready(Ok(()));
        }
        match &mut state.stream {
            Some(stream) => stream.poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0.0.borrow_mut().stream {
            Some(stream) => stream.poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

//! [`ServerIo`]: the IO that actix-http's dispatcher reads from and writes to.
//!
//! The socket is in a cell that the dispatcher shares with the handlers of the connection, so that a handler can claim the
//! socket ([`Takeover`](crate::Takeover)). A gate limits how far the dispatcher reads ahead.

use std::{
    any::Any,
    cell::RefCell,
    fmt, io, mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use actix_rt::net::TcpStream;
use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    Aborted,
    gate::{Announced, Gate},
    patience::{Patience, RequestTimes},
    upload::{LINGER, READ_OF_REFUSED},
};

/// Bytes that are read ahead while a response is pending. A larger request head is read in pieces.
const READ_AHEAD: usize = 4096;

/// The same during a response without a known length. It is larger, since the end of the connection has to be noticed behind
/// such bytes; those above it are discarded.
const READ_AHEAD_OF_STREAM: usize = 64 << 10;

/// Bytes that are read and discarded at most before a connection is closed: with unread input the kernel would reset it, and
/// the client would lose the last response.
const READ_AT_END: usize = 128 << 10;

/// Response to a client that takes too long to send its request: that of the dispatcher to the first one.
pub(crate) const TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Socket of a connection, possibly within TLS.
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(feature = "rustls-0_23")]
    Tls(Box<actix_tls::accept::rustls_0_23::TlsStream<TcpStream>>),
}

/// The dispatcher's side of a connection.
pub(crate) struct ServerIo(Shared);

/// The handlers' side of a connection.
#[derive(Clone)]
pub(crate) struct Shared(Rc<RefCell<State>>);

/// A claimed connection that waits for its socket.
pub(crate) trait Leave {
    /// Receives the socket, and the bytes that were read from it and not passed to the dispatcher.
    fn take(self: Box<Self>, tcp: TcpStream, ahead: &[u8]);

    /// Records that the client has closed its side.
    fn closed(&self);

    /// Pending until the connection is to be broken off.
    fn poll_aborted(&self, cx: &mut Context<'_>) -> Poll<Aborted>;

    /// Returns whether its bytes have the framing of a response's body.
    fn is_framed(&self) -> bool;
}

struct State {
    /// Empty once the socket was taken over.
    stream: Option<Stream>,
    gate: Gate,
    /// Bytes that were read and may not pass yet.
    ahead: BytesMut,
    /// The client has closed its side.
    eof: bool,
    /// The dispatcher has the response.
    answering: bool,
    /// The current response has no known length: what the client sends beyond a limit is discarded.
    streaming: bool,
    /// A client that has closed its side still gets its response.
    half_closes: bool,
    /// Bytes were discarded, so the next request's first byte is unknown.
    discarded: bool,
    /// The socket did not take a write completely; no new request is read until it has taken the rest.
    blocked: bool,
    times: RequestTimes,
    patience: Patience,
    /// The handler waits for input behind a request that offers an upgrade.
    awaits_rest: bool,
    /// The connection was given up: there is no more input, and what the dispatcher writes is discarded.
    given_up: bool,
    /// Bytes that may be read of the rest of a body whose request has been answered.
    unwanted: usize,
    /// Time for reading that rest once the response was sent.
    linger: Option<Box<Patience>>,
    /// Woken when the gate opens, or when the time for what comes through it begins to count.
    reader: Option<Waker>,
    takeover: Claim,
}

/// Progress of a takeover.
enum Claim {
    None,
    /// A handler has claimed the socket; its response has yet to be written.
    Claimed,
    /// A connection waits for the socket.
    Waiting(Box<dyn Leave>),
    /// The head is in the dispatcher's buffer; the socket goes to the connection once the buffer is empty.
    Armed(Box<dyn Leave>),
    Taken,
}

/// Result of [`Shared::arm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arm {
    /// The dispatcher does not have the response, and its buffer lacks the head.
    NotYet,
    Armed,
    /// The dispatcher keeps the connection.
    Withdrawn,
}

impl Claim {
    fn waiting(&self) -> Option<&dyn Leave> {
        match self {
            Self::Waiting(leave) | Self::Armed(leave) => Some(&**leave),
            _ => None,
        }
    }
}

impl ServerIo {
    pub(crate) fn shared(&self) -> Shared {
        self.0.clone()
    }
}

impl Shared {
    /// Returns whether the connection is over TLS. One that was taken over is not.
    pub(crate) fn is_over_tls(&self) -> bool {
        #[cfg(feature = "rustls-0_23")]
        return matches!(self.0.borrow().stream, Some(Stream::Tls(_)));
        #[cfg(not(feature = "rustls-0_23"))]
        false
    }

    pub(crate) fn new(stream: Stream, is_http2: bool, half_closes: bool, times: RequestTimes) -> Self {
        let gate = if is_http2 { Gate::open() } else { Gate::closed() };
        Self(Rc::new(RefCell::new(State {
            stream: Some(stream),
            gate,
            ahead: BytesMut::new(),
            eof: false,
            answering: false,
            streaming: false,
            half_closes,
            discarded: false,
            blocked: false,
            times,
            patience: Patience::default(),
            awaits_rest: false,
            given_up: false,
            unwanted: READ_OF_REFUSED,
            linger: None,
            reader: None,
            takeover: Claim::None,
        })))
    }

    pub(crate) fn io(&self) -> ServerIo {
        ServerIo(self.clone())
    }

    /// Runs `f` on the stream, for `HttpServer::on_connect`.
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
            // With an open gate the dispatcher may have read beyond this request's end.
            && state.gate.is_holding();
        if free {
            state.takeover = Claim::Claimed;
        }
        free
    }

    /// Withdraws a claim whose response was not sent.
    pub(crate) fn unclaim(&self) {
        let mut state = self.0.borrow_mut();
        if !matches!(state.takeover, Claim::Taken) {
            state.takeover = Claim::None;
        }
    }

    /// Sets the connection that the claimed socket goes to.
    pub(crate) fn wait(&self, leave: Box<dyn Leave>) {
        self.0.borrow_mut().takeover = Claim::Waiting(leave);
    }

    /// Hands the socket over once the dispatcher's buffer has been written.
    pub(crate) fn arm(&self) -> Arm {
        let mut state = self.0.borrow_mut();
        if !state.answering {
            return Arm::NotYet;
        }
        match mem::replace(&mut state.takeover, Claim::None) {
            Claim::None => return Arm::Withdrawn,
            Claim::Waiting(leave) => state.takeover = Claim::Armed(leave),
            other => state.takeover = other,
        }
        Arm::Armed
    }

    /// Returns whether the socket has been handed over.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self.0.borrow().takeover, Claim::Taken)
    }

    /// Closes the socket of a connection that the dispatcher has ended, even if a request of it is still held.
    pub(crate) fn close(&self) {
        let stream = self.0.borrow_mut().stream.take();
        drop(stream);
    }

    /// Ends the connection with a reset; unsent data is discarded.
    pub(crate) fn reset(&self) {
        if let Some(stream) = &self.0.borrow().stream {
            reset_on_close(stream.tcp());
        }
    }

    pub(crate) fn asked(&self, body: Announced) {
        let mut state = self.0.borrow_mut();
        state.answering = false;
        state.gate.asked(body);
        if state.gate.is_in_body() {
            let limit = state.times.body;
            state.patience.start(limit);
            state.unwanted = READ_OF_REFUSED;
        }
        state.wake();
    }

    /// Opens the gate for a request that reads its input without an end. Until its response, that is a body like others, but
    /// that the client owes it only while the handler waits for it.
    pub(crate) fn let_through(&self) {
        let mut state = self.0.borrow_mut();
        if matches!(state.takeover, Claim::None) {
            if state.gate.is_holding() && !state.answering {
                let limit = state.times.body;
                state.patience.start(limit);
            }
            state.gate.let_through();
            state.wake();
        }
    }

    /// Records whether the handler waits for such input.
    pub(crate) fn await_rest(&self, awaits: bool) {
        let mut state = self.0.borrow_mut();
        let begins = !mem::replace(&mut state.awaits_rest, awaits) && awaits;
        if !awaits {
            state.patience.pause();
        } else if begins {
            // The dispatcher's task, which reads; another one may poll the payload.
            state.wake();
        }
    }

    /// Records that the connection ends behind the current response.
    pub(crate) fn ends(&self) {
        self.0.borrow_mut().gate.ends();
    }

    /// Records that the response has begun. Returns whether a connection takes the socket behind its head.
    pub(crate) fn answering(&self, has_known_end: bool, upgrades: bool) -> bool {
        let mut state = self.0.borrow_mut();
        if !upgrades && state.takeover.waiting().is_some_and(|leave| !leave.is_framed()) {
            // The head announces chunks, which the dispatcher makes.
            state.takeover = Claim::None;
        }
        if state.gate.is_open() {
            state.patience.end();
        }
        if upgrades && matches!(state.takeover, Claim::None) {
            state.gate.let_through();
        }
        state.answering = true;
        state.streaming = !has_known_end && !upgrades;
        state.wake();
        state.takeover.waiting().is_some()
    }

    pub(crate) fn answered(&self) {
        let mut state = self.0.borrow_mut();
        (state.answering, state.streaming) = (false, false);
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

    /// Passes bytes that were read ahead to the dispatcher, as far as the gate allows.
    fn hand_out(&mut self, buf: &mut ReadBuf<'_>) {
        let most = self.ahead.len().min(buf.remaining());
        let passed = self.gate.pass(&self.ahead[..most]);
        self.passed(passed);
        buf.put_slice(&self.ahead[..passed]);
        self.ahead.advance(passed);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
    }

    /// Keeps the time of the request whose bytes have passed.
    fn passed(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        if self.gate.is_at_head() {
            if self.patience.is_running() {
                self.patience.received(bytes, false);
            } else {
                self.patience.start(self.times.head);
            }
        } else if self.gate.is_in_body() || self.gate.is_open() {
            self.patience.received(bytes, true);
            if self.gate.is_answered_in_body() {
                self.unwanted = self.unwanted.saturating_sub(bytes);
            }
        } else {
            self.patience.end();
        }
    }

    /// Ends the input of a client that takes too long, with a response if none has begun.
    fn give_up(&mut self, cx: &mut Context<'_>) {
        self.patience.end();
        self.eof = true;
        if !self.answering
            && !self.gate.is_answered_in_body()
            && !self.blocked
            && let Some(stream) = &mut self.stream
        {
            self.given_up = true;
            // It is short and the only one, so that the kernel takes it.
            if let Poll::Ready(Err(error)) = stream.poll_write(cx, TOO_SLOW) {
                tracing::debug!(%error, "failed to answer a client that sends too slowly");
            }
        }
    }

    /// Reads as far as the gate allows. The dispatcher calls it until it is pending.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if (self.gate.is_at_head() && self.discarded)
            || (self.gate.is_answered_in_body() && self.unwanted == 0)
        {
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
            Poll::Pending
                if (self.awaits_rest || !self.gate.is_open())
                    && self.patience.poll_exhausted(cx).is_ready() =>
            {
                self.give_up(cx);
                return Poll::Ready(Ok(()));
            }
            Poll::Pending => {
                if self.gate.is_open() && self.patience.is_running() {
                    self.reader = Some(cx.waker().clone());
                }
                return Poll::Pending;
            }
            error => return error,
        }
        let read = &buf.filled()[begin..];
        self.eof = read.is_empty();
        let passed = self.gate.pass(read);
        self.passed(passed);
        let read = &buf.filled()[begin..];
        if passed < read.len() {
            self.ahead = BytesMut::from(&read[passed..]);
            buf.set_filled(begin + passed);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads ahead within a limit while nothing may pass, to notice that the client disconnects.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.reader {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        let Some(stream) = &mut self.stream else {
            return Poll::Pending;
        };
        while !self.eof {
            let most = if self.streaming { READ_AHEAD_OF_STREAM } else { READ_AHEAD };
            let room = most.saturating_sub(self.ahead.len()).min(READ_AHEAD);
            if room == 0 {
                if !self.streaming {
                    return Poll::Pending;
                }
                self.ahead = BytesMut::new();
                self.discarded = true;
                continue;
            }
            let mut scratch = [mem::MaybeUninit::uninit(); READ_AHEAD];
            let mut scratch = ReadBuf::uninit(&mut scratch[..room]);
            match stream.poll_read(cx, &mut scratch) {
                Poll::Ready(Ok(())) => {
                    self.eof = scratch.filled().is_empty();
                    self.ahead.extend_from_slice(scratch.filled());
                    if self.eof
                        && let Some(leave) = self.takeover.waiting()
                    {
                        leave.closed();
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        // Complete requests are served before the end of the input is reported: their clients may have closed one side
        // only. But a response that may never end is for a client that has left.
        let endless = self.streaming || !matches!(self.takeover, Claim::None);
        if self.discarded || (endless && !self.half_closes) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Reads and discards what comes of a body whose request was refused, up to a limit and for some time.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.gate.is_in_body() || self.given_up {
            return Poll::Ready(());
        }
        while !self.eof && self.unwanted > 0 && self.gate.is_in_body() {
            let Some(stream) = &mut self.stream else { break };
            let mut scratch = [mem::MaybeUninit::uninit(); READ_AHEAD];
            let mut scratch = ReadBuf::uninit(&mut scratch);
            let patience = self.linger.get_or_insert_with(|| {
                let mut patience = Patience::default();
                patience.start(LINGER);
                Box::new(patience)
            });
            match stream.poll_read(cx, &mut scratch) {
                Poll::Ready(Ok(())) => {
                    let read = scratch.filled();
                    patience.received(read.len(), false);
                    self.eof = read.is_empty();
                    self.unwanted = self.unwanted.saturating_sub(read.len());
                    self.gate.pass(read);
                }
                Poll::Ready(Err(_)) => break,
                Poll::Pending => return patience.poll_exhausted(cx),
            }
        }
        Poll::Ready(())
    }

    /// Reads and discards the available input.
    fn discard_unread(&mut self, cx: &mut Context<'_>) {
        let Some(stream) = &mut self.stream else { return };
        let mut left = READ_AT_END;
        while !self.eof && left > 0 {
            let mut scratch = [mem::MaybeUninit::uninit(); READ_AHEAD];
            let mut scratch = ReadBuf::uninit(&mut scratch);
            match stream.poll_read(cx, &mut scratch) {
                Poll::Ready(Ok(())) => {
                    self.eof = scratch.filled().is_empty();
                    left = left.saturating_sub(scratch.filled().len());
                }
                _ => return,
            }
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
        let state = &mut *state;
        let Some(stream) = &mut state.stream else {
            // The dispatcher ends a response whose connection was taken over.
            return Poll::Ready(Ok(bytes.len()));
        };
        if state.given_up {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = stream.poll_write(cx, bytes);
        if written.is_pending() {
            state.blocked = true;
            // The dispatcher does not poll the body while its buffer is full, nor once the client has closed its side.
            if let Some(leave) = state.takeover.waiting()
                && let Poll::Ready(aborted) = leave.poll_aborted(cx)
            {
                reset_on_close(stream.tcp());
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, aborted)));
            }
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.0.borrow_mut();
        // The dispatcher flushes once its buffer has been written.
        if mem::take(&mut state.blocked) {
            state.wake();
        }
        if matches!((&state.takeover, &state.stream), (Claim::Armed(_), Some(Stream::Tcp(_)))) {
            let claim = mem::replace(&mut state.takeover, Claim::Taken);
            let ahead = mem::take(&mut state.ahead);
            let stream = state.stream.take();
            drop(state);
            if let (Claim::Armed(leave), Some(Stream::Tcp(tcp))) = (claim, stream) {
                leave.take(tcp, &ahead);
            }
            return Poll::Ready(Ok(()));
        }
        match &mut state.stream {
            Some(stream) => stream.poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.0.borrow_mut();
        state.discard_unread(cx);
        let Some(stream) = &mut state.stream else { return Poll::Ready(Ok(())) };
        // Again and again while it lingers, which does no harm.
        ready!(stream.poll_shutdown(cx))?;
        state.poll_linger(cx).map(Ok)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

/// Has the socket end with a reset when it is closed; what the kernel still holds is thrown away then.
fn reset_on_close(tcp: &TcpStream) {
    if let Err(error) = SockRef::from(tcp).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "failed to have a socket reset");
    }
}

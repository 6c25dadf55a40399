//! [`WebSocketBody`]: a connection in both directions, driven by the response that it is the body of.
//!
//! The dispatcher polls the body whenever the socket can take bytes or has brought some, so a connection needs no
//! task of its own. What has to be written goes first; a text of the client is read only when the one before has
//! been answered, so a client can't make us queue anything.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use actix_web::{
    body::{BodySize, BoxBody, MessageBody},
    rt::time::{Sleep, sleep},
};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, ProtocolError};
use bytes::Bytes;
use bytestring::ByteString;
use futures_core::{Stream, future::BoxFuture};
use realtime_core::{CloseReason, Outbound, Session};

use crate::{
    InboundHandler,
    frame::{self, Kind},
    guard::Verdict,
    protocol::{Inbound, Protocol},
    rate::Rate,
};

/// A live connection.
pub(crate) struct WebSocketBody {
    session: Session,
    protocol: Protocol,
    handler: Arc<dyn InboundHandler>,
    inbound: AggregatedMessageStream,
    verdict: Verdict,
    rate: Rate,
    /// A frame of this connection alone, written before what the session has.
    next: Option<Bytes>,
    /// The handler at work on a text.
    handling: Option<BoxFuture<'static, Option<ByteString>>>,
    /// How many frames went out since the client was last listened to.
    unheard: u32,
    stage: Stage,
    /// actix-ws's own body: its drop ends `inbound`, and its queue stays unused.
    _handshake: BoxBody,
}

enum Stage {
    Open,
    /// Our Close frame is out; the client's is awaited for a while.
    Closing(Pin<Box<Sleep>>),
    Ended,
}

/// What became of listening to the client.
enum Heard {
    /// Something was handled; there may be more to write.
    Something,
    /// The client's Close frame; this one answers it.
    Close(Bytes),
    /// Nothing more of this client will be read.
    Fault(CloseReason),
}

/// How long a client may take to answer a Close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// After so many frames in a row the client is listened to, even when there is more to write.
const FRAMES_IN_A_ROW: u32 = 64;

impl WebSocketBody {
    pub(crate) fn new(
        session: Session,
        protocol: Protocol,
        handler: Arc<dyn InboundHandler>,
        inbound: AggregatedMessageStream,
        verdict: Verdict,
        handshake: BoxBody,
        settings: &realtime_core::Settings,
    ) -> Self {
        let next = protocol.greeting(&session, settings.heartbeat.interval.as_millis());
        let rate = Rate::new(settings.limits.max_inbound_rate, Instant::now());
        Self {
            session,
            protocol,
            handler,
            inbound,
            verdict,
            rate,
            next,
            handling: None,
            unheard: 0,
            stage: Stage::Open,
            _handshake: handshake,
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(frame) = self.next.take() {
                return Poll::Ready(Some(frame));
            }
            let listen_first = self.unheard >= FRAMES_IN_A_ROW;
            if !listen_first && let Poll::Ready(outbound) = self.session.poll_next(cx) {
                self.unheard += 1;
                return match outbound {
                    Outbound::Frame(frame) => Poll::Ready(Some(frame)),
                    Outbound::Close(reason) => self.farewell(reason),
                };
            }
            self.unheard = 0;
            match self.poll_inbound(cx) {
                Poll::Ready(Heard::Something) => {}
                Poll::Ready(Heard::Close(frame)) => {
                    self.stage = Stage::Ended;
                    return Poll::Ready(Some(frame));
                }
                Poll::Ready(Heard::Fault(reason)) => {
                    self.session.handle().close(reason);
                    return self.farewell(reason);
                }
                // The session was not asked in this turn.
                Poll::Pending if listen_first => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn farewell(&mut self, reason: CloseReason) -> Poll<Option<Bytes>> {
        let frames = self.protocol.farewell(reason);
        self.stage = match frames {
            Some(_) => Stage::Closing(Box::pin(sleep(CLOSE_TIMEOUT))),
            None => Stage::Ended,
        };
        Poll::Ready(frames)
    }

    /// Listens to the client: one message, or the handler's answer to the last one.
    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        if let Some(handling) = &mut self.handling {
            // Its pongs are not read meanwhile, and that is not its fault.
            self.session.heard();
            let answer = ready!(handling.as_mut().poll(cx));
            self.handling = None;
            self.next = answer.map(|text| self.protocol.answer(&text));
            return Poll::Ready(Heard::Something);
        }
        let message = match Pin::new(&mut self.inbound).poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => message,
            Poll::Ready(Some(Err(error))) => {
                let reason = reason_of(&error);
                self.verdict.set(Some(reason));
                return Poll::Ready(Heard::Fault(reason));
            }
            Poll::Ready(None) => return Poll::Ready(Heard::Fault(CloseReason::Gone)),
            Poll::Pending => {
                return self.verdict.get().map_or(Poll::Pending, |reason| Poll::Ready(Heard::Fault(reason)));
            }
        };
        self.session.heard();
        Poll::Ready(match message {
            AggregatedMessage::Close(close) => {
                self.session.handle().close(CloseReason::Normal);
                // RFC 6455, section 5.5.1: the answer has the client's own code.
                let code = close.map(|close| u16::from(close.code).to_be_bytes());
                Heard::Close(frame::encode(Kind::Close, code.as_ref().map_or(&[], |code| code)))
            }
            message => {
                if let Err(reason) = self.handle(message) {
                    self.session.handle().close(reason);
                }
                Heard::Something
            }
        })
    }

    fn handle(&mut self, message: AggregatedMessage) -> Result<(), CloseReason> {
        if !self.rate.allows(Instant::now()) {
            return Err(CloseReason::RateLimited);
        }
        match message {
            AggregatedMessage::Text(text) => match self.protocol.read(text)? {
                Inbound::Text(text) => {
                    self.handling = Some(self.handler.on_text(self.session.handle(), text))
                }
                Inbound::Ping => self.next = Some(Protocol::pong()),
                Inbound::Pong => {}
            },
            AggregatedMessage::Ping(payload) => self.next = Some(frame::encode(Kind::Pong, &payload)),
            AggregatedMessage::Binary(_) => return Err(CloseReason::Unsupported),
            AggregatedMessage::Pong(_) | AggregatedMessage::Close(_) => {}
        }
        Ok(())
    }

    /// Waits for the client's Close frame, whatever else it still sends.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Stage::Closing(timeout) = &mut self.stage else {
            return Poll::Ready(());
        };
        if timeout.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        loop {
            match ready!(Pin::new(&mut self.inbound).poll_next(cx)) {
                Some(Ok(AggregatedMessage::Close(_)) | Err(_)) | None => return Poll::Ready(()),
                Some(Ok(_)) => {}
            }
        }
    }
}

impl MessageBody for WebSocketBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        match this.stage {
            Stage::Open => this.poll_open(cx).map(|frame| frame.map(Ok)),
            Stage::Closing(_) => {
                ready!(this.poll_closing(cx));
                this.stage = Stage::Ended;
                Poll::Ready(None)
            }
            Stage::Ended => Poll::Ready(None),
        }
    }
}

/// What a fault in the client's stream means. The guard has judged the frames' headers before.
fn reason_of(error: &ProtocolError) -> CloseReason {
    match error {
        ProtocolError::Overflow => CloseReason::TooBig,
        // Only text that is not UTF-8 is `InvalidData`; other faults of the stream mean that the client is gone.
        ProtocolError::Io(error) if error.kind() == io::ErrorKind::InvalidData => CloseReason::InvalidPayload,
        ProtocolError::Io(_) => CloseReason::Gone,
        _ => CloseReason::Protocol,
    }
}

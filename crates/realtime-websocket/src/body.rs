//! [`WebSocketBody`]: a connection in both directions, driven by the response that it is the body of.
//!
//! The dispatcher polls the body whenever the socket can take bytes or has brought some, so a connection needs no
//! task of its own. Outbound frames are polled first; inbound frames get a turn after at most 7 KiB. A text of the client is
//! read only when the one before has been answered, so a client can't make us queue anything.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use actix_web::{
    body::{BodySize, MessageBody},
    rt::time::{Sleep, sleep},
};
use bytes::Bytes;
use bytestring::ByteString;
use futures_core::future::BoxFuture;
use realtime_core::{CloseReason, Outbound, SendDirect, Session};

use crate::{
    InboundHandler,
    frame::{self, Kind},
    protocol::{Inbound, Protocol},
    rate::Rate,
    reader::{Reader, Said},
};

/// A live connection.
pub(crate) struct WebSocketBody {
    session: Session,
    protocol: Protocol,
    handler: Arc<dyn InboundHandler>,
    inbound: Reader,
    rate: Rate,
    /// A frame of this connection alone, written before what the session has.
    next: Option<Bytes>,
    /// The first frame is still to come: how often heartbeats are sent, in milliseconds, for it to say.
    hello: Option<u128>,
    /// The handler at work on a text.
    handling: Option<BoxFuture<'static, Option<ByteString>>>,
    ear: Ear,
    probe: Probe,
    /// How many Pings of ours have gone out behind messages.
    probes: u32,
    stage: Stage,
}

/// What is known of the buffer between the body and the socket: see [`crate::direct`].
#[derive(Clone, Copy)]
enum Probe {
    /// Nothing went out since the last answer.
    Still,
    /// Something did, and no Ping is behind it yet.
    Due,
    /// A Ping is out, with this number.
    Out(u32),
    /// A Ping is out, and other bytes have followed it.
    Overtaken(u32),
}

impl Probe {
    /// Bytes went out behind whatever went out before.
    fn followed(self) -> Self {
        match self {
            Self::Still | Self::Due => Self::Due,
            Self::Out(number) | Self::Overtaken(number) => Self::Overtaken(number),
        }
    }
}

enum Stage {
    Open,
    /// Our Close frame is out; the client's is awaited for a while.
    Closing(Pin<Box<Sleep>>),
    Ended,
}

/// Whether the client is listened to.
enum Ear {
    Open,
    /// Not any more. This answers its Close frame, if that was the reason.
    Closed(Option<Bytes>),
}

/// How long a client may take to answer a Close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

impl WebSocketBody {
    pub(crate) fn new(
        session: Session,
        protocol: Protocol,
        handler: Arc<dyn InboundHandler>,
        inbound: Reader,
        settings: &realtime_core::Settings,
    ) -> Self {
        let hello = protocol.has_hello().then_some(settings.heartbeat.interval.as_millis());
        let rate = Rate::new(settings.limits.max_inbound_rate, Instant::now());
        Self {
            session,
            protocol,
            handler,
            inbound,
            rate,
            next: None,
            hello,
            handling: None,
            ear: Ear::Open,
            // The response's head went out. The Ping behind it costs no write of its own.
            probe: Probe::Due,
            probes: 0,
            stage: Stage::Open,
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Aborted>>> {
        loop {
            if let Some(ping_interval) = self.hello {
                match self.session.poll_begin(cx) {
                    Poll::Ready(Some(begin)) => {
                        self.hello = None;
                        self.probe = self.probe.followed();
                        return Poll::Ready(Some(Ok(Protocol::hello(&self.session, begin, ping_interval))));
                    }
                    // It ends before it has begun.
                    Poll::Ready(None) => self.hello = None,
                    Poll::Pending if self.next.is_none() && self.poll_inbound(cx).is_ready() => continue,
                    Poll::Pending => return Poll::Pending,
                }
            }
            if let Some(frame) = self.next.take() {
                match self.session.send_direct(frame) {
                    SendDirect::Sent => {}
                    SendDirect::Write(frame) => {
                        self.probe = self.probe.followed();
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    SendDirect::WithinFrame(frame) => self.next = Some(frame),
                }
            }
            // An awaited Pong opens the direct lane if it is read before anything else is written.
            let inbound_first = matches!(self.probe, Probe::Out(_));
            if inbound_first && self.next.is_none() && self.poll_inbound(cx).is_ready() {
                continue;
            }
            match self.session.poll_next(cx) {
                Poll::Ready(Outbound::Bytes(bytes)) => {
                    self.probe = self.probe.followed();
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Poll::Ready(Outbound::Close(reason)) => {
                    return self.closing_frames(reason).map(|frame| frame.map(Ok));
                }
                Poll::Ready(Outbound::Abort(reason)) => {
                    self.stage = Stage::Ended;
                    return Poll::Ready(Some(Err(Aborted(reason))));
                }
                Poll::Pending => {}
            }
            if !inbound_first && self.next.is_none() && self.poll_inbound(cx).is_ready() {
                continue;
            }
            if matches!(self.probe, Probe::Due) && self.session.could_be_direct() {
                self.probes = self.probes.wrapping_add(1);
                self.probe = Probe::Out(self.probes);
                return Poll::Ready(Some(Ok(frame::encode(Kind::Ping, &self.probes.to_be_bytes()))));
            }
            return Poll::Pending;
        }
    }

    /// The last frames, after everything that waited.
    fn closing_frames(&mut self, reason: CloseReason) -> Poll<Option<Bytes>> {
        if let Ear::Closed(answer) = &mut self.ear
            && let Some(answer) = answer.take()
        {
            self.stage = Stage::Ended;
            return Poll::Ready(Some(answer));
        }
        let frames = self.protocol.closing_frames(reason);
        self.stage = match frames {
            Some(_) => Stage::Closing(Box::pin(sleep(CLOSE_TIMEOUT))),
            None => Stage::Ended,
        };
        Poll::Ready(frames)
    }

    /// Takes a Pong that answers our Ping. One that does not is like any other message.
    fn answers_probe(&mut self, said: &Said) -> bool {
        let (Said::Pong(payload), Probe::Out(number) | Probe::Overtaken(number)) = (said, self.probe) else {
            return false;
        };
        if payload[..] != number.to_be_bytes() {
            return false;
        }
        match self.probe {
            Probe::Out(_) => {
                self.session.open_direct();
                self.probe = Probe::Still;
            }
            // What has followed the Ping may still be in the buffer.
            _ => self.probe = Probe::Due,
        }
        true
    }

    /// Reads from the client: one message, or the handler's answer to the last one.
    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Ear::Closed(_) = self.ear {
            return Poll::Pending;
        }
        if let Some(handling) = &mut self.handling {
            let answer = ready!(handling.as_mut().poll(cx));
            self.session.set_reading(true);
            self.handling = None;
            self.next = answer.map(|text| self.protocol.answer(&text));
            return Poll::Ready(());
        }
        let said = self.inbound.poll_next(cx);
        // Also the bytes of a message that has yet to come whole.
        if self.inbound.take_received() {
            self.session.record_activity();
        }
        let said = match ready!(said) {
            Ok(said) => said,
            Err(reason) => {
                self.stop_listening(reason, None);
                return Poll::Ready(());
            }
        };
        if self.answers_probe(&said) {
            return Poll::Ready(());
        }
        if let Said::Close(code) = said {
            // RFC 6455, section 5.5.1: the answer has the client's own code.
            let code = code.map(u16::to_be_bytes);
            let answer = frame::encode(Kind::Close, code.as_ref().map_or(&[], |code| code));
            self.stop_listening(CloseReason::Normal, Some(answer));
        } else if self.session.closing().is_some() {
            // A login that was kicked, revoked or has expired gives no more orders while the rest is on its way.
        } else if let Err(reason) = self.handle(said) {
            self.session.close(reason);
        }
        Poll::Ready(())
    }

    /// Nothing more of this client is read. What waits for it is still sent, unless nobody is there.
    fn stop_listening(&mut self, reason: CloseReason, answer: Option<Bytes>) {
        self.ear = Ear::Closed(answer);
        self.session.close(reason);
    }

    fn handle(&mut self, said: Said) -> Result<(), CloseReason> {
        if !self.rate.allows(Instant::now()) {
            return Err(CloseReason::RateLimited);
        }
        match said {
            Said::Text(text) => match self.protocol.read(text)? {
                Inbound::Text(text) => {
                    // Its pongs are not read while the handler is at work.
                    self.session.set_reading(false);
                    self.handling = Some(self.handler.on_text(self.session.handle(), text));
                }
                Inbound::Ping => self.next = Some(Protocol::pong()),
                Inbound::Pong => {}
            },
            Said::Ping(payload) => self.next = Some(frame::encode(Kind::Pong, &payload)),
            Said::Binary(_) => return Err(CloseReason::Unsupported),
            Said::Pong(_) | Said::Close(_) => {}
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
            match ready!(self.inbound.poll_next(cx)) {
                Ok(Said::Close(_)) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }
}

/// The connection is broken off; what it was sent may end within a frame.
#[derive(Debug)]
pub(crate) struct Aborted(CloseReason);

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the session was aborted: {}", self.0.name())
    }
}

impl std::error::Error for Aborted {}

impl MessageBody for WebSocketBody {
    type Error = Aborted;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        match this.stage {
            Stage::Open => this.poll_open(cx),
            Stage::Closing(_) => {
                ready!(this.poll_closing(cx));
                this.stage = Stage::Ended;
                Poll::Ready(None)
            }
            Stage::Ended => Poll::Ready(None),
        }
    }
}

//! [`WebSocketBody`]: a connection in both directions, driven by the response that it is the body of.
//!
//! The dispatcher polls the body whenever the socket can take bytes or has brought some, so a connection needs no
//! task of its own. The session has the word first, and after some KiB the client has it. A text of the client is read
//! only when the one before has been answered, so a client can't make us queue anything.

use std::{
    convert::Infallible,
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
use realtime_core::{CloseReason, Outbound, Session};

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
        let next = protocol.greeting(&session, settings.heartbeat.interval.as_millis());
        let rate = Rate::new(settings.limits.max_inbound_rate, Instant::now());
        Self {
            session,
            protocol,
            handler,
            inbound,
            rate,
            next,
            handling: None,
            ear: Ear::Open,
            // The response's head went out. The Ping behind it costs no write of its own.
            probe: Probe::Due,
            probes: 0,
            stage: Stage::Open,
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if !self.session.is_within_frame()
                && let Some(frame) = self.next.take()
                && let Some(frame) = self.session.send_direct(frame)
            {
                if let Probe::Out(number) = self.probe {
                    self.probe = Probe::Overtaken(number);
                }
                return Poll::Ready(Some(frame));
            }
            // An awaited Pong opens the direct lane if it is heard before anything else is written.
            let heard = matches!(self.probe, Probe::Out(_));
            if heard && self.next.is_none() && self.poll_inbound(cx).is_ready() {
                continue;
            }
            match self.session.poll_next(cx) {
                Poll::Ready(Outbound::Bytes(bytes)) => {
                    self.probe = match self.probe {
                        Probe::Still | Probe::Due => Probe::Due,
                        Probe::Out(number) | Probe::Overtaken(number) => Probe::Overtaken(number),
                    };
                    return Poll::Ready(Some(bytes));
                }
                Poll::Ready(Outbound::Close(reason)) => return self.farewell(reason),
                Poll::Pending => {}
            }
            if !heard && self.next.is_none() && self.poll_inbound(cx).is_ready() {
                continue;
            }
            if matches!(self.probe, Probe::Due) && self.session.could_be_direct() {
                self.probes = self.probes.wrapping_add(1);
                self.probe = Probe::Out(self.probes);
                return Poll::Ready(Some(frame::encode(Kind::Ping, &self.probes.to_be_bytes())));
            }
            return Poll::Pending;
        }
    }

    /// The last frames, after everything that waited.
    fn farewell(&mut self, reason: CloseReason) -> Poll<Option<Bytes>> {
        if let Ear::Closed(answer) = &mut self.ear
            && let Some(answer) = answer.take()
        {
            self.stage = Stage::Ended;
            return Poll::Ready(Some(answer));
        }
        let frames = self.protocol.farewell(reason);
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

    /// Listens to the client: one message, or the handler's answer to the last one.
    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Ear::Closed(_) = self.ear {
            return Poll::Pending;
        }
        if let Some(handling) = &mut self.handling {
            // Its pongs are not read meanwhile, and that is not its fault.
            self.session.heard();
            let answer = ready!(handling.as_mut().poll(cx));
            self.handling = None;
            self.next = answer.map(|text| self.protocol.answer(&text));
            return Poll::Ready(());
        }
        let said = match ready!(self.inbound.poll_next(cx)) {
            Ok(said) => said,
            Err(reason) => {
                self.stop_listening(reason, None);
                return Poll::Ready(());
            }
        };
        self.session.heard();
        if self.answers_probe(&said) {
            return Poll::Ready(());
        }
        if let Said::Close(code) = said {
            // RFC 6455, section 5.5.1: the answer has the client's own code.
            let code = code.map(u16::to_be_bytes);
            let answer = frame::encode(Kind::Close, code.as_ref().map_or(&[], |code| code));
            self.stop_listening(CloseReason::Normal, Some(answer));
        } else if let Err(reason) = self.handle(said) {
            self.session.handle().close(reason);
        }
        Poll::Ready(())
    }

    /// Nothing more of this client is read. What waits for it is still sent, unless nobody is there.
    fn stop_listening(&mut self, reason: CloseReason, answer: Option<Bytes>) {
        self.ear = Ear::Closed(answer);
        self.session.handle().close(reason);
    }

    fn handle(&mut self, said: Said) -> Result<(), CloseReason> {
        if !self.rate.allows(Instant::now()) {
            return Err(CloseReason::RateLimited);
        }
        match said {
            Said::Text(text) => match self.protocol.read(text)? {
                Inbound::Text(text) => {
                    self.handling = Some(self.handler.on_text(self.session.handle(), text))
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

//! [`WebSocketConnection`]: a connection in both directions as a state machine.
//!
//! Outbound frames are polled first; inbound frames get a turn after at most 7 KiB. A text of the client is read only
//! after the previous one has been answered, or its answer is queued, which happens to one large answer at a time: a client
//! cannot make the server queue more than that.

use std::{
    fmt, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use realtime_core::{
    CloseReason, Payload, Session, Topic,
    auth::TopicDecision,
    wire::{DirectWrite, Outbound, SendDirect},
};
use tokio::{
    task::{JoinHandle, spawn},
    time::{Sleep, sleep},
};
use tracing::Instrument;

use super::{
    endpoint::Endpoint,
    frame::{self, Kind},
    protocol::{Inbound, Protocol},
    rate::{Amount, Rate},
    reader::{ClientMessage, Reader},
    refresh,
};
use crate::{Aborted, Connection, Step};

/// A live connection.
pub struct WebSocketConnection {
    session: Session,
    endpoint: Arc<Endpoint>,
    inbound: Reader,
    rate: Rate,
    answer: Answer,
    read_half: ReadHalf,
    stage: Stage,
    protocol: Protocol,
    /// The first frame has yet to be written.
    hello: bool,
    /// The topics that the request asked for, until the first frame has been written.
    topics: Option<Box<TopicDecision>>,
    /// Nothing more can come from the client.
    gone: bool,
}

/// Answer to the client's last frame.
enum Answer {
    None,
    /// The handler is running.
    Awaited(Box<Handling>),
    /// A frame of this connection's own, written before those of the session.
    Ready(Box<Bytes>),
    /// A change of the session's topics that is made, and answered, once its outbox has room for the answer.
    Topics(Box<TopicChange>),
}

enum Stage {
    Open,
    /// The Close frame has been written; the client's is awaited for a limited time, behind a limited number of bytes.
    Closing {
        timeout: Pin<Box<Sleep>>,
        bytes: u32,
    },
    Ended,
}

/// Reading side of the connection.
enum ReadHalf {
    Open,
    /// Input is skipped. If a Close frame of the client was the reason, this frame answers it.
    Closed(Option<Box<Bytes>>),
}

/// A running handler, topic policy or check of a token in a task of its own. It makes progress while the client reads
/// nothing, and is aborted with the connection.
struct Handling(JoinHandle<Handled>);

/// Result of what a frame of the client asked for.
enum Handled {
    /// The frame that answers it, if there is one.
    Answer(Option<Bytes>),
    /// A change of the session's topics, which has an answer of its own.
    Topics(TopicChange),
}

/// Change of the topics that a client asked for.
enum TopicChange {
    Subscribe(TopicDecision),
    Unsubscribe(Vec<Topic>),
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reason for the end of a connection whose handler, topic policy or check of a token has panicked.
const PANICKED: CloseReason = CloseReason::Internal;

/// Time for the client to answer a Close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of the client that are skipped at most before its answer: what it was sending when it got the Close frame.
const CLOSE_BEHIND: u32 = 16 << 20;

/// Bytes that a frame counts for in addition, since small ones cost time and not bytes.
const FRAME: u32 = 1 << 10;

/// Frames of a client that may begin before others have their turn.
const TURN: u32 = 512;

impl WebSocketConnection {
    pub(crate) fn new(
        session: Session,
        protocol: Protocol,
        endpoint: Arc<Endpoint>,
        topics: Option<TopicDecision>,
    ) -> Self {
        Self {
            session,
            inbound: Reader::default(),
            rate: Rate::new(Instant::now()),
            answer: Answer::None,
            read_half: ReadHalf::Open,
            stage: Stage::Open,
            protocol,
            hello: protocol.has_hello(),
            topics: topics.filter(|_| protocol.has_hello()).map(Box::new),
            gone: false,
            endpoint,
        }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>, input: &mut &[u8]) -> Poll<Step> {
        if let Stage::Open = self.stage {
            return self.poll_open(cx, input);
        }
        ready!(self.poll_closing(cx, input));
        self.stage = Stage::Ended;
        Poll::Ready(Step::End)
    }

    fn poll_open(&mut self, cx: &mut Context<'_>, input: &mut &[u8]) -> Poll<Step> {
        loop {
            if self.hello {
                match self.session.poll_begin(cx) {
                    Poll::Ready(Some(begin)) => {
                        self.hello = false;
                        let ping_interval = self.endpoint.hub.settings().heartbeat.interval.as_millis();
                        let topics = self.topics.take();
                        let hello = Protocol::hello(&self.session, begin, ping_interval, topics.as_deref());
                        return Poll::Ready(Step::Write(hello));
                    }
                    // The session ends before it has begun.
                    Poll::Ready(None) => self.hello = false,
                    Poll::Pending => match self.poll_inbound(cx, input) {
                        Poll::Ready(()) => continue,
                        Poll::Pending => return Poll::Pending,
                    },
                }
            }
            if let Answer::Ready(frame) = &mut self.answer {
                match self.session.send_direct(mem::take(frame)) {
                    SendDirect::Sent => self.answer = Answer::None,
                    SendDirect::Write(frame) => {
                        self.answer = Answer::None;
                        return Poll::Ready(Step::Write(frame));
                    }
                    SendDirect::Later(later) => **frame = later,
                }
            }
            match self.session.poll_next(cx) {
                Poll::Ready(Outbound::Bytes(bytes)) => return Poll::Ready(Step::Write(bytes)),
                Poll::Ready(Outbound::Close(reason)) => return Poll::Ready(self.closing_step(reason)),
                Poll::Ready(Outbound::Abort(reason)) => {
                    self.stage = Stage::Ended;
                    return Poll::Ready(Step::Abort(Aborted(reason.name())));
                }
                Poll::Pending => ready!(self.poll_inbound(cx, input)),
            }
        }
    }

    /// Writes the last frames, behind everything that was queued.
    fn closing_step(&mut self, reason: CloseReason) -> Step {
        if let ReadHalf::Closed(answer) = &mut self.read_half
            && let Some(answer) = answer.take()
        {
            self.stage = Stage::Ended;
            return Step::Write(*answer);
        }
        match self.protocol.closing_frames(reason) {
            Some(frames) => {
                let timeout = Box::pin(sleep(CLOSE_TIMEOUT));
                self.stage = Stage::Closing { timeout, bytes: CLOSE_BEHIND };
                Step::Write(frames)
            }
            None => {
                self.stage = Stage::Ended;
                Step::End
            }
        }
    }

    /// Reads from the client: one message, or the handler's answer to the last one.
    fn poll_inbound(&mut self, cx: &mut Context<'_>, input: &mut &[u8]) -> Poll<()> {
        if let ReadHalf::Closed(_) = self.read_half {
            // Nothing counts any more but the client's Close.
            self.skip(cx, input, &mut 0);
            return Poll::Pending;
        }
        match &mut self.answer {
            Answer::None => {}
            Answer::Awaited(handling) => {
                let handled = ready!(Pin::new(&mut handling.0).poll(cx));
                self.session.set_reading(true);
                match handled {
                    Ok(handled) => self.finish(handled),
                    Err(_) => {
                        self.answer = Answer::None;
                        self.session.close(PANICKED);
                    }
                }
                return Poll::Ready(());
            }
            // It has to wait until others have been written.
            Answer::Ready(_) => return Poll::Pending,
            // A client that asks for much and reads little must not make the server queue its answers.
            Answer::Topics(_) if !self.session.has_room() => return Poll::Pending,
            Answer::Topics(_) => {
                if let Answer::Topics(change) = mem::replace(&mut self.answer, Answer::None) {
                    self.change_topics(*change);
                }
                return Poll::Ready(());
            }
        }
        let message = match self.read(input) {
            Ok(Some(message)) => message,
            Ok(None) => {
                if !input.is_empty() {
                    // Others have their turn first.
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
            Err(reason) => {
                self.stop_reading(reason, None);
                return Poll::Ready(());
            }
        };
        if let ClientMessage::Close(code) = message {
            // RFC 6455, section 5.5.1: the answer echoes the client's code.
            let code = code.map(u16::to_be_bytes);
            let answer = frame::encode(Kind::Close, code.as_ref().map_or(&[], |code| code));
            self.stop_reading(CloseReason::Normal, Some(answer));
        } else if self.session.closing().is_some() {
            // A login that was kicked or revoked or has expired is not served while its queued frames are written.
        } else if let Err(reason) = self.handle(cx, message) {
            self.session.close(reason);
        }
        Poll::Ready(())
    }

    /// Reads the next message within the limits on frames and bytes.
    fn read(&mut self, input: &mut &[u8]) -> Result<Option<ClientMessage>, CloseReason> {
        let limits = self.endpoint.hub.limits();
        let (before, mut frames) = (input.len(), TURN);
        let read = self.inbound.next(input, limits.max_inbound_bytes, &mut frames)?;
        let (bytes, frames) = (before - input.len(), (TURN - frames) as usize);
        if bytes > 0 {
            let now = Instant::now();
            if !self.rate.allows(now, Amount::Frames, frames, limits.max_inbound_frame_rate)
                || !self.rate.allows(now, Amount::Bytes, bytes, limits.max_inbound_byte_rate)
            {
                return Err(CloseReason::RateLimited);
            }
        }
        Ok(read)
    }

    /// Skips frames of the client, and takes them off the `left` bytes. Returns whether its Close has come.
    fn skip(&mut self, cx: &mut Context<'_>, input: &mut &[u8], left: &mut u32) -> bool {
        let (before, mut frames) = (input.len(), TURN);
        let closed = self.inbound.skip_to_close(input, &mut frames);
        let bytes = u32::try_from(before - input.len()).unwrap_or(u32::MAX);
        *left = left.saturating_sub(bytes.saturating_add((TURN - frames) * FRAME));
        if !input.is_empty() {
            cx.waker().wake_by_ref();
        }
        closed
    }

    /// Stops reading from the client. Frames that are queued are still written, unless the client is gone.
    fn stop_reading(&mut self, reason: CloseReason, answer: Option<Bytes>) {
        self.read_half = ReadHalf::Closed(answer.map(Box::new));
        self.session.close(reason);
    }

    fn handle(&mut self, cx: &mut Context<'_>, message: ClientMessage) -> Result<(), CloseReason> {
        let per_second = self.endpoint.hub.limits().max_inbound_rate;
        if !self.rate.allows(Instant::now(), Amount::Messages, 1, per_second) {
            return Err(CloseReason::RateLimited);
        }
        match message {
            ClientMessage::Text(text) => match self.protocol.read(text)? {
                Inbound::Text(text) => {
                    let inbound = &self.endpoint.inbound;
                    let handling = guarded(|| inbound.on_text(self.session.handle(), text))?;
                    self.run_handler(cx, handling, Payload::Text)?;
                }
                Inbound::Ping => self.answer = Answer::of(Some(Protocol::pong())),
                Inbound::Pong => {}
                Inbound::Subscribe(names) => self.subscribe(cx, names)?,
                Inbound::Unsubscribe(names) => self.unsubscribe(&names),
                Inbound::Refresh(token) => self.refresh(token),
            },
            ClientMessage::Ping(payload) => {
                self.answer = Answer::of(Some(frame::encode(Kind::Pong, &payload)))
            }
            ClientMessage::Binary(data) => {
                let inbound = &self.endpoint.inbound;
                let handling = guarded(|| inbound.on_binary(self.session.handle(), data))?;
                self.run_handler(cx, handling.ok_or(CloseReason::Unsupported)?, Payload::Binary)?;
            }
            ClientMessage::Pong(_) | ClientMessage::Close(_) => {}
        }
        Ok(())
    }

    /// Runs a handler of the application.
    fn run_handler<T: Send + 'static>(
        &mut self,
        cx: &mut Context<'_>,
        handling: BoxFuture<'static, Option<T>>,
        payload: fn(T) -> Payload,
    ) -> Result<(), CloseReason> {
        let protocol = self.protocol;
        self.run(cx, handling, move |answer| {
            Handled::Answer(answer.map(|data| protocol.answer(&payload(data))))
        })
    }

    /// Runs what a frame of the client asks for. Most of it completes at once and needs no task.
    fn run<T: Send + 'static>(
        &mut self,
        cx: &mut Context<'_>,
        mut handling: BoxFuture<'static, T>,
        handled: impl FnOnce(T) -> Handled + Send + 'static,
    ) -> Result<(), CloseReason> {
        if let Poll::Ready(result) = guarded(|| handling.as_mut().poll(cx))? {
            self.finish(handled(result));
        } else {
            // Pongs are not read while the handler runs.
            self.session.set_reading(false);
            let handling = spawn(async move { handled(handling.await) }.instrument(self.session.span()));
            self.answer = Answer::Awaited(Box::new(Handling(handling)));
        }
        Ok(())
    }

    /// Answers a frame of the client.
    fn finish(&mut self, handled: Handled) {
        self.answer = match handled {
            Handled::Answer(frame) => Answer::of(frame),
            Handled::Topics(change) => Answer::Topics(Box::new(change)),
        };
    }

    /// Subscribes the client to those of the topics that it may be in.
    fn subscribe(&mut self, cx: &mut Context<'_>, names: Vec<String>) -> Result<(), CloseReason> {
        let (hub, session) = (self.endpoint.hub.clone(), self.session.handle());
        let deciding = async move { hub.decide_topics(&session.principal(), &session.topics(), names).await };
        self.run(cx, Box::pin(deciding), |topics| Handled::Topics(TopicChange::Subscribe(topics)))
    }

    /// Unsubscribes the client. It is in none of the topics that the answer names, even if it was not in them before.
    fn unsubscribe(&mut self, names: &[String]) {
        let topics = names.iter().filter_map(|name| Topic::new(name).ok()).filter(|topic| !topic.is_all());
        self.finish(Handled::Topics(TopicChange::Unsubscribe(topics.collect())));
    }

    fn change_topics(&self, change: TopicChange) {
        if self.session.closing().is_some() {
            // A login that was kicked or revoked meanwhile is not served any more.
            return;
        }
        match change {
            TopicChange::Subscribe(topics) => {
                self.session.subscribe(&topics, |cursor| Protocol::subscribed(&topics, cursor));
            }
            TopicChange::Unsubscribe(topics) => {
                self.session.unsubscribe(&topics, &Protocol::unsubscribed(&topics));
            }
        }
    }

    /// Checks a token and renews the session's login with it.
    fn refresh(&mut self, token: String) {
        self.session.set_reading(false);
        let (endpoint, session) = (Arc::clone(&self.endpoint), self.session.handle());
        let refreshing = async move {
            let answer = refresh::refresh(&endpoint, &session, &token).await;
            Handled::Answer(Some(answer))
        };
        let refreshing = spawn(refreshing.instrument(self.session.span()));
        self.answer = Answer::Awaited(Box::new(Handling(refreshing)));
    }

    /// Waits for the client's Close frame and skips everything before it.
    fn poll_closing(&mut self, cx: &mut Context<'_>, input: &mut &[u8]) -> Poll<()> {
        let Stage::Closing { timeout, bytes } = &mut self.stage else {
            return Poll::Ready(());
        };
        if self.gone || timeout.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut left = *bytes;
        let closed = self.skip(cx, input, &mut left);
        if closed || left == 0 {
            return Poll::Ready(());
        }
        if let Stage::Closing { bytes, .. } = &mut self.stage {
            *bytes = left;
        }
        Poll::Pending
    }
}

impl fmt::Debug for WebSocketConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketConnection").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

/// Runs code of the application within the connection's own poll. Its panic, which the panic hook has reported, is one of a
/// task: the connection ends in order.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, CloseReason> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| PANICKED)
}

impl Answer {
    fn of(frame: Option<Bytes>) -> Self {
        frame.map_or(Self::None, |frame| Self::Ready(Box::new(frame)))
    }
}

impl Connection for WebSocketConnection {
    fn poll_next(&mut self, cx: &mut Context<'_>, input: &mut &[u8]) -> Poll<Step> {
        let span = self.session.span();
        let _entered = span.enter();
        let before = input.len();
        let step = self.poll_step(cx, input);
        self.session.count_received(before - input.len());
        step
    }

    /// Called for the bytes of incomplete messages, too.
    fn received(&mut self) {
        self.session.record_activity();
    }

    fn closed(&mut self) {
        self.gone = true;
        if let ReadHalf::Open = self.read_half {
            self.stop_reading(CloseReason::Gone, None);
        }
    }

    fn poll_aborted(&mut self, cx: &mut Context<'_>) -> Poll<Aborted> {
        self.session.poll_aborted(cx).map(|reason| Aborted(reason.name()))
    }

    fn attach(&mut self, socket: Arc<dyn DirectWrite>) {
        self.session.attach(socket);
    }

    fn flushed(&mut self) {
        match self.stage {
            Stage::Open if !self.hello => self.session.open_direct(),
            Stage::Open => {}
            Stage::Closing { .. } | Stage::Ended => self.session.detach(),
        }
    }
}

//! [`WriteSpans`]: spans of OpenTelemetry for the writes of messages whose trace is recorded.
//!
//! A pass only notes what it has queued or written. A task of the node follows it to the sockets and makes the spans, since
//! an exporter may take its time.

use std::{
    mem,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use once_cell::sync::OnceCell;
use opentelemetry::{
    Context, InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId, global,
    trace::{Span, SpanContext, SpanKind, Status, TraceContextExt, TraceState, Tracer},
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::{
    Envelope, Position, TraceContext,
    log::{Content, Entry, tally::Recipient},
    session::state::SessionState,
};

/// The writes of a node that have yet to become spans.
#[derive(Debug, Default)]
pub(crate) struct WriteSpans {
    /// The node's name; set once, when the hub starts.
    pub(crate) node: OnceCell<Arc<str>>,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    writes: Vec<Write>,
    /// Writes for which there was no room.
    dropped: u64,
}

/// A message on its way to the sockets.
#[derive(Debug)]
pub(crate) struct Write {
    envelope: Arc<Envelope>,
    position: Option<Position>,
    /// Time when the node took the message, or when the session was opened that is replayed it.
    begin: SystemTime,
    /// Time when the socket had taken it; that of the pass for [`Target::Others`].
    end: Option<SystemTime>,
    noted: Instant,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Session {
        session: Arc<SessionState>,
        /// Number of bytes that the socket has taken once it has the message.
        end: u64,
        /// Bytes of the frame.
        bytes: usize,
        /// The connection was taken over.
        is_taken_over: bool,
        /// The session was opened after the node took the message.
        is_replayed: bool,
    },
    /// Sessions of a worker beyond those with spans of their own, to which a pass gave it.
    Others { sessions: usize },
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Written,
    /// The session ended before its socket had taken the message.
    Ended,
    /// It has waited for too long, or too much is followed.
    Waiting,
}

/// Time for which a message is followed to a socket.
const FOLLOWED_FOR: Duration = Duration::from_secs(60);
/// Number of writes that are followed, and of those that wait to be.
const FOLLOWED: usize = 4096;
/// Pauses between two looks at the sockets: an eighth of the time for which the youngest message has waited.
const SHORTEST_LOOK: Duration = Duration::from_millis(1);
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// What sessions get of a run of entries of which the trace of one at least is recorded.
pub(crate) struct RunSpans<'a> {
    first: u64,
    run: &'a [Arc<Entry>],
    writes: Vec<Write>,
    /// For each entry the sessions beyond those with spans of their own.
    others: Vec<usize>,
}

impl<'a> RunSpans<'a> {
    /// Begins with entries from a sequence number on; `None` if no trace of them is recorded.
    pub(crate) fn of(first: u64, run: &'a [Arc<Entry>]) -> Option<Self> {
        let is_sampled = run.iter().any(|entry| entry.is_sampled());
        is_sampled.then(|| Self { first, run, writes: Vec::new(), others: vec![0; run.len()] })
    }

    /// Notes frames that were queued to a session, or written, each with its sequence number and its length. The outbox
    /// ends with the last one.
    pub(crate) fn sent(
        &mut self,
        session: &Arc<SessionState>,
        frames: impl DoubleEndedIterator<Item = (u64, usize)>,
    ) {
        let (mut backlog, mut behind) = (None, 0);
        for (seq, bytes) in frames.rev() {
            let index = usize::try_from(seq - self.first).unwrap_or(usize::MAX);
            if let Some(entry) = self.run.get(index).filter(|entry| entry.is_sampled())
                && let Content::Envelope(envelope) = &entry.content
            {
                if entry.take_span() {
                    let backlog = *backlog.get_or_insert_with(|| session.outbox.backlog());
                    let taken_at = wall_time(entry.at);
                    let target = Target::Session {
                        session: Arc::clone(session),
                        end: (backlog.taken + backlog.bytes as u64).saturating_sub(behind),
                        bytes,
                        is_taken_over: backlog.is_attached,
                        is_replayed: session.since() > taken_at,
                    };
                    let begin = taken_at.max(session.since());
                    self.writes.push(Write::new(envelope, entry.position, begin, target));
                } else {
                    self.others[index] += 1;
                }
            }
            behind += bytes as u64;
        }
    }

    /// The writes of a session that reads the log. Beyond those with spans of their own they have none.
    pub(crate) fn read(self) -> Vec<Write> {
        self.writes
    }

    /// The writes of a pass.
    pub(crate) fn passed(self) -> Vec<Write> {
        let mut writes = self.writes;
        for (entry, sessions) in self.run.iter().zip(self.others).filter(|(_, sessions)| *sessions > 0) {
            if let Content::Envelope(envelope) = &entry.content {
                let target = Target::Others { sessions };
                writes.push(Write::new(envelope, entry.position, wall_time(entry.at), target));
            }
        }
        writes
    }
}

/// The envelope with the context of the current span, if it has none and that trace is recorded.
pub(crate) fn in_current_trace(envelope: Envelope) -> Envelope {
    if envelope.trace_context().is_some() {
        return envelope;
    }
    let current = Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        let state = || Some(span.trace_state().header()).filter(|state| !state.is_empty());
        let is_recorded = span.is_valid() && span.is_sampled();
        is_recorded.then(|| {
            let (trace, id) = (span.trace_id().to_bytes(), span.span_id().to_bytes());
            TraceContext::new(trace, id, span.trace_flags().to_u8(), state().as_deref())
        })?
    });
    match current {
        Some(context) => envelope.with_trace_context(context),
        None => envelope,
    }
}

impl WriteSpans {
    /// Has writes become spans once the sockets have taken them. Never waits.
    pub(crate) fn follow(&self, mut writes: Vec<Write>) {
        if writes.is_empty() {
            return;
        }
        writes.iter_mut().for_each(Write::look);
        let mut queue = self.lock();
        let room = FOLLOWED.saturating_sub(queue.writes.len());
        queue.dropped += writes.len().saturating_sub(room) as u64;
        writes.truncate(room);
        queue.writes.append(&mut writes);
        drop(queue);
        self.wake.notify_one();
    }

    /// Makes spans of writes.
    pub(crate) async fn run(&self) {
        let mut followed = Vec::new();
        loop {
            if followed.is_empty() {
                self.wake.notified().await;
            }
            let Queue { mut writes, dropped } = mem::take(&mut *self.lock());
            if dropped > 0 {
                tracing::warn!(dropped, "more messages were traced than can be followed to their sockets");
            }
            followed.append(&mut writes);
            self.sweep(&mut followed);
            if let Some(youngest) = followed.last() {
                let pause = (youngest.noted.elapsed() / 8).clamp(SHORTEST_LOOK, LONGEST_LOOK);
                // So that what comes in bursts is looked at together.
                sleep(SHORTEST_LOOK).await;
                timeout(pause - SHORTEST_LOOK, self.wake.notified()).await.ok();
            }
        }
    }

    /// Makes spans of the writes that have ended, and leaves the others.
    fn sweep(&self, followed: &mut Vec<Write>) {
        let scope = InstrumentationScope::builder("realtime-core").with_version(env!("CARGO_PKG_VERSION"));
        let tracer = global::tracer_with_scope(scope.build());
        let mut too_many = followed.len().saturating_sub(FOLLOWED);
        followed.retain_mut(|write| {
            write.look();
            let (outcome, end) = match (write.end, &write.target) {
                (Some(end), _) => (Outcome::Written, end),
                (None, Target::Session { session, .. }) if session.has_ended() => {
                    (Outcome::Ended, SystemTime::now())
                }
                (None, _) if too_many > 0 || write.noted.elapsed() >= FOLLOWED_FOR => {
                    (Outcome::Waiting, SystemTime::now())
                }
                (None, _) => return true,
            };
            too_many = too_many.saturating_sub(1);
            let node = self.node.get().map_or("", |node| node);
            write.export(&tracer, node, outcome, end);
            false
        });
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write {
    fn new(envelope: &Arc<Envelope>, position: Option<Position>, begin: SystemTime, target: Target) -> Self {
        let envelope = Arc::clone(envelope);
        Self { envelope, position, begin, end: None, noted: Instant::now(), target }
    }

    /// Notes the time if the socket has taken it.
    fn look(&mut self) {
        let is_written = match &self.target {
            Target::Session { session, end, .. } => self.end.is_none() && session.written() >= *end,
            Target::Others { .. } => self.end.is_none(),
        };
        if is_written {
            self.end = Some(SystemTime::now());
        }
    }

    /// Makes a span of it, below that of the publish.
    fn export(&self, tracer: &impl Tracer, node: &str, outcome: Outcome, end: SystemTime) {
        let Some(context) = self.envelope.trace_context() else { return };
        let state = context.tracestate().and_then(|state| TraceState::from_str(state).ok());
        let parent = SpanContext::new(
            TraceId::from_bytes(context.trace_id()),
            SpanId::from_bytes(context.span_id()),
            TraceFlags::new(context.flags()),
            true,
            state.unwrap_or_default(),
        );
        let mut attributes = vec![
            KeyValue::new("messaging.system", "realtime"),
            KeyValue::new("messaging.operation.name", "write"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("realtime.node", node.to_owned()),
        ];
        if let Some(position) = self.position {
            attributes.push(KeyValue::new("messaging.message.id", position.to_string()));
        }
        match &self.target {
            Target::Session { session, bytes, is_taken_over, is_replayed, .. } => attributes.extend([
                KeyValue::new("realtime.session.id", session.id.to_string()),
                KeyValue::new("realtime.transport", session.transport().to_string()),
                KeyValue::new("realtime.lane", if *is_taken_over { "taken_over" } else { "body" }),
                KeyValue::new("realtime.bytes", i64::try_from(*bytes).unwrap_or(i64::MAX)),
                KeyValue::new("realtime.replayed", *is_replayed),
            ]),
            Target::Others { sessions } => {
                let sessions = i64::try_from(*sessions).unwrap_or(i64::MAX);
                attributes.push(KeyValue::new("realtime.sessions", sessions));
            }
        }
        let mut span = tracer
            .span_builder("realtime.write")
            .with_kind(SpanKind::Consumer)
            .with_start_time(self.begin)
            .with_attributes(attributes)
            .start_with_context(tracer, &Context::new().with_remote_span_context(parent));
        match outcome {
            Outcome::Written => {}
            Outcome::Ended => span.set_status(Status::error("the session has ended before")),
            Outcome::Waiting => span.set_status(Status::error("the socket has yet to take it")),
        }
        span.end_with_timestamp(end.max(self.begin));
    }
}

/// The time of day at an instant.
fn wall_time(at: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(at.elapsed()).unwrap_or(now)
}

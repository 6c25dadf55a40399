//! [`SseConnection`]: a session as an event stream.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use realtime_core::{
    CloseReason, Session,
    wire::{Begin, DirectWrite, Outbound, random_retry},
};

use super::{
    format::{self, Framing},
    greeting::Greeting,
};
use crate::{Aborted, Connection, Step};

/// A live connection.
#[derive(Debug)]
pub struct SseConnection {
    session: Session,
    stage: Stage,
    framing: Framing,
    /// Until it has been sent.
    greeting: Option<Box<Greeting>>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Nothing has been sent. The time after which the client reconnects.
    New(Duration),
    /// The first block has been sent without a cursor, since the session had not begun.
    Waiting,
    Open,
    Ended,
}

impl SseConnection {
    pub(crate) fn new(
        session: Session,
        retry: Duration,
        framing: Framing,
        greeting: Option<Box<Greeting>>,
    ) -> Self {
        Self { session, stage: Stage::New(random_retry(retry)), framing, greeting }
    }

    /// The session that it sends.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The greeting, once the session has begun.
    fn greeting(&mut self, begin: Option<Begin>) -> Option<Bytes> {
        Some(self.greeting.take_if(|_| begin.is_some())?.block(&self.session, begin?))
    }

    fn write(&self, block: Bytes) -> Poll<Step> {
        Poll::Ready(Step::Write(self.framing.frame(block)))
    }
}

impl Connection for SseConnection {
    fn poll_next(&mut self, cx: &mut Context<'_>, input: &mut &[u8]) -> Poll<Step> {
        let span = self.session.span();
        let _entered = span.enter();
        // Input of the client is discarded.
        *input = &[];
        match self.stage {
            Stage::New(retry) => {
                let begin = self.session.begin();
                self.stage = if begin.is_some() { Stage::Open } else { Stage::Waiting };
                let connected = format::connected(retry, begin.and_then(|begin| begin.cursor));
                let first = match self.greeting(begin) {
                    Some(greeting) => [connected, greeting].concat().into(),
                    None => connected,
                };
                return self.write(first);
            }
            Stage::Waiting => {
                // The cursor precedes everything that has a position. Local sends and heartbeats do not wait for it.
                if !self.session.is_within_frame()
                    && let Poll::Ready(begin) = self.session.poll_begin(cx)
                {
                    self.stage = Stage::Open;
                    let cursor = format::cursor(begin.and_then(|begin| begin.cursor));
                    let blocks = [cursor, self.greeting(begin)].map(Option::unwrap_or_default).concat();
                    // An empty chunk would end the response.
                    if !blocks.is_empty() {
                        return self.write(blocks.into());
                    }
                }
            }
            Stage::Open => {}
            Stage::Ended => return Poll::Ready(Step::End),
        }
        // The session's frames have their framing already.
        Poll::Ready(match ready!(self.session.poll_next(cx)) {
            Outbound::Bytes(bytes) => Step::Write(bytes),
            Outbound::Close(reason) => {
                self.stage = Stage::Ended;
                Step::Write(self.framing.end(format::disconnected(reason)))
            }
            Outbound::Abort(reason) => {
                self.stage = Stage::Ended;
                Step::Abort(Aborted(reason.name()))
            }
        })
    }

    /// A client that closes its side of an event stream has disconnected.
    fn closed(&mut self) {
        self.session.close(CloseReason::Gone);
        self.stage = Stage::Ended;
    }

    fn poll_aborted(&mut self, cx: &mut Context<'_>) -> Poll<Aborted> {
        self.session.poll_aborted(cx).map(|reason| Aborted(reason.name()))
    }

    fn attach(&mut self, socket: Arc<dyn DirectWrite>) {
        self.session.attach(socket);
    }

    fn flushed(&mut self) {
        if matches!(self.stage, Stage::Open) {
            self.session.open_direct();
        }
    }
}

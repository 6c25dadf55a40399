//! [`SseConnection`]: a session as an event stream.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use realtime_core::{
    CloseReason, Session,
    wire::{Outbound, random_retry},
};
use realtime_server::{Aborted, Connection, Step};

use crate::format::{self, Framing};

/// A live connection.
#[derive(Debug)]
pub(crate) struct SseConnection {
    pub(crate) session: Session,
    stage: Stage,
    framing: Framing,
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
    pub(crate) fn new(session: Session, retry: Duration, framing: Framing) -> Self {
        Self { session, stage: Stage::New(random_retry(retry)), framing }
    }

    fn write(&self, block: Bytes) -> Poll<Step> {
        Poll::Ready(Step::Write(self.framing.frame(block)))
    }
}

impl Connection for SseConnection {
    fn poll_next(&mut self, cx: &mut Context<'_>, input: &mut &[u8]) -> Poll<Step> {
        // Input of the client is discarded.
        *input = &[];
        match self.stage {
            Stage::New(retry) => {
                let begin = self.session.begin();
                self.stage = if begin.is_some() { Stage::Open } else { Stage::Waiting };
                return self.write(format::connected(retry, begin.and_then(|begin| begin.cursor)));
            }
            Stage::Waiting => {
                // The cursor precedes everything that has a position. Local sends and heartbeats do not wait for it.
                if !self.session.is_within_frame()
                    && let Poll::Ready(begin) = self.session.poll_begin(cx)
                {
                    self.stage = Stage::Open;
                    if let Some(block) = format::cursor(begin.and_then(|begin| begin.cursor)) {
                        return self.write(block);
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

    #[cfg(target_os = "linux")]
    fn attach(&mut self, socket: std::sync::Arc<realtime_server::Socket>) {
        self.session.attach(socket);
    }

    fn flushed(&mut self) {
        if matches!(self.stage, Stage::Open) {
            self.session.open_direct();
        }
    }
}

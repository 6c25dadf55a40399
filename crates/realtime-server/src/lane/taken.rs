//! [`Taken`]: a connection that runs on its socket.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use realtime_core::wire::DirectWrite;
use rustix::event::epoll::EventFlags;

use super::Socket;
use crate::{Connection, Step};

/// A connection that was taken over.
pub(super) struct Taken<C> {
    connection: C,
    socket: Arc<Socket>,
    kept: Option<Box<Kept>>,
    /// Input may be available.
    readable: bool,
    /// The client has closed its side, or the connection is broken.
    hung_up: bool,
    /// Set once the connection has received the end of the input.
    closed: bool,
}

/// State that an idle connection does not have.
#[derive(Default)]
struct Kept {
    /// Unwritten rest of the connection's output.
    output: Bytes,
    /// Received bytes that the connection has not taken.
    input: Vec<u8>,
}

/// Result of running a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Stays,
    Ends,
}

/// A [`Taken`] of any protocol.
pub(super) trait Run {
    /// Runs the connection until it waits for its socket, its client or its waker. `events` are those of its socket.
    fn run(&mut self, events: EventFlags, buffer: &mut [u8]) -> Flow;

    fn socket(&self) -> &Arc<Socket>;
}

/// Bytes that are read of one connection before others have their turn.
const READ_TURN: usize = 64 << 10;

impl<C: Connection> Taken<C> {
    pub(super) fn new(mut connection: C, socket: Arc<Socket>, ahead: &[u8]) -> Self {
        connection.attach(Arc::<Socket>::clone(&socket));
        let kept = match ahead {
            [] => None,
            ahead => {
                connection.received();
                Some(Box::new(Kept { input: ahead.to_vec(), ..Kept::default() }))
            }
        };
        // Its first event shows whether input is available.
        Self { connection, socket, kept, readable: false, hung_up: false, closed: false }
    }

    /// Writes the rest of earlier output. Returns whether the kernel has all of it.
    fn write_rest(&mut self) -> io::Result<bool> {
        let Some(kept) = &mut self.kept else { return Ok(true) };
        while !kept.output.is_empty() {
            match write(&self.socket, &kept.output)? {
                0 => return Ok(false),
                written => kept.output.advance(written),
            }
        }
        Ok(true)
    }

    /// Runs the connection; `Err` when its socket is broken.
    fn step(&mut self, buffer: &mut [u8]) -> io::Result<Flow> {
        let waker = Waker::from(Arc::clone(&self.socket));
        let mut cx = Context::from_waker(&waker);
        let before = self.kept.as_mut().map(|kept| std::mem::take(&mut kept.input)).unwrap_or_default();
        let mut input = &before[..];
        let mut read = 0;
        loop {
            if !self.write_rest()? {
                if self.hung_up {
                    // A client that has disconnected reads nothing any more.
                    self.socket.abort();
                    return Ok(Flow::Ends);
                }
                self.keep_input(input);
                return Ok(Flow::Stays);
            }
            match self.connection.poll_next(&mut cx, &mut input) {
                Poll::Ready(Step::Write(mut bytes)) => {
                    let written = write(&self.socket, &bytes)?;
                    if written < bytes.len() {
                        bytes.advance(written);
                        self.kept.get_or_insert_default().output = bytes;
                    }
                    continue;
                }
                Poll::Ready(Step::End) => {
                    self.discard_unread(buffer);
                    return Ok(Flow::Ends);
                }
                Poll::Ready(Step::Abort(_)) => {
                    self.socket.abort();
                    return Ok(Flow::Ends);
                }
                Poll::Pending => {}
            }
            self.connection.flushed();
            if self.closed {
                return Ok(Flow::Stays);
            }
            if !input.is_empty() {
                if self.hung_up {
                    self.close();
                    continue;
                }
                self.keep_input(input);
                return Ok(Flow::Stays);
            }
            self.kept = None;
            if !self.readable {
                return Ok(Flow::Stays);
            }
            if read >= READ_TURN {
                waker.wake_by_ref();
                return Ok(Flow::Stays);
            }
            input = &[];
            match self.socket.read(buffer) {
                Ok(0) => self.close(),
                Ok(len) => {
                    read += len;
                    // Edge-triggered: input behind a short read causes another event.
                    self.readable = len == buffer.len() || self.hung_up;
                    self.connection.received();
                    input = &buffer[..len];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(_) => self.close(),
            }
        }
    }

    /// Reads and discards available input: a socket that is closed with unread input is reset, and the client would lose the
    /// last frames.
    fn discard_unread(&mut self, buffer: &mut [u8]) {
        let mut read = 0;
        while self.readable && read < READ_TURN {
            match self.socket.read(buffer) {
                Ok(len @ 1..) => read += len,
                _ => self.readable = false,
            }
        }
    }

    fn close(&mut self) {
        (self.closed, self.readable) = (true, false);
        self.connection.closed();
    }

    fn keep_input(&mut self, input: &[u8]) {
        if !input.is_empty() {
            self.kept.get_or_insert_default().input = input.to_vec();
        }
    }
}

/// Writes as much as the socket takes now; 0 when it takes nothing.
fn write(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    match socket.write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}

impl<C: Connection> Run for Taken<C> {
    fn run(&mut self, events: EventFlags, buffer: &mut [u8]) -> Flow {
        let gone = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        self.hung_up |= events.intersects(gone);
        self.readable |= !self.closed && events.intersects(gone | EventFlags::IN);
        self.step(buffer).unwrap_or(Flow::Ends)
    }

    fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }
}

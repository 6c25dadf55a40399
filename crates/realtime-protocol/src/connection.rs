//! [`Connection`]: a long-lived connection as a state machine.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use realtime_core::wire::DirectWrite;

/// A long-lived connection in both directions, as a state machine without IO.
///
/// It is run by the body of a response (the *body lane*), or by the owner of a socket that was taken over from its HTTP server.
/// Both guarantee that the bytes of [`Self::poll_next`] are written in order, and that it gets all input behind the request
/// in order.
pub trait Connection: Unpin + 'static {
    /// The next step.
    ///
    /// It may take bytes off the front of `input`, the unread input of the client. It gets no more input while it leaves some.
    /// When it is pending, it wakes the task as soon as it can make progress.
    fn poll_next(&mut self, cx: &mut Context<'_>, input: &mut &[u8]) -> Poll<Step>;

    /// Records that bytes were received.
    fn received(&mut self) {}

    /// Records the end of the input: the client has closed its side, or the connection is broken.
    fn closed(&mut self);

    /// Pending until the connection is to be broken off; polled only while the response's head is being written.
    fn poll_aborted(&mut self, cx: &mut Context<'_>) -> Poll<Aborted>;

    /// Passes the socket of a connection that was taken over. It may be written to after [`Self::flushed`], until
    /// [`Self::poll_next`] returns bytes again.
    fn attach(&mut self, socket: Arc<dyn DirectWrite>);

    /// Records that the kernel has all bytes of [`Self::poll_next`]. Called only after [`Self::attach`].
    fn flushed(&mut self) {}
}

/// Next step of a [`Connection`].
#[derive(Debug)]
pub enum Step {
    /// Write these bytes.
    Write(Bytes),
    /// End in order, once everything has been written.
    End,
    /// Break the connection off at once, within a message if need be.
    Abort(Aborted),
}

/// Reason for which a connection was broken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted(pub &'static str);

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the connection was broken off: {}", self.0)
    }
}

impl std::error::Error for Aborted {}

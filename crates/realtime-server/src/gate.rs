//! [`Gate`]: limits how far the HTTP/1.1 dispatcher reads ahead.
//!
//! actix-http decodes everything that it can read: a client that pipelines requests and reads no responses makes it queue
//! them without a bound, and spin once its buffer is full. The gate passes one request at a time: a head, the body that the
//! head announces, and then nothing until the request has been answered.

use memchr::memchr;

use crate::chunks::Chunks;

/// Position of a connection between the parts of its requests.
#[derive(Debug)]
pub(crate) struct Gate {
    input: Input,
    /// The current request has been answered; the next head follows once its body is through.
    answered: bool,
    /// No further request is served.
    is_last: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// A request's head, up to the empty line that ends it.
    Head(HeadEnd),
    /// A body of a known number of bytes.
    Body(u64),
    /// A chunked body.
    Chunked(Chunks),
    /// Nothing until the request is answered.
    Hold,
    /// Nothing until the request is answered, or reads its input without an end.
    HoldRest,
    /// Everything: HTTP/2, or an upgraded connection that was not taken over.
    Open,
}

/// Body that a request's head announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announced {
    /// No body: the next request follows.
    None,
    /// A body of this number of bytes.
    Sized(u64),
    /// A chunked body.
    Chunked,
    /// All further input, since it belongs to the protocol that is upgraded to.
    Rest,
}

impl Gate {
    /// A gate before the first request of an HTTP/1.1 connection.
    pub(crate) fn closed() -> Self {
        Self { input: Input::Head(HeadEnd::default()), answered: false, is_last: false }
    }

    /// A gate that lets everything through.
    pub(crate) fn open() -> Self {
        Self { input: Input::Open, answered: false, is_last: false }
    }

    /// The number of bytes at the front of `bytes` that may pass now. They count as passed.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> usize {
        match &mut self.input {
            Input::Open => bytes.len(),
            Input::Hold | Input::HoldRest => 0,
            Input::Body(left) => {
                let passed = (*left).min(bytes.len() as u64);
                *left -= passed;
                if *left == 0 {
                    self.body_ended();
                }
                passed as usize
            }
            Input::Chunked(chunks) => match chunks.find(bytes) {
                Some(len) => {
                    self.body_ended();
                    len
                }
                None => bytes.len(),
            },
            Input::Head(end) => match end.find(bytes) {
                Some(len) => {
                    self.input = Input::Hold;
                    len
                }
                None => bytes.len(),
            },
        }
    }

    /// Returns whether no input may pass.
    pub(crate) fn is_holding(&self) -> bool {
        matches!(self.input, Input::Hold | Input::HoldRest)
    }

    /// Returns whether a new request may begin.
    pub(crate) fn is_at_head(&self) -> bool {
        matches!(self.input, Input::Head(_))
    }

    /// Returns whether the request was answered before its body has ended.
    pub(crate) fn is_answered_in_body(&self) -> bool {
        self.answered && self.is_in_body()
    }

    /// Returns whether the client has to send more of a body.
    pub(crate) fn is_in_body(&self) -> bool {
        matches!(self.input, Input::Body(_) | Input::Chunked(_))
    }

    /// Returns whether everything passes.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.input, Input::Open)
    }

    /// Records that the service got the request whose head has passed.
    pub(crate) fn asked(&mut self, body: Announced) {
        if self.is_open() {
            return;
        }
        self.answered = false;
        self.input = match body {
            Announced::None | Announced::Sized(0) => Input::Hold,
            Announced::Sized(bytes) => Input::Body(bytes),
            Announced::Chunked => Input::Chunked(Chunks::default()),
            Announced::Rest => Input::HoldRest,
        };
    }

    fn body_ended(&mut self) {
        self.input = if self.answered { self.next_request() } else { Input::Hold };
    }

    fn next_request(&self) -> Input {
        if self.is_last { Input::Hold } else { Input::Head(HeadEnd::default()) }
    }

    /// Records that the connection ends behind the current request: what follows is not served (RFC 9112, section 9.6).
    pub(crate) fn ends(&mut self) {
        self.is_last = true;
    }

    /// Records that the current request has been answered.
    pub(crate) fn answered(&mut self) {
        self.answered = true;
        match self.input {
            Input::Hold => self.input = self.next_request(),
            // The dispatcher ends the connection, and discards further input.
            Input::HoldRest => self.input = Input::Open,
            _ => {}
        }
    }

    /// Lets everything through from now on.
    pub(crate) fn let_through(&mut self) {
        self.input = Input::Open;
    }
}

/// Scanner for the empty line that ends a request's head (RFC 9112, section 2.1). Like actix-http's parser it takes a
/// bare LF as the end of a line, and skips empty lines before the request line (section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum HeadEnd {
    /// Before the request line.
    #[default]
    Start,
    /// Within a line.
    Line,
    /// Behind a LF.
    Newline,
    /// Behind a LF and a CR.
    NewlineReturn,
}

impl HeadEnd {
    /// The length of what belongs to the head, if it ends within these bytes.
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            *self = match (*self, bytes[at]) {
                (Self::Start, b'\r' | b'\n') => Self::Start,
                (Self::Newline | Self::NewlineReturn, b'\n') => return Some(at + 1),
                (Self::Newline, b'\r') => Self::NewlineReturn,
                // The rest of the line.
                (_, _) => match memchr(b'\n', &bytes[at..]) {
                    Some(rest) => {
                        at += rest;
                        Self::Newline
                    }
                    None => {
                        *self = Self::Line;
                        return None;
                    }
                },
            };
            at += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_request_passes_at_a_time() {
        let mut gate = Gate::closed();
        let both = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\n";
        let first = gate.pass(both);
        assert_eq!(&both[first..], b"GET /2 HTTP/1.1\r\n\r\n");
        assert_eq!(gate.pass(&both[first..]), 0);
        gate.asked(Announced::None);
        assert_eq!(gate.pass(&both[first..]), 0);
        gate.answered();
        assert_eq!(gate.pass(&both[first..]), both.len() - first);
    }

    #[test]
    fn a_body_passes_and_what_follows_it_waits_for_the_answer() {
        for answered_first in [false, true] {
            let mut gate = Gate::closed();
            gate.pass(b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n");
            gate.asked(Announced::Sized(5));
            assert_eq!(gate.pass(b"12"), 2);
            if answered_first {
                gate.answered();
            }
            assert_eq!(gate.pass(b"345GET"), 3);
            assert_eq!(gate.is_at_head(), answered_first);
            gate.answered();
            assert!(gate.is_at_head());
        }
    }

    #[test]
    fn a_chunked_body_passes_and_what_follows_it_waits_for_the_answer() {
        for answered_first in [false, true] {
            let mut gate = Gate::closed();
            gate.pass(b"POST / HTTP/1.1\r\n\r\n");
            gate.asked(Announced::Chunked);
            assert_eq!(gate.pass(b"1\r\nx\r\n0\r"), 8);
            if answered_first {
                gate.answered();
            }
            assert_eq!(gate.pass(b"\n\r\nGET"), 3);
            assert_eq!(gate.is_at_head(), answered_first);
            gate.answered();
            assert!(gate.is_at_head());
        }
    }

    #[test]
    fn nothing_passes_behind_the_last_request() {
        for body in [Announced::None, Announced::Sized(2), Announced::Chunked] {
            for answered_first in [false, true] {
                let mut gate = Gate::closed();
                gate.pass(b"POST / HTTP/1.1\r\n\r\n");
                gate.asked(body);
                gate.ends();
                if answered_first {
                    gate.answered();
                }
                let (body, rest): (&[u8], _) = match body {
                    Announced::Chunked => (b"0\r\n\r\n", b"GET"),
                    Announced::Sized(_) => (b"12", b"GET"),
                    _ => (b"", b"GET"),
                };
                assert_eq!(gate.pass(&[body, rest].concat()), body.len());
                gate.answered();
                assert!(gate.is_holding());
                assert_eq!(gate.pass(rest), 0);
            }
        }
    }

    #[test]
    fn what_follows_an_upgrade_waits_until_it_is_asked_for_or_refused() {
        let frame = b"\x81\x80GET / HTTP/1.1\r\n\r\nGET";
        for refused in [false, true] {
            let mut gate = Gate::closed();
            gate.pass(b"GET / HTTP/1.1\r\nupgrade: websocket\r\n\r\n");
            gate.asked(Announced::Rest);
            assert!(gate.is_holding());
            assert_eq!(gate.pass(frame), 0);
            if refused {
                gate.answered()
            } else {
                gate.let_through()
            }
            assert_eq!(gate.pass(frame), frame.len());
        }
    }

    proptest! {
        #[test]
        fn a_head_ends_at_the_same_byte_however_it_is_cut(
            lines in prop::collection::vec("[a-z: \r]{1,8}", 1..5),
            crlf in prop::collection::vec(any::<bool>(), 6),
            piece in 1..40_usize,
        ) {
            let mut head: Vec<u8> = b"\r\n".to_vec();
            for (line, crlf) in lines.iter().map(|line| format!("x{line}x")).zip(&crlf) {
                head.extend(line.as_bytes());
                head.extend(if *crlf { &b"\r\n"[..] } else { b"\n" });
            }
            head.extend(if crlf[5] { &b"\r\n"[..] } else { b"\n" });
            let mut bytes = head.clone();
            bytes.extend(b"GET /next");
            let mut gate = Gate::closed();
            let passed: usize = bytes.chunks(piece).map(|piece| gate.pass(piece)).sum();
            prop_assert_eq!(passed, head.len());
        }
    }
}

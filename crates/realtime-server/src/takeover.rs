//! [`Takeover`]: a claim on the socket of a request's connection.

use std::fmt;

use actix_web::HttpRequest;
#[cfg(target_os = "linux")]
use actix_web::http::{Method, Version};

use crate::io::Shared;

/// Claim on the socket of a request's connection, which leaves the HTTP dispatcher once the response's head has been
/// written.
///
/// Dropping it, or the response that it is part of, withdraws the claim, and the dispatcher keeps the connection.
pub struct Takeover {
    shared: Shared,
}

impl Takeover {
    /// Claims the socket of a request's connection.
    ///
    /// `None` where it cannot be taken over: on a server that is not [`crate::HttpServer`], over TLS, HTTP/2 and
    /// HTTP/1.0, for HEAD, whose response has no body, on other systems than Linux, and while part of the request has
    /// yet to be read.
    pub fn claim(request: &HttpRequest) -> Option<Self> {
        #[cfg(target_os = "linux")]
        if request.version() == Version::HTTP_11 && request.method() != Method::HEAD {
            let shared = request.conn_data::<Shared>()?;
            return shared.claim().then(|| Self { shared: shared.clone() });
        }
        let _ = request;
        None
    }
}

impl Drop for Takeover {
    fn drop(&mut self) {
        self.shared.unclaim();
    }
}

impl fmt::Debug for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Takeover").finish_non_exhaustive()
    }
}

#[cfg(target_os = "linux")]
pub(crate) use linux::{Leaving, Left};

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        cell::RefCell,
        rc::Rc,
        task::{Context, Poll},
    };

    use actix_rt::net::TcpStream;

    use super::Takeover;
    use crate::{
        Aborted, Connection, Step,
        io::{Arm, Leave},
        lane,
    };

    /// A connection whose response's head has yet to be written.
    pub(crate) struct Leaving<C> {
        takeover: Takeover,
        waiting: Waiting<C>,
        armed: bool,
    }

    /// A connection that waits for its socket; empty once it has left.
    struct Waiting<C> {
        connection: Rc<RefCell<Option<C>>>,
        framed: bool,
    }

    /// Result of [`Leaving::poll`].
    pub(crate) enum Left<C> {
        /// The next step of the body, whose connection has left or is broken off.
        Step(Step),
        /// The body runs the connection.
        Stays(C),
    }

    impl Takeover {
        /// Has `connection` taken over to the worker's sockets. One that is not `framed` leaves behind an upgrade only.
        pub(crate) fn leave<C: Connection>(self, connection: C, framed: bool) -> Leaving<C> {
            let connection = Rc::new(RefCell::new(Some(connection)));
            self.shared.wait(Box::new(Waiting { connection: Rc::clone(&connection), framed }));
            let waiting = Waiting { connection, framed };
            Leaving { takeover: self, waiting, armed: false }
        }
    }

    impl<C: Connection> Leaving<C> {
        /// The dispatcher polls the body when the head is in its buffer, and flushes behind that.
        pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Left<C>> {
            if !self.armed {
                match self.takeover.shared.arm() {
                    Arm::NotYet => {}
                    Arm::Armed => self.armed = true,
                    Arm::Withdrawn => {
                        let connection = self.waiting.connection.borrow_mut().take();
                        return Poll::Ready(connection.map_or(Left::Step(Step::End), Left::Stays));
                    }
                }
            }
            if self.waiting.connection.borrow().is_none() {
                return Poll::Ready(Left::Step(Step::End));
            }
            self.waiting.poll_aborted(cx).map(|aborted| {
                self.takeover.shared.reset();
                Left::Step(Step::Abort(aborted))
            })
        }

        /// Runs `f` on the connection, unless it has left.
        pub(crate) fn with_connection<T>(&self, f: impl FnOnce(&C) -> T) -> Option<T> {
            self.waiting.connection.borrow().as_ref().map(f)
        }
    }

    impl<C: Connection> Leave for Waiting<C> {
        fn take(self: Box<Self>, tcp: TcpStream, ahead: &[u8]) {
            let connection = self.connection.borrow_mut().take();
            if let Some(connection) = connection {
                lane::adopt(tcp, ahead, connection);
            }
        }

        fn closed(&self) {
            if let Some(connection) = &mut *self.connection.borrow_mut() {
                connection.closed();
            }
        }

        fn poll_aborted(&self, cx: &mut Context<'_>) -> Poll<Aborted> {
            match &mut *self.connection.borrow_mut() {
                Some(connection) => connection.poll_aborted(cx),
                None => Poll::Pending,
            }
        }

        fn is_framed(&self) -> bool {
            self.framed
        }
    }
}

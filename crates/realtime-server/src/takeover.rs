//! [`Takeover`]: a claim on the socket of a request's connection.

use std::fmt;

use actix_web::HttpRequest;

use crate::io::Shared;

/// Claim on the socket of a request's connection, which leaves the HTTP dispatcher once the response's head has been
/// written.
///
/// Dropping it, or the response that it is part of, gives the claim back: the connection goes on as any other.
pub struct Takeover {
    shared: Shared,
}

impl Takeover {
    /// Claims the socket of a request's connection.
    ///
    /// `None` where it cannot be taken over: on a server that is not [`crate::HttpServer`], over TLS, HTTP/2 and
    /// HTTP/1.0, on other systems than Linux, and while part of the request has yet to be read.
    pub fn claim(request: &HttpRequest) -> Option<Self> {
        #[cfg(target_os = "linux")]
        if request.version() == actix_web::http::Version::HTTP_11 {
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
pub(crate) use linux::Leaving;

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        cell::RefCell,
        rc::Rc,
        task::{Context, Poll},
    };

    use super::Takeover;
    use crate::{Connection, Step, lane};

    /// A connection whose response's head has yet to be written.
    pub(crate) struct Leaving<C> {
        takeover: Takeover,
        /// Empty once the connection has left.
        connection: Rc<RefCell<Option<C>>>,
        armed: bool,
    }

    impl Takeover {
        /// Has `connection` taken over to the worker's sockets.
        pub(crate) fn leave<C: Connection>(self, connection: C) -> Leaving<C> {
            Leaving { takeover: self, connection: Rc::new(RefCell::new(Some(connection))), armed: false }
        }
    }

    impl<C: Connection> Leaving<C> {
        /// The dispatcher polls the body when the head is in its buffer, and flushes behind that.
        pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
            if !self.armed {
                self.armed = true;
                let leaving = Rc::clone(&self.connection);
                self.takeover.shared.arm(Box::new(move |tcp, ahead| {
                    if let Some(connection) = leaving.borrow_mut().take() {
                        lane::adopt(tcp, &ahead, connection);
                    }
                }));
            }
            match self.connection.borrow_mut().as_mut() {
                None => Poll::Ready(Step::End),
                Some(connection) => connection.poll_aborted(cx).map(|aborted| {
                    self.takeover.shared.reset();
                    Step::Abort(aborted)
                }),
            }
        }
    }
}

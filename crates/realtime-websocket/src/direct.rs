//! [`direct`]: the hook by which WebSockets write straight to their sockets, past actix's dispatcher.
//!
//! # When is the first direct write safe?
//!
//! The dispatcher has a buffer of its own, and nothing tells whether it is empty: the response's head, or an answer to
//! an earlier pipelined request, may still be in it when the body is first polled, and may stay there for as long as
//! the socket takes nothing. A direct write would overtake it. So the client is asked. When the body has handed out
//! all that there was, it adds a Ping with a number (RFC 6455, section 5.5.2). When the Pong with that number comes
//! back (section 5.5.3), everything up to the Ping has left the buffer, for the client has it; and when the body has
//! handed out nothing since, the buffer is empty. It stays so for as long as the body hands out nothing, and it does
//! not while the lane is open. A client that sends a Pong it was not asked for spoils its own stream and no other.
//!
//! After a write that the socket did not take whole, the rest goes through the body again, with the next Ping behind
//! it.

use std::any::Any;

use actix_web::{HttpRequest, dev::Extensions, http::Version};
use realtime_core::DirectWrite;

/// Lets the WebSockets of a server write straight to their sockets; give it to `HttpServer::on_connect`.
///
/// ```no_run
/// # use actix_web::{App, HttpServer};
/// # fn server() -> std::io::Result<actix_web::dev::Server> {
/// let server = HttpServer::new(App::new).on_connect(realtime_websocket::direct).bind(("127.0.0.1", 8080))?;
/// # Ok(server.run())
/// # }
/// ```
///
/// It duplicates the socket of each connection, so a connection has two descriptors: raise `ulimit -n` accordingly.
/// Only WebSockets over plain HTTP/1.1 use the second one, and only on Linux; everything else, TLS and HTTP/2 included,
/// goes through the response body as without it. What it saves is the way through actix's dispatcher for every
/// message to every client. The second descriptor also breaks the connections of slow consumers off at once.
///
/// Middleware must not hold bytes of the WebSocket's response back or change them, which none should anyway.
pub fn direct(connection: &dyn Any, data: &mut Extensions) {
    #[cfg(target_os = "linux")]
    linux::keep(connection, data);
    #[cfg(not(target_os = "linux"))]
    let _ = (connection, data);
}

/// The way past the body that [`direct`] has kept for a request's connection. Each is given once.
pub(crate) fn take(request: &HttpRequest) -> Option<Box<dyn DirectWrite>> {
    // Over HTTP/2 many requests share the socket.
    if request.version() != Version::HTTP_11 {
        return None;
    }
    #[cfg(target_os = "linux")]
    return linux::take(request);
    #[cfg(not(target_os = "linux"))]
    return None;
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        any::Any,
        io,
        os::fd::{AsFd, OwnedFd},
        sync::{Mutex, PoisonError},
    };

    use actix_web::{HttpRequest, dev::Extensions, rt::net::TcpStream};
    use realtime_core::DirectWrite;
    use rustix::net::{SendFlags, Shutdown, send, shutdown, sockopt::set_socket_linger};

    /// A connection's second descriptor, until somebody takes it.
    struct Kept(Mutex<Option<OwnedFd>>);

    pub(super) fn keep(connection: &dyn Any, data: &mut Extensions) {
        let Some(tcp) = connection.downcast_ref::<TcpStream>() else {
            return;
        };
        match tcp.as_fd().try_clone_to_owned() {
            Ok(socket) => {
                data.insert(Kept(Mutex::new(Some(socket))));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection gets no direct lane: its socket has no duplicate")
            }
        }
    }

    pub(super) fn take(request: &HttpRequest) -> Option<Box<dyn DirectWrite>> {
        let kept = request.conn_data::<Kept>()?;
        let socket = kept.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Box::new(Socket(socket)))
    }

    #[derive(Debug)]
    struct Socket(OwnedFd);

    impl DirectWrite for Socket {
        fn write(&self, bytes: &[u8]) -> io::Result<usize> {
            Ok(send(&self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
        }

        fn abort(&self) {
            // With no time to linger the kernel drops what it still holds when the dispatcher closes the socket, and
            // the shutdown makes the dispatcher do that now.
            let done = set_socket_linger(&self.0, Some(std::time::Duration::ZERO))
                .and_then(|()| shutdown(&self.0, Shutdown::Both));
            if let Err(error) = done {
                tracing::debug!(%error, "a stalled connection had ended already");
            }
        }
    }
}

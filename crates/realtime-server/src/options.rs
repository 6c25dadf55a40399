//! [`socket_options`]: what each connection's socket is set to, on any server of actix.

#[cfg(target_os = "linux")]
use std::net::TcpListener;
use std::{any::Any, io, time::Duration};

use actix_rt::net::TcpStream;
use actix_web::dev::Extensions;
use socket2::SockRef;

use crate::{conform::Ended, io::Shared};

/// Bytes that the kernel holds unsent before a socket counts as full.
///
/// Less than Linux's default of several MiB, so that a reader that is slow but steady makes progress that the server
/// can see, and that a stalled one costs little memory.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 4 << 10;

/// The longest `TCP_USER_TIMEOUT` that Linux takes, in whole days: it is a number of milliseconds of 31 bits.
#[cfg(target_os = "linux")]
const LONGEST: Duration = Duration::from_secs(24 * 24 * 60 * 60);

/// Callback for `on_connect` of actix-web's `HttpServer`: it sets the options of a connection's socket for pushing.
///
/// - `TCP_NODELAY`: a message leaves at once, without waiting until the client has confirmed the one before.
/// - Linux: `TCP_NOTSENT_LOWAT` bounds what the kernel holds unsent of a connection to some KiB.
/// - Linux: `TCP_USER_TIMEOUT` has the kernel break a connection off whose client takes nothing for `max_stall`
///   (`outbox.maxStall`), and throw away what it still holds for it.
///
/// On actix-web's server it also lets [`conform`](crate::conform) know which requests are those of one connection.
///
/// Connections of this crate's server have all three from their listener. There this sets the third alone, for the
/// connections for which it is called.
///
/// ```no_run
/// # use std::time::Duration;
/// # use actix_web::{App, HttpServer};
/// # fn server() -> std::io::Result<actix_web::dev::Server> {
/// let options = realtime_server::socket_options(Duration::from_secs(10));
/// let server = HttpServer::new(App::new).on_connect(options).bind(("127.0.0.1", 8080))?;
/// # Ok(server.run())
/// # }
/// ```
pub fn socket_options(max_stall: Duration) -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync + Clone {
    move |connection, data| {
        // What the listener of this crate's server passes on.
        let inherited = cfg!(target_os = "linux") && data.contains::<Shared>();
        if !data.contains::<Shared>() {
            data.insert(Ended::default());
        }
        if let Some(tcp) = tcp_of(connection)
            && let Err(error) = set_options(tcp, max_stall, inherited)
        {
            tracing::debug!(%error, "failed to set the options of a socket");
        }
    }
}

/// Sets on a listener what its connections inherit, so that it costs none of them a system call.
#[cfg(target_os = "linux")]
pub(crate) fn set_for_listener(listener: &TcpListener, max_stall: Duration) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_user_timeout(Some(max_stall.min(LONGEST)))
}

fn tcp_of(connection: &dyn Any) -> Option<&TcpStream> {
    if let Some(tcp) = connection.downcast_ref::<TcpStream>() {
        return Some(tcp);
    }
    #[cfg(feature = "rustls-0_23")]
    if let Some(tls) = connection.downcast_ref::<actix_tls::accept::rustls_0_23::TlsStream<TcpStream>>() {
        return Some(tls.get_ref().0);
    }
    None
}

fn set_options(tcp: &TcpStream, max_stall: Duration, inherited: bool) -> io::Result<()> {
    if !inherited {
        tcp.set_nodelay(true)?;
    }
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(tcp);
        socket.set_tcp_user_timeout(Some(max_stall.min(LONGEST)))?;
        if !inherited {
            socket.set_tcp_notsent_lowat(UNSENT)?;
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = max_stall;
    Ok(())
}

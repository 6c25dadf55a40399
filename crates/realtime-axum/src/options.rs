//! [`socket_options`]: what each connection's socket is set to.

use std::{io, time::Duration};

#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::net::TcpStream;

/// Bytes that the kernel holds unsent before a socket counts as full.
///
/// Less than Linux's default of several MiB, so that a reader that is slow but steady makes progress that the server
/// can see, and that a stalled one costs little memory.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 4 << 10;

/// The longest `TCP_USER_TIMEOUT` that Linux takes, in whole days: it is a number of milliseconds of 31 bits.
#[cfg(target_os = "linux")]
const LONGEST: Duration = Duration::from_secs(24 * 24 * 60 * 60);

/// Sets the options of a connection's socket for pushing, for `ListenerExt::tap_io`.
///
/// - `TCP_NODELAY`: a message leaves at once, without waiting until the client has confirmed the one before.
/// - Linux: `TCP_NOTSENT_LOWAT` bounds what the kernel holds unsent of a connection to some KiB.
/// - Linux: `TCP_USER_TIMEOUT` has the kernel break a connection off whose client takes nothing for `max_stall`
///   (`outbox.maxStall`), and throw away what it still holds for it.
pub fn socket_options(tcp: &TcpStream, max_stall: Duration) {
    if let Err(error) = set(tcp, max_stall) {
        tracing::debug!(%error, "failed to set the options of a socket");
    }
}

fn set(tcp: &TcpStream, max_stall: Duration) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(tcp);
        socket.set_tcp_notsent_lowat(UNSENT)?;
        socket.set_tcp_user_timeout(Some(max_stall.min(LONGEST)))?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = max_stall;
    Ok(())
}

//! One visit of a client, in one of the ways in which clients come and go.

use std::time::Duration;

use anyhow::{Context, ensure};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use crate::{audit::rng::Rng, churn::site::Site, head::Head};

/// The way in which a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// With a Close frame, or the end of its side, and it waits for the answer.
    Orderly,
    /// It closes its socket.
    Drop,
    /// Its socket is reset.
    Reset,
}

/// Time limit of everything that the server has to do.
const LIMIT: Duration = Duration::from_secs(20);
/// A Close frame with the code 1000 and a mask of zeros.
const CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8];
/// A text frame, `hello`, which is echoed.
const HELLO: [u8; 11] = [0x81, 0x85, 0, 0, 0, 0, b'h', b'e', b'l', b'l', b'o'];

/// Connects, stays for up to two seconds and leaves.
///
/// # Errors
/// If the server does not answer, or not as it should.
pub(super) async fn visit(site: &Site, random: &mut Rng) -> anyhow::Result<()> {
    let mut socket = timeout(LIMIT, TcpStream::connect(site.address)).await.context("no connection")??;
    let websocket = random.one_in(2);
    let leave = [Leave::Orderly, Leave::Drop, Leave::Reset][random.index(3)];
    let request = request(site, websocket, random)?;
    // Some leave within their request, or before its answer.
    if random.one_in(12) {
        socket.write_all(&request.as_bytes()[..random.index(request.len())]).await?;
        return finish(socket, leave);
    }
    socket.write_all(request.as_bytes()).await?;
    if random.one_in(12) {
        return finish(socket, leave);
    }
    let status = timeout(LIMIT, status(&mut socket)).await.context("no answer")??;
    ensure!(status == if websocket { 101 } else { 200 }, "status {status}");
    if websocket && random.one_in(2) {
        socket.write_all(&HELLO).await?;
    }
    let stay = Instant::now() + random.millis(0..2000);
    let mut buffer = vec![0; 16 << 10];
    // Some read nothing, and a kick ends the stay of others.
    let reads = !random.one_in(10);
    loop {
        match timeout_at(stay, async {
            if reads { socket.read(&mut buffer).await } else { std::future::pending().await }
        })
        .await
        {
            Ok(Ok(1..)) => {}
            Ok(_) => return Ok(()),
            Err(_) => break,
        }
    }
    if leave == Leave::Orderly {
        if websocket {
            socket.write_all(&CLOSE).await?;
        } else {
            socket.shutdown().await?;
        }
        timeout(LIMIT, async { while matches!(socket.read(&mut buffer).await, Ok(1..)) {} })
            .await
            .context("no end")?;
    }
    finish(socket, leave)
}

fn request(site: &Site, websocket: bool, random: &mut Rng) -> anyhow::Result<String> {
    let token = site.token(random)?;
    // A cursor of another history, as after a restart.
    let cursor = if random.one_in(4) { "&cursor=1.1" } else { "" };
    let query = format!("Authorization={token}{cursor}");
    Ok(if websocket {
        let protocol = if random.one_in(2) { "Sec-WebSocket-Protocol: realtime.v1\r\n" } else { "" };
        format!(
            "GET /resource/websocket?{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
        )
    } else {
        format!("GET /resource/sse?{query} HTTP/1.1\r\nHost: x\r\n\r\n")
    })
}

async fn status(socket: &mut TcpStream) -> anyhow::Result<u16> {
    let mut bytes = Vec::new();
    loop {
        if let Some((head, _)) = Head::first(&bytes)? {
            return Ok(head.status);
        }
        ensure!(socket.read_buf(&mut bytes).await? > 0, "the end instead of an answer");
    }
}

fn finish(socket: TcpStream, leave: Leave) -> anyhow::Result<()> {
    if leave == Leave::Reset {
        SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    }
    drop(socket);
    Ok(())
}

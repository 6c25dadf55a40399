//! One visit of a client, in one of the ways in which clients come and go.

use std::{sync::atomic::Ordering, time::Duration};

use anyhow::{Context, bail, ensure};
use memchr::memmem;
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
    let answer = timeout(LIMIT, answer(&mut socket, websocket)).await.context("no answer")??;
    if let Answer::Refused(why) = answer {
        site.refused.fetch_add(1, Ordering::Relaxed);
        bail!("refused: {why}");
    }
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

/// The server's answer to a handshake.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Accepted,
    Refused(String),
}

/// Reads the answer: the head, and of an event stream the first line that is a comment, since one that is refused has the
/// status 200 as well.
async fn answer(socket: &mut TcpStream, websocket: bool) -> anyhow::Result<Answer> {
    let mut bytes = Vec::new();
    loop {
        if let Some((head, begin)) = Head::first(&bytes)? {
            match (websocket, head.status) {
                (true, 101) => return Ok(Answer::Accepted),
                (false, 200) if contains(&bytes[begin..], b":connected") => return Ok(Answer::Accepted),
                (false, 200) if contains(&bytes[begin..], b":disconnected") => {
                    return Ok(Answer::Refused("no room".into()));
                }
                (false, 200) => {}
                (_, status) => return Ok(Answer::Refused(format!("status {status}"))),
            }
        }
        ensure!(socket.read_buf(&mut bytes).await? > 0, "the end instead of an answer");
    }
}

fn contains(bytes: &[u8], comment: &[u8]) -> bool {
    memmem::find(bytes, comment).is_some()
}

fn finish(socket: TcpStream, leave: Leave) -> anyhow::Result<()> {
    if leave == Leave::Reset {
        SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    }
    drop(socket);
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_event_stream_without_room_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for (text, websocket, accepted) in [
            ("HTTP/1.1 200 OK\r\n\r\nretry:3000\n:connected\n\n", false, true),
            ("HTTP/1.1 200 OK\r\n\r\nretry:3000\n:disconnected\n\n", false, false),
            ("HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", false, false),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", true, true),
            ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", true, false),
        ] {
            let mut socket = TcpStream::connect(address).await.unwrap();
            let mut server = listener.accept().await.unwrap().0;
            server.write_all(text.as_bytes()).await.unwrap();
            let answer = answer(&mut socket, websocket).await.unwrap();
            assert_eq!(answer == Answer::Accepted, accepted, "{text}: {answer:?}");
        }
    }
}

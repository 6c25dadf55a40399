//! [`Connection`]: one connection to a node, from the request to its end.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{ServerEvent, sse::EventStream, ws::WebSocket};
use crate::{
    audit::history::{Cursor, End, Transport},
    chunked::Chunked,
    head::{Body, Head, WEBSOCKET_ACCEPT, WEBSOCKET_KEY},
};

/// Time limit for connecting, and for the response head.
pub(crate) const DIAL_LIMIT: Duration = Duration::from_secs(3);

/// The receive buffer of a client that reads slowly, so that the server notices.
const SMALL_BUFFER: u32 = 4096;

/// One connection to a node.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    protocol: Protocol,
    /// Body bytes received together with the head.
    first: Vec<u8>,
    /// Bytes still to be sent.
    answers: Vec<u8>,
}

#[derive(Debug)]
enum Protocol {
    Sse { body: Transfer, stream: EventStream },
    WebSocket(WebSocket),
}

#[derive(Debug)]
enum Transfer {
    Chunked(Chunked),
    Left(u64),
    UntilClose,
}

/// Parameters of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Request<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) token: &'a str,
    pub(crate) cursor: Option<Cursor>,
    pub(crate) small_buffer: bool,
}

impl Connection {
    /// Dials and shakes hands.
    pub(crate) async fn open(request: &Request<'_>) -> Result<Self, End> {
        let mut socket = match timeout(DIAL_LIMIT, dial(request)).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(_)) => return Err(End::Unreached),
            Err(_) => return Err(End::Silent),
        };
        let ask = async {
            socket.write_all(head(request).as_bytes()).await.map_err(|_| End::Broken)?;
            let mut bytes = Vec::new();
            loop {
                if let Some((head, length)) = Head::first(&bytes).map_err(|_| End::Broken)? {
                    return Ok((head, bytes.split_off(length)));
                }
                if socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                    return Err(End::Broken);
                }
            }
        };
        let (head, first) = timeout(DIAL_LIMIT, ask).await.unwrap_or(Err(End::Silent))?;
        let protocol = match request.transport {
            Transport::WebSocket
                if head.status == 101 && head.accept.as_deref() == Some(WEBSOCKET_ACCEPT) =>
            {
                Protocol::WebSocket(WebSocket::default())
            }
            Transport::Sse
                if head.status == 200
                    && head
                        .content_type
                        .as_deref()
                        .is_some_and(|kind| kind.starts_with("text/event-stream")) =>
            {
                let body = match head.body {
                    Body::Chunked => Transfer::Chunked(Chunked::default()),
                    Body::Length(length) => Transfer::Left(length),
                    Body::UntilClose => Transfer::UntilClose,
                };
                Protocol::Sse { body, stream: EventStream::default() }
            }
            _ => return Err(if head.status == 503 { End::Later } else { End::Refused(head.status) }),
        };
        Ok(Self { socket, protocol, first, answers: Vec::new() })
    }

    /// Reads at most `most` bytes and parses them; `Err` is the end, after the events that precede it.
    ///
    /// Cancel safe: it awaits only before it consumes any bytes.
    pub(crate) async fn read(&mut self, most: usize, events: &mut Vec<ServerEvent>) -> Result<usize, End> {
        let mut bytes = std::mem::take(&mut self.first);
        if bytes.is_empty() {
            let mut buffer = vec![0; most];
            match self.socket.read(&mut buffer).await {
                Ok(0) => return Err(self.end()),
                Ok(length) => {
                    buffer.truncate(length);
                    bytes = buffer;
                }
                Err(_) => return Err(End::Broken),
            }
        }
        let length = bytes.len();
        match &mut self.protocol {
            Protocol::WebSocket(socket) => {
                socket.feed(&bytes, events, &mut self.answers);
                // Without waiting: what the socket does not take goes with the next answer.
                if let Ok(written) = self.socket.try_write(&self.answers) {
                    self.answers.drain(..written);
                }
            }
            Protocol::Sse { body, stream } => {
                let data = match body {
                    Transfer::Chunked(chunked) => match chunked.decode(&mut bytes) {
                        Ok((data, _)) => data,
                        Err(error) => {
                            events.push(ServerEvent::Malformed(error.to_string()));
                            return Err(End::Broken);
                        }
                    },
                    Transfer::Left(left) => {
                        let data = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                        *left -= data as u64;
                        data
                    }
                    Transfer::UntilClose => bytes.len(),
                };
                stream.feed(&bytes[..data], events);
                if body.ended() {
                    return Err(End::Ended);
                }
            }
        }
        Ok(length)
    }

    /// Resets the connection.
    pub(crate) fn abort(self) {
        // A reset, as from a machine that has gone, instead of an orderly FIN.
        socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).ok();
    }

    fn end(&self) -> End {
        match &self.protocol {
            Protocol::Sse { body, .. } if body.ended() => End::Ended,
            _ => End::Broken,
        }
    }
}

impl Transfer {
    fn ended(&self) -> bool {
        match self {
            Self::Chunked(chunked) => chunked.ended(),
            Self::Left(left) => *left == 0,
            Self::UntilClose => false,
        }
    }
}

async fn dial(request: &Request<'_>) -> std::io::Result<TcpStream> {
    let socket = if request.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if request.small_buffer {
        socket.set_recv_buffer_size(SMALL_BUFFER)?;
    }
    let socket = socket.connect(request.address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn head(request: &Request<'_>) -> String {
    let Request { address, transport, token, cursor, .. } = request;
    match transport {
        Transport::Sse => {
            let cursor = cursor.map(|cursor| format!("Last-Event-ID: {cursor}\r\n")).unwrap_or_default();
            format!(
                "GET /resource/sse?Authorization={token} HTTP/1.1\r\nHost: {address}\r\n\
                 Accept: text/event-stream\r\n{cursor}\r\n"
            )
        }
        Transport::WebSocket => {
            let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            format!(
                "GET /resource/websocket?Authorization={token}{cursor} HTTP/1.1\r\nHost: {address}\r\n\
                 Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: {WEBSOCKET_KEY}\r\nSec-WebSocket-Protocol: realtime.v1\r\n\r\n"
            )
        }
    }
}

//! [`Connection`]: one client, as small as it can be.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send, sockopt},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    chunked::Chunked,
    event::Event,
    frame::{self, Frame},
    head::{Body, Head, WEBSOCKET_ACCEPT},
    target::Transport,
};

/// One client. Its memory is this and, between two reads, the part of a frame that has been cut.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    transport: Transport,
    stage: Stage,
    chunked: Option<Chunked>,
    leftover: Vec<u8>,
    /// When it was begun.
    pub(crate) started: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Asked,
    Open,
}

/// What a read has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// The server has said yes.
    Opened,
    Message(&'a [u8]),
    /// The server says that messages may be missing.
    Gap,
}

/// What is read at once, at most.
pub(crate) const READ: usize = 128 * 1024;

/// How many connections share a source address. The kernel has about 28,000 ports for each.
const PORTS: usize = 20_000;

impl Connection {
    /// Begins to connect; `number` chooses the source address.
    pub(crate) fn begin(
        address: SocketAddr,
        transport: Transport,
        number: usize,
        started: u64,
    ) -> anyhow::Result<Self> {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        // A load that ends leaves no sockets in TIME-WAIT behind, which would use up the ports.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_tcp_nodelay(true)?;
        let source = number / PORTS;
        if source > 0
            && let IpAddr::V4(ip) = address.ip()
            && ip.is_loopback()
        {
            let source = u32::from(Ipv4Addr::LOCALHOST) + u32::try_from(source)?;
            let source = SocketAddr::from((Ipv4Addr::from(source), 0));
            socket.bind(&source.into()).with_context(|| format!("failed to bind {}", source.ip()))?;
        }
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error.into()),
        }
        let stage = Stage::Connecting;
        Ok(Self { socket, transport, stage, chunked: None, leftover: Vec::new(), started })
    }

    /// Whether the server has said yes.
    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether it waits for the socket to be connected, and [`Self::ask`] is next.
    pub(crate) fn is_connecting(&self) -> bool {
        self.stage == Stage::Connecting
    }

    /// Sends the request, once the socket is connected.
    pub(crate) fn ask(&mut self, request: &[u8]) -> anyhow::Result<()> {
        sockopt::socket_error(&self.socket)??;
        self.send(request)?;
        self.stage = Stage::Asked;
        Ok(())
    }

    /// Sends a text frame.
    pub(crate) fn say(&self, text: &[u8]) -> anyhow::Result<()> {
        self.send(&frame::masked_text(text))
    }

    /// Reads once and calls back for what is complete. `buffer` is shared by all connections of a thread.
    ///
    /// # Errors
    /// When the connection has ended, for whatever reason.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut Vec<u8>,
        joined: &mut Vec<u8>,
        mut incoming: impl FnMut(Incoming<'_>),
    ) -> anyhow::Result<()> {
        // What was left over goes in front of what comes, so that frames are always read where they lie.
        let kept = self.leftover.len();
        if buffer.len() < kept + READ {
            buffer.resize(kept + READ, 0);
        }
        buffer[..kept].copy_from_slice(&self.leftover);
        let length = match recv(&self.socket, &mut buffer[kept..], RecvFlags::empty()) {
            Ok((_, 0)) => bail!("closed by the server"),
            Ok((_, length)) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (mut begin, mut fresh, mut end) = (0, kept, kept + length);
        if self.stage != Stage::Open {
            match Head::first(&buffer[..end])? {
                None => {
                    self.keep(&buffer[..end]);
                    return Ok(());
                }
                Some((head, length)) => {
                    self.accept(&head, &buffer[length..end])?;
                    (begin, fresh) = (length, length);
                    incoming(Incoming::Opened);
                }
            }
        }
        if let Some(chunked) = &mut self.chunked {
            let (length, _) = chunked.decode(&mut buffer[fresh..end])?;
            end = fresh + length;
        }
        loop {
            let bytes = &buffer[begin..end];
            let length = match self.transport {
                Transport::WebSocket => match Frame::first(bytes)? {
                    None => break,
                    Some((frame, length)) => {
                        match frame {
                            Frame::Message(text) => incoming(Incoming::Message(text)),
                            Frame::Ping(payload) => self.send(&frame::masked_pong(payload))?,
                            Frame::Pong => {}
                            Frame::Close(Some(code)) => bail!("closed by the server with code {code}"),
                            Frame::Close(None) => bail!("closed by the server without a code"),
                        }
                        length
                    }
                },
                Transport::Sse => match Event::first(bytes, joined) {
                    None => break,
                    Some((event, length)) => {
                        match event.data {
                            Some(_) if event.name == b"gap" => incoming(Incoming::Gap),
                            Some(text) => incoming(Incoming::Message(text)),
                            None => {}
                        }
                        length
                    }
                },
            };
            begin += length;
        }
        self.keep(&buffer[begin..end]);
        ensure!(!self.chunked.is_some_and(|chunked| chunked.ended()), "the stream was ended by the server");
        Ok(())
    }

    /// Keeps what is incomplete; what has become useless is given back.
    fn keep(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.leftover = Vec::new();
        } else {
            self.leftover.clear();
            self.leftover.extend_from_slice(bytes);
        }
    }

    fn accept(&mut self, head: &Head, body: &[u8]) -> anyhow::Result<()> {
        let expected = match self.transport {
            Transport::WebSocket => 101,
            Transport::Sse => 200,
        };
        if head.status != expected {
            let body = String::from_utf8_lossy(body);
            let body: String = body.trim().chars().take(200).collect();
            bail!("{}{}{body}", head.line, if body.is_empty() { "" } else { ": " });
        }
        match self.transport {
            Transport::WebSocket => ensure!(
                head.accept.as_deref() == Some(WEBSOCKET_ACCEPT),
                "101, but Sec-WebSocket-Accept is {:?}",
                head.accept.as_deref().unwrap_or_default()
            ),
            Transport::Sse => {
                let kind = head.content_type.as_deref().unwrap_or_default();
                ensure!(kind.starts_with("text/event-stream"), "200, but Content-Type is {kind:?}");
                match head.body {
                    Body::Chunked => self.chunked = Some(Chunked::default()),
                    Body::UntilClose => {}
                    Body::Length(length) => bail!("200, but the stream ends after {length} bytes"),
                }
            }
        }
        self.stage = Stage::Open;
        Ok(())
    }

    /// What clients send is small: a socket that does not take it at once is broken.
    fn send(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let sent = send(&self.socket, bytes, SendFlags::NOSIGNAL)?;
        ensure!(sent == bytes.len(), "the socket took {sent} of {} bytes", bytes.len());
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

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
    /// The time at which it was begun.
    pub(crate) started: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Asked,
    Open,
}

/// A received event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// The server has accepted the connection.
    Opened,
    Message(&'a [u8]),
    /// A notice of the server that messages may be missing.
    Gap,
}

/// Maximum size of a read.
pub(crate) const READ: usize = 128 * 1024;

/// Number of connections per source address. The kernel has about 28,000 ports for each, and looks through the even
/// ones first: beyond 14,000 it would walk through all of them for each connection.
const PORTS: usize = 10_000;

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

    /// Returns whether the server has accepted the connection.
    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// The transport that it was begun with.
    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    /// Returns whether the socket is not connected yet, so that [`Self::ask`] comes next.
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
    /// If the connection has ended.
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

    /// Requests are small: a socket that does not accept one at once is broken.
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

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write,
        net::{TcpListener, TcpStream},
        thread,
    };

    use super::*;
    use crate::{client_stats::histogram, marker::Marker, sequence_tracker::SequenceTracker};

    fn open(transport: Transport) -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut connection = Connection::begin(address, transport, 0, 0).unwrap();
        let server = listener.accept().unwrap().0;
        connection.ask(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        (connection, server)
    }

    /// Returns the messages received up to the server's end, and the reason of the end.
    fn receive(connection: &mut Connection) -> (Vec<String>, String) {
        let (mut buffer, mut joined, mut seen) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let result = connection.receive(&mut buffer, &mut joined, |incoming| {
                seen.push(match incoming {
                    Incoming::Opened => "opened".to_owned(),
                    Incoming::Gap => "gap".to_owned(),
                    Incoming::Message(text) => String::from_utf8_lossy(text).into_owned(),
                });
            });
            if let Err(error) = result {
                return (seen, error.to_string());
            }
            thread::yield_now();
        }
    }

    #[test]
    fn a_stream_is_received_in_single_bytes() {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
        let body = "event:gap\ndata:{}\n\ndata:one\n\n:beat\n\ndata:two\n\n";
        let chunks: String = body.as_bytes().chunks(7).fold(String::new(), |all, chunk| {
            format!("{all}{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap())
        });
        for answer in [
            format!("{head}\r\n{body}"),
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"),
        ] {
            let (mut connection, mut server) = open(Transport::Sse);
            server.set_nodelay(true).unwrap();
            let writer = thread::spawn(move || {
                for byte in answer.bytes() {
                    server.write_all(&[byte]).unwrap();
                }
                server
            });
            // The server is kept until all is read: what it has not read would reset the connection.
            let (seen, why) = thread::scope(|scope| {
                let reading = scope.spawn(|| receive(&mut connection));
                let server = writer.join().unwrap();
                server.shutdown(std::net::Shutdown::Write).unwrap();
                reading.join().unwrap()
            });
            assert_eq!(seen, ["opened", "gap", "one", "two"]);
            assert!(why.contains("server"), "{why}");
        }
    }

    #[test]
    fn every_ten_thousand_connections_have_a_source_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        for (number, source) in
            [(0, "127.0.0.1"), (9_999, "127.0.0.1"), (10_000, "127.0.0.2"), (99_999, "127.0.0.10")]
        {
            let _connection = Connection::begin(address, Transport::WebSocket, number, 0).unwrap();
            assert_eq!(listener.accept().unwrap().1.ip().to_string(), source);
        }
    }

    #[test]
    fn a_refusal_is_told_with_its_body() {
        let (mut connection, mut server) = open(Transport::WebSocket);
        server.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").unwrap();
        assert_eq!(receive(&mut connection), (vec![], "401 Unauthorized: no".into()));
    }

    #[test]
    fn a_ping_is_answered() {
        use std::io::Read;

        let (mut connection, mut server) = open(Transport::WebSocket);
        let accept = format!("HTTP/1.1 101 x\r\nSec-WebSocket-Accept: {WEBSOCKET_ACCEPT}\r\n\r\n");
        server.write_all(&[accept.as_bytes(), &[0x89, 1, b'x'], &[0x88, 2, 0x03, 0xf4]].concat()).unwrap();
        let (seen, why) = receive(&mut connection);
        assert_eq!((seen, why.as_str()), (vec!["opened".to_owned()], "closed by the server with code 1012"));
        let mut answer = [0; 18 + 7];
        server.read_exact(&mut answer).unwrap();
        assert_eq!(answer[18..], [0x8a, 0x81, 0, 0, 0, 0, b'x']);
    }

    /// `cargo test --release -p realtime-bench -- --ignored --nocapture how_fast`: what the client itself can take.
    #[test]
    #[ignore = "a measurement"]
    fn how_fast_a_thread_receives() {
        const COUNT: u32 = 2_000_000;
        for transport in [Transport::WebSocket, Transport::Sse] {
            let (mut connection, mut server) = open(transport);
            let writer = thread::spawn(move || {
                let mut bytes = match transport {
                    Transport::WebSocket => {
                        format!("HTTP/1.1 101 x\r\nSec-WebSocket-Accept: {WEBSOCKET_ACCEPT}\r\n\r\n")
                    }
                    Transport::Sse => "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                                       Transfer-Encoding: chunked\r\n\r\n"
                        .into(),
                }
                .into_bytes();
                for number in 0..COUNT {
                    let mut text = Vec::new();
                    Marker { run: 1, group: 0, caller: 0, number, due: 0 }.write(150, &mut text);
                    if transport == Transport::WebSocket {
                        bytes.extend_from_slice(&frame::text(&text));
                    } else {
                        let text = String::from_utf8(text).unwrap();
                        let block = format!("event:message\nid:1795488631380.{number}\ndata:{text}\n\n");
                        write!(bytes, "{:x}\r\n{block}\r\n", block.len()).unwrap();
                    }
                }
                server.write_all(&bytes).unwrap();
                server.shutdown(std::net::Shutdown::Write).unwrap();
                server
            });
            let (mut buffer, mut joined) = (Vec::new(), Vec::new());
            let (mut tracker, mut latency) = (SequenceTracker::default(), histogram().unwrap());
            let cpu = || -> f64 {
                let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
                text.split_whitespace().next().unwrap().parse().unwrap()
            };
            connection.socket.set_nonblocking(false).unwrap();
            let before = cpu();
            while connection
                .receive(&mut buffer, &mut joined, |incoming| {
                    if let Incoming::Message(text) = incoming {
                        Marker::each(text, 150, |marker| {
                            tracker.enter(marker.number);
                            latency.saturating_record(1_000_000);
                        });
                    }
                })
                .is_ok()
            {}
            let nanos = cpu() - before;
            writer.join().unwrap();
            assert_eq!(tracker.lost(COUNT), 0);
            println!("{transport:?}: {:.2} M messages a second of CPU", f64::from(COUNT) / nanos * 1e3);
        }
    }
}

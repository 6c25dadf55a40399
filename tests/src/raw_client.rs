//! [`RawClient`]: a client that sees every byte.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Duration, sleep},
};

use crate::{Server, token, within};

/// A client that sees every byte. Its socket holds little.
#[derive(Debug)]
pub struct RawClient {
    /// The socket.
    pub tcp: TcpStream,
    /// Bytes that were read and not yet consumed.
    pub bytes: Vec<u8>,
}

impl RawClient {
    /// A connection that has sent nothing.
    pub async fn connect(server: &(impl Server + ?Sized)) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 << 10).unwrap();
        let tcp = socket.connect(([127, 0, 0, 1], server.port()).into()).await.unwrap();
        Self { tcp, bytes: Vec::new() }
    }

    /// Sends the handshake of a WebSocket behind `before`, without reading anything.
    pub async fn open(server: &(impl Server + ?Sized), user: i64, before: &str) -> Self {
        let mut client = Self::connect(server).await;
        let handshake = format!("{before}{}", Self::websocket(user));
        client.tcp.write_all(handshake.as_bytes()).await.unwrap();
        client
    }

    /// The handshake of a WebSocket.
    pub fn websocket(user: i64) -> String {
        let token = token(user);
        format!(
            "GET /resource/websocket?Authorization=Bearer%20{token} HTTP/1.1\r\nHost: x\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    }

    /// The request of an event stream.
    pub fn event_stream(user: i64) -> String {
        let token = token(user);
        format!("GET /resource/sse?Authorization=Bearer%20{token} HTTP/1.1\r\nHost: x\r\n\r\n")
    }

    /// Sends bytes.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.tcp.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads some bytes; 0 at the end.
    pub async fn read(&mut self) -> usize {
        within("bytes", self.tcp.read_buf(&mut self.bytes)).await.unwrap()
    }

    /// Reads a response's head and returns it.
    pub async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.bytes.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            assert!(self.read().await > 0, "the end instead of a head");
        }
    }

    /// Reads exactly that number of bytes.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.bytes.len() < count {
            assert!(self.read().await > 0, "the end after {} of {count} bytes", self.bytes.len());
        }
        self.bytes.drain(..count).collect()
    }

    /// Reads on until a text has come, and takes everything up to its end.
    pub async fn until(&mut self, text: &str) -> String {
        loop {
            let found = self.bytes.windows(text.len()).position(|bytes| bytes == text.as_bytes());
            if let Some(at) = found {
                let taken: Vec<u8> = self.bytes.drain(..at + text.len()).collect();
                return String::from_utf8_lossy(&taken).into_owned();
            }
            let read = self.read().await;
            assert!(read > 0, "no {text:?} in {:?}", String::from_utf8_lossy(&self.bytes));
        }
    }

    /// Reads on until the connection ends. `false` when it was reset.
    pub async fn end(&mut self) -> bool {
        within("the end", async {
            loop {
                match self.tcp.read_buf(&mut self.bytes).await {
                    Ok(0) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        })
        .await
    }

    /// Closes the connection with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// The next frame that is here whole: its first byte and its payload.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second, ..] = *self.bytes.as_slice() else { return None };
        assert_eq!(second & 0x80, 0, "a server masks nothing");
        let (head, len) = match second {
            126 => (4, usize::from(u16::from_be_bytes(self.bytes.get(2..4)?.try_into().unwrap()))),
            127 => {
                (10, usize::try_from(u64::from_be_bytes(self.bytes.get(2..10)?.try_into().unwrap())).unwrap())
            }
            len => (2, usize::from(len)),
        };
        let payload = self.bytes.get(head..head + len)?.to_vec();
        self.bytes.drain(..head + len);
        Some((first, payload))
    }

    /// The next frame, which is awaited.
    pub async fn next_frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some(frame) = self.frame() {
                return frame;
            }
            assert!(self.read().await > 0, "the end instead of a frame");
        }
    }

    /// A short frame as a client sends it.
    pub fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        assert!(payload.len() < 126);
        let head = [first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
        [&head[..], payload].concat()
    }

    /// Sends a short frame.
    pub async fn send(&mut self, first: u8, payload: &[u8]) {
        // Both directions may be full at once: without reading, the write would never complete.
        let mut rest = Self::client_frame(first, payload);
        while !rest.is_empty() {
            tokio::select! {
                sent = self.tcp.writable() => {
                    sent.unwrap();
                    if let Ok(count) = self.tcp.try_write(&rest) {
                        rest.drain(..count);
                    }
                }
                () = sleep(Duration::from_millis(20)) => {
                    self.tcp.read_buf(&mut self.bytes).await.unwrap();
                }
            }
        }
    }
}

//! A client that puts a text stream together, by the rules of the protocol alone.

use realtime_tests::{Demo, EventStream, Socket, token};
use serde_json::Value;

use super::USER;

/// The connection of a [`Reader`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    WebSocket,
    Sse,
}

enum Connection {
    WebSocket(Box<Socket>),
    Sse(EventStream),
}

/// A client that reads one stream. It panics when a message breaks the protocol.
pub(super) struct Reader {
    connection: Connection,
    stream: String,
    pub(super) run: u64,
    /// Number of runs that it has seen.
    pub(super) runs: usize,
    pub(super) text: String,
    pub(super) end: Option<String>,
    /// Position of the last message, as the client would send it back.
    cursor: Option<String>,
    /// Text that is missing, since a gap was announced.
    gap: bool,
    pub(super) prefixes: usize,
}

impl Reader {
    pub(super) async fn connect(node: &Demo, transport: Transport, stream: &str) -> Self {
        let connection = Connection::open(node, transport, None).await;
        Self {
            connection,
            stream: stream.to_owned(),
            run: 0,
            runs: 0,
            text: String::new(),
            end: None,
            cursor: None,
            gap: false,
            prefixes: 0,
        }
    }

    /// Comes back as a page that was reloaded: it has forgotten everything.
    pub(super) async fn reload(&mut self, node: &Demo, transport: Transport) {
        *self = Self::connect(node, transport, &self.stream).await;
    }

    /// Comes back as a page whose connection broke: with its text and its cursor.
    pub(super) async fn reconnect(&mut self, node: &Demo, transport: Transport) {
        self.connection = Connection::open(node, transport, self.cursor.as_deref()).await;
    }

    /// Reads on until the text has so many bytes, or has ended.
    pub(super) async fn until_bytes(&mut self, bytes: usize) {
        while self.text.len() < bytes && self.end.is_none() {
            self.read().await;
        }
    }

    /// Reads on until the end.
    pub(super) async fn until_end(&mut self) -> &str {
        while self.end.is_none() {
            self.read().await;
        }
        self.end.as_deref().unwrap()
    }

    /// Reads on until an ordinary message with this text.
    pub(super) async fn until_message(&mut self, text: &str) {
        while self.read().await.as_deref() != Some(text) {}
    }

    /// Reads one event. Returns the text of an ordinary message.
    pub(super) async fn read(&mut self) -> Option<String> {
        let (event, data, id) = match &mut self.connection {
            Connection::WebSocket(socket) => {
                let frame = socket.json().await;
                match frame["type"].as_str().unwrap() {
                    "message" => {}
                    "gap" => self.gap = true,
                    "ping" => {
                        socket.send(r#"{"type":"pong"}"#).await;
                        return None;
                    }
                    _ => return None,
                }
                let text = |name: &str| frame[name].as_str().map(str::to_owned);
                (text("event").unwrap_or_default(), text("data").unwrap_or_default(), text("id"))
            }
            Connection::Sse(events) => {
                let before = events.last_id.clone();
                let event = events.next().await.expect("the stream goes on");
                self.gap |= event.event == "gap";
                let id = Some(event.id).filter(|id| !id.is_empty() && *id != before);
                (event.event, event.data, id)
            }
        };
        self.cursor = id.clone().or(self.cursor.take());
        if event != "realtime.stream" {
            return (event == "message").then_some(data);
        }
        let data: Value = serde_json::from_str(&data).unwrap();
        if data["stream"] == *self.stream {
            self.take(&data, id.as_deref());
        }
        None
    }

    fn take(&mut self, data: &Value, id: Option<&str>) {
        let (run, at) = (data["run"].as_u64().unwrap(), data["at"].as_u64().unwrap() as usize);
        let is_prefix = data["prefix"] == true;
        assert_eq!(id.is_none(), is_prefix, "only a prefix has no position: {data}");
        self.prefixes += usize::from(is_prefix);
        if run < self.run {
            return;
        }
        if run > self.run {
            assert_eq!(at, 0, "a run begins at 0: {data}");
            (self.run, self.end) = (run, None);
            self.runs += 1;
            self.text.clear();
        }
        if let Some(text) = data["text"].as_str() {
            let after = at + text.len();
            if self.gap && at > self.text.len() {
                return;
            }
            assert!(at <= self.text.len(), "{at} behind {} without a gap: {data}", self.text.len());
            if after > self.text.len() {
                assert_eq!(self.end, None, "text behind the end: {data}");
                assert!(text.is_char_boundary(self.text.len() - at), "cut within a character: {data}");
                self.text.push_str(&text[self.text.len() - at..]);
                self.gap &= !is_prefix;
            }
        }
        if let Some(state) = data["state"].as_str() {
            assert!(is_prefix || at == self.text.len(), "{at} is not {}: {data}", self.text.len());
            self.end = Some(state.to_owned());
        }
    }
}

impl Connection {
    async fn open(node: &Demo, transport: Transport, cursor: Option<&str>) -> Self {
        match transport {
            Transport::WebSocket => {
                let socket = Socket::open(node, &token(USER), &["realtime.v1"], cursor).await.unwrap();
                Self::WebSocket(Box::new(socket))
            }
            Transport::Sse => Self::Sse(EventStream::open(node, &token(USER), cursor).await.unwrap()),
        }
    }
}

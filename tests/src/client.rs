//! Independent clients: tokio-tungstenite for WebSocket, reqwest and eventsource-stream for SSE.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use eventsource_stream::{Event, Eventsource};
use futures_util::{SinkExt, Stream, StreamExt};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
pub use tokio_tungstenite::tungstenite::{Message as WsMessage, protocol::CloseFrame};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, client::IntoClientRequest},
};

/// A server that listens on a port of this machine.
pub trait Server {
    /// Its port on 127.0.0.1.
    fn port(&self) -> u16;
}

/// Waits for a future, up to a time limit.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A WebSocket.
#[derive(Debug)]
pub struct Socket(pub WebSocketStream<TcpStream>);

impl Socket {
    /// Opens a socket as a page does: the token and client id in the query. On refusal, the status.
    pub async fn open(
        server: &impl Server,
        token: &str,
        protocols: &[&str],
        cursor: Option<&str>,
    ) -> Result<Self, u16> {
        let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let path = format!("/resource/websocket?clientid=web&Authorization=Bearer%20{token}{cursor}");
        let protocol = protocols.join(", ");
        let headers: &[(&str, &str)] = match protocols {
            [] => &[],
            _ => &[("Sec-WebSocket-Protocol", &protocol)],
        };
        Self::open_at(server, &path, headers).await
    }

    /// Opens a socket at any path with any headers. On refusal, the status.
    pub async fn open_at(
        server: &impl Server,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        let mut request = format!("ws://127.0.0.1:{}{path}", server.port()).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let tcp = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
        match within("a WebSocket handshake", client_async(request, tcp)).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends a text.
    pub async fn send(&mut self, text: &str) {
        self.0.send(WsMessage::text(text)).await.unwrap();
    }

    /// The next text; pings are answered on the way.
    pub async fn text(&mut self) -> String {
        loop {
            match within("a WebSocket message", self.0.next()).await {
                Some(Ok(WsMessage::Text(text))) => return text.to_string(),
                Some(Ok(WsMessage::Ping(_) | WsMessage::Pong(_))) => {}
                other => panic!("no text but {other:?}"),
            }
        }
    }

    /// The next text as JSON.
    pub async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// The next message of `realtime.v1`; heartbeats may come before it.
    pub async fn message(&mut self) -> Value {
        loop {
            let frame = self.json().await;
            if frame["type"] != "ping" {
                return frame;
            }
        }
    }

    /// Reads on until the Close frame, answers it, and returns its code; 1006 when the connection broke without one.
    pub async fn close_code(&mut self) -> u16 {
        within("a WebSocket's end", async {
            loop {
                match self.0.next().await {
                    Some(Ok(WsMessage::Close(frame))) => {
                        self.0.flush().await.ok();
                        return frame.map_or(1005, |CloseFrame { code, .. }| code.into());
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return 1006,
                }
            }
        })
        .await
    }
}

/// An event stream.
pub struct EventStream {
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    /// The id of the last event, as a browser would send it back.
    pub last_id: String,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("last_id", &self.last_id).finish_non_exhaustive()
    }
}

impl EventStream {
    /// Opens a stream, with the `Last-Event-ID` of a browser that comes back. On refusal, the status, which is 200 where
    /// the client is asked to come back.
    pub async fn open(server: &impl Server, token: &str, last_event_id: Option<&str>) -> Result<Self, u16> {
        Self::open_query(server, token, "", last_event_id).await
    }

    /// Opens a stream with more parameters behind the token, such as `&topics=news`. On refusal, the status.
    pub async fn open_query(
        server: &impl Server,
        token: &str,
        query: &str,
        last_event_id: Option<&str>,
    ) -> Result<Self, u16> {
        let port = server.port();
        let url = format!(
            "http://127.0.0.1:{port}/resource/sse?Authorization=Bearer%20{token}&clientid=web{query}"
        );
        let mut request = reqwest::Client::new().get(url);
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.send().await.unwrap();
        if response.status() != 200 {
            return Err(response.status().as_u16());
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut bytes = response.bytes_stream();
        // The first block has no data, so the parser would skip it; it arrives in a chunk of its own.
        let head = within("the first block", bytes.next()).await.unwrap().unwrap();
        let head = String::from_utf8(head.to_vec()).unwrap();
        let (block, rest) = head.split_once("\n\n").unwrap_or_else(|| panic!("{head:?} is no block"));
        if block.starts_with(":disconnected\nretry:") {
            return Err(200);
        }
        assert!(block.starts_with(":connected\nretry:"), "{block:?}");
        let last_id = block.lines().find_map(|line| line.strip_prefix("id:")).unwrap_or_default().to_owned();
        let rest = futures_util::stream::iter([Ok(rest.to_owned().into())]).chain(bytes);
        let events = rest.eventsource().filter_map(async |event| event.ok());
        Ok(Self { events: Box::pin(events), last_id })
    }

    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        let event = within("an event", self.events.next()).await;
        if let Some(event) = &event {
            self.last_id.clone_from(&event.id);
        }
        event
    }

    /// The data of the next event, which is a `message`.
    pub async fn data(&mut self) -> String {
        let event = self.next().await.expect("the stream goes on");
        assert_eq!(event.event, "message");
        event.data
    }
}

//! Clients of a node that is killed behind a proxy come back to the other one, and miss nothing.

use std::{collections::HashSet, time::Duration};

use futures_util::StreamExt;
use realtime_tests::{EventStream, Redis, ReverseProxy, Socket, WsMessage, token, within};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{KINDS, node};

const MESSAGES: usize = 200;
const CLIENTS: usize = 6;

/// What a client has seen until the last message.
struct Seen {
    numbers: Vec<usize>,
    connections: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_come_back_and_miss_nothing() {
    for kind in KINDS {
        let redis = Redis::start().await;
        let url = redis.url();
        let nodes = ["node-a", "node-b"]
            .map(|name| [("REALTIME__SERVER__NODE", name), ("REALTIME__REDIS__URL", url.as_str())]);
        let (mut killed, survivor) = (node(&nodes[0]).await, node(&nodes[1]).await);
        let proxy = ReverseProxy::start(kind, [killed.upstream(), survivor.upstream()], &[]).await;

        let (mut streams, mut sockets) = (Vec::new(), Vec::new());
        for _ in 0..CLIENTS {
            streams.push(EventStream::open(&proxy, &token(1), None).await.unwrap());
            sockets.push(Socket::open(&proxy, &token(1), &["realtime.v1"], None).await.unwrap());
        }
        survivor.until_sessions(1, 2 * CLIENTS).await;
        let (_, online) = survivor.api(reqwest::Method::GET, "/api/online/1", None).await;
        let used = online["sessions"].as_array().unwrap().iter().map(|session| session["node"].to_string());
        assert_eq!(used.collect::<HashSet<_>>().len(), 2, "{kind:?} uses both nodes: {online}");

        let publishing = async {
            for number in 0..MESSAGES {
                if number == MESSAGES / 2 {
                    killed.child().kill().await.unwrap();
                }
                survivor.publish(json!({ "userIds": [1], "message": number.to_string() })).await;
            }
        };
        let streams = streams.into_iter().map(|stream| follow_stream(&proxy, stream));
        let sockets = sockets.into_iter().map(|socket| follow_socket(&proxy, socket));
        let (mut seen, more, ()) = within(
            "the last message",
            futures_util::future::join3(
                futures_util::future::join_all(streams),
                futures_util::future::join_all(sockets),
                publishing,
            ),
        )
        .await;
        seen.extend(more);
        let all: Vec<_> = (0..MESSAGES).collect();
        for Seen { numbers, connections } in &seen {
            assert_eq!(*numbers, all, "{kind:?}, after {connections} connections");
        }
        let came_back = seen.iter().filter(|seen| seen.connections > 1).count();
        assert!(came_back > 0, "{kind:?}");
    }
}

async fn follow_stream(proxy: &ReverseProxy, mut stream: EventStream) -> Seen {
    let mut seen = Seen { numbers: Vec::new(), connections: 1 };
    loop {
        while let Some(event) = stream.next().await {
            assert_eq!(event.event, "message", "{event:?}");
            if seen.take(&event.data) {
                return seen;
            }
        }
        let cursor = stream.last_id.clone();
        stream = loop {
            match EventStream::open(proxy, &token(1), Some(&cursor)).await {
                Ok(stream) => break stream,
                Err(_) => sleep(PAUSE).await,
            }
        };
        seen.connections += 1;
    }
}

async fn follow_socket(proxy: &ReverseProxy, mut socket: Socket) -> Seen {
    let mut seen = Seen { numbers: Vec::new(), connections: 1 };
    let mut cursor = String::new();
    loop {
        while let Some(Ok(frame)) = socket.0.next().await {
            let WsMessage::Text(text) = frame else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            let id = match frame["type"].as_str().unwrap() {
                "message" => &frame["id"],
                "hello" | "ping" => &frame["cursor"],
                _ => panic!("{frame}"),
            };
            if let Some(id) = id.as_str() {
                id.clone_into(&mut cursor);
            }
            if frame["type"] == "message" && seen.take(frame["data"].as_str().unwrap()) {
                return seen;
            }
        }
        socket = loop {
            match Socket::open(proxy, &token(1), &["realtime.v1"], Some(&cursor)).await {
                Ok(socket) => break socket,
                Err(_) => sleep(PAUSE).await,
            }
        };
        seen.connections += 1;
    }
}

impl Seen {
    /// Takes a message; true for the last one.
    fn take(&mut self, data: &str) -> bool {
        self.numbers.push(data.parse().unwrap());
        self.numbers.last() == Some(&(MESSAGES - 1))
    }
}

/// Pause of a client before it tries again.
const PAUSE: Duration = Duration::from_millis(50);

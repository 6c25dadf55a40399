//! [`Client`]: one client through all its connections. What it sees from its first cursor on is a *chain*.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    ServerEvent,
    connection::{Connection, Request},
    program::Task,
};
use crate::audit::{
    history::{Behaviour, Cursor, End, Event, Transport},
    rng::Rng,
    site::{ClientCommand, Phase, Site},
};

/// One client through all its connections.
#[derive(Debug)]
pub(crate) struct Client {
    site: Arc<Site>,
    rng: Rng,
    user: u32,
    behaviour: Behaviour,
    token: String,
    /// The number of the chain, once it is in the history.
    chain: Option<u32>,
    cursor: Option<Cursor>,
    node: usize,
    transport: Transport,
    turns: u32,
    caught_up: bool,
}

/// The outcome of a connection.
#[derive(Debug)]
struct Disconnect {
    end: End,
    retry: Option<Duration>,
    accepted: bool,
}

/// Bytes of a read; of a slow reader every [`SLOW_PAUSE`].
const READ: usize = 16 * 1024;
const SLOW_READ: usize = 4 * 1024;
const SLOW_PAUSE: Duration = Duration::from_millis(100);

/// Upper bound on the reconnection delay, including the server's hint.
const LONGEST_RETRY: Duration = Duration::from_millis(1500);

/// Failed dials after which an eager client tries another node.
const EAGER_DIALS: u32 = 150;

impl Client {
    /// A client of a user.
    pub(crate) fn new(
        site: &Arc<Site>,
        number: u32,
        user: u32,
        behaviour: Behaviour,
        transport: Transport,
        token: String,
    ) -> Self {
        let mut rng = Rng::fork(site.seed, 0x1_0000 + u64::from(number));
        let node = rng.index(site.nodes.len());
        Self {
            site: Arc::clone(site),
            rng,
            user,
            behaviour,
            token,
            chain: None,
            cursor: None,
            node,
            transport,
            turns: 0,
            caught_up: false,
        }
    }

    /// Connects again and again until the run is over.
    pub(crate) async fn run(mut self) {
        let mut phase = self.site.phase.subscribe();
        let mut misses = 0;
        loop {
            let chain = self.chain();
            let disconnect = self.connect(chain).await;
            if *phase.borrow_and_update() == Phase::Finish {
                return;
            }
            // Nothing is promised to a client that was never given a cursor: its chain ends with its connection.
            if disconnect.accepted && (self.cursor.is_none() || self.behaviour == Behaviour::Fresh) {
                self.site.history.push(Event::ChainEnds { chain });
                (self.chain, self.cursor) = (None, None);
            }
            misses = if disconnect.accepted { 0 } else { misses + 1 };
            let stays = matches!(self.behaviour, Behaviour::Eager | Behaviour::Fresh)
                && misses % EAGER_DIALS != EAGER_DIALS - 1;
            let pause = self.pause(&disconnect, misses);
            if !stays {
                self.move_on();
            }
            tokio::select! {
                () = sleep(pause) => {}
                _ = phase.wait_for(|phase| *phase != Phase::Running), if *phase.borrow() == Phase::Running => {}
            }
        }
    }

    /// Hands the client to a program, which has habits for the connected time only and always brings its cursor.
    pub(crate) fn into_task(mut self) -> Task {
        self.behaviour = match self.behaviour {
            Behaviour::Fresh => Behaviour::Eager,
            Behaviour::Slow => Behaviour::Steady,
            other => other,
        };
        let client = self.chain();
        let Self { token, transport, behaviour, .. } = self;
        Task { client, token, transport, behaviour }
    }

    fn chain(&mut self) -> u32 {
        if let Some(chain) = self.chain {
            return chain;
        }
        let chain = self.site.chains.fetch_add(1, Ordering::Relaxed);
        self.chain = Some(chain);
        self.caught_up = false;
        let topics = vec![self.site.topic_of(self.user)];
        self.site.history.push(Event::ChainBegins {
            chain,
            user: self.user,
            topics,
            behaviour: self.behaviour,
        });
        chain
    }

    /// To another node, and every other time to the other transport.
    fn move_on(&mut self) {
        let nodes = self.site.nodes.len();
        if nodes > 1 {
            self.node = (self.node + 1 + self.rng.index(nodes - 1)) % nodes;
        }
        self.turns += 1;
        if self.turns.is_multiple_of(2) {
            self.transport =
                if self.transport == Transport::Sse { Transport::WebSocket } else { Transport::Sse };
        }
    }

    fn pause(&mut self, disconnect: &Disconnect, misses: u32) -> Duration {
        let asked = disconnect.retry.map(|retry| retry.min(LONGEST_RETRY));
        match self.behaviour {
            Behaviour::Eager | Behaviour::Fresh if asked.is_none() => self.rng.millis(5..20),
            Behaviour::Away if disconnect.end == End::Left => {
                let window = u64::try_from(self.site.window.as_millis()).unwrap_or(u64::MAX);
                if self.rng.one_in(4) {
                    self.rng.millis(window / 2..window * 3 / 2)
                } else {
                    self.rng.millis(200..5_000)
                }
            }
            _ => asked.unwrap_or_default() + self.rng.millis(20..if misses > 0 { 500 } else { 250 }),
        }
    }

    async fn connect(&mut self, chain: u32) -> Disconnect {
        let site = Arc::clone(&self.site);
        let cursor = if self.behaviour == Behaviour::Fresh { None } else { self.cursor };
        site.history.push(Event::Dial { chain, node: self.node as u32, transport: self.transport, cursor });
        let request = Request {
            address: site.nodes[self.node],
            transport: self.transport,
            token: &self.token.clone(),
            cursor,
            small_buffer: self.behaviour == Behaviour::Slow || self.rng.one_in(8),
        };
        let mut disconnect = Disconnect { end: End::Left, retry: None, accepted: false };
        match Connection::open(&request).await {
            Ok(connection) => self.follow(chain, connection, &mut disconnect).await,
            Err(end) => disconnect.end = end,
        }
        if disconnect.end == End::Ended && !disconnect.accepted {
            disconnect.end = End::Later;
        }
        site.history.push(Event::End { chain, end: disconnect.end.clone() });
        disconnect
    }

    async fn follow(&mut self, chain: u32, mut connection: Connection, disconnect: &mut Disconnect) {
        let site = Arc::clone(&self.site);
        let mut phase = site.phase.subscribe();
        let mut commands = site.commands.subscribe();
        let leaves = match self.behaviour {
            Behaviour::Mover => Some(self.rng.millis(1_000..6_000)),
            Behaviour::Away => Some(self.rng.millis(1_000..8_000)),
            _ => None,
        };
        let leaves = leaves.map(|stay| Instant::now() + stay);
        let mut heard = Instant::now();
        let mut events = Vec::new();
        loop {
            let running = match *phase.borrow_and_update() {
                Phase::Running => true,
                Phase::Quiet => false,
                Phase::Finish => return,
            };
            let slow = running && self.behaviour == Behaviour::Slow;
            let ended = tokio::select! {
                read = async {
                    if slow {
                        sleep(SLOW_PAUSE).await;
                    }
                    connection.read(if slow { SLOW_READ } else { READ }, &mut events).await
                } => {
                    heard = Instant::now();
                    read.err()
                }
                () = sleep_until(heard + site.silence) => Some(End::Silent),
                () = sleep_until(leaves.unwrap_or(heard)), if running && leaves.is_some() => Some(End::Left),
                order = commands.recv() => match order {
                    Ok(ClientCommand::Drop { one_in }) if self.rng.one_in(one_in) => Some(End::Left),
                    Ok(ClientCommand::Stall { one_in, time }) if self.rng.one_in(one_in) => {
                        site.history.push(Event::Stall { chain });
                        tokio::select! {
                            () = sleep(time) => {}
                            _ = phase.wait_for(|phase| *phase != Phase::Running) => {}
                        }
                        heard = Instant::now();
                        None
                    }
                    _ => None,
                },
                _ = phase.changed() => None,
            };
            let closed = self.record(chain, &mut events, disconnect);
            if let Some(end) = closed.or(ended) {
                if matches!(end, End::Left | End::Silent) {
                    connection.abort();
                }
                disconnect.end = end;
                return;
            }
        }
    }

    /// Records events in the history; returns the end if they contain one.
    fn record(
        &mut self,
        chain: u32,
        events: &mut Vec<ServerEvent>,
        disconnect: &mut Disconnect,
    ) -> Option<End> {
        let site = Arc::clone(&self.site);
        let mut end = None;
        for server_event in events.drain(..) {
            let (event, cursor) = match server_event {
                ServerEvent::Hello { recovered, cursor, .. } => {
                    disconnect.accepted = true;
                    (Event::Hello { chain, recovered, cursor }, cursor)
                }
                ServerEvent::Beat { cursor } | ServerEvent::Other { cursor } => {
                    (Event::Beat { chain, cursor }, cursor)
                }
                ServerEvent::Gap { reason, cursor } => (Event::Gap { chain, reason, cursor }, cursor),
                ServerEvent::Message { event, data, cursor } => {
                    let caught_up = &mut self.caught_up;
                    let first = || !std::mem::replace(caught_up, true);
                    (site.message(chain, &event, &data, cursor, first), cursor)
                }
                ServerEvent::Malformed(text) => (Event::Malformed { chain, text }, None),
                ServerEvent::Retry(retry) => {
                    disconnect.retry = Some(retry);
                    continue;
                }
                ServerEvent::Bye { retry, .. } => {
                    disconnect.retry = retry;
                    let retry = retry.and_then(|retry| u64::try_from(retry.as_millis()).ok());
                    (Event::Bye { chain, retry }, None)
                }
                ServerEvent::Close(code) => {
                    // What follows a Close frame is not read.
                    end = Some(End::Closed(code.unwrap_or(1005)));
                    break;
                }
            };
            self.cursor = cursor.or(self.cursor);
            site.history.push(event);
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::timeout,
    };

    use super::*;
    use crate::{
        audit::{
            history::{Record, Target},
            message_text::MessageText,
        },
        frame,
        head::WEBSOCKET_ACCEPT,
    };

    const STREAM: &str =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

    fn chunk(text: &str) -> String {
        format!("{:x}\r\n{text}\r\n", text.len())
    }

    /// Takes a call, answers it, and breaks the connection off; gives the request's head.
    async fn serve(listener: &TcpListener, answer: &[u8]) -> String {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert!(socket.read_buf(&mut request).await.unwrap() > 0);
        }
        socket.write_all(answer).await.unwrap();
        String::from_utf8(request).unwrap()
    }

    #[tokio::test]
    async fn a_client_comes_back_with_the_last_cursor_that_it_was_given_whole_and_on_the_other_transport() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = Arc::new(Site::for_tests(listener.local_addr().unwrap()));
        let text = |n| MessageText { run: site.run, n, target: Target::User(3), filler: 10 }.to_string();
        let data = |n| text(n).replace('\n', "\ndata:");
        let client = Client::new(&site, 0, 3, Behaviour::Steady, Transport::Sse, "token".into());
        let running = tokio::spawn(client.run());
        let script = async {
            let hello = ":connected\nretry:10\nid:7.1\n\n";
            let whole = format!("event:message\nid:7.2\ndata:{}\n\n", data(1));
            let half = format!("event:message\nid:7.3\ndata:{}\n", data(2));
            let answer = [STREAM, &chunk(hello), &chunk(&whole), &chunk(&half)].concat();
            let first = serve(&listener, answer.as_bytes()).await;
            assert!(first.starts_with("GET /resource/sse?Authorization=token HTTP/1.1\r\n"), "{first}");
            assert!(!first.contains("Last-Event-ID"), "{first}");
            let answer = [STREAM, &chunk(":connected\nid:7.2\n\n")].concat();
            let second = serve(&listener, answer.as_bytes()).await;
            assert!(second.contains("Last-Event-ID: 7.2\r\n"), "{second}");
            let message =
                serde_json::json!({ "type": "message", "id": "7.3", "event": "message", "data": text(2) });
            let mut answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {WEBSOCKET_ACCEPT}\r\n\r\n"
            )
            .into_bytes();
            answer.extend(frame::text(
                br#"{"type":"hello","recovered":true,"cursor":"7.2","pingInterval":1000}"#,
            ));
            answer.extend(frame::text(message.to_string().as_bytes()));
            let third = serve(&listener, &answer).await;
            assert!(third.starts_with("GET /resource/websocket?Authorization=token&cursor=7.2 "), "{third}");
            let answer = [STREAM, &chunk(":connected\nid:7.3\n\n")].concat();
            serve(&listener, answer.as_bytes()).await
        };
        let fourth = timeout(Duration::from_secs(20), script).await.unwrap();
        assert!(fourth.contains("cursor=7.3") || fourth.contains("Last-Event-ID: 7.3"), "{fourth}");
        running.abort();
        let got = |record: Record| match record.event {
            Event::Message { n, cursor, .. } => Some((n, cursor)),
            _ => None,
        };
        let got: Vec<_> = site.history.take().into_iter().filter_map(got).collect();
        let at = |cursor: &str| Some(cursor.parse().unwrap());
        assert_eq!(got, [(1, at("7.2")), (2, at("7.3"))], "half a message is none");
    }
}

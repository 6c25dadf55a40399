//! [`Baseline`]: a minimal push server, to which others are compared.
//!
//! One epoll per thread, one `send` for each message and connection, nothing else: no login, no history, no limits, no
//! heartbeats. The additional cost of a real server is the cost of its features.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    thread,
};

use anyhow::{Context, bail};
use memchr::memmem;
use rustix::{
    buffer::spare_capacity,
    event::{
        EventfdFlags,
        epoll::{self, EventData, EventFlags},
        eventfd,
    },
    io::{Errno, read, write},
    net::{RecvFlags, SendFlags, recv, send},
};
use serde::Deserialize;
use socket2::{Domain, Socket, Type};

use crate::{
    frame,
    head::{WEBSOCKET_ACCEPT, WEBSOCKET_KEY},
    pool_shared::lock,
};

/// The settings of the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Baseline {
    pub(crate) port: u16,
    pub(crate) threads: usize,
    /// Drops every n-th message to each connection; 0 for none. Tests that a loss is detected.
    pub(crate) drop_every: u64,
    /// Sends every n-th message to each connection twice; 0 for none.
    pub(crate) double_every: u64,
}

/// A thread's share of the connections.
struct Share {
    baseline: Baseline,
    index: usize,
    inboxes: Arc<[Inbox]>,
    listener: Socket,
    epoll: OwnedFd,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    /// All connections.
    all: Vec<usize>,
    /// The connections by user or topic.
    groups: HashMap<String, BTreeSet<usize>>,
}

/// The messages that other threads have published.
struct Inbox {
    publishes: Mutex<Vec<Arc<Publish>>>,
    /// An eventfd that wakes the thread.
    wake: OwnedFd,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Publish {
    #[serde(default)]
    broadcast: bool,
    #[serde(default)]
    user_ids: Vec<serde_json::Value>,
    #[serde(default)]
    topics: Vec<String>,
    message: String,
}

struct Client {
    socket: Socket,
    kind: Kind,
    input: Vec<u8>,
    /// The bytes that the socket has not accepted.
    output: Vec<u8>,
    groups: Vec<String>,
    /// Its index in the list of all.
    index: usize,
    sent: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    WebSocket,
    Sse,
}

const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;
const EVENTS: usize = 1024;

impl Baseline {
    /// Serves until it is killed.
    pub(crate) fn serve(self) -> anyhow::Result<()> {
        let mut port = self.port;
        let mut listeners = Vec::new();
        for _ in 0..self.threads.max(1) {
            let listener = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
            listener.set_reuse_address(true)?;
            listener.set_reuse_port(true)?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            listener.bind(&address.into()).with_context(|| format!("failed to bind {address}"))?;
            listener.listen(8192)?;
            port = listener.local_addr()?.as_socket().context("an IPv4 address")?.port();
            listeners.push(listener);
        }
        let inboxes = listeners.iter().map(|_| {
            let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
            Ok(Inbox { publishes: Mutex::default(), wake })
        });
        let inboxes: Arc<[Inbox]> = inboxes.collect::<io::Result<_>>()?;
        eprintln!("baseline is ready at http://127.0.0.1:{port}/");
        let threads: Vec<_> = listeners
            .into_iter()
            .enumerate()
            .map(|(index, listener)| {
                let inboxes = Arc::clone(&inboxes);
                thread::spawn(move || Share::new(self, index, inboxes, listener)?.run())
            })
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        Ok(())
    }
}

impl Share {
    fn new(
        baseline: Baseline,
        index: usize,
        inboxes: Arc<[Inbox]>,
        listener: Socket,
    ) -> anyhow::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        epoll::add(&epoll, &inboxes[index].wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        let (clients, free, all, groups) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
        Ok(Self { baseline, index, inboxes, listener, epoll, clients, free, all, groups })
    }

    fn run(mut self) -> anyhow::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let (data, flags) = (event.data, event.flags);
                match data.u64() {
                    LISTENER => self.accept()?,
                    WAKE => self.publish_inbox()?,
                    client => self.ready(client as usize, flags),
                }
            }
        }
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("failed to accept a connection"),
            };
            socket.set_nonblocking(true)?;
            socket.set_tcp_nodelay(true)?;
            let index = self.free.pop().unwrap_or(self.clients.len());
            epoll::add(&self.epoll, &socket, EventData::new_u64(index as u64), EventFlags::IN)?;
            let (input, output, groups) = (Vec::new(), Vec::new(), Vec::new());
            let client = Client { socket, kind: Kind::Http, input, output, groups, index: 0, sent: 0 };
            if index == self.clients.len() {
                self.clients.push(Some(client));
            } else {
                self.clients[index] = Some(client);
            }
        }
    }

    fn ready(&mut self, index: usize, flags: EventFlags) {
        let Some(mut client) = self.clients[index].take() else { return };
        let mut alive = !flags.contains(EventFlags::OUT) || self.flush(index, &mut client).is_ok();
        let mut publishes = Vec::new();
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            alive = alive && self.receive(index, &mut client, &mut publishes).is_ok();
        }
        if alive {
            self.clients[index] = Some(client);
        } else {
            self.leave(index, &client);
        }
        for publish in publishes {
            let publish = Arc::new(publish);
            for (_, inbox) in self.inboxes.iter().enumerate().filter(|(index, _)| *index != self.index) {
                lock(&inbox.publishes).push(Arc::clone(&publish));
                write(&inbox.wake, &1_u64.to_ne_bytes()).ok();
            }
            self.publish(&publish);
        }
    }

    fn publish_inbox(&mut self) -> anyhow::Result<()> {
        let inbox = &self.inboxes[self.index];
        read(&inbox.wake, &mut [0; 8])?;
        let publishes = std::mem::take(&mut *lock(&inbox.publishes));
        for publish in publishes {
            self.publish(&publish);
        }
        Ok(())
    }

    /// Sends a message to each of its connections, with one `send` each.
    fn publish(&mut self, publish: &Publish) {
        let websocket = frame::text(publish.message.as_bytes());
        let block = format!("event:message\ndata:{}\n\n", publish.message);
        let sse = format!("{:x}\r\n{block}\r\n", block.len()).into_bytes();
        let users = publish.user_ids.iter().map(|id| match id {
            serde_json::Value::String(id) => format!("user:{id}"),
            other => format!("user:{other}"),
        });
        let groups: Vec<String> = users.chain(publish.topics.iter().cloned()).collect();
        // A copy, since connections that turn out to be closed are removed during the loop.
        let mut targets = if publish.broadcast { self.all.clone() } else { Vec::new() };
        targets.extend(groups.iter().filter_map(|group| self.groups.get(group)).flatten());
        for index in targets {
            let Some(mut client) = self.clients[index].take() else { continue };
            let bytes = if client.kind == Kind::WebSocket { &websocket } else { &sse };
            client.sent += 1;
            let every = |n: u64| n > 0 && client.sent.is_multiple_of(n);
            let times = if every(self.baseline.drop_every) {
                0
            } else if every(self.baseline.double_every) {
                2
            } else {
                1
            };
            let alive = (0..times).all(|_| self.send(index, &mut client, bytes).is_ok());
            if alive {
                self.clients[index] = Some(client);
            } else {
                self.leave(index, &client);
            }
        }
    }

    fn send(&self, index: usize, client: &mut Client, bytes: &[u8]) -> Result<(), Errno> {
        let sent = if client.output.is_empty() {
            match send(&client.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => sent,
                Err(Errno::AGAIN | Errno::INTR) => 0,
                Err(error) => return Err(error),
            }
        } else {
            0
        };
        if sent < bytes.len() {
            if client.output.is_empty() {
                self.watch(index, client, EventFlags::IN | EventFlags::OUT)?;
            }
            client.output.extend_from_slice(&bytes[sent..]);
        }
        Ok(())
    }

    fn flush(&self, index: usize, client: &mut Client) -> Result<(), Errno> {
        match send(&client.socket, &client.output, SendFlags::NOSIGNAL) {
            Ok(sent) => drop(client.output.drain(..sent)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        if client.output.is_empty() {
            client.output = Vec::new();
            self.watch(index, client, EventFlags::IN)?;
        }
        Ok(())
    }

    fn watch(&self, index: usize, client: &Client, flags: EventFlags) -> Result<(), Errno> {
        epoll::modify(&self.epoll, &client.socket, EventData::new_u64(index as u64), flags)
    }

    /// Reads all available bytes; an error ends the connection.
    fn receive(
        &mut self,
        index: usize,
        client: &mut Client,
        publishes: &mut Vec<Publish>,
    ) -> anyhow::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match recv(&client.socket, &mut buffer, RecvFlags::empty()) {
                Ok((_, 0)) => bail!("closed"),
                // Bytes of streaming clients are ignored.
                Ok(_) if client.kind != Kind::Http => {}
                Ok((_, length)) => client.input.extend_from_slice(&buffer[..length]),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut input = std::mem::take(&mut client.input);
        let mut used = 0;
        let mut answers = Vec::new();
        while client.kind == Kind::Http {
            let Some(length) = self.request(index, client, &input[used..], &mut answers, publishes)? else {
                break;
            };
            used += length;
        }
        if client.kind == Kind::Http {
            input.drain(..used);
            client.input = input;
        }
        if !answers.is_empty() {
            self.send(index, client, &answers)?;
        }
        Ok(())
    }

    /// Handles the first request in some bytes. Returns its length; `None` if it is incomplete.
    fn request(
        &mut self,
        index: usize,
        client: &mut Client,
        bytes: &[u8],
        answers: &mut Vec<u8>,
        publishes: &mut Vec<Publish>,
    ) -> anyhow::Result<Option<usize>> {
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&bytes[..end])?;
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let field = |name: &str| {
            let mut fields = lines.clone().filter_map(|line| line.split_once(':'));
            fields.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        let length: usize = field("content-length").map_or(Ok(0), str::parse)?;
        let body = end + 4;
        let Some(body) = bytes.get(body..body + length) else { return Ok(None) };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        match (method, path) {
            ("POST", "/api/publish") => match serde_json::from_slice(body) {
                Ok(publish) => {
                    publishes.push(publish);
                    answers.extend_from_slice(ANSWER);
                }
                Err(error) => refuse(answers, "400 Bad Request", &error.to_string()),
            },
            ("GET", "/resource/websocket") if field("sec-websocket-key") == Some(WEBSOCKET_KEY) => {
                answers.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
                answers.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
                answers.extend_from_slice(
                    format!("Sec-WebSocket-Accept: {WEBSOCKET_ACCEPT}\r\n\r\n").as_bytes(),
                );
                self.join(index, client, Kind::WebSocket, query);
            }
            ("GET", "/resource/websocket") => {
                refuse(answers, "400 Bad Request", "the baseline serves WebSockets of realtime-bench only");
            }
            ("GET", "/resource/sse") => {
                answers.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n");
                answers.extend_from_slice(b"Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n");
                self.join(index, client, Kind::Sse, query);
            }
            _ => refuse(answers, "404 Not Found", path),
        }
        Ok(Some(end + 4 + length))
    }

    fn join(&mut self, index: usize, client: &mut Client, kind: Kind, query: &str) {
        client.kind = kind;
        client.index = self.all.len();
        self.all.push(index);
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "user" => client.groups.push(format!("user:{value}")),
                "topic" => client.groups.push(format!("bench:{value}")),
                _ => {}
            }
        }
        for group in &client.groups {
            self.groups.entry(group.clone()).or_default().insert(index);
        }
    }

    fn leave(&mut self, index: usize, client: &Client) {
        if client.kind != Kind::Http {
            self.all.swap_remove(client.index);
            if let Some(moved) = self.all.get(client.index).and_then(|&moved| self.clients[moved].as_mut()) {
                moved.index = client.index;
            }
            for group in &client.groups {
                if let Some(members) = self.groups.get_mut(group) {
                    members.remove(&index);
                }
            }
        }
        self.free.push(index);
    }
}

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{\"position\":null}";

fn refuse(answers: &mut Vec<u8>, status: &str, why: &str) {
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{why}",
        why.len()
    );
    answers.extend_from_slice(answer.as_bytes());
}

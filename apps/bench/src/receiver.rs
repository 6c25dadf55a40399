//! [`Receiver`]: a thread's share of the clients, driven by one epoll.

use std::{
    ops::Range,
    os::fd::OwnedFd,
    sync::{
        Arc,
        mpsc::{self, TryRecvError},
    },
    time::Duration,
};

use anyhow::Context;
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, EventData, EventFlags},
    io::Errno,
};

use crate::{
    clock::timespec,
    connection::{Connection, Incoming},
    counts::Counts,
    head::WEBSOCKET_KEY,
    marker::Marker,
    swarm::{Harvest, Order, Shared, Site, lock},
    target::Transport,
    template::Values,
    track::{Arrival, Track},
};

/// A thread's share of the clients.
pub(crate) struct Receiver {
    site: Arc<Site>,
    shared: Arc<Shared>,
    /// Which connections of all they are.
    seats: Range<usize>,
    epoll: OwnedFd,
    connections: Vec<Option<Connection>>,
    /// For each connection one track a caller.
    tracks: Vec<Track>,
    counts: Counts,
    harvest: Harvest,
    /// The connection to begin next, the one before which to stop, how many are on the way, and how many may be.
    next: usize,
    end: usize,
    pending: usize,
    window: usize,
}

/// How many connections are begun before what has come is looked at.
const BATCH: usize = 64;

/// How many events are taken at once.
const EVENTS: usize = 1024;

/// How long it sleeps at most, to hear of orders.
const SLEEP: Duration = Duration::from_millis(5);

/// How many problems are told.
const PROBLEMS: usize = 5;

impl Receiver {
    pub(crate) fn new(site: Arc<Site>, shared: Arc<Shared>, seats: Range<usize>) -> anyhow::Result<Self> {
        let clients = seats.len();
        let mut tracks = Vec::new();
        tracks.resize_with(clients * site.callers as usize, Track::default);
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?,
            connections: (0..clients).map(|_| None).collect(),
            tracks,
            counts: Counts::default(),
            harvest: Harvest::new()?,
            next: 0,
            end: 0,
            pending: 0,
            window: 0,
            site,
            shared,
            seats,
        })
    }

    /// Works until the orders end.
    pub(crate) fn run(mut self, orders: &mpsc::Receiver<Order>) -> Harvest {
        let mut events = Vec::with_capacity(EVENTS);
        let (mut buffer, mut joined) = (Vec::new(), Vec::new());
        loop {
            match orders.try_recv() {
                Ok(Order::Open { window, upto }) => {
                    self.end = upto.saturating_sub(self.seats.start).min(self.connections.len());
                    self.window = window;
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => break,
            }
            self.begin();
            let more = self.next < self.end && self.pending < self.window;
            let sleep = timespec(if more { Duration::ZERO } else { SLEEP });
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&sleep)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => self.problem(format!("epoll: {error}")),
            }
            for event in &events {
                let data = event.data;
                self.ready(data.u64() as usize, &mut buffer, &mut joined);
            }
            *lock(&self.shared.counts) += std::mem::take(&mut self.counts);
        }
        let sent = Arc::clone(&lock(&self.shared.sent));
        let callers = self.site.callers as usize;
        for index in 0..self.connections.len() {
            let group = self.group(index) as usize;
            let tracks = &self.tracks[index * callers..(index + 1) * callers];
            let sent = sent.get(group * callers..(group + 1) * callers).unwrap_or_default();
            self.harvest.lost += tracks.iter().zip(sent).map(|(track, &sent)| track.lost(sent)).sum::<u64>();
        }
        self.harvest
    }

    /// Begins some of the connections that may be.
    fn begin(&mut self) {
        for _ in 0..BATCH {
            if self.next >= self.end || self.pending >= self.window {
                return;
            }
            let index = self.next;
            self.next += 1;
            match self.connect(index) {
                Ok(connection) => {
                    self.connections[index] = Some(connection);
                    self.pending += 1;
                }
                Err(error) => self.failed(index, &error),
            }
        }
    }

    fn connect(&self, index: usize) -> anyhow::Result<Connection> {
        let number = self.seats.start + index;
        let (transport, _) = self.seat(index);
        let address = self.site.target.endpoint(transport)?.address;
        let connection = Connection::begin(address, transport, number, self.site.clock.now())?;
        epoll::add(&self.epoll, &connection, EventData::new_u64(index as u64), EventFlags::OUT)?;
        Ok(connection)
    }

    fn ready(&mut self, index: usize, buffer: &mut Vec<u8>, joined: &mut Vec<u8>) {
        let Some(mut connection) = self.connections[index].take() else { return };
        let was_open = connection.is_open();
        let result = if connection.is_connecting() {
            self.ask(index, &mut connection)
        } else {
            self.receive(index, &mut connection, buffer, joined)
        };
        let opened = !was_open && connection.is_open();
        if opened {
            self.pending -= 1;
            self.counts.opened += 1;
            let took = self.site.clock.now().saturating_sub(connection.started);
            self.harvest.opening.saturating_record(took);
        }
        match result {
            Ok(()) => self.connections[index] = Some(connection),
            Err(error) if was_open || opened => {
                self.counts.ended += 1;
                self.problem(format!("{}: {error:#}", self.name(index)));
            }
            Err(error) => {
                self.pending -= 1;
                self.failed(index, &error);
            }
        }
    }

    fn ask(&self, index: usize, connection: &mut Connection) -> anyhow::Result<()> {
        connection.ask(&self.request(index)?)?;
        epoll::modify(&self.epoll, connection, EventData::new_u64(index as u64), EventFlags::IN)?;
        Ok(())
    }

    fn receive(
        &mut self,
        index: usize,
        connection: &mut Connection,
        buffer: &mut Vec<u8>,
        joined: &mut Vec<u8>,
    ) -> anyhow::Result<()> {
        let Self { site, tracks, counts, harvest, .. } = self;
        let Site { run, callers, messages, size, .. } = **site;
        let group = site.audience.group(site.seat(self.seats.start + index).1);
        let tracks = &mut tracks[index * callers as usize..][..callers as usize];
        let (mut now, mut opened) = (0, false);
        let result = connection.receive(buffer, joined, |incoming| {
            if now == 0 {
                now = site.clock.now();
            }
            match incoming {
                Incoming::Opened => opened = true,
                Incoming::Gap => counts.gaps += 1,
                Incoming::Message(text) => Marker::each(text, size, |marker| {
                    let ours = marker.run == run && marker.group == group && marker.number < messages;
                    let Some(track) = tracks.get_mut(marker.caller as usize).filter(|_| ours) else {
                        counts.stray += 1;
                        return;
                    };
                    match track.enter(marker.number) {
                        Arrival::New => counts.delivered += 1,
                        Arrival::Double => counts.doubled += 1,
                        Arrival::Late => {
                            counts.delivered += 1;
                            counts.late += 1;
                        }
                    }
                    harvest.latency.saturating_record(now.saturating_sub(marker.sent));
                    counts.last = now;
                }),
            }
        });
        if opened && let Some(hello) = site.target.hello.as_ref() {
            let (transport, user) = site.seat(self.seats.start + index);
            if transport == Transport::WebSocket {
                connection.say(hello.text(&values(site, user)).as_bytes())?;
            }
        }
        result
    }

    fn failed(&mut self, index: usize, error: &anyhow::Error) {
        self.counts.failed += 1;
        self.problem(format!("{}: {error:#}", self.name(index)));
    }

    fn problem(&self, problem: String) {
        let mut problems = lock(&self.shared.problems);
        if problems.len() < PROBLEMS {
            problems.push(problem);
        }
    }

    /// A connection's name in errors. Connections count from 1, as users do.
    fn name(&self, index: usize) -> String {
        let (transport, _) = self.seat(index);
        let host = self.site.target.endpoint(transport).map_or("?", |endpoint| &endpoint.host);
        format!("connection {} to {host}", self.seats.start + index + 1)
    }

    fn group(&self, index: usize) -> u32 {
        self.site.audience.group(self.seat(index).1)
    }

    fn seat(&self, index: usize) -> (Transport, u32) {
        self.site.seat(self.seats.start + index)
    }

    fn request(&self, index: usize) -> anyhow::Result<Vec<u8>> {
        let (transport, user) = self.seat(index);
        let endpoint = self.site.target.endpoint(transport)?;
        let path = endpoint.path.text(&values(&self.site, user));
        let host = &endpoint.host;
        Ok(match transport {
            Transport::WebSocket => format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}\r\n\r\n"
            ),
            Transport::Sse => {
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n")
            }
        }
        .into_bytes())
    }
}

fn values(site: &Site, user: u32) -> Values<'_> {
    Values {
        token: site.tokens.token(user),
        user: site.tokens.id(user),
        topic: site.audience.group(user),
        ..Values::default()
    }
}

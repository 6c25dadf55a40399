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
    client_stats::ClientStats,
    clock::timespec,
    connection::{Connection, Incoming},
    head::WEBSOCKET_KEY,
    marker::Marker,
    plan::LoadPlan,
    pool_shared::{PoolCommand, PoolShared, lock},
    sequence_tracker::SequenceTracker,
    target::Transport,
    template::Values,
};

/// A thread's share of the clients.
pub(crate) struct Receiver {
    plan: Arc<LoadPlan>,
    shared: Arc<PoolShared>,
    /// The numbers of this thread's connections.
    slots: Range<usize>,
    epoll: OwnedFd,
    connections: Vec<Option<Connection>>,
    /// A tracker for each connection and caller.
    trackers: Vec<SequenceTracker>,
    stats: ClientStats,
    /// The next connection to open.
    next: usize,
    /// The connection before which to stop.
    end: usize,
    /// Number of connections that are being opened.
    pending: usize,
    /// Limit of `pending`.
    window: usize,
}

/// Number of connections that are begun before events are handled.
const BATCH: usize = 64;

/// Number of events that are taken at once.
const EVENTS: usize = 1024;

/// Maximum sleep, after which commands are handled.
const SLEEP: Duration = Duration::from_millis(5);

/// Number of problems that are kept.
const PROBLEMS: usize = 5;

impl Receiver {
    pub(crate) fn new(
        plan: Arc<LoadPlan>,
        shared: Arc<PoolShared>,
        slots: Range<usize>,
    ) -> anyhow::Result<Self> {
        let clients = slots.len();
        let mut trackers = Vec::new();
        trackers.resize_with(clients * plan.callers as usize, SequenceTracker::default);
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?,
            connections: (0..clients).map(|_| None).collect(),
            trackers,
            stats: ClientStats::new()?,
            next: 0,
            end: 0,
            pending: 0,
            window: 0,
            plan,
            shared,
            slots,
        })
    }

    /// Runs until the channel of commands is closed.
    pub(crate) fn run(mut self, commands: &mpsc::Receiver<PoolCommand>) -> ClientStats {
        let mut events = Vec::with_capacity(EVENTS);
        let (mut buffer, mut joined) = (Vec::new(), Vec::new());
        loop {
            match commands.try_recv() {
                Ok(PoolCommand::Open { window, upto }) => {
                    self.end = upto.saturating_sub(self.slots.start).min(self.connections.len());
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
            *lock(&self.shared.counts) += std::mem::take(&mut self.stats.counts);
        }
        let sent = Arc::clone(&lock(&self.shared.sent));
        let callers = self.plan.callers as usize;
        for index in 0..self.connections.len() {
            let group = self.group(index) as usize;
            let trackers = &self.trackers[index * callers..(index + 1) * callers];
            let sent = sent.get(group * callers..(group + 1) * callers).unwrap_or_default();
            self.stats.lost +=
                trackers.iter().zip(sent).map(|(tracker, &sent)| tracker.lost(sent)).sum::<u64>();
        }
        self.stats
    }

    /// Begins to open connections, up to the window.
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
        let number = self.slots.start + index;
        let (transport, _) = self.slot(index);
        let address = self.plan.target.endpoint(transport)?.address;
        let connection = Connection::begin(address, transport, number, self.plan.clock.now())?;
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
            self.stats.counts.opened += 1;
            let took = self.plan.clock.now().saturating_sub(connection.started);
            self.stats.opening.saturating_record(took);
        }
        match result {
            Ok(()) => self.connections[index] = Some(connection),
            Err(error) if was_open || opened => {
                self.stats.counts.ended += 1;
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
        let Self { plan, trackers, stats, .. } = self;
        let LoadPlan { run, callers, messages, size, .. } = **plan;
        let group = plan.audience.group(plan.slot(self.slots.start + index).1);
        let trackers = &mut trackers[index * callers as usize..][..callers as usize];
        let (mut now, mut opened, mut replies) = (0, false, Vec::new());
        let result = connection.receive(buffer, joined, |incoming| {
            if now == 0 {
                now = plan.clock.now();
            }
            match incoming {
                Incoming::Opened => opened = true,
                Incoming::Gap => stats.counts.gaps += 1,
                Incoming::Message(text) => {
                    let known = plan.target.replies.iter().find(|(known, _)| known.as_bytes() == text);
                    replies.extend(known.map(|(_, reply)| reply));
                    Marker::each(text, size, |marker| {
                        let is_due = marker.run == run && marker.group == group && marker.number < messages;
                        match trackers.get_mut(marker.caller as usize).filter(|_| is_due) {
                            Some(tracker) => stats.record(tracker.enter(marker.number), marker.due, now),
                            None => stats.counts.misrouted += 1,
                        }
                    });
                }
            }
        });
        if opened && let Some(hello) = plan.target.hello.as_ref() {
            let (transport, user) = plan.slot(self.slots.start + index);
            if transport == Transport::WebSocket {
                connection.say(hello.text(&values(plan, user)).as_bytes())?;
            }
        }
        if connection.transport() == Transport::WebSocket {
            for reply in replies {
                connection.say(reply.as_bytes())?;
            }
        }
        result
    }

    fn failed(&mut self, index: usize, error: &anyhow::Error) {
        self.stats.counts.failed += 1;
        self.problem(format!("{}: {error:#}", self.name(index)));
    }

    fn problem(&self, problem: String) {
        let mut problems = lock(&self.shared.problems);
        if problems.len() < PROBLEMS {
            problems.push(problem);
        }
    }

    /// Returns a connection's name for errors. Connections count from 1, as users do.
    fn name(&self, index: usize) -> String {
        let (transport, _) = self.slot(index);
        let host = self.plan.target.endpoint(transport).map_or("?", |endpoint| &endpoint.host);
        format!("connection {} to {host}", self.slots.start + index + 1)
    }

    fn group(&self, index: usize) -> u32 {
        self.plan.audience.group(self.slot(index).1)
    }

    fn slot(&self, index: usize) -> (Transport, u32) {
        self.plan.slot(self.slots.start + index)
    }

    fn request(&self, index: usize) -> anyhow::Result<Vec<u8>> {
        let (transport, user) = self.slot(index);
        let endpoint = self.plan.target.endpoint(transport)?;
        let path = endpoint.path.text(&values(&self.plan, user));
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

fn values(plan: &LoadPlan, user: u32) -> Values<'_> {
    Values {
        token: plan.tokens.token(user),
        user: plan.tokens.id(user),
        topic: plan.audience.group(user),
        ..Values::default()
    }
}

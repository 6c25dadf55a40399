//! [`Publisher`]: publishes the messages of a load over HTTP/1.1, on a thread of its own.

use std::{
    collections::VecDeque,
    net::TcpStream,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, EventData, EventFlags},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};

use crate::{
    chunked::Chunked,
    client_stats::histogram,
    clock::timespec,
    head::{Body, Head},
    marker::Marker,
    plan::LoadPlan,
    template::Values,
};

/// Publishes the messages of a load.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) plan: Arc<LoadPlan>,
    /// Messages a second; 0 for no limit.
    pub(crate) rate: f64,
    /// Maximum number of a caller's requests without an answer.
    pub(crate) pipeline: usize,
    pub(crate) progress: Arc<Progress>,
}

/// The state between a publisher and its owner.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Number of messages that were accepted.
    pub(crate) published: AtomicU32,
    /// Set to stop before the end.
    pub(crate) stop: AtomicBool,
}

/// The result of a publisher.
#[derive(Debug)]
pub(crate) struct Published {
    /// Number of each caller's messages to each group, `group * callers + caller`.
    pub(crate) sent: Arc<[u32]>,
    /// Total number of messages that were answered.
    pub(crate) answered: u32,
    /// Time from a request to its answer, in nanoseconds.
    pub(crate) answers: Histogram<u64>,
    pub(crate) began: u64,
    pub(crate) ended: u64,
}

struct Caller {
    socket: TcpStream,
    /// The times at which the requests without an answer were sent.
    waiting: VecDeque<u64>,
    output: Vec<u8>,
    input: Vec<u8>,
    blocked: bool,
}

/// Maximum sleep, after which `stop` is checked.
const SLEEP: Duration = Duration::from_millis(50);

impl Publisher {
    /// Publishes all messages.
    ///
    /// # Errors
    /// If the server refuses a message or closes the connection.
    pub(crate) fn run(self) -> anyhow::Result<Published> {
        let LoadPlan { callers, messages, clock, .. } = *self.plan;
        let endpoint = &self.plan.target.publish.endpoint;
        let name = |caller: usize| format!("caller {} to {}", caller + 1, endpoint.host);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::new();
        for caller in 0..callers as usize {
            connections.push(self.connect(&epoll, caller).with_context(|| name(caller))?);
        }
        let mut requests = Requests::new(&self.plan);
        let mut answers = histogram()?;
        let began = clock.now();
        let due = |number: u32| {
            if self.rate > 0.0 { began + (f64::from(number) / self.rate * 1e9) as u64 } else { 0 }
        };
        let (mut next, mut answered, mut turn) = (0, 0, 0);
        let mut events = Vec::with_capacity(connections.len());
        while answered < messages && !self.progress.stop.load(Ordering::Relaxed) {
            // Callers take turns; one whose pipeline is full is skipped.
            let mut passed = 0;
            while next < messages && passed < connections.len() && due(next) <= clock.now() {
                let index = turn % connections.len();
                let caller = &mut connections[index];
                if caller.waiting.len() >= self.pipeline {
                    passed += 1;
                    turn += 1;
                    continue;
                }
                passed = 0;
                let now = clock.now();
                // From the time at which it was due on, or a publisher that is kept waiting would leave out the messages that
                // a stall has delayed.
                let due = if self.rate > 0.0 { due(next) } else { now };
                requests.push(next, index as u32, due, &mut caller.output);
                caller.waiting.push_back(now);
                next += 1;
                // With a rate the next one goes to the next caller; without, a caller's pipeline is filled at once.
                if self.rate > 0.0 || caller.waiting.len() >= self.pipeline {
                    turn += 1;
                }
            }
            for (index, caller) in connections.iter_mut().enumerate() {
                caller.flush(&epoll, index).with_context(|| name(index))?;
            }
            let room = connections.iter().any(|caller| caller.waiting.len() < self.pipeline);
            let sleep = match next < messages && room {
                true => SLEEP.min(Duration::from_nanos(due(next).saturating_sub(clock.now()))),
                false => SLEEP,
            };
            events.clear();
            match epoll::wait(&epoll, spare_capacity(&mut events), Some(&timespec(sleep))) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let data = event.data;
                let index = data.u64() as usize;
                let caller = &mut connections[index];
                let open = caller.receive().with_context(|| name(index))?;
                while let Some(()) = caller.answer().with_context(|| name(index))? {
                    let Some(sent) = caller.waiting.pop_front() else {
                        bail!("{}: an answer without a request", name(index))
                    };
                    answers.saturating_record(clock.now().saturating_sub(sent));
                    answered += 1;
                }
                if !open {
                    // A server may limit the requests of a connection, but must not close it before an answer.
                    ensure!(caller.waiting.is_empty(), "{}: closed without an answer", name(index));
                    *caller = self.connect(&epoll, index).with_context(|| name(index))?;
                }
            }
            self.progress.published.store(answered, Ordering::Relaxed);
        }
        let ended = clock.now();
        // Messages without an answer may still arrive.
        let sent = requests.sent.into();
        Ok(Published { sent, answered, answers, began, ended })
    }

    fn connect(&self, epoll: &OwnedFd, index: usize) -> anyhow::Result<Caller> {
        let socket = TcpStream::connect(self.plan.target.publish.endpoint.address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        epoll::add(epoll, &socket, EventData::new_u64(index as u64), EventFlags::IN)?;
        let (waiting, output, input) = (VecDeque::new(), Vec::new(), Vec::new());
        Ok(Caller { socket, waiting, output, input, blocked: false })
    }
}

impl Caller {
    /// Sends as much as the socket accepts.
    fn flush(&mut self, epoll: &OwnedFd, index: usize) -> anyhow::Result<()> {
        while !self.output.is_empty() {
            match send(&self.socket, &self.output, SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.output.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let blocked = !self.output.is_empty();
        if blocked != self.blocked {
            self.blocked = blocked;
            let flags = if blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(epoll, &self.socket, EventData::new_u64(index as u64), flags)?;
        }
        Ok(())
    }

    /// Reads all available bytes; false at the connection's end.
    fn receive(&mut self) -> anyhow::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok((_, 0)) => return Ok(false),
                Ok((_, length)) => {
                    self.input.extend_from_slice(&buffer[..length]);
                    if length < buffer.len() {
                        return Ok(true);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes a complete answer; an error unless its status is a success.
    fn answer(&mut self) -> anyhow::Result<Option<()>> {
        let Some((head, begin)) = Head::first(&self.input)? else { return Ok(None) };
        let body = &mut self.input[begin..];
        let (data, length) = match head.body {
            Body::Length(length) => (length as usize, length as usize),
            Body::Chunked => {
                let mut chunked = Chunked::default();
                let mut copy = body.to_vec();
                let (data, length) = chunked.decode(&mut copy)?;
                if !chunked.ended() {
                    return Ok(None);
                }
                body[..data].copy_from_slice(&copy[..data]);
                (data, length)
            }
            Body::UntilClose => bail!("{}: an answer without a length", head.line),
        };
        let Some(body) = body.get(..length) else { return Ok(None) };
        if !(200..300).contains(&head.status) {
            let body = String::from_utf8_lossy(&body[..data]);
            let body: String = body.trim().chars().take(200).collect();
            bail!("{}: {body}", head.line);
        }
        self.input.drain(..begin + length);
        Ok(Some(()))
    }
}

/// The requests of a load.
struct Requests<'a> {
    plan: &'a LoadPlan,
    /// The request up to the length of its body.
    head: String,
    groups: u32,
    sent: Vec<u32>,
    message: Vec<u8>,
    body: Vec<u8>,
}

impl<'a> Requests<'a> {
    fn new(plan: &'a LoadPlan) -> Self {
        let publish = &plan.target.publish;
        let headers: String = publish.headers.iter().map(|header| format!("{header}\r\n")).collect();
        let head = format!("HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: ", publish.endpoint.host);
        let groups = plan.audience.groups();
        let sent = vec![0; groups as usize * plan.callers as usize];
        Self { plan, head, groups, sent, message: Vec::new(), body: Vec::new() }
    }

    /// Appends the request of the load's message with this number.
    fn push(&mut self, number: u32, caller: u32, due: u64, output: &mut Vec<u8>) {
        let LoadPlan { target, tokens, audience, run, callers, size, .. } = self.plan;
        let group = number % self.groups;
        let sent = &mut self.sent[(group * callers + caller) as usize];
        let marker = Marker { run: *run, group, caller, number: *sent, due };
        *sent += 1;
        self.message.clear();
        marker.write(*size, &mut self.message);
        let user = tokens.id(group);
        let values = Values {
            token: tokens.token(group),
            user,
            topic: group,
            target: &audience.target(group, user),
            message: &self.message,
        };
        self.body.clear();
        target.publish.body.render(&values, &mut self.body);
        output.extend_from_slice(target.publish.method.as_bytes());
        output.push(b' ');
        target.publish.endpoint.path.render(&values, output);
        output.push(b' ');
        output.extend_from_slice(self.head.as_bytes());
        output.extend_from_slice(self.body.len().to_string().as_bytes());
        output.extend_from_slice(b"\r\n\r\n");
        output.extend_from_slice(&self.body);
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::TcpListener, thread};

    use super::*;
    use crate::{
        audience::Audience,
        clock::Clock,
        endpoint::Reach,
        target::{Paths, Target},
        tokens::Tokens,
    };

    #[test]
    fn messages_that_a_stall_delays_count_from_when_they_were_due() {
        const STALL: Duration = Duration::from_millis(200);
        const MESSAGES: u32 = 20;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut socket, mut due) = (listener.accept().unwrap().0, Vec::new());
            let mut buffer = [0; 4096];
            while due.len() < MESSAGES as usize {
                // A publisher whose only request waits for its answer sends one at a time.
                let length = std::io::Read::read(&mut socket, &mut buffer).unwrap();
                Marker::each(&buffer[..length], 150, |marker| due.push(marker.due));
                if due.len() == 1 {
                    thread::sleep(STALL);
                }
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            }
            due
        });
        let target = Target::realtime(&url, None, &Paths::default(), "key", Reach::Loopback).unwrap();
        let plan = LoadPlan {
            target,
            tokens: Arc::new(Tokens::none(1)),
            audience: Audience::Broadcast,
            websockets: 1,
            streams: 0,
            run: 1,
            callers: 1,
            messages: MESSAGES,
            size: 150,
            clock: Clock::start(),
        };
        let progress = Arc::default();
        let publisher = Publisher { plan: Arc::new(plan), rate: 100.0, pipeline: 1, progress };
        assert_eq!(publisher.run().unwrap().answered, MESSAGES);
        let due = server.join().unwrap();
        let spaces: Vec<_> = due.windows(2).map(|due| due[1] - due[0]).collect();
        assert_eq!(spaces, [10_000_000; MESSAGES as usize - 1]);
    }
}

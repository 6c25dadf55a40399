//! [`Site`]: state shared by all tasks of an audit.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::sync::{broadcast, watch};

use crate::audit::{
    client::excerpt,
    history::{Cursor, Event, History},
    message_text::{MessageText, Parsed},
};

/// State shared by all tasks of an audit.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) seed: u64,
    /// Distinguishes the messages of this run from others.
    pub(crate) run: u64,
    pub(crate) history: History,
    pub(crate) nodes: Vec<SocketAddr>,
    pub(crate) api_key: String,
    /// Others publish to these nodes as well.
    pub(crate) shared: bool,
    pub(crate) users: u32,
    pub(crate) topics: u32,
    /// Length of the nodes' window.
    pub(crate) window: Duration,
    /// After how long without a byte a client gives a connection up.
    pub(crate) silence: Duration,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) commands: broadcast::Sender<ClientCommand>,
    /// The number of the next chain.
    pub(crate) chains: AtomicU32,
    /// The number of the next message.
    pub(crate) messages: AtomicU64,
    /// The number of the run's last message; a client that has it has caught up.
    pub(crate) last: AtomicU64,
    /// Number of clients that have received it.
    pub(crate) caught_up: AtomicUsize,
}

/// The phase of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    /// Faults are over, nothing is published: clients catch up.
    Quiet,
    /// Clients end.
    Finish,
}

/// A command to some of the clients.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ClientCommand {
    /// Drop the connection, one client in `one_in`.
    Drop { one_in: u64 },
    /// Do not read for some time.
    Stall { one_in: u64, time: Duration },
}

impl Site {
    /// The topic in a user's token.
    pub(crate) fn topic_of(&self, user: u32) -> u32 {
        user % self.topics
    }

    /// The record of a message that a client has received. `first` is called for the run's last message, and returns whether
    /// the client has it for the first time.
    pub(crate) fn message(
        &self,
        chain: u32,
        event: &str,
        data: &str,
        cursor: Option<Cursor>,
        first: impl FnOnce() -> bool,
    ) -> Event {
        match MessageText::read(data, self.run) {
            Parsed::Ours(MessageText { n, target, .. }) if event == "message" => {
                if n == self.last.load(Ordering::Acquire) && first() {
                    self.caught_up.fetch_add(1, Ordering::Relaxed);
                }
                Event::Message { chain, n, target, cursor }
            }
            Parsed::Foreign if self.shared => Event::Beat { chain, cursor },
            _ => {
                let text = format!("event {event:?}, {:?}", excerpt(data));
                // A browser keeps its id all the same.
                self.history.push(Event::Malformed { chain, text });
                Event::Beat { chain, cursor }
            }
        }
    }

    /// The first users have clients that read slowly.
    pub(crate) fn slow_users(&self) -> u32 {
        self.users.div_ceil(20)
    }

    /// A site of one node that others only pretend to be.
    #[cfg(test)]
    pub(crate) fn for_tests(node: SocketAddr) -> Self {
        Self {
            seed: 1,
            run: 1,
            history: History::new(None).unwrap(),
            nodes: vec![node],
            api_key: String::new(),
            shared: false,
            users: 1,
            topics: 1,
            window: Duration::from_secs(20),
            silence: Duration::from_secs(5),
            phase: watch::Sender::new(Phase::Running),
            commands: broadcast::Sender::new(1),
            chains: AtomicU32::new(0),
            messages: AtomicU64::new(1),
            last: AtomicU64::new(u64::MAX),
            caught_up: AtomicUsize::new(0),
        }
    }
}

//! [`Node`]: one life of a node: its publisher, its tail and its log.

use crate::{
    log::{Item, Log},
    position::Position,
    rules::{Fence, Refused, Rules, Skipped},
    server::{Content, Server},
};

/// One life of a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Node {
    /// The highest epoch that it has seen.
    pub seen: u8,
    /// Its connection for publishing.
    pub link: Option<Link>,
    /// It has looked the master up and is about to write a heartbeat; whether the session that waits was there before.
    pub beat: Option<bool>,
    /// Its reader.
    pub tail: Tail,
    /// Entries that it has read.
    pub log: Log,
}

/// A claimed connection for publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link {
    /// The server.
    pub server: usize,
    /// The epoch that it writes.
    pub epoch: u8,
}

/// A reader of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tail {
    /// The server, while it is connected.
    pub server: Option<usize>,
    /// The last entry that it has read.
    pub last: Option<Position>,
    /// The stream's end when it connected.
    pub end: Option<Position>,
    /// It has read the stream to its end once.
    pub started: bool,
    /// Until then, entries up to here are too old.
    pub skip: Option<Position>,
}

impl Node {
    /// Claims a server and returns the last position.
    fn claim(&mut self, server: &mut Server, clock: &mut u8, rules: Rules) -> Position {
        let last = server.claim(self.seen, clock, rules);
        self.seen = self.seen.max(last.epoch);
        last
    }

    /// Adds an entry over the connection that it has, or else over a new one to the master.
    pub(crate) fn publish(
        &mut self,
        servers: &mut [Server],
        content: Content,
        clock: &mut u8,
        rules: Rules,
    ) -> Position {
        let master = servers.len() - 1;
        let mut link = self.link.unwrap_or_else(|| Link {
            server: master,
            epoch: self.claim(&mut servers[master], clock, rules).epoch,
        });
        loop {
            if let Some(position) = servers[link.server].add(link.epoch, content) {
                self.link = Some(link);
                return position;
            }
            if rules.refused == Refused::LookUp {
                link.server = master;
            }
            link.epoch = self.claim(&mut servers[link.server], clock, rules).epoch;
        }
    }

    /// A position behind everything that was acknowledged.
    pub(crate) fn fence(&mut self, servers: &mut [Server], clock: &mut u8, rules: Rules) -> Position {
        let master = servers.len() - 1;
        if rules.fence == Fence::Master {
            self.link.take_if(|link| link.server != master);
        }
        match self.link.and_then(|link| servers[link.server].last()) {
            Some(last) => last,
            None => {
                let last = self.claim(&mut servers[master], clock, rules);
                self.link = Some(Link { server: master, epoch: last.epoch });
                last
            }
        }
    }

    /// Connects the tail to the master.
    pub(crate) fn connect_tail(&mut self, servers: &mut [Server], clock: &mut u8, rules: Rules) {
        let server = servers.len() - 1;
        self.tail.end = Some(self.claim(&mut servers[server], clock, rules));
        self.tail.server = Some(server);
        self.catch_up();
    }

    /// Reads the next entry; whether it is a heartbeat of this node.
    pub(crate) fn read(&mut self, me: usize, servers: &[Server], rules: Rules) -> Option<Beat> {
        let entry = servers[self.tail.server?].after(self.tail.last)?;
        self.tail.last = Some(entry.position);
        self.seen = self.seen.max(entry.position.epoch);
        let too_old = !self.tail.started && Some(entry.position) <= self.tail.skip;
        match entry.content {
            _ if too_old && rules.skipped == Skipped::BeginAfter => self.log.begin_after(entry.position),
            Content::Message(number) if !too_old => self.log.append(entry.position, Item::Message(number)),
            _ => self.log.append(entry.position, Item::Marker),
        }
        self.catch_up();
        Some(if entry.content == Content::Beat(me) { Beat::Own(entry.position) } else { Beat::None })
    }

    fn catch_up(&mut self) {
        self.tail.started |= self.tail.last >= self.tail.end;
    }
}

/// Result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beat {
    None,
    /// This node's own heartbeat, at this position.
    Own(Position),
}

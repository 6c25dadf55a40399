//! [`World`]: nodes, a Redis and clients, one step at a time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use realtime_core::{Envelope, Message, Position, Scope, Settings, sim::Node};
use realtime_redis::sim::{Item, Tail};

use super::{
    client::{Acknowledged, Client, Excuse},
    redis::{Redis, Stale},
};

const NODES: usize = 3;
const USERS: i64 = 3;
const CLIENTS: usize = 6;

/// The window's age in Redis' milliseconds.
const MAX_AGE: u64 = 60_000;

/// A window that is never too small here.
const LARGE: usize = 100_000;

/// Entries of one read.
const COUNT: usize = 5;

struct Member {
    node: Node,
    tail: Tail,
    incarnation: String,
    /// The life of the server that the tail is connected to.
    reading: Option<u64>,
    /// The epoch that the publisher has claimed, and on which life of the server.
    publishing: Option<(u64, u64)>,
    /// The newest epoch that this node has seen.
    seen: u64,
    /// The newest message of this node on its way back, and when it was about to be published.
    own: Option<(Position, Instant)>,
    /// Nothing gets from here to Redis.
    cut: bool,
}

impl Member {
    fn new(name: usize, life: u64, window: usize, outbox: usize) -> Self {
        let incarnation = format!("{name}~{life}");
        let mut settings = Settings::default();
        settings.history.max_messages = window;
        settings.outbox.max_messages = outbox;
        Self {
            node: Node::new(settings),
            tail: Tail::new(&incarnation, Duration::from_millis(MAX_AGE)),
            incarnation,
            reading: None,
            publishing: None,
            seen: 0,
            own: None,
            cut: false,
        }
    }

    /// The tail takes some entries, over a connection that it claims if there is none.
    fn read(&mut self, redis: &mut Redis, count: usize) -> bool {
        if self.cut || !redis.up || self.reading.is_some_and(|life| life != redis.life) {
            if self.reading.take().is_some() {
                self.node.apply(self.tail.failed());
            }
            return false;
        }
        if self.reading.is_none() {
            let end = redis.claim(self.seen);
            self.seen = self.seen.max(end.epoch);
            self.tail.claimed(end, redis.now);
            self.reading = Some(redis.life);
        }
        let entries = redis.read(self.tail.last(), count);
        self.seen = entries.iter().map(|(position, ..)| position.epoch).max().unwrap_or(0).max(self.seen);
        let some = !entries.is_empty();
        let drained = entries.len() < count;
        let events =
            self.tail.read(entries.iter().map(|(position, item, at)| (*position, item, *at)), drained);
        for event in events.expect("heartbeats come back at once here") {
            self.node.apply(event);
        }
        // Takes effect with the next read: what was read of an epoch is all of it up to there.
        if let (Some((sent, began)), Some(last)) = (self.own, self.tail.last())
            && sent <= last
        {
            if sent.epoch == last.epoch {
                self.tail.came_back(began);
            }
            self.own = None;
        }
        some
    }

    fn add(&mut self, redis: &mut Redis, item: &Item) -> Option<Position> {
        if self.cut || !redis.up {
            self.publishing = None;
            return None;
        }
        loop {
            let epoch = match self.publishing {
                Some((epoch, life)) if life == redis.life => epoch,
                _ => {
                    let epoch = redis.claim(self.seen).epoch;
                    (self.publishing, self.seen) = (Some((epoch, redis.life)), self.seen.max(epoch));
                    epoch
                }
            };
            match redis.add(epoch, item.clone()) {
                Ok(position) => return Some(position),
                Err(Stale) => self.publishing = None,
            }
        }
    }

    fn beat(&mut self, redis: &mut Redis) {
        let began = Instant::now();
        // Heartbeats carry their time in microseconds: the next event has to come later than this one.
        while began.elapsed() < Duration::from_micros(2) {}
        let item = Item::Heartbeat(self.incarnation.clone(), Instant::now());
        self.add(redis, &item);
    }
}

pub(crate) struct World {
    random: StdRng,
    prints: bool,
    redis: Redis,
    nodes: Vec<Member>,
    clients: Vec<Client>,
    acknowledged: Acknowledged,
    window: usize,
    outbox: usize,
    published: u64,
    lives: u64,
}

impl World {
    pub(crate) fn new(seed: u64, prints: bool) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        // In two of three histories the window is always large enough: there, a gap needs another cause.
        let window = if random.random_ratio(1, 3) { random.random_range(8..40) } else { LARGE };
        let outbox = random.random_range(1..6);
        Self {
            random,
            prints,
            redis: Redis::new(),
            nodes: (0..NODES).map(|name| Member::new(name, 0, window, outbox)).collect(),
            clients: (0..CLIENTS).map(|n| Client::new(n as i64 % USERS)).collect(),
            acknowledged: Acknowledged::new(),
            window,
            outbox,
            published: 0,
            lives: 0,
        }
    }

    fn trace(&self, what: impl FnOnce() -> String) {
        if self.prints {
            println!("{}", what());
        }
    }

    pub(crate) fn step(&mut self) {
        self.redis.now += self.random.random_range(1..50);
        let node = self.random.random_range(0..NODES);
        let client = self.random.random_range(0..CLIENTS);
        match self.random.random_range(0..100_u32) {
            0..25 => self.publish(node),
            25..40 => {
                let count = self.random.random_range(1..=COUNT);
                self.nodes[node].read(&mut self.redis, count);
                self.trace(|| format!("node {node} reads up to {count}: {:?}", self.nodes[node].tail.last()));
            }
            40..52 => {
                self.nodes[node].node.pass();
                self.trace(|| format!("node {node} passes"));
            }
            52..58 => {
                self.nodes[node].beat(&mut self.redis);
                self.trace(|| format!("node {node} sends a heartbeat"));
            }
            58..60 => self.nodes[node].node.tick(),
            60..78 => {
                let budget = self.random.random_range(1..120);
                self.read(client, budget);
            }
            78..88 => {
                self.clients[client].disconnect();
                self.trace(|| format!("client {client} dials node {node}"));
                self.clients[client].connect(node, &self.nodes[node].node);
            }
            88..90 => self.redis.replicate(),
            90 => {
                self.trace(|| "fail-over".to_owned());
                self.redis.fail_over();
            }
            91 => match self.random.random_range(0..4_u32) {
                0 => {
                    self.trace(|| "Redis forgets everything".to_owned());
                    self.redis.forget();
                }
                1 => {
                    self.trace(|| "FLUSHALL".to_owned());
                    self.redis.flush();
                }
                2 => {
                    let keep = self.random.random_range(0..10);
                    self.trace(|| format!("XTRIM to {keep}"));
                    self.redis.trim(keep);
                }
                _ => {
                    self.trace(|| "a long time passes".to_owned());
                    self.redis.age();
                    self.redis.now += MAX_AGE + 1;
                }
            },
            92 => {
                self.redis.up = !self.redis.up;
                self.trace(|| format!("Redis is up: {}", self.redis.up));
            }
            93..95 => {
                self.nodes[node].cut = !self.nodes[node].cut;
                self.trace(|| format!("node {node} is cut off: {}", self.nodes[node].cut));
            }
            95..97 => {
                // Its connection breaks.
                if self.nodes[node].reading.take().is_some() {
                    let down = self.nodes[node].tail.failed();
                    self.nodes[node].node.apply(down);
                }
                self.trace(|| format!("node {node} loses its connection"));
            }
            _ => {
                self.trace(|| format!("node {node} is killed"));
                for client in self.clients.iter_mut().filter(|client| client.node == node) {
                    client.disconnect();
                }
                self.lives += 1;
                self.nodes[node] = Member::new(node, self.lives, self.window, self.outbox);
            }
        }
    }

    fn publish(&mut self, node: usize) {
        let user = self.random.random_range(0..USERS);
        self.published += 1;
        let text = self.published.to_string();
        let envelope = Envelope::to_users([user], Scope::Both, Message::text(text)).unwrap();
        let began = Instant::now();
        let position = self.nodes[node].add(&mut self.redis, &Item::Envelope(Arc::new(envelope)));
        self.nodes[node].own = position.map(|position| (position, began)).or(self.nodes[node].own);
        self.trace(|| format!("node {node} publishes {} to {user}: {position:?}", self.published));
        if let Some(position) = position {
            self.nodes[node].node.acknowledge(position);
            let before = self.acknowledged.insert(position, user);
            assert_eq!(before, None, "a position is given once");
        }
    }

    fn read(&mut self, client: usize, budget: usize) -> bool {
        self.trace(|| format!("client {client} reads {budget}"));
        let excuse =
            if self.window < LARGE { Excuse::SmallWindow } else { Excuse::Trimmed(&self.redis.trimmed) };
        self.clients[client].read(budget, &self.acknowledged, excuse)
    }

    /// Ends all faults and lets all clients read to the end: then everything acknowledged has arrived.
    pub(crate) fn heal(&mut self) {
        self.trace(|| "all is healed".to_owned());
        self.redis.up = true;
        for member in &mut self.nodes {
            member.cut = false;
        }
        for client in 0..CLIENTS {
            let node = self.random.random_range(0..NODES);
            if self.clients[client].session.is_none() {
                self.clients[client].connect(node, &self.nodes[node].node);
            }
        }
        for _ in 0..4 {
            for node in 0..NODES {
                self.nodes[node].beat(&mut self.redis);
            }
            for node in 0..NODES {
                // The first one finds a broken connection, the next opens another.
                self.nodes[node].read(&mut self.redis, COUNT);
                while self.nodes[node].read(&mut self.redis, COUNT) {}
                while self.nodes[node].node.pass() {}
                self.nodes[node].node.pass();
            }
            for client in 0..CLIENTS {
                while self.read(client, 10_000) {
                    let node = self.clients[client].node;
                    self.nodes[node].node.pass();
                }
            }
        }
        for client in &self.clients {
            client.has_all(&self.acknowledged);
        }
    }
}

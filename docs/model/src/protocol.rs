//! [`Protocol`]: the steps of a cluster and what must hold after each.

use stateright::{Model, Property};

use crate::{
    client::{Client, End, Frame, Session, Stage},
    log::{Item, Resume},
    node::{Beat, Node},
    position::Position,
    rules::{Ahead, Early, Fence, Head, Heartbeat, OwnMessage, Ping, Rules, Trimmed},
    server::{Content, Server},
};

/// The protocol, within bounds.
#[derive(Debug, Clone, Default)]
pub struct Protocol {
    /// The decisions.
    pub rules: Rules,
    /// Bounds of the steps.
    pub budget: Budget,
    /// An old master still accepts entries from nodes that have not noticed the failover.
    pub zombies: bool,
    /// The client begins with a cursor that no node has issued.
    pub forged: bool,
}

/// Bounds of the steps: the number of times that each may happen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    /// Nodes.
    pub nodes: usize,
    /// Number of nodes that publish messages.
    pub publishers: usize,
    /// Messages.
    pub messages: usize,
    /// Messages that are added without an acknowledgement.
    pub unacknowledged: usize,
    /// Heartbeats of nodes through the stream.
    pub beats: usize,
    /// Failovers to a replica that may lag.
    pub failovers: usize,
    /// Masters that are emptied.
    pub flushes: usize,
    /// Entries that are trimmed from the stream.
    pub stream_trims: usize,
    /// Entries that are trimmed from a node's window.
    pub window_trims: usize,
    /// Nodes that are started again.
    pub restarts: usize,
    /// Connections of a tail to the same server again.
    pub connections: usize,
    /// Heartbeats to the client.
    pub pings: usize,
    /// Kicks of the client.
    pub kicks: usize,
}

/// A state of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cluster {
    /// The last is the master.
    pub servers: Vec<Server>,
    /// The highest epoch that was ever claimed.
    pub clock: u8,
    /// All messages that were ever added.
    pub messages: Vec<Message>,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The client, to whom every message is addressed.
    pub client: Client,
    /// Budget that is left.
    pub left: Budget,
}

/// A message that was added to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Message {
    /// Its position.
    pub position: Position,
    /// The publisher received the acknowledgement.
    pub acknowledged: bool,
}

/// Steps of the cluster and the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// A node publishes a message.
    Publish {
        /// The node.
        node: usize,
        /// The answer arrives.
        acknowledged: bool,
    },
    /// A node looks the master up, to write a heartbeat.
    LookUp(usize),
    /// A node writes a heartbeat.
    Beat(usize),
    /// A node notices that the master has changed, and publishes there.
    Relink(usize),
    /// A node's tail connects to the master.
    Connect(usize),
    /// A node's tail reads an entry.
    Read(usize),
    /// A node ends and is started again; `skip` entries of the stream are too old for it.
    Restart {
        /// The node.
        node: usize,
        /// Entries.
        skip: usize,
    },
    /// A replica with that number of the entries becomes the master.
    Failover(usize),
    /// The master is emptied.
    Flush,
    /// The oldest entry of the stream goes.
    TrimStream,
    /// The oldest entry of a node's window goes.
    TrimWindow(usize),
    /// The client connects to a node, with its cursor.
    Dial(usize),
    /// The connection breaks.
    Hangup,
    /// The client gets the next frame.
    Deliver,
    /// The client gets a heartbeat.
    Ping,
    /// A node gives the order to end the client's session, wherever that is.
    Kick(usize),
}

/// A cursor that no node has issued.
pub const FORGED: Position = Position { epoch: 1, offset: u8::MAX };

impl Model for Protocol {
    type State = Cluster;
    type Action = Step;

    fn init_states(&self) -> Vec<Cluster> {
        let mut cluster = Cluster {
            servers: vec![Server::new(0)],
            clock: 0,
            messages: Vec::new(),
            nodes: vec![Node::default(); self.budget.nodes],
            client: Client::default(),
            left: self.budget.clone(),
        };
        if self.forged {
            cluster.client.cursor = Some(FORGED);
        }
        // All nodes are up on an empty stream.
        for node in 0..self.budget.nodes {
            cluster.nodes[node].connect_tail(&mut cluster.servers, &mut cluster.clock, self.rules);
            cluster.nodes[node].read(node, &cluster.servers, self.rules);
        }
        vec![cluster]
    }

    fn actions(&self, state: &Cluster, steps: &mut Vec<Step>) {
        let Cluster { servers, nodes, client, left, .. } = state;
        let master = servers.len() - 1;
        for (node, Node { link, beat, tail, log, .. }) in nodes.iter().enumerate() {
            if node < left.publishers && left.messages > 0 {
                steps.push(Step::Publish { node, acknowledged: true });
                if left.unacknowledged > 0 {
                    steps.push(Step::Publish { node, acknowledged: false });
                }
            }
            let waits = client.session.as_ref().is_some_and(|session| {
                session.node == node && session.stage == Stage::Ahead { heartbeat: None }
            });
            // Any other heartbeat is an entry without a message, as a claim is.
            let right = self.rules.ahead == Ahead::Wait && self.rules.heartbeat == Heartbeat::BeforeLookUp;
            if left.beats > 0 && beat.is_none() && (waits || !right) {
                steps.push(Step::LookUp(node));
            }
            if beat.is_some() {
                steps.push(Step::Beat(node));
            }
            if link.is_some_and(|link| link.server != master) {
                steps.push(Step::Relink(node));
            }
            if tail.server != Some(master) || left.connections > 0 {
                steps.push(Step::Connect(node));
            }
            if tail.server.is_some_and(|server| servers[server].after(tail.last).is_some()) {
                steps.push(Step::Read(node));
            }
            if left.restarts > 0 {
                steps.extend((0..=servers[master].stream().len()).map(|skip| Step::Restart { node, skip }));
            }
            if left.window_trims > 0 && !log.entries.is_empty() {
                steps.push(Step::TrimWindow(node));
            }
            match &client.session {
                None => steps.push(Step::Dial(node)),
                Some(session) if left.kicks > 0 && session.end.is_none() => steps.push(Step::Kick(node)),
                Some(_) => {}
            }
        }
        if left.failovers > 0 {
            steps.extend((0..=servers[master].history.len()).map(Step::Failover));
        }
        if left.flushes > 0 {
            steps.push(Step::Flush);
        }
        if left.stream_trims > 0 && !servers[master].stream().is_empty() {
            steps.push(Step::TrimStream);
        }
        if let Some(session) = &client.session {
            steps.push(Step::Hangup);
            if !session.frames.is_empty() || matches!(session.stage, Stage::Serving { .. }) {
                steps.push(Step::Deliver);
            }
            if left.pings > 0 {
                steps.push(Step::Ping);
            }
        }
    }

    fn next_state(&self, state: &Cluster, step: Step) -> Option<Cluster> {
        let mut next = state.clone();
        match step {
            Step::Publish { node, acknowledged } => next.publish(node, acknowledged, self.rules),
            Step::LookUp(node) => next.look_up(node),
            Step::Beat(node) => next.beat(node, self.rules),
            Step::Relink(node) => next.nodes[node].link = None,
            Step::Connect(node) => {
                let Cluster { servers, nodes, left, clock, .. } = &mut next;
                if nodes[node].tail.server == Some(servers.len() - 1) {
                    left.connections -= 1;
                }
                nodes[node].connect_tail(servers, clock, self.rules);
                next.settle(node, Beat::None, self.rules);
            }
            Step::Read(node) => {
                let beat = next.nodes[node].read(node, &next.servers, self.rules)?;
                let beat = next.own_message(node).unwrap_or(beat);
                next.settle(node, beat, self.rules);
            }
            Step::Restart { node, skip } => {
                next.left.restarts -= 1;
                let stream = next.servers.last().map_or(&[][..], Server::stream);
                let skip = skip.checked_sub(1).map(|last| stream[last].position);
                next.nodes[node] = Node::default();
                next.nodes[node].tail.skip = skip;
                if next.client.session.as_ref().is_some_and(|session| session.node == node) {
                    next.hang_up();
                }
            }
            Step::Failover(keep) => next.fail_over(keep, self.zombies),
            Step::Flush => {
                next.left.flushes -= 1;
                let master = next.servers.last_mut()?;
                *master = Server::new(master.replication);
            }
            Step::TrimStream => {
                next.left.stream_trims -= 1;
                next.servers.last_mut()?.trimmed += 1;
            }
            Step::TrimWindow(node) => {
                next.left.window_trims -= 1;
                next.nodes[node].log.trim();
            }
            Step::Dial(node) => next.dial(node, self.rules),
            Step::Hangup => next.hang_up(),
            Step::Deliver => next.deliver(self.rules)?,
            Step::Ping => next.ping(self.rules)?,
            Step::Kick(node) => next.kick(node, self.rules),
        }
        next.end_session();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always("no silent hole", |_, state| state.hole().is_none()),
            Property::<Self>::always("nothing twice", |_, state| !state.client.faults.twice),
            Property::<Self>::always("no inversion", |_, state| !state.client.faults.inverted),
            Property::<Self>::always("a cursor never goes back", |protocol, state| {
                !state.client.faults.went_back || protocol.forged
            }),
            Property::<Self>::always("no false gap", |protocol, state| {
                !state.client.faults.false_gap || protocol.forged
            }),
            Property::<Self>::always("no history as news", |_, state| !state.client.faults.old_as_new),
            Property::<Self>::always("who is kicked gets what was acknowledged before", |_, state| {
                !state.client.faults.ended_early
            }),
            Property::<Self>::always("who waits has a reason", |protocol, state| {
                !state.waits_in_vain(protocol)
            }),
            // What could not happen would prove nothing.
            Property::<Self>::sometimes("everything is delivered", |protocol, state| {
                let all = (1 << protocol.budget.messages) - 1;
                state.client.delivered == all
            }),
        ]
    }
}

impl Cluster {
    fn publish(&mut self, node: usize, acknowledged: bool, rules: Rules) {
        self.left.messages -= 1;
        self.left.unacknowledged -= usize::from(!acknowledged);
        let content = Content::Message(self.messages.len() as u8);
        let position = self.nodes[node].publish(&mut self.servers, content, &mut self.clock, rules);
        self.messages.push(Message { position, acknowledged });
        let was_there = self.nodes[node].beat == Some(true) || rules.own_message == OwnMessage::AtPublish;
        if was_there && acknowledged {
            self.stands_for(node, position);
        }
    }

    /// An entry of a node is as good as a heartbeat to a session that waits for one.
    fn stands_for(&mut self, node: usize, position: Position) {
        if let Some(Session { node: of, stage: Stage::Ahead { heartbeat: heartbeat @ None }, .. }) =
            &mut self.client.session
            && *of == node
        {
            *heartbeat = Some(position);
        }
    }

    /// The entry that a node has read last, if the session waits for it.
    fn own_message(&self, node: usize) -> Option<Beat> {
        let Session { node: of, stage: Stage::Ahead { heartbeat: Some(heartbeat) }, .. } =
            self.client.session.as_ref()?
        else {
            return None;
        };
        let read = *of == node && self.nodes[node].tail.last == Some(*heartbeat);
        read.then_some(Beat::Own(*heartbeat))
    }

    fn look_up(&mut self, node: usize) {
        self.left.beats -= 1;
        let master = self.servers.len() - 1;
        self.nodes[node].link.take_if(|link| link.server != master);
        self.nodes[node].beat =
            Some(self.client.session.as_ref().is_some_and(|session| session.node == node));
    }

    fn hang_up(&mut self) {
        let Some(session) = self.client.session.take() else { return };
        let beat = &mut self.nodes[session.node].beat;
        *beat = beat.and(Some(false));
    }

    fn beat(&mut self, node: usize, rules: Rules) {
        let was_there = self.nodes[node].beat.take() == Some(true) || rules.heartbeat == Heartbeat::AtWrite;
        let content = Content::Beat(node);
        let position = self.nodes[node].publish(&mut self.servers, content, &mut self.clock, rules);
        if was_there {
            self.stands_for(node, position);
        }
    }

    fn fail_over(&mut self, keep: usize, zombies: bool) {
        self.left.failovers -= 1;
        let replication = self.servers.len() as u8;
        let promoted = self.servers.last().map(|master| master.promoted(keep, replication));
        self.servers.extend(promoted);
        if !zombies {
            for node in &mut self.nodes {
                node.link = None;
                node.tail.server = None;
            }
        }
    }

    fn dial(&mut self, node: usize, rules: Rules) {
        if self.client.cursor.is_none() {
            // It knows nothing, so it lacks nothing but what comes from now on.
            self.client = Client::default();
        }
        self.client.session = Some(Session { node, stage: Stage::Early, frames: Vec::new(), end: None });
        self.settle(node, Beat::None, rules);
    }

    fn kick(&mut self, node: usize, rules: Rules) {
        self.left.kicks -= 1;
        let Self { servers, nodes, client, messages, clock, .. } = self;
        let Some(session) = &mut client.session else { return };
        let fence = match rules.fence {
            Fence::Master | Fence::OwnLink => nodes[node].fence(servers, clock, rules),
            Fence::OwnLog => match nodes[session.node].tail.last {
                Some(last) => last,
                None => return,
            },
        };
        let acknowledged = |(number, message): (usize, &Message)| u16::from(message.acknowledged) << number;
        let due = messages.iter().enumerate().map(acknowledged).sum();
        session.end = Some(End { fence, due });
    }

    /// Ends a session that was kicked, once it has got what is before its end.
    fn end_session(&mut self) {
        let Some(Session { node, stage, frames, end: Some(end) }) = &self.client.session else { return };
        let log = &self.nodes[*node].log;
        let has = match stage {
            Stage::Early => return,
            Stage::Ahead { .. } => self.client.cursor,
            Stage::Serving { next } if *next < log.first => return,
            Stage::Serving { next } => log.cursor_at(*next),
        };
        if has < Some(end.fence) || !frames.is_empty() {
            return;
        }
        let due = end.due;
        let Self { messages, client, .. } = self;
        client.faults.ended_early |= messages.iter().enumerate().any(|(number, message)| {
            due & (1 << number) != 0
                && Some(message.position) > client.since
                && !client.knows_of(number as u8, message.position)
        });
        self.hang_up();
    }

    /// Looks again at a session that waits for its node.
    fn settle(&mut self, node: usize, beat: Beat, rules: Rules) {
        let Self { nodes, client, .. } = self;
        let Node { tail, log, .. } = &nodes[node];
        let Some(mut session) = client.session.take_if(|session| session.node == node) else { return };
        let begins = tail.started || rules.early == Early::AtOnce;
        let over = match session.stage {
            Stage::Early if begins => false,
            Stage::Ahead { heartbeat } => match beat {
                Beat::Own(_) if rules.ahead == Ahead::AnyHeartbeat => true,
                Beat::Own(position) => heartbeat.is_some_and(|heartbeat| heartbeat <= position),
                Beat::None => false,
            },
            Stage::Early | Stage::Serving { .. } => {
                client.session = Some(session);
                return;
            }
        };
        let waited = session.stage != Stage::Early;
        let resume = client.cursor.map_or(Resume::At(log.end()), |cursor| log.resume(cursor, rules));
        let place = match resume {
            Resume::Ahead if over => Some((log.end(), true)),
            Resume::Ahead => None,
            Resume::At(place) => Some((place, false)),
            Resume::Lost(place) => Some((place, true)),
        };
        match place {
            None if waited => {}
            None => session.stage = Stage::Ahead { heartbeat: None },
            Some((next, gap)) => {
                session.stage = Stage::Serving { next };
                let position = log.cursor_at(next);
                if client.cursor.is_none() {
                    client.since = position;
                }
                let head = match rules.head {
                    Head::Own => client.cursor.or(position),
                    Head::Place => position,
                };
                session.frames.push(Frame::Head(head));
                if let Some(to) = position.filter(|_| gap) {
                    let justified = client.lacks(to, log);
                    session.frames.push(Frame::Gap { to, justified });
                }
            }
        }
        client.session = Some(session);
    }

    fn deliver(&mut self, rules: Rules) -> Option<()> {
        let Self { nodes, client, .. } = self;
        let mut session = client.session.take()?;
        let log = &nodes[session.node].log;
        if session.frames.is_empty() {
            let Stage::Serving { next } = &mut session.stage else { return None };
            if *next < log.first {
                *next = log.first;
                let to = log.cursor_at(log.first)?;
                if client.cursor < Some(to) || rules.trimmed == Trimmed::Always {
                    let justified = client.lacks(to, log);
                    client.take_gap(to, justified);
                }
            } else {
                match log.get(*next)? {
                    Item::Message(number) => client.take_message(number, log.position_at(*next)),
                    Item::Marker => {}
                    Item::Gap(to) => {
                        let justified = client.lacks(to, log);
                        client.take_gap(to, justified);
                    }
                }
                *next += 1;
            }
        } else {
            match session.frames.remove(0) {
                Frame::Head(id) => client.take_id(id),
                Frame::Gap { to, justified } => client.take_gap(to, justified),
            }
        }
        client.session = Some(session);
        Some(())
    }

    fn ping(&mut self, rules: Rules) -> Option<()> {
        let Self { nodes, client, left, .. } = self;
        let session = client.session.as_ref()?;
        let log = &nodes[session.node].log;
        // What waits to be sent is sent first.
        let Stage::Serving { next } = session.stage else {
            return (rules.ping == Ping::End).then(|| {
                left.pings -= 1;
                client.take_id(log.cursor_at(log.end()));
            });
        };
        if !session.frames.is_empty() {
            return None;
        }
        left.pings -= 1;
        let id = match rules.ping {
            Ping::BeforeNext if next < log.first => None,
            Ping::BeforeNext => log.cursor_at(next).max(client.cursor),
            Ping::OldestRun => log.cursor_at(next).max(client.cursor),
            Ping::BehindCursor if next < log.first => None,
            Ping::BehindCursor => log.cursor_at(next),
            Ping::End => log.cursor_at(log.end()),
        };
        client.take_id(id);
        Some(())
    }

    /// A message that is due to the client, that it has passed, and that it does not know of.
    fn hole(&self) -> Option<Message> {
        let Self { messages, client, .. } = self;
        let since = client.since?;
        let up_to_date = self.is_up_to_date();
        let lacks = |number: usize, message: &Message| {
            let passed = up_to_date || client.cursor >= Some(message.position);
            message.acknowledged
                && message.position > since
                && passed
                && !client.knows_of(number as u8, message.position)
        };
        messages
            .iter()
            .enumerate()
            .find(|(number, message)| lacks(*number, message))
            .map(|(_, message)| *message)
    }

    /// Returns whether the client has received everything of a node that has read everything of the master.
    fn is_up_to_date(&self) -> bool {
        let Some(Session { node, stage: Stage::Serving { next }, frames, .. }) = &self.client.session else {
            return false;
        };
        let Node { tail, log, .. } = &self.nodes[*node];
        let read =
            self.servers.last().is_some_and(|master| master.last().is_some() && tail.last == master.last());
        let reads = tail.server == Some(self.servers.len() - 1);
        reads && read && frames.is_empty() && *next == log.end()
    }

    /// Returns whether a session waits for an entry that has arrived.
    fn waits_in_vain(&self, protocol: &Protocol) -> bool {
        let Some(Session { node, stage, .. }) = &self.client.session else { return false };
        let Node { tail, log, .. } = &self.nodes[*node];
        match stage {
            Stage::Early => tail.started,
            // Its heartbeat has come back.
            Stage::Ahead { heartbeat: Some(heartbeat) } if tail.last >= Some(*heartbeat) => true,
            Stage::Ahead { .. } => {
                self.client.cursor.is_none_or(|cursor| log.resume(cursor, protocol.rules) != Resume::Ahead)
            }
            Stage::Serving { .. } => false,
        }
    }
}

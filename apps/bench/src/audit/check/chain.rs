//! [`Chain`]: what one client was given, beside what it was due.

use std::collections::{HashMap, HashSet};

use super::{
    archive::{Archive, Due, SECOND},
    collector::{Collector, Violation},
};
use crate::audit::history::{Behaviour, Cursor, End, Event, Target, Transport};

/// One client from its first cursor on, through all its connections.
#[derive(Debug)]
pub(super) struct Chain<'a> {
    archive: &'a Archive,
    number: u32,
    targets: Vec<Target>,
    behaviour: Behaviour,
    /// Time at which it was first accepted.
    hello: Option<u64>,
    /// The first cursor that it was given.
    start: Option<Cursor>,
    /// The last.
    cursor: Option<Cursor>,
    /// The furthest of the messages that it got.
    furthest: Option<Cursor>,
    got: HashSet<u64>,
    due: Vec<Due>,
    /// Number of entries of `due` that its cursor has passed.
    passed: usize,
    /// Messages that were passed without having come.
    missing: HashMap<u64, Missing>,
    connection: Option<Connection>,
}

#[derive(Debug, Clone, Copy)]
struct Connection {
    node: u32,
    transport: Transport,
    dialled: u64,
    with_cursor: bool,
    /// Time at which it was accepted.
    hello: Option<u64>,
    /// Time of the last event.
    heard: u64,
    stalled: bool,
    /// A hello that may stand behind a gap which is announced right after it.
    greeting: Option<(u64, Cursor)>,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    at: u64,
    cursor: Cursor,
    announced: bool,
    /// Node and transport of the client at that time.
    node: Option<(u32, Transport)>,
}

/// Maximum age of a message delivered to a client without a cursor; a node may lag by this much.
const OLD: u64 = 10 * SECOND;

/// Factor by which the lateness limit grows near a fault.
const LATE_ANYWAY: u64 = 3;

impl<'a> Chain<'a> {
    pub(super) fn new(
        archive: &'a Archive,
        number: u32,
        user: u32,
        topics: &[u32],
        behaviour: Behaviour,
    ) -> Self {
        let mut targets = vec![Target::All, Target::User(user)];
        targets.extend(topics.iter().map(|topic| Target::Topic(*topic)));
        Self {
            archive,
            number,
            targets,
            behaviour,
            hello: None,
            start: None,
            cursor: None,
            furthest: None,
            got: HashSet::new(),
            due: Vec::new(),
            passed: 0,
            missing: HashMap::new(),
            connection: None,
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Processes one event.
    pub(super) fn see(&mut self, at: u64, event: &Event, collector: &mut Collector<'_>) {
        if let Event::Dial { cursor, node, transport, .. } = event {
            let with_cursor = cursor.is_some();
            self.connection = Some(Connection {
                node: *node,
                transport: *transport,
                dialled: at,
                with_cursor,
                hello: None,
                heard: at,
                stalled: false,
                greeting: None,
            });
            return;
        }
        let Some(connection) = &mut self.connection else { return };
        if connection.hello.is_some() && !connection.stalled && self.behaviour != Behaviour::Slow {
            let counts = collector.at(at);
            counts.silence = counts.silence.max(at - connection.heard);
        }
        connection.heard = at;
        let greeting = connection.greeting.take();
        if let (Some((when, cursor)), false) = (greeting, matches!(event, Event::Gap { .. })) {
            // No gap followed the hello, so everything up to its cursor should have been delivered.
            self.cursor = Some(cursor);
            self.pass(when, cursor, None, false);
        }
        match event {
            Event::Hello { cursor, .. } => self.see_hello(at, *cursor, collector),
            Event::Message { n, target, cursor, .. } => self.see_message(at, *n, target, *cursor, collector),
            Event::Beat { cursor: Some(cursor), .. } => {
                self.go_to(at, *cursor, "a heartbeat", collector);
                self.pass(at, *cursor, None, false);
            }
            Event::Gap { reason, cursor, .. } => {
                self.see_gap(at, reason, *cursor, greeting.map(|(_, cursor)| cursor), collector);
            }
            Event::Malformed { text, .. } => {
                collector.find(at, Violation::Malformed, || format!("{}: {text}", self.who()));
            }
            Event::Stall { .. } => {
                if let Some(connection) = &mut self.connection {
                    connection.stalled = true;
                }
            }
            Event::End { end, .. } => self.see_end(at, end, collector),
            _ => {}
        }
    }

    /// The client is no more: what its cursor has not passed was not due.
    pub(super) fn close(mut self, collector: &mut Collector<'_>) {
        if let Some((when, cursor)) = self.connection.and_then(|connection| connection.greeting) {
            self.pass(when, cursor, None, false);
        }
        for (n, missing) in self.missing {
            let Missing { at, cursor, announced, node } = missing;
            if announced {
                collector.at(at).announced += 1;
            } else {
                collector.find(at, Violation::Lost, || {
                    let node =
                        node.map(|(node, transport)| format!(", passed by node {node}, {transport:?}"));
                    let (number, behaviour, node) = (self.number, self.behaviour, node.unwrap_or_default());
                    format!("chain {number} ({behaviour:?}) never got message {n} at {cursor}{node}")
                });
            }
        }
    }

    /// The run is over: all that was acknowledged was due.
    pub(super) fn finish(mut self, collector: &mut Collector<'_>) {
        let finish = self.archive.finish;
        if self.hello.is_none() {
            collector.find(finish, Violation::Ended, || format!("chain {} was never taken in", self.number));
        }
        let last = Cursor { epoch: u64::MAX, offset: u64::MAX };
        if self.start.is_some() {
            self.pass(finish, last, None, false);
        }
        self.close(collector);
    }

    fn see_hello(&mut self, at: u64, cursor: Option<Cursor>, collector: &mut Collector<'_>) {
        self.hello = self.hello.or(Some(at));
        if let Some(connection) = &mut self.connection {
            connection.hello = Some(at);
        }
        let Some(cursor) = cursor else { return };
        let first = self.start.is_none();
        let before = self.cursor;
        self.go_to(at, cursor, "a hello", collector);
        if !first && let Some(connection) = &mut self.connection {
            connection.greeting = Some((at, cursor));
            // Until it is known whether a gap follows, which would begin where the client stood before.
            self.cursor = before;
        }
    }

    fn see_message(
        &mut self,
        at: u64,
        n: u64,
        target: &Target,
        cursor: Option<Cursor>,
        collector: &mut Collector<'_>,
    ) {
        collector.at(at).delivered += 1;
        let archive = self.archive;
        if !self.targets.contains(target) {
            collector
                .find(at, Violation::WrongUser, || format!("{} got message {n} for {target}", self.who()));
        }
        let (Some(cursor), Some(message)) = (cursor, archive.messages.get(&n)) else {
            let words = || {
                format!("{}: message {n} at {} was never published, or has no id", self.who(), shown(cursor))
            };
            return collector.find(at, Violation::Malformed, words);
        };
        let known = message.cursor.is_none_or(|acknowledged| acknowledged == cursor);
        if !known || message.target != *target {
            collector.find(at, Violation::Malformed, || {
                format!("{}: message {n} came at {cursor}, not at {}", self.who(), shown(message.cursor))
            });
        }
        if !self.got.insert(n) {
            collector
                .find(at, Violation::Doubled, || format!("{} got message {n} at {cursor} again", self.who()));
        } else if self.missing.remove(&n).is_some_and(|missing| !missing.announced)
            || self.furthest > Some(cursor)
            || self.cursor > Some(cursor)
        {
            let furthest = shown(self.furthest.max(self.cursor));
            collector.find(at, Violation::Inverted, || {
                format!("{} got message {n} at {cursor} after {furthest}", self.who())
            });
        }
        if let Some(connection) = self.connection {
            let old = message.acknowledged.is_some_and(|then| then + OLD < connection.dialled);
            if old && !connection.with_cursor {
                collector.find(at, Violation::Stale, || {
                    format!("{} came without a cursor and got the old message {n} at {cursor}", self.who())
                });
            }
            let since = message.acknowledged.unwrap_or(at);
            // Near a fault the limit is longer, but there is one.
            let disturbed = archive.disturbed(message.began, at);
            let limit = if disturbed { archive.late * LATE_ANYWAY } else { archive.late };
            if connection.hello.is_some_and(|hello| hello <= message.began)
                && at > since + limit
                && !connection.stalled
                && self.behaviour != Behaviour::Slow
            {
                collector.find(at, Violation::Late, || {
                    format!("{} got message {n} after {:.1} s", self.who(), (at - since) as f64 / 1e6)
                });
            }
        }
        self.furthest = self.furthest.max(Some(cursor));
        self.begin(at, cursor, true);
        self.cursor = Some(cursor);
        self.pass(at, cursor, Some(n), false);
    }

    fn see_gap(
        &mut self,
        at: u64,
        reason: &str,
        to: Option<Cursor>,
        greeted: Option<Cursor>,
        collector: &mut Collector<'_>,
    ) {
        let from = self.cursor;
        let Some(to) = to else {
            let words = || format!("{}: gap {reason} without a cursor", self.who());
            return collector.find(at, Violation::FalseGap, words);
        };
        match self.archive.cause(from, to, at) {
            Some(_) => collector.at(at).true_gaps += 1,
            None => collector.find(at, Violation::FalseGap, || {
                let place = if greeted.is_some() { "after a hello" } else { "mid-stream" };
                format!("{}: gap {reason} from {} to {to}, {place}", self.who(), shown(from))
            }),
        }
        if greeted == Some(to) {
            // The hello has moved it there, and was judged for that.
            self.cursor = greeted;
        } else {
            self.go_to(at, to, "a gap", collector);
        }
        self.pass(at, to, None, true);
    }

    fn see_end(&mut self, at: u64, end: &End, collector: &mut Collector<'_>) {
        let Some(connection) = self.connection else { return };
        let patient = !connection.stalled && self.behaviour != Behaviour::Slow;
        let without_cause = match end {
            End::Refused(_) | End::Closed(4409) if self.behaviour == Behaviour::Kicked => false,
            End::Refused(_) => true,
            End::Closed(1012 | 1013 | 1005 | 1006) => false,
            // These are for clients that do not read, or do not answer.
            End::Closed(4408 | 4429) => patient,
            End::Closed(_) => true,
            _ => false,
        };
        if without_cause {
            collector.find(at, Violation::Ended, || format!("{}: {end:?}", self.who()));
        }
        self.connection = None;
    }

    /// Its cursor moves.
    fn go_to(&mut self, at: u64, cursor: Cursor, by: &str, collector: &mut Collector<'_>) {
        if let Some(before) = self.cursor.filter(|before| *before > cursor) {
            collector.find(at, Violation::CursorBack, || {
                format!("{}: {by} moved it from {before} back to {cursor}", self.who())
            });
        }
        self.begin(at, cursor, false);
        self.cursor = Some(cursor);
    }

    /// With its first cursor it is known what is due to it.
    fn begin(&mut self, at: u64, cursor: Cursor, message: bool) {
        if self.start.is_some() {
            return;
        }
        // With only a message as the first cursor, what precedes it is due only if it was published after the hello.
        let start =
            if message { Cursor { offset: cursor.offset.saturating_sub(1), ..cursor } } else { cursor };
        self.start = Some(start);
        self.due = self.archive.due(&self.targets, start, self.hello.unwrap_or(at));
    }

    /// Marks everything due up to a cursor as missing unless it has been delivered.
    fn pass(&mut self, at: u64, upto: Cursor, message: Option<u64>, announced: bool) {
        while let Some(due) = self.due.get(self.passed).filter(|due| due.cursor <= upto) {
            self.passed += 1;
            // A client without a cursor may begin on a node that is late, and is not promised what it is late with.
            let before = |connection: Connection| {
                !connection.with_cursor && due.acknowledged < connection.dialled && !announced
            };
            if self.got.contains(&due.n) || message == Some(due.n) || self.connection.is_some_and(before) {
                continue;
            }
            let node = self.connection.map(|connection| (connection.node, connection.transport));
            self.missing.insert(due.n, Missing { at, cursor: due.cursor, announced, node });
        }
    }

    /// Describes the client and its current connection.
    fn who(&self) -> String {
        let Self { number, behaviour, .. } = self;
        self.connection.map_or_else(
            || format!("chain {number} ({behaviour:?})"),
            |Connection { node, transport, .. }| {
                format!("chain {number} ({behaviour:?}, {transport:?} to node {node})")
            },
        )
    }
}

fn shown(cursor: Option<Cursor>) -> String {
    cursor.map_or_else(|| "nowhere".to_owned(), |cursor| cursor.to_string())
}

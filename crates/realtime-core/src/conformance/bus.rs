//! The suite for [`Bus`].

use std::{
    fmt,
    num::NonZeroU16,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::join_all};

use super::{Subscriber, broken, check, within};
use crate::{
    CollapseKey, Envelope, EnvelopeId, Message, Position, Scope, SlowPolicy, Topic, TraceContext, Transport,
    UserId,
    bus::{Bus, BusError, BusEvent},
};

/// Properties in which buses differ.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BusTerms {
    /// `true` if every message has a position.
    pub positions: bool,
    /// `true` if it emits [`BusEvent::CaughtUp`] and has a fence.
    pub catches_up: bool,
    /// `true` if it publishes an envelope with an id once.
    pub recognizes_ids: bool,
    /// The scope of what is published. With [`Scope::Both`] the bus must carry an envelope as one message.
    pub scope: Scope,
    /// Users that it can carry, one at least.
    pub users: Vec<UserId>,
    /// Envelopes that it cannot carry.
    pub unsupported: Vec<Envelope>,
}

impl BusTerms {
    /// A bus with positions that supports every envelope; for one that recognizes ids, see [`Self::with_ids`].
    pub fn full() -> Self {
        let users = vec![5.into(), "u-7".parse().expect("it is an id"), 1_925_000_000_000_000_001.into()];
        Self {
            positions: true,
            catches_up: true,
            recognizes_ids: false,
            scope: Scope::Both,
            users,
            unsupported: Vec::new(),
        }
    }

    /// A bus without positions that carries everything.
    pub fn without_positions() -> Self {
        Self { positions: false, catches_up: false, ..Self::full() }
    }

    /// A bus in RuoYi's bytes: without positions, a message for each transport, and users who are numbers.
    ///
    /// # Panics
    /// When the text is no transport.
    pub fn ruoyi(transport: &str) -> Self {
        let scope = Scope::Only(Transport::parse(transport).expect("it is a transport"));
        let users = vec![5.into(), 1_925_000_000_000_000_001.into()];
        let text: UserId = "u-7".parse().expect("it is an id");
        let topic = Topic::new("role:admin").expect("it is a topic");
        let unsupported = [Topic::user(&text), topic]
            .map(|topic| Envelope::to_topics([topic], scope, Message::text("x")).expect("there is one"));
        Self { scope, users, unsupported: unsupported.into(), ..Self::without_positions() }
    }

    /// The same for a bus that publishes an envelope with an id once.
    #[must_use]
    pub fn with_ids(self) -> Self {
        Self { recognizes_ids: true, ..self }
    }
}

const ORDER: &str = "all subscribers see the messages in the same order, none twice";
const DELIVERY: &str =
    "an acknowledged envelope is emitted to every subscription that is up, as it was published";
const HISTORY: &str = "what comes before the first `Up` is history";
const UP: &str = "`Up` comes before the first envelope that is news";
const POSITIONS: &str = "each message or skip begins at the position after the last";
const PUBLISHED: &str = "the position in `Published` is that of the message";
const BOUNDED: &str = "no method waits for ever";
const IDS: &str = "an envelope with an id is emitted once, and later attempts get the first one's position";
const OPTIONS: &str = "what an envelope asks for arrives with it, or is `Unsupported`";
const DROPPED: &str = "a publish that is dropped has published the envelope or not";
const UNSUPPORTED: &str = "what a bus cannot carry is `Unsupported` and not taken";
const CAUGHT_UP: &str = "`CaughtUp` comes behind everything that was acknowledged before its instant";
const FENCE: &str =
    "a fence lies behind what was acknowledged before it, and before what is published after it";
const LEAVE: &str = "`leave` changes nothing for other nodes";

/// Tests a bus against [its contract](Bus). `make` gives another node's handle of the same bus each time.
///
/// # Panics
/// With the clause that is broken.
pub async fn bus_conforms<B: Bus>(make: impl Fn() -> B, terms: &BusTerms) {
    let (a, b) = (make(), make());
    for bus in [&a, &b] {
        express_interest(bus, terms);
    }
    let (on_a, on_b) = (Follower::up(&a, terms).await, Follower::up(&b, terms).await);
    let mut suite = Suite { a, b, on_a, on_b, terms };
    suite.order().await;
    suite.concurrency().await;
    suite.as_published().await;
    suite.options().await;
    suite.trace_context().await;
    suite.ids().await;
    suite.dropped().await;
    suite.unsupported().await;
    if terms.catches_up {
        suite.caught_up().await;
        suite.fence().await;
    } else {
        let fence = within(BOUNDED, "a fence", suite.a.fence()).await;
        check(FENCE, fence == Ok(None), || format!("{fence:?} without positions to compare"));
    }
    let late = make();
    express_interest(&late, terms);
    suite.history(&late).await;
    suite.leave().await;
}

/// As a hub does whose sessions are in these topics.
fn express_interest(bus: &impl Bus, terms: &BusTerms) {
    if bus.wants_interest() {
        for user in &terms.users {
            bus.interest(&Topic::user(user), true);
        }
        bus.interest(&named_topic(), true);
    }
}

/// A topic for what needs a named one.
fn named_topic() -> Topic {
    Topic::new("conformance").expect("it is a topic")
}

/// Two nodes.
struct Suite<'a, B> {
    a: B,
    b: B,
    on_a: Follower,
    on_b: Follower,
    terms: &'a BusTerms,
}

impl<B: Bus> Suite<'_, B> {
    async fn order(&mut self) {
        let mut positions = Vec::new();
        for n in 0..50 {
            let bus = if n % 2 == 0 { &self.a } else { &self.b };
            positions.push(publish(bus, &self.terms.envelope(n)).await);
        }
        for (n, position) in positions.into_iter().enumerate() {
            for on in [&mut self.on_a, &mut self.on_b] {
                on.expect(ORDER, n).await;
                check(PUBLISHED, on.last_message == position, || {
                    format!(
                        "publish answered {position:?}, and {:?} is what a subscriber saw",
                        on.last_message
                    )
                });
            }
        }
    }

    /// Many publish at once.
    async fn concurrency(&mut self) {
        let Self { a, b, on_a, on_b, terms } = self;
        let publishers = [("a", &*a), ("b", &*b)].map(async |(name, bus)| {
            for n in 0..200 {
                publish(bus, &terms.envelope(format_args!("{name} {n}"))).await;
            }
        });
        let reader = async {
            let mut seen = Vec::new();
            for _ in 0..400 {
                seen.push(on_a.text(DELIVERY).await);
            }
            seen
        };
        let (_, seen) = tokio::join!(join_all(publishers), reader);
        for name in ["a ", "b "] {
            let own: Vec<&str> = seen.iter().filter_map(|text| text.strip_prefix(name)).collect();
            let sent: Vec<String> = (0..200).map(|n| n.to_string()).collect();
            check(ORDER, own == sent, || format!("of one publisher came {own:?}"));
        }
        for text in &seen {
            on_b.expect(ORDER, text).await;
        }
    }

    async fn as_published(&mut self) {
        let text = "\"quoted\"\n\u{1} 你好 😀";
        let envelope = Envelope::to_users(&self.terms.users, self.terms.scope, Message::text(text));
        let sse = Scope::Only(Transport::new("sse"));
        let scoped = Envelope::to_users(&self.terms.users, sse, Message::text(""));
        for envelope in [envelope, scoped] {
            let envelope = Arc::new(envelope.expect("the terms name a user"));
            publish(&self.a, &envelope).await;
            for on in [&mut self.on_a, &mut self.on_b] {
                let seen = on.message(DELIVERY).await;
                check(DELIVERY, seen == envelope, || format!("{envelope:?} arrived as {seen:?}"));
            }
        }
    }

    async fn options(&mut self) {
        let plain = || (*self.terms.envelope("option")).clone();
        let key = CollapseKey::new("a-key").expect("it is a key");
        let retained = Envelope::to_topic(named_topic(), self.terms.scope, Message::text("option")).retain();
        let hour = Duration::from_secs(3600);
        for envelope in [
            plain().with_ttl(hour),
            plain().collapse(key.clone()),
            plain().when_slow(SlowPolicy::DropOldest { class: key.clone(), keep: NonZeroU16::MAX }),
            retained.clone(),
            retained.with_ttl(hour).collapse(key),
        ] {
            let envelope = Arc::new(envelope);
            let began = Instant::now();
            match within(BOUNDED, "an answer", self.a.publish(&envelope)).await {
                Err(BusError::Unsupported(_)) => continue,
                answer => {
                    check(OPTIONS, answer.is_ok(), || format!("{envelope:?} was answered with {answer:?}"))
                }
            }
            for on in [&mut self.on_a, &mut self.on_b] {
                let seen = on.message(OPTIONS).await;
                check(OPTIONS, seen == envelope, || format!("{envelope:?} arrived as {seen:?}"));
                let in_time = on.last_end.is_none_or(|end| {
                    let slack = Duration::from_secs(60);
                    envelope.ttl().is_some_and(|ttl| began + ttl - slack < end && end < began + ttl + slack)
                });
                check(OPTIONS, in_time, || {
                    format!("its end is {:?}, and it was published at {began:?}", on.last_end)
                });
            }
        }
    }

    /// It is carried or left out, and never a reason to refuse the message.
    async fn trace_context(&mut self) {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = TraceContext::parse(parent, Some("a=1")).expect("it is valid");
        let plain = self.terms.envelope("traced");
        let traced = Arc::new((*plain).clone().with_trace_context(context));
        publish(&self.a, &traced).await;
        for on in [&mut self.on_a, &mut self.on_b] {
            let seen = on.message(OPTIONS).await;
            check(OPTIONS, seen == traced || seen == plain, || format!("{traced:?} arrived as {seen:?}"));
        }
    }

    async fn ids(&mut self) {
        let id = EnvelopeId::random();
        let named = Arc::new((*self.terms.envelope("named")).clone().with_id(id));
        if !self.terms.recognizes_ids
            && let Err(BusError::Unsupported(_)) = within(BOUNDED, "an answer", self.a.publish(&named)).await
        {
            return;
        }
        let wanted = if self.terms.recognizes_ids { 1 } else { 4 };
        let mut positions = Vec::new();
        for bus in [&self.a, &self.a, &self.b] {
            positions.push(publish(bus, &named).await);
        }
        publish(&self.b, &self.terms.envelope("behind")).await;
        for on in [&mut self.on_a, &mut self.on_b] {
            let mut seen = 0;
            loop {
                match on.text(IDS).await.as_str() {
                    "named" => seen += 1,
                    "behind" => break,
                    other => broken(ORDER, format_args!("{other:?} came again")),
                }
            }
            check(IDS, seen == wanted, || format!("it came {seen} times and not {wanted}"));
        }
        if self.terms.recognizes_ids {
            positions.dedup();
            check(IDS, positions.len() == 1, || format!("the attempts got {positions:?}"));
        }
    }

    async fn dropped(&mut self) {
        let names: Vec<String> = (0..5).map(|n| format!("dropped {n}")).collect();
        for name in &names {
            let envelope = self.terms.envelope(name);
            // Begun and given up.
            let _ = self.a.publish(&envelope).now_or_never();
        }
        publish(&self.a, &self.terms.envelope("kept")).await;
        let seen = self.until("kept").await;
        let mut once = seen.clone();
        once.dedup();
        check(DROPPED, once == seen && seen.iter().all(|text| names.contains(text)), || {
            format!("{seen:?} came")
        });
    }

    async fn unsupported(&mut self) {
        for envelope in &self.terms.unsupported {
            let answer = within(BOUNDED, "an answer", self.a.publish(&Arc::new(envelope.clone()))).await;
            check(UNSUPPORTED, matches!(answer, Err(BusError::Unsupported(_))), || {
                format!("{envelope:?} was answered with {answer:?}")
            });
        }
        publish(&self.a, &self.terms.envelope("supported")).await;
        let seen = self.until("supported").await;
        check(UNSUPPORTED, seen.is_empty(), || format!("{seen:?} came"));
    }

    /// What both nodes see up to a text.
    async fn until(&mut self, end: &str) -> Vec<String> {
        let mut all = Vec::new();
        for on in [&mut self.on_a, &mut self.on_b] {
            let mut seen = Vec::new();
            loop {
                let text = on.text(DELIVERY).await;
                if text == end {
                    break;
                }
                seen.push(text);
            }
            all.push(seen);
        }
        let first = all.swap_remove(0);
        check(ORDER, all[0] == first, || format!("one node saw {first:?}, another {:?}", all[0]));
        first
    }

    async fn caught_up(&mut self) {
        for n in 0..3 {
            for bus in [&self.a, &self.b] {
                publish(bus, &self.terms.envelope(n)).await;
            }
            let acknowledged = Instant::now();
            for on in [&mut self.on_a, &mut self.on_b] {
                let mut seen = 0;
                loop {
                    match on.next(CAUGHT_UP).await {
                        BusEvent::CaughtUp(instant) if instant >= acknowledged => break,
                        BusEvent::Message { .. } => seen += 1,
                        _ => {}
                    }
                }
                check(CAUGHT_UP, seen == 2, || format!("{seen} of 2 messages were before it"));
            }
        }
    }

    async fn fence(&mut self) {
        for _ in 0..2 {
            std::mem::swap(&mut self.a, &mut self.b);
            std::mem::swap(&mut self.on_a, &mut self.on_b);
            let before = publish(&self.b, &self.terms.envelope("before")).await;
            let fence = within(BOUNDED, "a fence", self.a.fence()).await;
            let fence = fence.unwrap_or_else(|error| broken(FENCE, error));
            let after = publish(&self.b, &self.terms.envelope("after")).await;
            check(FENCE, before <= fence && fence < after, || {
                format!("{fence:?} for what is between {before:?} and {after:?}")
            });
            for on in [&mut self.on_a, &mut self.on_b] {
                on.expect(ORDER, "before").await;
                on.expect(ORDER, "after").await;
            }
        }
    }

    /// A node that comes late.
    async fn history(&mut self, late: &B) {
        let before = publish(&self.a, &self.terms.envelope("before it came")).await;
        let mut on_late = Follower::up(late, self.terms).await;
        let up = on_late.last;
        publish(&self.a, &self.terms.envelope("news")).await;
        let mut first = on_late.text(HISTORY).await;
        if first == "before it came" {
            check(HISTORY, self.terms.positions && before > up, || {
                format!("a message at {before:?} came as news behind `Up` at {up:?}")
            });
            first = on_late.text(HISTORY).await;
        } else {
            check(HISTORY, before <= up, || {
                format!("a message at {before:?} is missing behind `Up` at {up:?}")
            });
        }
        check(DELIVERY, first == "news", || format!("{first:?} came instead of the news"));
        for on in [&mut self.on_a, &mut self.on_b] {
            on.expect(ORDER, "before it came").await;
            on.expect(ORDER, "news").await;
        }
    }

    async fn leave(mut self) {
        for _ in 0..2 {
            within(BOUNDED, "the end of `leave`", self.b.leave()).await;
        }
        // It answers, one way or the other.
        let answer =
            within(BOUNDED, "an answer after `leave`", self.b.publish(&self.terms.envelope("left"))).await;
        drop((self.b, self.on_b));
        publish(&self.a, &self.terms.envelope("still here")).await;
        if answer.is_ok() {
            self.on_a.expect(LEAVE, "left").await;
        }
        self.on_a.expect(LEAVE, "still here").await;
    }
}

impl BusTerms {
    fn envelope(&self, text: impl fmt::Display) -> Arc<Envelope> {
        Arc::new(Envelope::broadcast(self.scope, Message::text(text.to_string())))
    }
}

async fn publish(bus: &impl Bus, envelope: &Arc<Envelope>) -> Option<Position> {
    match within(BOUNDED, "an answer to a publish", bus.publish(envelope)).await {
        Ok(published) => published.position,
        Err(error) => broken(DELIVERY, format_args!("a publish failed: {error}")),
    }
}

/// A subscriber that checks what holds for each event while nothing is broken.
struct Follower {
    subscriber: Subscriber,
    positions: bool,
    up: bool,
    last: Option<Position>,
    last_message: Option<Position>,
    /// The end of the last message's ttl, if the bus gave one.
    last_end: Option<Instant>,
}

impl Follower {
    async fn up(bus: &impl Bus, terms: &BusTerms) -> Self {
        let subscriber = Subscriber::start(bus);
        let positions = terms.positions;
        let mut follower =
            Self { subscriber, positions, up: false, last: None, last_message: None, last_end: None };
        while !follower.up {
            follower.next(UP).await;
        }
        follower
    }

    async fn next(&mut self, clause: &str) -> BusEvent {
        let Some(event) = within(clause, "an event", self.subscriber.event()).await else {
            broken("the stream ends with the bus, or never", "it has ended");
        };
        match &event {
            BusEvent::Up(position) => {
                check(POSITIONS, position.is_some() == self.positions, || format!("{event:?}"));
                check(UP, *position >= self.last, || format!("{position:?} behind {:?}", self.last));
                (self.up, self.last) = (true, *position);
            }
            BusEvent::Message { position, end, .. } => {
                check(POSITIONS, position.is_some() == self.positions, || format!("{event:?}"));
                self.advance(*position, *position);
                self.last_message = *position;
                self.last_end = *end;
            }
            BusEvent::Skip { from, through } => {
                let is_range = from.epoch == through.epoch && from <= through && self.positions;
                check(POSITIONS, is_range, || format!("{event:?}"));
                self.advance(Some(*from), Some(*through));
            }
            BusEvent::Gap | BusEvent::Down(_) if self.up => {
                broken(DELIVERY, format_args!("{event:?}, and nothing was broken"));
            }
            _ => {}
        }
        event
    }

    fn advance(&mut self, from: Option<Position>, through: Option<Position>) {
        let expected = self.last.map(Position::next);
        // History may have gaps of its own.
        check(POSITIONS, !self.up || from == expected, || {
            format!("{from:?} follows {:?}, and nothing was broken", self.last)
        });
        self.last = through;
    }

    async fn message(&mut self, clause: &str) -> Arc<Envelope> {
        loop {
            if let BusEvent::Message { envelope, .. } = self.next(clause).await {
                return envelope;
            }
        }
    }

    async fn text(&mut self, clause: &str) -> String {
        self.message(clause).await.message().data.to_string()
    }

    async fn expect(&mut self, clause: &str, text: impl fmt::Display) {
        let (seen, text) = (self.text(clause).await, text.to_string());
        check(clause, seen == text, || format!("{seen:?} came where {text:?} was to come"));
    }
}

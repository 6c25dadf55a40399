//! The suites accept what this crate implements, and find what is wrong with others.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{FutureExt, StreamExt, future::ready, stream};
use tokio::sync::mpsc;

use super::*;
use crate::{
    Envelope, Hub, MemoryBus, Message, Position, Principal, Scope, Settings, Topic, Transport, UserId,
    auth::{AuthError, Authenticator, Handshake},
    bus::{Bus, BusError, BusEvent, Published},
    presence::{OnlineCount, OnlineSession, OnlineUser, Presence, PresenceError, PresenceEvent},
};

#[tokio::test]
async fn the_memory_bus_conforms() {
    let bus = MemoryBus::new();
    bus_conforms(|| bus.clone(), &BusTerms::full().with_ids()).await;
    let bus: Arc<dyn Bus> = Arc::new(bus);
    bus_conforms(|| Arc::clone(&bus), &BusTerms::full().with_ids()).await;
}

#[tokio::test]
async fn the_text_streams_of_the_memory_bus_conform() {
    let bus = MemoryBus::new();
    streams_conform(|| bus.clone()).await;
}

/// What is wrong with a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A message does not come, and nothing says so.
    Loses,
    /// The same, hidden behind a skip.
    SkipsAMessage,
    Doubles,
    Swaps,
    ChangesText,
    /// The history comes as news.
    NoHistory,
    WrongPosition,
    NeverAnswers,
    NeverCatchesUp,
    CatchesUpEarly,
    OldFence,
    EndsWithItsNeighbour,
}

#[derive(Clone)]
struct Faulty {
    bus: MemoryBus,
    fault: Fault,
    published: Arc<Mutex<u64>>,
    left: Arc<Mutex<bool>>,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self { bus: MemoryBus::new(), fault, published: Arc::default(), left: Arc::default() }
    }
}

impl Bus for Faulty {
    fn publish<'a>(&'a self, envelope: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>> {
        let count = {
            let mut published = self.published.lock().unwrap();
            *published += 1;
            *published
        };
        Box::pin(async move {
            if self.fault == Fault::NeverAnswers && count == 70 {
                std::future::pending::<()>().await;
            }
            if self.fault == Fault::EndsWithItsNeighbour && *self.left.lock().unwrap() {
                return Err(BusError::Unavailable("it left".into()));
            }
            let mut published = self.bus.publish(envelope).await?;
            if self.fault == Fault::WrongPosition && count == 30 {
                published.position = published.position.map(Position::next);
            }
            Ok(published)
        })
    }

    fn subscribe(&self) -> BoxStream<'static, BusEvent> {
        let fault = self.fault;
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut events = self.bus.subscribe();
        tokio::spawn(async move {
            let (mut messages, mut held) = (0, None);
            while let Some(event) = events.next().await {
                messages += u32::from(matches!(event, BusEvent::Message { .. }));
                let is_tenth = messages == 10 && matches!(event, BusEvent::Message { .. });
                let emitted = match (fault, event) {
                    (Fault::Loses, _) if is_tenth => vec![],
                    (Fault::SkipsAMessage, BusEvent::Message { position: Some(position), .. })
                        if is_tenth =>
                    {
                        vec![BusEvent::skip(position)]
                    }
                    (Fault::Doubles, event) if is_tenth => vec![event.clone(), event],
                    (Fault::Swaps, event) if is_tenth => {
                        held = Some(event);
                        vec![]
                    }
                    (Fault::Swaps, event) => [Some(event), held.take()].into_iter().flatten().collect(),
                    (Fault::ChangesText, BusEvent::Message { position, envelope, .. }) => {
                        let text = envelope.message().data.to_string().replace('😀', "?");
                        let changed = Envelope::to_topics(
                            envelope.topics().to_vec(),
                            envelope.scope(),
                            Message::text(text),
                        );
                        vec![BusEvent::message(position, Arc::new(changed.unwrap()), Duration::ZERO)]
                    }
                    (Fault::NoHistory, BusEvent::Up(Some(last))) if last.offset > 0 => {
                        let before = Position { offset: last.offset - 1, ..last };
                        vec![BusEvent::Up(Some(before)), BusEvent::skip(last)]
                    }
                    (Fault::NeverCatchesUp, BusEvent::CaughtUp(_)) => vec![],
                    (Fault::CatchesUpEarly, event @ BusEvent::Message { .. }) => {
                        // An instant of the future, ahead of the message.
                        let future = std::time::Instant::now() + Duration::from_secs(1);
                        vec![BusEvent::CaughtUp(future), event]
                    }
                    (_, event) => vec![event],
                };
                for event in emitted {
                    if sender.send(event).is_err() {
                        return;
                    }
                }
            }
        });
        stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver))).boxed()
    }

    fn fence(&self) -> BoxFuture<'_, Result<Option<Position>, BusError>> {
        Box::pin(async {
            let fence = self.bus.fence().await?;
            Ok(match self.fault {
                Fault::OldFence => fence.map(|last| Position { offset: last.offset - 1, ..last }),
                _ => fence,
            })
        })
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        *self.left.lock().unwrap() = true;
        Box::pin(ready(()))
    }
}

/// The clause that a suite says is broken.
async fn clause(suite: impl Future<Output = ()>) -> String {
    let panic = AssertUnwindSafe(suite).catch_unwind().await.expect_err("the fault is found");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => resume_unwind(other),
    }
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_breaks_a_clause_is_found_out_by_it() {
    for (fault, broken) in [
        (Fault::Loses, "each message or skip begins at the position after the last"),
        (Fault::SkipsAMessage, "all subscribers see the messages in the same order"),
        (Fault::Doubles, "each message or skip begins at the position after the last"),
        (Fault::Swaps, "each message or skip begins at the position after the last"),
        (Fault::ChangesText, "as it was published"),
        (Fault::NoHistory, "what comes before the first `Up` is history"),
        (Fault::WrongPosition, "the position in `Published` is that of the message"),
        (Fault::NeverAnswers, "no method waits for ever"),
        (Fault::NeverCatchesUp, "`CaughtUp` comes behind everything"),
        (Fault::CatchesUpEarly, "`CaughtUp` comes behind everything"),
        (Fault::OldFence, "a fence lies behind what was acknowledged before it"),
        (Fault::EndsWithItsNeighbour, "is emitted to every subscription"),
    ] {
        let bus = Faulty::new(fault);
        let said = clause(bus_conforms(|| bus.clone(), &BusTerms::full().with_ids())).await;
        assert!(said.contains(broken), "{fault:?}: {said}");
    }
    // Claims that the bus does not keep.
    let bus = MemoryBus::new();
    let said = clause(bus_conforms(|| bus.clone(), &BusTerms::full())).await;
    assert!(said.contains("an envelope with an id is emitted once"), "{said}");
    let said = clause(bus_conforms(|| bus.clone(), &BusTerms::without_positions())).await;
    assert!(said.contains("begins at the position after the last"), "{said}");
    let mut terms = BusTerms::full().with_ids();
    terms.unsupported = vec![Envelope::broadcast(Scope::Both, Message::text("x"))];
    let said = clause(bus_conforms(|| bus.clone(), &terms)).await;
    assert!(said.contains("`Unsupported`"), "{said}");
}

/// A bus without positions that carries what a node has asked for.
#[derive(Clone)]
struct PerTopic {
    bus: MemoryBus,
    topics: Arc<Mutex<Vec<Topic>>>,
}

impl Bus for PerTopic {
    fn publish<'a>(&'a self, envelope: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>> {
        Box::pin(async move { self.bus.publish(envelope).await.map(|_| Published { position: None }) })
    }

    fn subscribe(&self) -> BoxStream<'static, BusEvent> {
        let topics = Arc::clone(&self.topics);
        let wanted = move |topic: &Topic| topic.is_all() || topics.lock().unwrap().contains(topic);
        let events = self.bus.subscribe().filter_map(move |event| {
            ready(match event {
                BusEvent::Up(_) => Some(BusEvent::Up(None)),
                BusEvent::Message { envelope, end, .. } => {
                    let is_wanted = envelope.topics().iter().any(&wanted);
                    is_wanted.then_some(BusEvent::Message { position: None, envelope, end })
                }
                _ => None,
            })
        });
        events.boxed()
    }

    fn wants_interest(&self) -> bool {
        true
    }

    fn interest(&self, topic: &Topic, interested: bool) {
        let mut topics = self.topics.lock().unwrap();
        topics.retain(|known| known != topic);
        topics.extend(interested.then(|| topic.clone()));
    }
}

#[tokio::test]
async fn a_bus_that_subscribes_for_each_topic_conforms() {
    let bus = MemoryBus::new();
    let make = || PerTopic { bus: bus.clone(), topics: Arc::default() };
    bus_conforms(make, &BusTerms::without_positions().with_ids()).await;
}

fn hubs(count: usize) -> Vec<Hub> {
    let bus = MemoryBus::new();
    let mut settings = Settings::default();
    settings.presence.grace = Duration::from_millis(500);
    (0..count).map(|_| Hub::builder().bus(bus.clone()).settings(settings.clone()).start().unwrap()).collect()
}

#[tokio::test]
async fn the_presence_and_control_of_one_node_conform() {
    presence_conforms(&hubs(1)).await;
    control_conforms(&hubs(1)).await;
}

/// A presence of no user.
struct Blind;

impl Presence for Blind {
    fn changes(&self) -> BoxStream<'static, PresenceEvent> {
        stream::pending().boxed()
    }

    fn is_online<'a>(&'a self, users: &'a [UserId]) -> BoxFuture<'a, Result<Vec<bool>, PresenceError>> {
        Box::pin(ready(Ok(vec![false; users.len()])))
    }

    fn count(&self) -> BoxFuture<'_, Result<OnlineCount, PresenceError>> {
        Box::pin(ready(Ok(OnlineCount { users: 0, sessions: 0 })))
    }

    fn users(&self, _: usize, _: usize) -> BoxFuture<'_, Result<Vec<OnlineUser>, PresenceError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn sessions<'a>(&'a self, _: &'a UserId) -> BoxFuture<'a, Result<Vec<OnlineSession>, PresenceError>> {
        Box::pin(ready(Ok(Vec::new())))
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_do_not_know_each_other_are_no_cluster() {
    let said = clause(presence_conforms(&hubs(2))).await;
    assert!(said.contains("`count` is that of online users"), "{said}");
    let blind = Hub::builder().presence(|_| Blind).start().unwrap();
    let said = clause(presence_conforms(&[blind])).await;
    assert!(said.contains("`count` is that of online users"), "{said}");
    let said = clause(control_conforms(&hubs(2))).await;
    assert!(said.contains("ends the sessions that it means on every node"), "{said}");
    let hub = hubs(1);
    let said = clause(late_node_conforms(&hub, async || hubs(1).remove(0))).await;
    assert!(said.contains("a node knows the refused logins"), "{said}");
}

/// Takes each token for a user's id, and has a fault of one kind.
struct ByName(&'static str);

impl Authenticator for ByName {
    fn authenticate<'a>(&'a self, handshake: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
        let token = handshake.token().unwrap_or_default();
        let answer = match (self.0, token.parse::<i64>()) {
            ("random", Ok(user)) => Ok(Principal::new(user.into(), &rand::random::<u64>().to_string())),
            ("off by one", Ok(user)) => Ok(Principal::new((user + 1).into(), token)),
            (_, Ok(user)) => Ok(Principal::new(user.into(), token)),
            ("anybody", Err(_)) => Ok(Principal::new(1.into(), token)),
            ("away", Err(_)) => Err(AuthError::Unavailable("the store is away".into())),
            ("talks", Err(_)) => Err(AuthError::Unauthorized(format!("{token} is no token"))),
            (_, Err(_)) => Err(AuthError::Unauthorized("not a token".into())),
        };
        Box::pin(ready(answer))
    }
}

fn handshake(token: &str) -> Handshake {
    let query = format!("Authorization={token}");
    Handshake::new(Transport::new("sse"), &query, [] as [(&str, &[u8]); 0], None)
}

#[tokio::test]
async fn an_authenticator_that_breaks_a_clause_is_found_out_by_it() {
    let logins =
        Logins::new().accepted(handshake("7"), 7).refused(handshake("")).refused(handshake("forged"));
    authenticator_conforms(&ByName("right"), &logins).await;
    authenticator_conforms(&Arc::new(ByName("right")), &logins).await;
    for (fault, broken) in [
        ("random", "one login is the same principal each time"),
        ("off by one", "a valid login is that of its user"),
        ("anybody", "a bad or missing login"),
        ("away", "a bad or missing login"),
        ("talks", "no error shows a token"),
    ] {
        let said = clause(authenticator_conforms(&ByName(fault), &logins)).await;
        assert!(said.contains(broken), "{fault}: {said}");
    }
}

#[cfg(feature = "jwt")]
#[tokio::test]
async fn the_authenticator_of_jwt_logins_conforms() {
    use crate::auth::{Claims, JwtAlgorithm, JwtAuthenticator};

    let jwt = |secret: &str| JwtAuthenticator::new(JwtAlgorithm::Hs256, secret).unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let sign = |secret: &str, user: i64, exp: u64| {
        let claims = Claims { user_id: Some(user.into()), exp, ..Claims::default() };
        handshake(&jwt(secret).sign(&claims).unwrap())
    };
    let (own, other) = ("a secret of at least 32 bytes ....", "another one of at least 32 bytes .");
    let logins = Logins::new()
        .accepted(sign(own, 7, now + 3600), 7)
        .accepted(sign(own, i64::MAX, now + 3600), i64::MAX)
        .refused(handshake(""))
        .refused(handshake("forged"))
        .refused(sign(own, 7, now - 3600))
        .refused(sign(other, 7, now + 3600));
    authenticator_conforms(&jwt(own), &logins).await;
}

#[cfg(feature = "jwt")]
#[tokio::test]
async fn the_authenticator_of_rotating_public_keys_conforms() {
    use jsonwebtoken::Algorithm;
    use serde_json::json;

    use crate::auth::{
        JwkFile, JwtAuthenticator, JwtKey, RotatingKeys,
        jwt_test_keys::{ED25519, OTHER_RSA, P256, P256_PUBLIC, RSA, jwk, set, sign},
    };

    let file = std::env::temp_dir().join(format!("keys-{}.json", rand::random::<u64>()));
    let keys = [
        jwk(Algorithm::RS256, RSA, &json!({ "kid": "rsa" })),
        jwk(Algorithm::EdDSA, ED25519, &json!({ "kid": "ed" })),
    ];
    std::fs::write(&file, set(&keys)).unwrap();
    let keys = RotatingKeys::builder(JwkFile::new(&file)).start();
    let fixed = JwtKey::from_pem(P256_PUBLIC).unwrap().id("fixed");
    let jwt = JwtAuthenticator::with_keys([fixed]).rotating(keys);
    let login = |algorithm, pem, kid| handshake(&sign(algorithm, pem, kid));
    let logins = Logins::new()
        .accepted(login(Algorithm::RS256, RSA, Some("rsa")), 7)
        .accepted(login(Algorithm::EdDSA, ED25519, None), 7)
        .accepted(login(Algorithm::ES256, P256, Some("fixed")), 7)
        .refused(login(Algorithm::RS256, OTHER_RSA, Some("rsa")))
        .refused(login(Algorithm::RS256, RSA, Some("unknown")))
        .refused(login(Algorithm::HS256, P256_PUBLIC, Some("fixed")))
        .refused(handshake("forged"));
    authenticator_conforms(&jwt, &logins).await;
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn the_tickets_of_a_node_conform_and_a_store_that_forgets_to_remove_does_not() {
    use crate::auth::{MemoryTickets, TicketError, TicketKey, TicketStore};

    /// It gives the last login again and again.
    #[derive(Clone, Default)]
    struct Forgetful(Arc<Mutex<Option<Principal>>>);

    impl TicketStore for Forgetful {
        fn put(&self, _: TicketKey, login: Principal, _: Duration) -> BoxFuture<'_, Result<(), TicketError>> {
            *self.0.lock().unwrap() = Some(login);
            Box::pin(async { Ok(()) })
        }

        fn take(&self, _: TicketKey) -> BoxFuture<'_, Result<Option<Principal>, TicketError>> {
            Box::pin(async { Ok(self.0.lock().unwrap().clone()) })
        }
    }

    let tickets = Arc::new(MemoryTickets::new());
    tickets_conform(|| Arc::clone(&tickets)).await;
    let forgetful = Forgetful::default();
    let said = clause(tickets_conform(|| forgetful.clone())).await;
    assert!(said.contains("at most one gets the login"), "{said}");
}

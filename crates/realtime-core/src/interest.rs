//! [`Interest`]: reports the topics of this node's sessions to the bus.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::Arc,
};

use crate::{
    Topic,
    bus::Bus,
    sync::{Mutex, lock},
};

/// The topics of this node's sessions, each with the number of workers that have a session in it.
///
/// It exists only for a bus that wants interest. Workers report their first session in a topic and their last one.
pub(crate) struct Interest {
    bus: Arc<dyn Bus>,
    topics: Mutex<HashMap<Topic, u32>>,
}

impl Interest {
    pub(crate) fn new(bus: Arc<dyn Bus>) -> Self {
        Self { bus, topics: Mutex::default() }
    }

    /// A worker has its first session in a topic.
    pub(crate) fn begin(&self, topic: Topic) {
        // The bus is called under the lock, so that the calls for a topic are in order.
        let mut topics = lock(&self.topics);
        match topics.entry(topic) {
            Entry::Occupied(mut workers) => *workers.get_mut() += 1,
            Entry::Vacant(first) => {
                self.bus.interest(first.key(), true);
                first.insert(1);
            }
        }
    }

    /// A worker has no session in a topic any more.
    pub(crate) fn end(&self, topic: Topic) {
        let mut topics = lock(&self.topics);
        if let Entry::Occupied(mut workers) = topics.entry(topic) {
            *workers.get_mut() -= 1;
            if *workers.get() == 0 {
                let (topic, _) = workers.remove_entry();
                self.bus.interest(&topic, false);
            }
        }
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interest").field("topics", &lock(&self.topics).len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use std::{thread, time::Duration};

    use bytes::Bytes;
    use futures_core::{future::BoxFuture, stream::BoxStream};

    use super::*;
    use crate::{
        Envelope, Hub, MemoryBus, Principal, Transport, UserId,
        auth::TopicDecision,
        bus::{BusError, BusEvent, Published},
        testkit::{TestSession, TestWire, ready},
        wire::{ConnectTopics, WireFormat},
    };

    /// A bus that records the calls.
    struct Noting {
        bus: MemoryBus,
        wants: bool,
        told: Arc<Mutex<Vec<(String, bool)>>>,
        left: Arc<Mutex<u32>>,
    }

    impl Bus for Noting {
        fn publish<'a>(&'a self, envelope: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>> {
            self.bus.publish(envelope)
        }

        fn subscribe(&self) -> BoxStream<'static, BusEvent> {
            self.bus.subscribe()
        }

        fn wants_interest(&self) -> bool {
            self.wants
        }

        fn interest(&self, topic: &Topic, interested: bool) {
            lock(&self.told).push((topic.to_string(), interested));
        }

        fn leave(&self) -> BoxFuture<'_, ()> {
            *lock(&self.left) += 1;
            Box::pin(async {})
        }
    }

    type Told = Arc<Mutex<Vec<(String, bool)>>>;

    fn hub(wants: bool) -> (Hub, Told, Arc<Mutex<u32>>) {
        let (told, left) = (Told::default(), Arc::default());
        let bus = Noting { bus: MemoryBus::new(), wants, told: Arc::clone(&told), left: Arc::clone(&left) };
        // Chosen at run time.
        let bus: Arc<dyn Bus> = Arc::new(bus);
        (Hub::builder().bus(bus).start().expect("the defaults are right"), told, left)
    }

    fn take(told: &Told) -> Vec<(String, bool)> {
        std::mem::take(&mut lock(told))
    }

    fn user() -> UserId {
        1.into()
    }

    #[tokio::test]
    async fn a_bus_hears_of_a_topics_first_session_and_of_its_last() {
        let (hub, told, _) = hub(true);
        let topic = |name: &str| Topic::new(name).unwrap();
        let on = |name: &str| (name.to_owned(), true);
        let off = |name: &str| (name.to_owned(), false);
        let first = TestSession::connect(&hub, user()).await;
        assert_eq!(take(&told), [on("user:1")]);
        let second = TestSession::connect(&hub, user()).await;
        first.handle().subscribe(topic("a"));
        first.handle().subscribe(topic("a"));
        second.handle().subscribe(topic("a"));
        second.handle().subscribe(Topic::all());
        assert_eq!(take(&told), [on("a")], "of `all` it is not told");
        first.handle().unsubscribe(&topic("a"));
        first.handle().unsubscribe(&topic("other"));
        assert_eq!(take(&told), []);
        drop(second);
        assert_eq!(take(&told), [off("a")]);
        // Another user in the user's own topic.
        let other = TestSession::connect(&hub, 2.into()).await;
        other.handle().subscribe(topic("user:1"));
        assert_eq!(take(&told), [on("user:2")]);
        first.handle().unsubscribe(&topic("user:1"));
        first.handle().unsubscribe(&topic("user:1"));
        assert_eq!(take(&told), []);
        drop(other);
        let mut ended = take(&told);
        ended.sort();
        assert_eq!(ended, [off("user:1"), off("user:2")]);
        drop(first);
        assert_eq!(take(&told), []);
    }

    #[tokio::test]
    async fn the_topics_that_a_client_chooses_are_told_as_well() {
        let (hub, told, _) = hub(true);
        ready(&hub).await;
        let (on, off) = (|name: &str| (name.to_owned(), true), |name: &str| (name.to_owned(), false));
        let names = ["a", "b"].map(|name| Topic::new(name).unwrap());
        let wire: Arc<dyn WireFormat> = Arc::new(TestWire);
        let topics = ConnectTopics::new(&names[..1], &[]);
        let principal = Principal::new(user(), "t");
        let session = hub.connect_to(principal, Transport::new("test"), &wire, None, &topics).unwrap();
        assert_eq!(take(&told), [on("user:1"), on("a")]);
        let decision = TopicDecision { granted: names.to_vec(), ..TopicDecision::default() };
        session.subscribe(&decision, |_| Bytes::new());
        assert_eq!(take(&told), [on("b")]);
        session.unsubscribe(&names, &Bytes::new());
        assert_eq!(take(&told), [off("a"), off("b")]);
        drop(session);
        assert_eq!(take(&told), [off("user:1")]);
    }

    #[tokio::test]
    async fn the_sessions_of_all_workers_count() {
        let (hub, told, _) = hub(true);
        ready(&hub).await;
        let here = TestSession::connect(&hub, user()).await;
        let elsewhere = hub.clone();
        let worker = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async { drop(TestSession::connect(&elsewhere, user()).await) });
        });
        tokio::task::spawn_blocking(|| worker.join().unwrap()).await.unwrap();
        assert_eq!(take(&told), [("user:1".to_owned(), true)]);
        drop(here);
        assert_eq!(take(&told), [("user:1".to_owned(), false)]);
    }

    #[tokio::test]
    async fn a_bus_that_does_not_ask_is_not_told() {
        let (hub, told, left) = hub(false);
        drop(TestSession::connect(&hub, user()).await);
        assert_eq!(take(&told), []);
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), hub.drain()).await, Ok(0));
        assert_eq!(*lock(&left), 1, "it is told that the node stops");
    }
}

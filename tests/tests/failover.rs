//! The Redis Streams bus when its master changes: under Sentinel, and in a Cluster.
//!
//! Everywhere the same question: is anything that was acknowledged missing where no reader is told so?
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{
    collections::HashSet,
    fmt,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use realtime_core::{
    Hub, Position,
    bus::{Bus, BusEvent},
};
use realtime_redis::{Incarnation, RedisConfig, RedisControl, RedisPresence, RedisStreamsBus, Topology};
use realtime_tests::{
    Fault, Part, Published, Publisher, RedisCluster, RedisSentinel,
    conformance::{Subscriber, Terms, bus_conforms, envelope},
    within,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

const LOG: &str = "{rt}:log";
const EPOCH: &str = "{rt}:epoch";

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_conforms_under_sentinel() {
    let redis = RedisSentinel::start().await;
    bus_conforms(|| bus(redis.topology()), &Terms::full()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_conforms_in_a_cluster() {
    let redis = RedisCluster::start().await;
    bus_conforms(|| bus(redis.topology()), &Terms::full()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinels_master_that_is_killed_loses_nothing_in_silence() {
    let mut redis = RedisSentinel::start().await;
    let (reader, publisher) = start(redis.topology()).await;
    for _ in 0..2 {
        publisher.some().await;
        let old = redis.master().unwrap();
        redis.kill(old);
        redis.failed_over_from(old).await;
        publisher.some().await;
        redis.back_as_replica(old).await;
    }
    let figures = finish(publisher, reader).await;
    assert!(figures.published.refused > 0);
    assert_eq!(figures.seen.gaps(), 2, "a new master is a new epoch");
    let seen = "Publishing fails until another one is promoted; then one gap, and whatever was acknowledged has \
                arrived or lies in it.";
    Fault::new("Sentinel: the master is killed", Part::Streams, seen).figures(&figures).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_failover_loses_nothing_in_silence() {
    let redis = RedisSentinel::start().await;
    let (reader, publisher) = start(redis.topology()).await;
    publisher.some().await;
    let old = redis.master().unwrap();
    redis.fail_over();
    redis.failed_over_from(old).await;
    publisher.some().await;
    let figures = finish(publisher, reader).await;
    assert_eq!(figures.seen.gaps(), 1);
    let seen = "Publishing goes on; one gap, and whatever was acknowledged has arrived or lies in it.";
    Fault::new("Sentinel: a planned failover", Part::Streams, seen).figures(&figures).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_promoted_replica_never_had_is_a_gap() {
    let mut redis = RedisSentinel::start().await;
    let (reader, publisher) = start(redis.topology()).await;
    let bus = bus(redis.topology());
    let old = redis.master().unwrap();
    publisher.some().await;
    let before = publisher.stop().await;
    redis.detach_replica_of(old);
    let mut lost = Vec::new();
    for n in 0..5 {
        lost.push(bus.publish(&envelope(format!("lost {n}"))).await.unwrap().position.unwrap());
    }
    redis.kill(old);
    redis.failed_over_from(old).await;
    let newcomer = Reader::start(redis.topology()).await;
    let publisher = publishing(redis.topology(), before.next);
    publisher.some().await;
    let published = publisher.stop().await;
    let (mut seen, newcomer) = (reader.stop().await, newcomer.stop().await);
    // This one sat on the old master: what it had read before the kill it has seen, the rest lies in its gap.
    for (n, position) in lost.iter().enumerate() {
        let saw = seen.texts.remove(&(*position, format!("lost {n}")));
        assert!(saw || !seen.inside(*position), "{position} is missing in silence");
        assert!(!newcomer.inside(*position), "a newcomer sees a hole where {position} was");
    }
    assert_eq!(seen.gaps(), 1);
    for published in [&before, &published] {
        seen.nothing_is_missing_in_silence(published);
        newcomer.nothing_is_missing_in_silence(published);
    }
    let words = "One gap where they were, for whoever was there and for whoever came later; or all of it.";
    Fault::new("Sentinel: the promoted replica lacks the last 5 messages", Part::Streams, words)
        .figures(format_args!("{published}; {seen}"))
        .record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_hangs_and_comes_back_is_left() {
    let redis = RedisSentinel::start().await;
    let (reader, publisher) = start(redis.topology()).await;
    publisher.some().await;
    let old = redis.master().unwrap();
    redis.server(old).pause();
    redis.failed_over_from(old).await;
    redis.server(old).resume();
    publisher.some().await;
    let figures = finish(publisher, reader).await;
    assert!((1..=2).contains(&figures.seen.gaps()), "{} gaps", figures.seen.gaps());
    let seen = "Publishing fails until another one is promoted; then one gap, or two where a node met the old master \
                once more, and whatever was acknowledged has arrived or lies in one.";
    Fault::new("Sentinel: the master hangs", Part::Streams, seen).figures(&figures).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_old_master_is_left_by_everybody_within_three_seconds() {
    let redis = RedisSentinel::start().await;
    let old = redis.master().unwrap();
    // Nobody listens on the publisher's bus, so no heartbeat helps it.
    let (reader, publisher) = start(redis.topology()).await;
    let node = bus(redis.topology());
    let mut events = Subscriber::up(&node).await;
    publisher.some().await;
    redis.isolate(old);
    let master = redis.failed_over_from(old).await;
    let moved = Instant::now();
    events.until(|event| matches!(event, BusEvent::Down(_))).await;
    let down = moved.elapsed();
    let BusEvent::Up(Some(up)) = events.until(|event| matches!(event, BusEvent::Up(_))).await else {
        panic!("the stream is not empty")
    };
    let back = moved.elapsed();
    // It still believes to be a master, and the old connections to it live.
    let count = || redis.server(old).cli(&["xinfo", "stream", LOG]);
    let entries = count();
    assert!(redis.server(old).cli(&["info", "replication"]).contains("role:master"));
    publisher.some().await;
    let published = node.publish(&envelope("to the new master")).await.unwrap().position.unwrap();
    assert!(published.epoch >= up.epoch);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(count(), entries, "nobody writes to the old master any more");
    assert!(down < Duration::from_secs(3), "down after {down:?}");
    assert_ne!(master, old);
    redis.unlock(old);
    let figures = finish(publisher, reader).await;
    assert!(figures.seen.gaps() >= 1);
    let seen = "Nodes on the old master are unready within 3 s of the promotion and go on with the new one; one gap.";
    Fault::new("Sentinel: an old master is isolated with its clients", Part::Streams, seen)
        .figures(format_args!("unready after {down:.1?}, ready again after {back:.1?}; {figures}"))
        .record();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sentinels_that_hang_cost_nothing_but_a_moment() {
    let redis = RedisSentinel::start().await;
    let mut config = config(redis.topology());
    config.command_timeout = Duration::from_millis(800);
    redis.sentinel(0).pause();
    redis.sentinel(1).pause();
    // A node that starts finds the master, and one that runs is not shaken by what it can't look up.
    let node = RedisStreamsBus::new(config).unwrap();
    let mut events = Subscriber::up(&node).await;
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(4) {
        node.publish(&envelope("x")).await.unwrap();
        let event = events.next().await;
        assert!(!matches!(event, BusEvent::Down(_)), "{event:?} after {:?}", since.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_up_the_master_stands_in_nobodys_way_and_keeps_its_connections() {
    let redis = RedisSentinel::start().await;
    let node = bus(redis.topology());
    node.publish(&envelope("warm")).await.unwrap();
    redis.sentinel(0).pause();
    redis.sentinel(1).pause();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..200 {
        let node = node.clone();
        callers.spawn(async move {
            let mut took = Vec::new();
            for _ in 0..40 {
                sleep(Duration::from_millis(100)).await;
                let asked = Instant::now();
                node.publish(&envelope(caller)).await.unwrap();
                took.push(asked.elapsed());
            }
            took
        });
    }
    let mut took = within("the callers", callers.join_all()).await.concat();
    took.sort_unstable();
    let p95 = took[took.len() * 95 / 100];
    assert!(p95 < Duration::from_millis(50), "p95 {p95:?}");

    redis.sentinel(0).resume();
    redis.sentinel(1).resume();
    let mut events = Subscriber::up(&node).await;
    let opened = || {
        let stats = redis.sentinel(2).cli(&["info", "stats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        line.unwrap().parse::<u64>().unwrap()
    };
    let before = opened();
    for _ in 0..5 {
        events.until(|event| matches!(event, BusEvent::CaughtUp(_))).await;
    }
    // One of them asked how many there are.
    let opened = opened() - before - 1;
    assert!(opened <= 2, "{opened} connections to a sentinel in five heartbeats");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clusters_master_that_is_killed_loses_nothing_in_silence() {
    let mut redis = RedisCluster::start().await;
    let (reader, publisher) = start(redis.topology()).await;
    publisher.some().await;
    let slot = redis.slot(LOG);
    let old = redis.owner(slot).unwrap();
    redis.kill(old);
    redis.moved_from(slot, old).await;
    publisher.some().await;
    let figures = finish(publisher, reader).await;
    assert_eq!(figures.seen.gaps(), 1);
    let seen = "Publishing fails until its replica has taken over; then one gap, and whatever was acknowledged has \
                arrived or lies in it.";
    Fault::new("Cluster: the master of our slot is killed", Part::Streams, seen).figures(&figures).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_to_another_master_loses_nothing_in_silence() {
    let redis = RedisCluster::start().await;
    let (reader, publisher) = start(redis.topology()).await;
    let slot = redis.slot(LOG);
    for keys in [[LOG, EPOCH], [EPOCH, LOG]] {
        publisher.some().await;
        let to = redis.another_master(slot);
        redis.migrate(slot, &keys, to, Duration::from_millis(300)).await;
        publisher.some().await;
    }
    let figures = finish(publisher, reader).await;
    assert_eq!(figures.seen.gaps(), 2);
    let seen = "Publishing fails while it is between two masters; then one gap, and whatever was acknowledged has \
                arrived or lies in it.";
    Fault::new("Cluster: our slot moves to another master", Part::Streams, seen).figures(&figures).record();
}

fn config(topology: Topology) -> RedisConfig {
    RedisConfig::new(topology)
}

fn bus(topology: Topology) -> RedisStreamsBus {
    RedisStreamsBus::new(config(topology)).unwrap()
}

fn publishing(topology: Topology, first: u64) -> Publisher {
    Publisher::start(bus(topology), first, envelope)
}

/// A reader that is up, and a publisher with a bus of its own.
async fn start(topology: Topology) -> (Reader, Publisher) {
    let reader = Reader::start(topology.clone()).await;
    (reader, publishing(topology, 0))
}

/// Stops both and checks what is true of every failover.
async fn finish(publisher: Publisher, reader: Reader) -> Figures {
    let published = publisher.stop().await;
    let seen = reader.stop().await;
    seen.nothing_is_missing_in_silence(&published);
    seen.had_caught_up(&published);
    let limit = RedisConfig::new(Topology::Single(String::new())).command_timeout;
    let slowest = published.slowest;
    assert!(slowest < limit + Duration::from_millis(500), "a publish took {slowest:?}");
    Figures { published, seen }
}

struct Figures {
    published: Published,
    seen: Seen,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, seen } = self;
        write!(f, "{published}; {seen}, {} lost and announced", seen.missing(published))
    }
}

/// Reads until something arrives with which the test ends.
struct Reader {
    topology: Topology,
    task: JoinHandle<Seen>,
}

/// What a reader saw.
#[derive(Default)]
struct Seen {
    texts: HashSet<(Position, String)>,
    /// Runs of dense positions, as first and last. Between two of them something may be missing.
    runs: Vec<(Position, Position)>,
    /// Each time that it was told to have caught up: with what was acknowledged before which instant, and where it was.
    caught_up: Vec<(Instant, Position)>,
    /// The longest time that it was down.
    down: Duration,
}

const END: &str = "the end";

fn all(published: &Published) -> impl Iterator<Item = (Position, String)> {
    published.acknowledged.iter().map(|one| (one.position.unwrap(), one.number.to_string()))
}

impl Reader {
    async fn start(topology: Topology) -> Self {
        let bus = bus(topology.clone());
        let mut events = bus.subscribe();
        let (up, mut is_up) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut seen = Seen::default();
            let mut down = None;
            let mut number = None;
            loop {
                let (position, text) = match events.next().await.unwrap() {
                    BusEvent::Message(Some(position), envelope) => {
                        (position, Some(envelope.message().data.to_string()))
                    }
                    BusEvent::Marker(position) => (position, None),
                    BusEvent::CaughtUp(instant) => {
                        seen.caught_up.extend(seen.runs.last().map(|(_, last)| (instant, *last)));
                        continue;
                    }
                    BusEvent::Up(_) => {
                        up.send_replace(true);
                        seen.down =
                            down.take().map_or(seen.down, |since: Instant| seen.down.max(since.elapsed()));
                        continue;
                    }
                    BusEvent::Down(_) => {
                        down.get_or_insert_with(Instant::now);
                        continue;
                    }
                    other => panic!("{other:?}"),
                };
                seen.run(position);
                let Some(text) = text else { continue };
                if let Ok(n) = text.parse::<u64>() {
                    assert!(number < Some(n), "{n} after {number:?}: out of order, or twice");
                    number = Some(n);
                }
                let end = text == END;
                assert!(seen.texts.insert((position, text)));
                if end {
                    seen.down = down.map_or(seen.down, |since| seen.down.max(since.elapsed()));
                    return seen;
                }
            }
        });
        within("a reader to be up", is_up.wait_for(|up| *up)).await.unwrap();
        Self { topology, task }
    }

    /// Lets it read whatever is there. The end is told again and again: it may lie in a gap itself.
    async fn stop(mut self) -> Seen {
        let bus = bus(self.topology);
        within("the reader to see the end", async {
            loop {
                bus.publish(&envelope(END)).await.ok();
                if let Ok(seen) = timeout(Duration::from_millis(300), &mut self.task).await {
                    return seen.unwrap();
                }
            }
        })
        .await
    }
}

impl Seen {
    /// Adds a position to the last run, or begins another: here the hub announces a gap.
    fn run(&mut self, position: Position) {
        match self.runs.last_mut() {
            Some((_, last)) if last.next() == position => *last = position,
            Some((_, last)) if *last >= position => panic!("{position} after {last}"),
            _ => self.runs.push((position, position)),
        }
    }

    /// Whatever was acknowledged before an instant with which it had caught up lay behind it then.
    fn had_caught_up(&self, published: &Published) {
        assert!(!self.caught_up.is_empty());
        for (instant, last) in &self.caught_up {
            let ahead =
                published.acknowledged.iter().find(|one| one.done < *instant && one.position > Some(*last));
            assert!(
                ahead.is_none(),
                "{ahead:?} was still to come at {last}, told to have caught up with {instant:?}"
            );
        }
    }

    fn gaps(&self) -> usize {
        self.runs.len() - 1
    }

    fn inside(&self, position: Position) -> bool {
        self.runs.iter().any(|(first, last)| (*first..=*last).contains(&position))
    }

    fn missing(&self, published: &Published) -> usize {
        all(published).filter(|one| !self.texts.contains(one)).count()
    }

    fn nothing_is_missing_in_silence(&self, published: &Published) {
        let silent: Vec<_> =
            all(published).filter(|one| self.inside(one.0) && !self.texts.contains(one)).collect();
        assert!(silent.is_empty(), "lost in silence: {silent:?}");
        assert!(published.acknowledged.len() > 100, "hardly anything was acknowledged");
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seen, gaps, down) = (self.texts.len(), self.gaps(), self.down);
        write!(f, "{seen} seen, {gaps} gaps, reader down {down:.1?}")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_a_node_share_one_look_up() {
    let redis = RedisSentinel::start().await;
    let opened = || {
        let stats = redis.sentinel(2).cli(&["info", "stats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        line.unwrap().parse::<u64>().unwrap()
    };
    let before = opened();
    let (config, life) = (config(redis.topology()), Incarnation::new("node"));
    let hub = Hub::builder()
        .bus(RedisStreamsBus::new(config.clone()).unwrap())
        .presence(RedisPresence::make(config.clone(), life.clone()).unwrap())
        .control(RedisControl::make(config.clone(), life).unwrap())
        .start()
        .unwrap();
    within("the node to be ready", async {
        while hub.ready().is_err() || hub.presence().count().await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // Another bus of the same process: its heartbeats are looked up together with the others'.
    let mut events = Subscriber::up(&RedisStreamsBus::new(config).unwrap()).await;
    for _ in 0..3 {
        events.until(|event| matches!(event, BusEvent::CaughtUp(_))).await;
    }
    // One of them asked how many there are.
    let opened = opened() - before - 1;
    assert!(opened <= 2, "{opened} connections to a sentinel");
}

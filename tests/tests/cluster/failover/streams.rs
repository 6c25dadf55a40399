//! Whichever way the master changes, in streams mode no acknowledged message is missing without a gap.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use realtime_core::{
    Position,
    bus::{Bus, BusEvent},
};
use realtime_redis::{RedisConfig, RedisStreamsBus, Topology};
use realtime_tests::{
    Fault, Part, Published, Publisher, RedisCluster, RedisSentinel,
    conformance::{Subscriber, Terms, bus_conforms, envelope},
};
use tokio::time::sleep;

use super::{Figures, Read, Reader, Seen};

const LOG: &str = "{rt}:log";
const EPOCH: &str = "{rt}:epoch";

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_conforms_under_sentinel() {
    let redis = RedisSentinel::start().await;
    bus_conforms(|| bus(redis.topology()), &Terms::full().with_ids()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_conforms_in_a_cluster() {
    let redis = RedisCluster::start().await;
    bus_conforms(|| bus(redis.topology()), &Terms::full().with_ids()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinels_master_that_is_killed_loses_nothing_in_silence() {
    let mut redis = RedisSentinel::start().await;
    let (reader, publisher) = start(redis.topology()).await;
    for _ in 0..2 {
        publisher.some().await;
        let old = redis.kill_master().await;
        publisher.some().await;
        redis.back_as_replica(old).await;
    }
    let figures = finish(redis.topology(), publisher, reader).await;
    assert!(figures.published.refused > 0);
    let (gaps, failovers) = (figures.read.seen.gaps(), redis.failovers());
    assert!(
        gaps >= 2 && gaps <= failovers,
        "{gaps} gaps, {failovers} failovers: a new master is a new epoch"
    );
    let seen = "Publishing fails until another one is promoted; then one gap, and whatever was acknowledged has \
                arrived or lies in it.";
    Fault::new("Sentinel: the master is killed", Part::Streams, seen).figures(&figures).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_failover_loses_nothing_in_silence() {
    let redis = RedisSentinel::start().await;
    let (reader, publisher) = start(redis.topology()).await;
    publisher.some().await;
    redis.change_master().await;
    publisher.some().await;
    let figures = finish(redis.topology(), publisher, reader).await;
    assert_eq!(figures.read.seen.gaps(), 1);
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
    redis.kill_master().await;
    let newcomer = reading(redis.topology()).await;
    let publisher = publishing(redis.topology(), before.next);
    publisher.some().await;
    let published = publisher.stop().await;
    let mut read = stop(redis.topology(), reader, &published).await;
    let newcomer = stop(redis.topology(), newcomer, &published).await.seen;
    let seen = &mut read.seen;
    // This reader stayed on the old master: it has seen what it read before the kill, the rest lies in its gap.
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
        .figures(format_args!("{published}; {read}"))
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
    let figures = finish(redis.topology(), publisher, reader).await;
    assert!((1..=2).contains(&figures.read.seen.gaps()), "{} gaps", figures.read.seen.gaps());
    let seen = "Publishing fails until another one is promoted; then one gap, or two where a node met the old master \
                once more, and whatever was acknowledged has arrived or lies in one.";
    Fault::new("Sentinel: the master hangs", Part::Streams, seen).figures(&figures).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_old_master_is_left_by_all_nodes_within_three_seconds() {
    let redis = RedisSentinel::start().await;
    // The publisher's bus has no subscriber, so no heartbeat helps it.
    let (reader, publisher) = start(redis.topology()).await;
    let node = bus(redis.topology());
    let mut events = Subscriber::up(&node).await;
    publisher.some().await;
    let old = redis.isolate_master().await;
    let moved = Instant::now();
    events.until(|event| matches!(event, BusEvent::Down(_))).await;
    let down = moved.elapsed();
    let BusEvent::Up(Some(up)) = events.until(|event| matches!(event, BusEvent::Up(_))).await else {
        panic!("the stream is not empty")
    };
    let back = moved.elapsed();
    // The publisher's bus looks at times of its own.
    sleep(Duration::from_secs(3).saturating_sub(back)).await;
    // The old connections to it are still open.
    let count = || redis.server(old).cli(&["xinfo", "stream", LOG]);
    let entries = count();
    publisher.some().await;
    let published = node.publish(&envelope("to the new master")).await.unwrap().position.unwrap();
    assert!(published.epoch >= up.epoch);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(count(), entries, "nobody writes to the old master any more");
    assert!(down < Duration::from_secs(3), "down after {down:?}");
    redis.unlock(old);
    let figures = finish(redis.topology(), publisher, reader).await;
    assert!(figures.read.seen.gaps() >= 1);
    let seen = "Nodes on the old master are unready within 3 s of the promotion and go on with the new one; one gap.";
    Fault::new("Sentinel: an old master is isolated with its clients", Part::Streams, seen)
        .figures(format_args!("unready after {down:.1?}, ready again after {back:.1?}; {figures}"))
        .record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clusters_master_that_is_killed_loses_nothing_in_silence() {
    let mut redis = RedisCluster::start().await;
    let (reader, publisher) = start(redis.topology()).await;
    publisher.some().await;
    redis.kill_master_of(LOG).await;
    publisher.some().await;
    let figures = finish(redis.topology(), publisher, reader).await;
    assert_eq!(figures.read.seen.gaps(), 1);
    let seen = "Publishing fails until its replica has taken over; then one gap, and whatever was acknowledged has \
                arrived or lies in it.";
    Fault::new("Cluster: the master of our slot is killed", Part::Streams, seen).figures(&figures).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_to_another_master_loses_nothing_in_silence() {
    let redis = RedisCluster::start().await;
    let (reader, publisher) = start(redis.topology()).await;
    for keys in [[LOG, EPOCH], [EPOCH, LOG]] {
        publisher.some().await;
        redis.move_slot_of(LOG, &keys).await;
        publisher.some().await;
    }
    let figures = finish(redis.topology(), publisher, reader).await;
    assert_eq!(figures.read.seen.gaps(), 2);
    let seen = "Publishing fails while it is between two masters; then one gap, and whatever was acknowledged has \
                arrived or lies in it.";
    Fault::new("Cluster: our slot moves to another master", Part::Streams, seen).figures(&figures).record();
}

fn bus(topology: Topology) -> RedisStreamsBus {
    RedisStreamsBus::new(RedisConfig::new(topology)).unwrap()
}

fn publishing(topology: Topology, first: u64) -> Publisher {
    Publisher::start(bus(topology), first, envelope)
}

async fn reading(topology: Topology) -> Reader<Log> {
    Reader::start(bus(topology), Log::default()).await
}

/// A reader that is up, and a publisher with a bus of its own.
async fn start(topology: Topology) -> (Reader<Log>, Publisher) {
    let reader = reading(topology.clone()).await;
    (reader, publishing(topology, 0))
}

/// Stops both and checks what is true of every failover.
async fn finish(topology: Topology, publisher: Publisher, reader: Reader<Log>) -> Figures<Log> {
    let published = publisher.stop().await;
    let read = stop(topology, reader, &published).await;
    read.seen.nothing_is_missing_in_silence(&published);
    read.seen.had_caught_up(&published);
    let limit = RedisConfig::new(Topology::Single(String::new())).command_timeout;
    let slowest = published.slowest;
    assert!(slowest < limit + Duration::from_millis(500), "a publish took {slowest:?}");
    Figures { published, read }
}

/// Lets a reader read to the end. The end marker is published repeatedly, since it may lie in a gap itself.
async fn stop(topology: Topology, reader: Reader<Log>, published: &Published) -> Read<Log> {
    let bus = bus(topology);
    let tell = async {
        loop {
            bus.publish(&envelope(END)).await.ok();
            sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::select! {
        read = reader.stop(published.next) => read,
        () = tell => unreachable!("it goes on"),
    }
}

/// Positions and texts that a reader has received.
#[derive(Debug, Default)]
struct Log {
    texts: HashSet<(Position, String)>,
    /// The last number.
    number: Option<u64>,
    /// Runs of dense positions, as first and last. Between two of them something may be missing.
    runs: Vec<(Position, Position)>,
    /// Each `CaughtUp` event: its instant, and the last position at that time.
    caught_up: Vec<(Instant, Position)>,
    ended: bool,
}

impl Seen for Log {
    fn take(&mut self, event: BusEvent) {
        let (position, text) = match event {
            BusEvent::Message { position: Some(position), envelope, .. } => {
                (position, Some(envelope.message().data.to_string()))
            }
            BusEvent::Skip { through: position, .. } => (position, None),
            BusEvent::CaughtUp(instant) => {
                self.caught_up.extend(self.runs.last().map(|(_, last)| (instant, *last)));
                return;
            }
            other => panic!("{other:?}"),
        };
        self.run(position);
        let Some(text) = text else { return };
        if let Ok(n) = text.parse::<u64>() {
            assert!(self.number < Some(n), "{n} after {:?}: out of order, or twice", self.number);
            self.number = Some(n);
        }
        self.ended = text == END;
        assert!(self.texts.insert((position, text)));
    }

    fn is_complete(&self, _: Option<u64>) -> bool {
        self.ended
    }

    fn count(&self) -> usize {
        self.texts.len()
    }

    fn gaps(&self) -> usize {
        self.runs.len() - 1
    }

    fn missing(&self, published: &Published) -> usize {
        all(published).filter(|one| !self.texts.contains(one)).count()
    }
}

impl Log {
    /// Adds a position to the last run, or begins another: here the hub announces a gap.
    fn run(&mut self, position: Position) {
        match self.runs.last_mut() {
            Some((_, last)) if last.next() == position => *last = position,
            Some((_, last)) if *last >= position => panic!("{position} after {last}"),
            _ => self.runs.push((position, position)),
        }
    }

    /// Everything acknowledged before the instant of a `CaughtUp` event lay at or before its position.
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

    fn inside(&self, position: Position) -> bool {
        self.runs.iter().any(|(first, last)| (*first..=*last).contains(&position))
    }

    fn nothing_is_missing_in_silence(&self, published: &Published) {
        let silent: Vec<_> =
            all(published).filter(|one| self.inside(one.0) && !self.texts.contains(one)).collect();
        assert!(silent.is_empty(), "lost in silence: {silent:?}");
        assert!(published.acknowledged.len() > 100, "hardly anything was acknowledged");
    }
}

const END: &str = "the end";

fn all(published: &Published) -> impl Iterator<Item = (Position, String)> {
    published.acknowledged.iter().map(|one| (one.position.unwrap(), one.number.to_string()))
}

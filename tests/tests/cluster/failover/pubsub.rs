//! Whichever way the master changes, in pubsub mode an acknowledged message that does not arrive is followed by a gap.

use std::{
    collections::BTreeSet,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use realtime_core::{
    Envelope, Message, Scope, Transport,
    bus::{Bus, BusEvent},
};
use realtime_redis::{RedisConfig, RedisPubSubBus, Topology};
use realtime_tests::{
    Fault, Part, Proxy, Published, Publisher, Redis, RedisCluster, RedisSentinel,
    conformance::{Subscriber, Terms, bus_conforms},
    within,
};
use tokio::time::sleep;

use super::{Figures, Reader, Seen};

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_conforms_under_sentinel_and_in_a_cluster() {
    let (sentinel, cluster) = (RedisSentinel::start().await, RedisCluster::start().await);
    for topology in [sentinel.topology(), cluster.topology()] {
        bus_conforms(|| bus(topology.clone()), &Terms::ruoyi("sse")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinels_master_that_is_killed_loses_nothing_in_silence() {
    let mut redis = RedisSentinel::start().await;
    let (reader, publisher) = start(redis.topology()).await;
    publisher.some().await;
    redis.kill_master().await;
    publisher.some().await;
    let figures = finish(publisher, reader).await;
    assert!(figures.published.refused > 0);
    let seen = "Publishing fails until another one is promoted. What did not arrive is followed by a gap; a second gap \
                comes 3 s later, since others may have found the new master later.";
    Fault::new("Sentinel: the master is killed", Part::PubSub, seen).figures(&figures).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_failover_loses_nothing_in_silence() {
    let redis = RedisSentinel::start().await;
    let (reader, publisher) = start(redis.topology()).await;
    publisher.some().await;
    redis.change_master().await;
    publisher.some().await;
    let figures = finish(publisher, reader).await;
    let seen = "Two gaps, 3 s apart; what did not arrive is followed by one.";
    Fault::new("Sentinel: a planned failover", Part::PubSub, seen).figures(&figures).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_old_master_is_left_by_all_nodes() {
    let redis = RedisSentinel::start().await;
    let (reader, publisher) = start(redis.topology()).await;
    publisher.some().await;
    let old = redis.isolate_master().await;
    let moved = Instant::now();
    let channel = ["pubsub", "numsub", "global:sse"];
    within("the old master to be left", async {
        while redis.server(old).cli(&channel) != "global:sse\n0" {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let left = moved.elapsed();
    assert!(left < Duration::from_secs(3), "left after {left:?}");
    publisher.some().await;
    redis.unlock(old);
    let figures = finish(publisher, reader).await;
    let seen = "Nodes leave the old master within 3 s of the promotion. Two gaps, 3 s apart; what did not arrive is \
                followed by one.";
    Fault::new("Sentinel: an old master is isolated with its clients", Part::PubSub, seen)
        .figures(format_args!("left after {left:.1?}; {figures}"))
        .record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clusters_master_that_is_killed_loses_nothing_in_silence() {
    let mut redis = RedisCluster::start().await;
    let (reader, publisher) = start(redis.topology()).await;
    publisher.some().await;
    redis.kill_master_of("global:websocket").await;
    publisher.some().await;
    let figures = finish(publisher, reader).await;
    assert!(figures.published.refused > 0);
    let seen = "Publishing fails until its replica has taken over. Two gaps, 3 s apart; what did not arrive is followed \
                by one.";
    Fault::new("Cluster: the master of our slot is killed", Part::PubSub, seen).figures(&figures).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_to_another_master_loses_nothing_in_silence() {
    let redis = RedisCluster::start().await;
    let (reader, publisher) = start(redis.topology()).await;
    publisher.some().await;
    redis.move_slot_of("global:websocket", &[]).await;
    publisher.some().await;
    let figures = finish(publisher, reader).await;
    assert_eq!(figures.published.refused, 0, "every node of a cluster tells all others");
    let seen = "Publishing goes on. Two gaps, 3 s apart; what did not arrive is followed by one.";
    Fault::new("Cluster: our slot moves to another master", Part::PubSub, seen).figures(&figures).record();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_replaced_behind_its_address_is_left() {
    let (old, new) = (Redis::start().await, Redis::start().await);
    let proxy = Proxy::start(old.port()).await;
    let address = Topology::Single(format!("redis://127.0.0.1:{}/", proxy.port()));
    let stayed = bus(address.clone());
    let mut on_stayed = Subscriber::up(&stayed).await;
    stayed.publish(&to_sse("before")).await.unwrap();
    on_stayed.message().await;
    // No connection is cut, and the old master still accepts publishes.
    assert_eq!(old.cli(&["replicaof", "127.0.0.1", &new.port().to_string()]), "OK");
    proxy.lead_to(new.port());
    let moved = Instant::now();
    let mut on_new = Subscriber::up(&bus(address)).await;
    let heard = within("the node that stayed to be heard by the one that came", async {
        let heard = on_new.until(|event| matches!(event, BusEvent::Message { .. }));
        tokio::pin!(heard);
        loop {
            stayed.publish(&to_sse("after")).await.ok();
            tokio::select! {
                _ = &mut heard => return moved.elapsed(),
                () = sleep(Duration::from_millis(20)) => {}
            }
        }
    })
    .await;
    assert!(heard < Duration::from_secs(3), "heard after {heard:?}");
    // What others published to the old master in between may be missing.
    for _ in 0..2 {
        on_stayed.until(|event| matches!(event, BusEvent::Gap)).await;
        stayed.publish(&to_sse("goes on")).await.ok();
    }
    let seen = "Within 3 s nodes leave a master that was demoted, though its address and their connections stay. Two gaps, \
                3 s apart.";
    Fault::new("Redis: another server becomes the master behind the same address", Part::PubSub, seen)
        .figures(format_args!("heard by a node on the new master after {heard:.1?}"))
        .record();
}

fn bus(topology: Topology) -> RedisPubSubBus {
    RedisPubSubBus::new(RedisConfig::new(topology)).unwrap()
}

fn to_sse(text: impl fmt::Display) -> Arc<Envelope> {
    let sse = Scope::Only(Transport::parse("sse").unwrap());
    Arc::new(Envelope::broadcast(sse, Message::text(text.to_string())))
}

/// A reader that is up, and a publisher with a bus that has a subscriber, as in a node.
async fn start(topology: Topology) -> (Reader<Heard>, Publisher) {
    let in_cluster = matches!(topology, Topology::Cluster { .. });
    let reader = Reader::start(bus(topology.clone()), Heard { in_cluster, ..Heard::default() }).await;
    let bus = bus(topology);
    let mut events = bus.subscribe();
    tokio::spawn(async move { while events.next().await.is_some() {} });
    (reader, Publisher::start(bus, 0, to_sse))
}

/// Stops both and checks what is true of every failover.
async fn finish(publisher: Publisher, reader: Reader<Heard>) -> Figures<Heard> {
    // The publisher runs until the second gap has come: nothing may be lost after it.
    within("the second gap to be due", sleep(Duration::from_millis(3500))).await;
    publisher.some().await;
    let published = publisher.stop().await;
    let read = reader.stop(published.acknowledged.last().unwrap().number).await;
    let heard = &read.seen;
    for one in &published.acknowledged {
        let announced = heard.gaps.iter().any(|gap| *gap >= one.at);
        assert!(heard.numbers.contains(&one.number) || announced, "{one:?} is lost in silence");
    }
    assert!(published.acknowledged.len() > 100, "hardly anything was acknowledged");
    let slowest = published.slowest;
    assert!(slowest < Duration::from_millis(2500), "a publish took {slowest:?}");
    Figures { published, read }
}

/// Numbers and gaps that a reader has received.
#[derive(Debug, Default)]
struct Heard {
    numbers: BTreeSet<u64>,
    gaps: Vec<Instant>,
    /// In a Cluster what was published to an old master may come late to the new one: by the cluster's own bus, behind
    /// what is published there, and once more to a node that has moved.
    in_cluster: bool,
}

impl Seen for Heard {
    fn take(&mut self, event: BusEvent) {
        match event {
            BusEvent::Message { envelope, .. } => {
                let number: u64 = envelope.message().data.to_string().parse().unwrap();
                let last = self.numbers.last().copied();
                let newest = last.is_none_or(|last| last < number);
                // The numbers of a second.
                let late = self.in_cluster
                    && last.and_then(|last| last.checked_sub(number)).is_some_and(|by| by < 500);
                assert!(newest || late, "{number} after {last:?}: out of order, or twice");
                self.numbers.insert(number);
            }
            BusEvent::Gap => self.gaps.push(Instant::now()),
            other => panic!("{other:?}"),
        }
    }

    /// The last number has arrived, and two gaps.
    fn is_complete(&self, last: Option<u64>) -> bool {
        self.gaps.len() >= 2 && last.is_some_and(|last| self.numbers.last() >= Some(&last))
    }

    fn count(&self) -> usize {
        self.numbers.len()
    }

    fn gaps(&self) -> usize {
        self.gaps.len()
    }

    fn missing(&self, published: &Published) -> usize {
        published.acknowledged.iter().filter(|one| !self.numbers.contains(&one.number)).count()
    }
}

//! Whichever way the master changes, all nodes list all users and carry out kicks again within 6 s.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream::BoxStream};
use realtime_core::{
    CloseReason, Hub, Settings, UserId,
    presence::{PresenceEvent, PresenceState},
};
use realtime_redis::{Incarnation, RedisConfig, RedisControl, RedisPresence, Topology};
use realtime_sse::{SseEmitters, SseStream};
use realtime_tests::{Fault, Part, RedisCluster, RedisSentinel, within};
use tokio::time::sleep;

const NODES: &str = "{rt/presence}:nodes";

#[actix_web::test]
async fn a_sentinels_master_that_is_killed() {
    let mut redis = RedisSentinel::start().await;
    let cluster = Cluster::start(redis.topology()).await;
    redis.kill_master().await;
    cluster.goes_on("Sentinel: the master is killed").await;
}

#[actix_web::test]
async fn a_planned_failover() {
    let redis = RedisSentinel::start().await;
    let cluster = Cluster::start(redis.topology()).await;
    redis.change_master().await;
    cluster.goes_on("Sentinel: a planned failover").await;
}

#[actix_web::test]
async fn an_isolated_old_master() {
    let redis = RedisSentinel::start().await;
    let cluster = Cluster::start(redis.topology()).await;
    let old = redis.isolate_master().await;
    cluster.goes_on("Sentinel: an old master is isolated with its clients").await;
    redis.unlock(old);
}

#[actix_web::test]
async fn a_clusters_master_that_is_killed() {
    let mut redis = RedisCluster::start().await;
    let cluster = Cluster::start(redis.topology()).await;
    redis.kill_master_of(NODES).await;
    cluster.goes_on("Cluster: the master of our slot is killed").await;
}

#[actix_web::test]
async fn a_clusters_master_of_control_alone_that_is_killed() {
    let mut redis = RedisCluster::start().await;
    let cluster = Cluster::start(redis.topology()).await;
    // Each part has a master of its own where a cluster is spread evenly.
    let owners =
        ["{rt}:log", NODES, "{rt/control}:commands"].map(|key| redis.owner(redis.slot(key)).unwrap());
    assert!(owners[0] != owners[1] && owners[1] != owners[2] && owners[2] != owners[0], "{owners:?}");
    redis.kill_master_of("{rt/control}:commands").await;
    cluster.goes_on("Cluster: the master of control's slot is killed").await;
}

#[actix_web::test]
async fn a_slot_that_moves_to_another_master() {
    let redis = RedisCluster::start().await;
    let cluster = Cluster::start(redis.topology()).await;
    redis.move_slot_of(NODES, &[NODES, "{rt/presence}:users"]).await;
    cluster.goes_on("Cluster: our slot moves to another master").await;
}

/// Two nodes; user 1 is on both, user 2 on one.
struct Cluster {
    topology: Topology,
    hubs: Vec<Hub>,
    sessions: Vec<SseStream>,
    events: Vec<BoxStream<'static, PresenceEvent>>,
}

impl Cluster {
    async fn start(topology: Topology) -> Self {
        let hubs = vec![node(&topology, "a"), node(&topology, "b")];
        for hub in &hubs {
            within("a start", hub.started()).await;
        }
        let sessions = vec![open(&hubs[0], 1), open(&hubs[1], 1), open(&hubs[1], 2)];
        until_count(&hubs, 2, 3).await;
        let events = hubs.iter().map(|hub| hub.presence().changes()).collect();
        Self { topology, hubs, sessions, events }
    }

    /// Presence and kicks work over all nodes again, a new one included, and no user was reported offline.
    async fn goes_on(mut self, fault: &str) {
        let moved = Instant::now();
        // It finds the new master, so it shows whether the others are there.
        self.hubs.push(node(&self.topology, "late"));
        within("a start", self.hubs[2].started()).await;
        self.sessions.push(open(&self.hubs[2], 1));
        self.sessions.push(open(&self.hubs[0], 3));
        until_count(&self.hubs, 3, 5).await;
        let known = moved.elapsed();
        assert!(known < Duration::from_secs(5), "took {known:?}");
        for events in &mut self.events {
            within("the newcomer to be told", async {
                loop {
                    match events.next().await.unwrap() {
                        PresenceEvent::Changed(change) => {
                            assert_eq!(change.state, PresenceState::Online, "{change:?}");
                            if change.user_id == UserId::from(3) {
                                break;
                            }
                        }
                        PresenceEvent::Gap => {}
                    }
                }
            })
            .await;
        }
        let hub = &self.hubs[0];
        within("an order to be confirmed", async {
            // A user without sessions: the kick only checks that all nodes confirm.
            while !hub.kick(&99.into()).await.is_ok_and(|outcome| outcome.unconfirmed.is_empty()) {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        let confirmed = moved.elapsed();
        assert!(confirmed < Duration::from_secs(6), "took {confirmed:?}");
        let outcome = hub.kick(&1.into()).await.unwrap();
        assert_eq!((outcome.closed, outcome.unconfirmed), (3, vec![]));
        for n in [0, 1, 3] {
            assert_eq!(self.sessions[n].handle().closing(), Some(CloseReason::Kicked));
        }
        for n in [2, 4] {
            assert_eq!(self.sessions[n].handle().closing(), None);
        }
        let seen = "Within 5 s of the change all nodes know all users, one that starts then included; nobody is said to \
                    have gone.";
        Fault::new(fault, Part::Presence, seen).figures(format_args!("after {known:.1?}")).record();
        let seen = "Within 6 s of the change every node confirms, and a kick ends sessions on all of them.";
        Fault::new(fault, Part::Kicks, seen).figures(format_args!("after {confirmed:.1?}")).record();
    }
}

fn node(topology: &Topology, name: &str) -> Hub {
    let (config, incarnation) = (RedisConfig::new(topology.clone()), Incarnation::new(name));
    let presence = RedisPresence::make(config.clone(), incarnation.clone()).unwrap();
    let control = RedisControl::make(config, incarnation).unwrap();
    // The sessions are not read here.
    let mut settings = Settings::default();
    settings.outbox.max_stall = Duration::from_secs(300);
    Hub::builder().node(name).settings(settings).presence(presence).control(control).start().unwrap()
}

fn open(hub: &Hub, user: i64) -> SseStream {
    SseEmitters::new(hub.clone()).connect(user, "a token").unwrap()
}

/// Waits until each hub counts these users and sessions; counting fails for a while.
async fn until_count(hubs: &[Hub], users: usize, sessions: usize) {
    within(&format!("{users} users with {sessions} sessions"), async {
        for hub in hubs {
            let counts = async || hub.presence().count().await.map(|count| (count.users, count.sessions));
            while counts().await != Ok((users, sessions)) {
                sleep(Duration::from_millis(10)).await;
            }
        }
    })
    .await;
}

//! [`RedisCluster`]: three masters and their replicas of the test's own, and faults of them.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use realtime_redis::Topology;
use tokio::time::sleep;

use crate::{
    redis_process::{LOGIN, RedisProcess},
    within,
};

/// Six nodes that serve all slots.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisProcess>,
}

impl RedisCluster {
    /// Starts it and waits until every master can be replaced.
    pub async fn start() -> Self {
        let arguments = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"].map(str::to_owned);
        let nodes: Vec<_> = (0..6).map(|_| RedisProcess::server(&arguments)).collect();
        for node in &nodes {
            node.answers().await;
        }
        let mut create = Command::new("redis-cli");
        create.args(["--user", "app", "--pass", "app", "--no-auth-warning", "--cluster", "create"]);
        create.args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())));
        create.args(["--cluster-replicas", "1", "--cluster-yes"]).stdout(Stdio::null());
        assert!(create.status().unwrap().success());
        within("the cluster's nodes to agree and its replicas to be in step", async {
            let ready = |node: &RedisProcess| {
                let replication = node.cli(&["info", "replication"]);
                node.cli(&["cluster", "info"]).contains("cluster_state:ok")
                    && (replication.contains("master_link_status:up")
                        || replication.contains("connected_slaves:1"))
                    && node.cli(&["cluster", "nodes"]).matches("slave").count() == 3
            };
            while !nodes.iter().all(ready) {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        Self { nodes }
    }

    /// Topology for clients: two masters and a replica.
    pub fn topology(&self) -> Topology {
        let url = |node: &RedisProcess| format!("redis://{LOGIN}@127.0.0.1:{}/", node.port());
        Topology::Cluster([0, 1, 5].map(|n| url(&self.nodes[n])).to_vec())
    }

    /// Runs a command on the node that owns the key, which is its first argument.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let owner = self.owner(self.slot(arguments[1])).expect("the nodes agree");
        self.nodes[owner].cli(arguments)
    }

    /// Runs a command on each node.
    pub fn on_each(&self, arguments: &[&str]) -> Vec<String> {
        self.nodes.iter().map(|node| node.cli(arguments)).collect()
    }

    /// kill -9 of a node.
    fn kill(&mut self, n: usize) {
        self.nodes[n].kill();
    }

    /// The slot of a key.
    pub fn slot(&self, key: &str) -> u16 {
        let answer = self.nodes.iter().map(|node| node.cli(&["cluster", "keyslot", key]));
        answer.filter_map(|slot| slot.parse().ok()).next().unwrap()
    }

    /// Node that owns a slot according to the nodes that answer; `None` while they disagree.
    pub fn owner(&self, slot: u16) -> Option<usize> {
        let views = self.nodes.iter().map(|node| node.cli(&["cluster", "nodes"]));
        let mut named = views.filter(|view| !view.is_empty()).map(|view| {
            let line = view.lines().find(|line| {
                let mut words = line.split(' ').skip(8).filter(|word| !word.starts_with('['));
                words.any(|range| {
                    let (first, last) = range.split_once('-').unwrap_or((range, range));
                    (first.parse().unwrap()..=last.parse().unwrap()).contains(&slot)
                })
            })?;
            line.split(['@', ':']).nth(1)?.parse::<u16>().ok()
        });
        let port = named.next()??;
        if named.any(|other| other != Some(port)) {
            return None;
        }
        self.nodes.iter().position(|node| node.port() == port)
    }

    /// Waits until all nodes agree on another owner of a slot than this one.
    async fn moved_from(&self, slot: u16, old: usize) -> usize {
        within("another owner of the slot", async {
            loop {
                match self.owner(slot) {
                    Some(owner) if owner != old => return owner,
                    _ => sleep(Duration::from_millis(20)).await,
                }
            }
        })
        .await
    }

    /// Kills the master of a key's slot (SIGKILL) and waits until its replica has taken over.
    pub async fn kill_master_of(&mut self, key: &str) {
        let slot = self.slot(key);
        let old = self.owner(slot).unwrap();
        self.kill(old);
        self.moved_from(slot, old).await;
    }

    /// Moves a key's slot to another master, with these keys first.
    pub async fn move_slot_of(&self, key: &str, keys: &[&str]) {
        let slot = self.slot(key);
        let to = self.another_master(slot);
        self.migrate(slot, keys, to, Duration::from_millis(300)).await;
    }

    /// A master that does not own the slot.
    fn another_master(&self, slot: u16) -> usize {
        let owner = self.owner(slot).unwrap();
        let is_master = |n: usize| self.nodes[n].cli(&["info", "replication"]).contains("role:master");
        (0..self.nodes.len()).find(|n| *n != owner && is_master(*n)).unwrap()
    }

    /// Moves a slot with these keys first and then all the others to another master, one key after the other, with a
    /// pause before each of these.
    async fn migrate(&self, slot: u16, keys: &[&str], to: usize, pause: Duration) {
        let from = self.owner(slot).unwrap();
        let id = |n: usize| self.nodes[n].cli(&["cluster", "myid"]);
        let (source, target) = (id(from), id(to));
        let set = |n: usize, state: &str, id: &str| {
            let answer = self.nodes[n].cli(&["cluster", "setslot", &slot.to_string(), state, id]);
            assert_eq!(answer, "OK");
        };
        set(to, "importing", &source);
        set(from, "migrating", &target);
        let port = self.nodes[to].port().to_string();
        let migrate = |key: &str| {
            let migrate = ["migrate", "127.0.0.1", &port, key, "0", "2000", "auth2", "app", "app"];
            // NOKEY: the key does not exist any more.
            let answer = self.nodes[from].cli(&migrate);
            assert!(answer == "OK" || answer == "NOKEY", "{key}: {answer}");
        };
        for key in keys {
            sleep(pause).await;
            migrate(key);
        }
        sleep(pause).await;
        loop {
            let left = self.nodes[from].cli(&["cluster", "getkeysinslot", &slot.to_string(), "100"]);
            if left.is_empty() {
                break;
            }
            left.lines().for_each(migrate);
        }
        set(to, "node", &target);
        set(from, "node", &target);
        self.moved_from(slot, from).await;
    }
}

//! [`RedisSentinel`]: a master, its replica and three sentinels of the test's own, and faults of them.

use std::{collections::HashMap, time::Duration};

use realtime_redis::Topology;
use tokio::time::sleep;

use crate::{
    redis_process::{LOGIN, RedisProcess},
    within,
};

const SERVICE: &str = "mymaster";

/// Two servers, one of which is the master, under three sentinels of which two must agree.
#[derive(Debug)]
pub struct RedisSentinel {
    servers: Vec<RedisProcess>,
    sentinels: Vec<RedisProcess>,
}

impl RedisSentinel {
    /// Starts them and waits until a failover is possible.
    pub async fn start() -> Self {
        let master = RedisProcess::server(&[]);
        master.answers().await;
        let replica = RedisProcess::server(&replica_of(&master));
        replica.answers().await;
        in_step(&replica).await;
        // A busy machine keeps a server from answering for a second now and then.
        let lines = format!(
            "sentinel monitor {SERVICE} 127.0.0.1 {} 2\n\
             sentinel down-after-milliseconds {SERVICE} 2000\n\
             sentinel failover-timeout {SERVICE} 3000\n",
            master.port()
        );
        let sentinels = (0..3).map(|_| RedisProcess::sentinel(&lines)).collect();
        let redis = Self { servers: vec![master, replica], sentinels };
        redis.ready().await;
        redis
    }

    /// Topology for clients.
    pub fn topology(&self) -> Topology {
        Topology::Sentinel {
            sentinels: self
                .sentinels
                .iter()
                .map(|one| format!("redis://127.0.0.1:{}/", one.port()))
                .collect(),
            service: SERVICE.to_owned(),
            server: format!("redis://{LOGIN}@127.0.0.1/"),
        }
    }

    /// A sentinel.
    pub fn sentinel(&self, n: usize) -> &RedisProcess {
        &self.sentinels[n]
    }

    /// A server.
    pub fn server(&self, n: usize) -> &RedisProcess {
        &self.servers[n]
    }

    /// kill -9 of a server.
    pub fn kill(&mut self, n: usize) {
        self.servers[n].kill();
    }

    /// Server that all answering sentinels name as the master; `None` while they disagree.
    pub fn master(&self) -> Option<usize> {
        let mut named = self.sentinels.iter().filter_map(|sentinel| {
            let answer = sentinel.cli(&["sentinel", "get-master-addr-by-name", SERVICE]);
            answer.lines().nth(1)?.parse::<u16>().ok()
        });
        let port = named.next()?;
        if named.any(|other| other != port) {
            return None;
        }
        self.servers.iter().position(|server| server.port() == port)
    }

    /// Waits until the sentinels name another master than this one.
    pub async fn failed_over_from(&self, old: usize) -> usize {
        within("another master", async {
            loop {
                match self.master() {
                    Some(master) if master != old => return master,
                    _ => sleep(Duration::from_millis(20)).await,
                }
            }
        })
        .await
    }

    /// Kills the master (SIGKILL). Returns it once another one is promoted.
    pub async fn kill_master(&mut self) -> usize {
        let old = self.master().unwrap();
        self.kill(old);
        self.failed_over_from(old).await;
        old
    }

    /// Makes the sentinels promote the replica, though nothing is wrong with the master.
    pub async fn change_master(&self) {
        let old = self.master().unwrap();
        assert_eq!(self.sentinels[0].cli(&["sentinel", "failover", SERVICE]), "OK");
        self.failed_over_from(old).await;
    }

    /// Cuts the master off from its replica and the sentinels; clients stay, and new ones can connect. Returns it once
    /// another one is promoted; the old one still acts as a master.
    pub async fn isolate_master(&self) -> usize {
        let old = self.master().unwrap();
        self.lock(old);
        self.servers[old].cli(&["client", "kill", "user", "default"]);
        self.failed_over_from(old).await;
        assert!(
            self.servers[old].cli(&["info", "replication"]).contains("role:master"),
            "it noticed nothing"
        );
        old
    }

    /// Runs a command on the master.
    pub fn cli(&self, arguments: &[&str]) -> String {
        self.servers[self.master().expect("the sentinels agree")].cli(arguments)
    }

    /// Starts a server that was killed as the other one's replica and waits until one could replace the other.
    pub async fn back_as_replica(&mut self, n: usize) {
        let arguments = replica_of(&self.servers[1 - n]);
        self.servers[n].restart(&arguments).await;
        self.ready().await;
        // The sentinels may have promoted it meanwhile.
        if let Some(master) = self.master() {
            in_step(&self.servers[1 - master]).await;
        }
    }

    /// The number of failovers so far: the sentinels' configuration epoch.
    pub fn failovers(&self) -> usize {
        let epochs = self.sentinels.iter().filter_map(|sentinel| {
            fields(&sentinel.cli(&["sentinel", "master", SERVICE])).get("config-epoch")?.parse().ok()
        });
        epochs.max().expect("a sentinel answers")
    }

    /// Cuts a master off from its replica; clients and sentinels stay.
    pub fn detach_replica_of(&self, master: usize) {
        self.lock(master);
        self.servers[master].cli(&["client", "kill", "type", "replica"]);
    }

    /// Lets the others connect again.
    pub fn unlock(&self, n: usize) {
        assert_eq!(self.servers[n].cli(&["acl", "setuser", "default", "nopass"]), "OK");
    }

    fn lock(&self, n: usize) {
        let secret = ["acl", "setuser", "default", "resetpass", ">nobody-knows"];
        assert_eq!(self.servers[n].cli(&secret), "OK");
    }

    /// Every sentinel knows the replica and both others: only then a failover is possible.
    async fn ready(&self) {
        for sentinel in &self.sentinels {
            sentinel.answers().await;
        }
        within("the sentinels to know the replica and each other", async {
            let ready = |sentinel: &RedisProcess| {
                let master = fields(&sentinel.cli(&["sentinel", "master", SERVICE]));
                let replica = fields(&sentinel.cli(&["sentinel", "replicas", SERVICE]));
                let is = |fields: &HashMap<String, String>, name: &str, value: &str| {
                    fields.get(name).is_some_and(|found| found == value)
                };
                is(&master, "flags", "master")
                    && is(&master, "num-slaves", "1")
                    && is(&master, "num-other-sentinels", "2")
                    && is(&replica, "flags", "slave")
            };
            while !self.sentinels.iter().all(ready) {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
}

fn replica_of(master: &RedisProcess) -> [String; 3] {
    ["--replicaof".to_owned(), "127.0.0.1".to_owned(), master.port().to_string()]
}

/// Waits until a replica has what its master has.
pub(crate) async fn in_step(replica: &RedisProcess) {
    within("a replica to be in step", async {
        while !replica.cli(&["info", "replication"]).contains("master_link_status:up") {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Output of redis-cli for names and values.
fn fields(text: &str) -> HashMap<String, String> {
    let mut lines = text.lines().map(str::to_owned);
    std::iter::from_fn(|| Some((lines.next()?, lines.next()?))).collect()
}

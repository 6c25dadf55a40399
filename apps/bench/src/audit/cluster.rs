//! [`Cluster`]: the nodes and the Redis of an audit, and how each fault is done to them and made good.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use futures_util::future::{join, join_all};
use tokio::time::sleep;

use crate::audit::{
    api::Api,
    fault::Fault,
    history::{Event, Target},
    node::Node,
    proxy::Proxy,
    publisher::publish,
    redis_server::RedisServer,
    rng::Rng,
    site::{ClientCommand, Site},
};

/// The nodes and the Redis server of an audit, unless the nodes were given.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) site: Arc<Site>,
    pub(crate) own: Option<OwnedServers>,
    pub(crate) rng: Rng,
    pub(crate) api: Api,
}

/// Servers started by the auditor.
#[derive(Debug)]
pub(crate) struct OwnedServers {
    pub(crate) nodes: Vec<Node>,
    pub(crate) redis: RedisServer,
}

/// Time limit for a node to end: its `drain.window` plus a margin.
const DRAIN: Duration = Duration::from_secs(6);

/// Messages, and bytes of each, that a user gets at once while clients do not read: more than the kernel keeps for a
/// connection on loopback, so that the nodes notice.
const FLOOD: usize = 70;
const FLOOD_BYTES: usize = 60_000;

/// Number of users that are flooded; all of it has to fit into the nodes' windows.
const FLOODED: u32 = 3;

impl Cluster {
    /// Does a fault and makes it good, and takes both down.
    pub(crate) async fn run(&mut self, fault: Fault) {
        let node = self.rng.index(self.site.nodes.len());
        let detail = format!("node {node}{}", self.add_second_fault(node));
        self.site.history.push(Event::FaultBegins { fault, detail });
        let done = self.inject(fault, node).await.with_context(|| format!("fault {fault}, node {node}"));
        if let Err(error) = done {
            self.report_problem(format!("{error:#}"));
        }
        self.recover().await;
        self.site.history.push(Event::FaultEnds { fault });
    }

    /// Every other fault is done while another node is late, or down until the fault is over. Answers what was done.
    fn add_second_fault(&mut self, node: usize) -> String {
        let Self { own: Some(own), rng, .. } = self else { return String::new() };
        let count = own.nodes.len();
        if count < 2 || rng.one_in(2) {
            return String::new();
        }
        let other = (node + 1 + rng.index(count - 1)) % count;
        if rng.one_in(2) {
            own.nodes[other].kill();
            format!(", node {other} down")
        } else {
            let late = rng.millis(50..500);
            own.nodes[other].proxy.delay(late);
            format!(", node {other} late by {late:?}")
        }
    }

    async fn inject(&mut self, fault: Fault, node: usize) -> anyhow::Result<()> {
        let Self { site, own, rng, .. } = self;
        match fault {
            Fault::Cut => return self.cut(node).await,
            Fault::Stall => return self.stall(node).await,
            _ => {}
        }
        let OwnedServers { nodes, redis } =
            own.as_mut().context("this fault needs servers of the auditor's own")?;
        match fault {
            Fault::Kill => {
                nodes[node].kill();
                sleep(rng.millis(0..1_500)).await;
                // Clients are there before Redis is.
                let cut_off = rng.one_in(2);
                if cut_off {
                    nodes[node].proxy.block();
                }
                nodes[node].start().await?;
                if cut_off {
                    sleep(rng.millis(500..3_000)).await;
                    nodes[node].proxy.unblock();
                }
            }
            Fault::Stop => {
                nodes[node].pause()?;
                sleep(rng.millis(500..4_000)).await;
                nodes[node].resume()?;
            }
            Fault::Rolling => return self.rolling().await,
            Fault::RedisKill => {
                redis.kill();
                redis.delete_files()?;
                sleep(rng.millis(0..2_000)).await;
                redis.restart().await?;
            }
            Fault::RedisRestart => {
                if rng.one_in(2) {
                    redis.end().await?;
                } else {
                    redis.kill();
                }
                sleep(rng.millis(0..2_000)).await;
                redis.restart().await?;
            }
            Fault::RedisPause => {
                redis.pause()?;
                sleep(rng.millis(300..4_000)).await;
                redis.resume()?;
            }
            Fault::RedisFlush => redis.flush().await?,
            Fault::RedisTrim => {
                nodes[node].proxy.block();
                sleep(rng.millis(500..2_000)).await;
                let keep = rng.range(1..30) as u32;
                if let Some(upto) = redis.trim(keep).await? {
                    site.history.push(Event::Trimmed { upto });
                }
                nodes[node].proxy.unblock();
            }
            Fault::Lag => {
                for node in nodes.iter() {
                    let late = if rng.one_in(2) { 500 } else { rng.range(0..500) };
                    node.proxy.delay(Duration::from_millis(late));
                }
                nodes[node].proxy.delay(Duration::from_millis(500));
                sleep(rng.millis(2_000..4_000)).await;
                for node in nodes.iter() {
                    node.proxy.delay(Duration::ZERO);
                }
            }
            Fault::Partition => {
                nodes[node].proxy.block();
                sleep(rng.millis(1_000..5_000)).await;
                if rng.one_in(2) {
                    nodes[node].proxy.cut();
                }
                nodes[node].proxy.unblock();
            }
            Fault::Failover => failover(nodes, redis, rng).await?,
            Fault::Cut | Fault::Stall => {}
        }
        Ok(())
    }

    async fn rolling(&mut self) -> anyhow::Result<()> {
        let Self { own: Some(own), api, .. } = self else { return Ok(()) };
        let mut problems = Vec::new();
        for (n, node) in own.nodes.iter_mut().enumerate() {
            if let Err(error) = node.end(DRAIN).await {
                problems.push(format!("node {n} {error}"));
            }
            node.start().await?;
            node.until_ready(api).await?;
        }
        anyhow::ensure!(problems.is_empty(), "{}", problems.join("; "));
        Ok(())
    }

    async fn cut(&mut self, node: usize) -> anyhow::Result<()> {
        for _ in 0..4 {
            self.site.commands.send(ClientCommand::Drop { one_in: 3 }).ok();
            if let Some(own) = &self.own {
                own.nodes[node].proxy.cut();
                own.nodes[self.rng.index(own.nodes.len())].proxy.cut();
            }
            sleep(self.rng.millis(50..900)).await;
        }
        Ok(())
    }

    /// Some clients do not read, and those that read slowly get more than they can take.
    async fn stall(&mut self, node: usize) -> anyhow::Result<()> {
        let time = self.rng.millis(2_000..6_000);
        self.site.commands.send(ClientCommand::Stall { one_in: 4, time }).ok();
        let floods = (0..self.site.slow_users().min(FLOODED)).map(|user| flood(&self.site, node, user));
        join(join_all(floods), sleep(time)).await;
        Ok(())
    }

    /// Waits until all nodes run and are ready again.
    pub(crate) async fn recover(&mut self) {
        let Some(own) = &mut self.own else { return };
        let mut problems = Vec::new();
        if let Err(error) = own.redis.recover().await {
            problems.push(format!("{error:#}"));
        }
        for (n, node) in own.nodes.iter_mut().enumerate() {
            node.proxy.unblock();
            node.proxy.delay(Duration::ZERO);
            // Fails for a node that has ended, which is handled below.
            node.resume().ok();
            if let Some(crash) = node.crashed() {
                problems.push(format!("node {n} {crash}"));
            }
            if !node.runs()
                && let Err(error) = node.start().await
            {
                problems.push(format!("node {n}: {error:#}"));
            } else if let Err(error) = node.until_ready(&mut self.api).await {
                problems.push(format!("node {n} {error}"));
            }
        }
        for problem in problems {
            self.report_problem(problem);
        }
    }

    fn report_problem(&self, what: String) {
        eprintln!("problem: {what}");
        self.site.history.push(Event::Problem { what });
    }
}

/// Starts a replica, cuts it off while publishing continues, kills the master and promotes the replica.
async fn failover(nodes: &[Node], redis: &mut RedisServer, rng: &mut Rng) -> anyhow::Result<()> {
    let replica = RedisServer::start().await?;
    let between = Proxy::start(redis.port).await?;
    replica.follow(between.port).await?;
    between.block();
    sleep(rng.millis(100..1_000)).await;
    redis.kill();
    between.cut();
    drop(between);
    sleep(rng.millis(0..1_000)).await;
    replica.promote().await?;
    for node in nodes {
        node.proxy.switch(replica.port);
    }
    *redis = replica;
    Ok(())
}

async fn flood(site: &Site, node: usize, user: u32) {
    let mut api = Api::new(&site.api_key);
    for _ in 0..FLOOD {
        publish(site, &mut api, node, Target::User(user), FLOOD_BYTES).await;
    }
}

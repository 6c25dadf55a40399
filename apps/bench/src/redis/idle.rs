//! [`IdleCluster`]: the CPU time that Redis spends on nodes whose users are connected and receive nothing.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use realtime_core::{
    Hub, Message, Position, Principal, Session, Settings, Topic, Transport,
    wire::{BusState, GapReason, WireFormat},
};
use realtime_redis::{RedisCluster, RedisConfig};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    cli::RedisLoad,
    endpoint::Reach,
    resp::{RedisUrl, Resp},
};

/// Several nodes in this process, each with bus, presence and control over one Redis.
pub(crate) struct IdleCluster {
    load: RedisLoad,
    nodes: u32,
    url: RedisUrl,
    runtime: Runtime,
    prefix: String,
}

/// The CPU time of Redis while nothing was published.
#[derive(Debug)]
pub(crate) struct IdleReport {
    nodes: u32,
    users: u32,
    seconds: f64,
    /// Microseconds of the whole server process.
    cpu: f64,
    /// The commands by descending cost; those that a script calls count twice.
    commands: Vec<(String, Spent)>,
}

/// The cost of a command since Redis' start.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    calls: f64,
    micros: f64,
}

/// Redis' counters at one moment.
struct Counters {
    at: Instant,
    /// Microseconds.
    cpu: f64,
    commands: BTreeMap<String, Spent>,
}

/// A wire format that writes nothing.
struct NoWire;

/// Maximum use of a core by Redis, in percent.
const GOAL: f64 = 2.0;

/// Pause after the last session was opened, until the comparisons after a new connection are over.
const SETTLE: Duration = Duration::from_secs(8);

impl IdleCluster {
    /// Parses the URL, without contacting Redis.
    pub(crate) fn new(load: RedisLoad, nodes: u32) -> anyhow::Result<Self> {
        let reach = if load.run.i_own_this_host { Reach::Anywhere } else { Reach::Loopback };
        let url = RedisUrl::parse(&load.redis, reach)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let prefix = format!("realtime-bench:{}", std::process::id());
        Ok(Self { load, nodes, url, runtime, prefix })
    }

    /// Starts the nodes, connects their users, and measures Redis while nothing happens.
    pub(crate) fn run(&self) -> anyhow::Result<IdleReport> {
        let result = self.measure();
        let removed = self.remove_keys().context("failed to remove the keys of the nodes");
        let report = result?;
        removed?;
        Ok(report)
    }

    fn measure(&self) -> anyhow::Result<IdleReport> {
        let _runtime = self.runtime.enter();
        let hubs = (0..self.nodes).map(|n| self.node(n)).collect::<anyhow::Result<Vec<_>>>()?;
        let began = Instant::now();
        self.until("the nodes to be ready", began, || hubs.iter().all(|hub| hub.ready().is_ok()))?;
        let wire: Arc<dyn WireFormat> = Arc::new(NoWire);
        let mut sessions: Vec<Session> = Vec::new();
        for (n, hub) in (0_i64..).zip(&hubs) {
            for user in 0..i64::from(self.load.users) {
                let principal = Principal::new((n * 1_000_000 + user).into(), "a token");
                sessions.push(hub.connect(principal, Transport::new("bench"), &wire, None)?);
            }
        }
        let all = sessions.len();
        self.until("all users to be online", began, || {
            let count = self.runtime.block_on(hubs[0].presence().count());
            count.is_ok_and(|count| count.users == all && count.sessions == all)
        })?;
        thread::sleep(SETTLE);
        let mut redis = self.url.open()?;
        let before = Counters::read(&mut redis)?;
        thread::sleep(self.load.hold);
        let after = Counters::read(&mut redis)?;
        let broken = hubs.iter().find_map(|hub| hub.ready().err());
        ensure!(broken.is_none(), "a node is not ready: {}", broken.unwrap_or_default());
        let count = self.runtime.block_on(hubs[0].presence().count())?;
        ensure!(count.users == all, "{} of {all} users are online at the end", count.users);
        Ok(after.since(&before, self.nodes, self.load.users))
    }

    fn node(&self, number: u32) -> anyhow::Result<Hub> {
        let config = RedisConfig::single(&self.load.redis).key_prefix(self.prefix.clone());
        let cluster = RedisCluster::streams(config, format!("node-{number}"))?;
        // The sessions are not read.
        let mut settings = Settings::default();
        settings.outbox.max_stall = Duration::from_secs(3600);
        Ok(Hub::builder().settings(settings).cluster(cluster).start()?)
    }

    fn until(&self, what: &str, began: Instant, done: impl Fn() -> bool) -> anyhow::Result<()> {
        while !done() {
            ensure!(
                began.elapsed() < self.load.run.time_limit,
                "the time limit has passed, waiting for {what}"
            );
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Removes all keys with the prefix of this run.
    fn remove_keys(&self) -> anyhow::Result<()> {
        let script =
            b"for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('UNLINK', key) end return 1";
        let pattern = format!("{{{}:*", self.prefix);
        self.url.open()?.call(&[b"EVAL", script, b"0", pattern.as_bytes()])
    }
}

impl Counters {
    fn read(redis: &mut Resp) -> anyhow::Result<Self> {
        let (at, commands, cpu) =
            (Instant::now(), redis.ask(&[b"INFO", b"commandstats"])?, redis.ask(&[b"INFO", b"cpu"])?);
        let field = |text: &str, name: &str| -> f64 {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
        };
        let cpu = (field(&cpu, "used_cpu_user") + field(&cpu, "used_cpu_sys")) * 1e6;
        let commands = commands.lines().filter_map(|line| {
            let (name, fields) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            let value = |name: &str| {
                let field = fields.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
                field.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
            };
            Some((name.to_owned(), Spent { calls: value("calls"), micros: value("usec") }))
        });
        Ok(Self { at, cpu, commands: commands.collect() })
    }

    fn since(&self, before: &Self, nodes: u32, users: u32) -> IdleReport {
        let mut commands: Vec<_> = self
            .commands
            .iter()
            .map(|(name, spent)| {
                let old = before.commands.get(name).copied().unwrap_or_default();
                let spent = Spent { calls: spent.calls - old.calls, micros: spent.micros - old.micros };
                (name.clone(), spent)
            })
            .filter(|(name, spent)| spent.calls > 0.0 && name != "info")
            .collect();
        commands.sort_by(|(_, a), (_, b)| b.micros.total_cmp(&a.micros));
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        IdleReport { nodes, users, seconds, cpu: self.cpu - before.cpu, commands }
    }
}

impl IdleReport {
    /// Returns the report as JSON.
    pub(crate) fn json(&self) -> Value {
        let commands: serde_json::Map<String, Value> = self
            .commands
            .iter()
            .map(|(name, spent)| {
                let figures = json!({
                    "calls_per_s": spent.calls / self.seconds,
                    "core_percent": self.percent(spent.micros),
                });
                (name.clone(), figures)
            })
            .collect();
        json!({
            "tool": "realtime-bench",
            "version": env!("CARGO_PKG_VERSION"),
            "command": "redis",
            "load": { "nodes": self.nodes, "users": self.users, "seconds": self.seconds },
            "redis_core_percent": self.percent(self.cpu),
            "goal_percent": GOAL,
            "commands": commands,
        })
    }

    fn percent(&self, micros: f64) -> f64 {
        micros / 1e4 / self.seconds
    }
}

impl fmt::Display for IdleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, users, seconds, cpu, commands } = self;
        writeln!(f, "{nodes} idle nodes with {users} users each, {seconds:.0} s")?;
        writeln!(f, "{:<22}  {:>10}  {:>10}  {:>10}", "", "calls/s", "us/call", "of a core")?;
        for (name, Spent { calls, micros }) in commands {
            let (rate, each, percent) = (calls / seconds, micros / calls, self.percent(*micros));
            writeln!(f, "{name:<22}  {rate:>10.1}  {each:>10.1}  {percent:>8.2} %")?;
        }
        let (total, ok) = (self.percent(*cpu), self.percent(*cpu) <= GOAL);
        writeln!(f, "{:<22}  {:>10}  {:>10}  {total:>8.2} %", "Redis, all that it does", "", "")?;
        writeln!(f, "goal: at most {GOAL} %: {}", if ok { "reached" } else { "missed" })
    }
}

impl WireFormat for NoWire {
    fn name(&self) -> &'static str {
        "none"
    }

    fn message(&self, _: &Message, _: Option<&Topic>, _: Option<Position>) -> Bytes {
        Bytes::new()
    }

    fn gap(&self, _: GapReason, _: Option<Position>, _: Option<SystemTime>, _: Duration) -> Option<Bytes> {
        None
    }

    fn heartbeat(&self, _: Option<Position>, _: BusState) -> Bytes {
        Bytes::new()
    }

    fn answers_heartbeat(&self) -> bool {
        false
    }
}

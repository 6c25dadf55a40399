//! [`Churn`]: clients that come and go for as long as one likes, and what they leave behind in the server.

mod client;
mod sample;
mod site;

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use futures_util::future::join_all;
use realtime_core::auth::{JwtAlgorithm, JwtAuthenticator};
use tokio::{
    runtime::Runtime,
    time::{Instant, interval, sleep},
};

use crate::{
    audit::{api::Api, rng::Rng},
    child::Child,
    churn::{
        sample::{Sample, Samples},
        site::Site,
    },
    comparison::{DEMO_KEY, DEMO_SECRET},
    process::Processes,
};

/// Clients that connect, get messages, and close, break off or are kicked, until the time is over.
#[derive(Debug)]
pub(crate) struct Churn {
    pub(crate) demo: PathBuf,
    pub(crate) env: Vec<(String, String)>,
    /// Connections at a time.
    pub(crate) clients: u64,
    pub(crate) duration: Duration,
    /// Time between two readings of the memory.
    pub(crate) every: Duration,
    pub(crate) seed: Option<u64>,
}

/// Counts and readings of a run.
#[derive(Debug)]
pub(crate) struct ChurnReport {
    seed: u64,
    samples: Samples,
    before: Sample,
    after: Sample,
}

/// Time in which everything that ends after the last connection has ended: graces, sweeps of the allocator's caches.
const SETTLING: Duration = Duration::from_secs(10);
/// Descriptors that may be more at the end than at the begin: idle ones of the runtime's and of the API's.
const SPARE: usize = 4;
/// One connection in so many may be refused.
const REFUSED: u64 = 20;
/// Growth that is allowed, in KiB per 10 minutes.
const GROWTH: f64 = 1024.0;
/// Runs of less time show caches that fill up, and are not judged by their growth.
const JUDGED: Duration = Duration::from_secs(30 * 60);

impl Churn {
    /// Runs it and prints each reading.
    pub(crate) fn run(self) -> anyhow::Result<ChurnReport> {
        ensure!(self.clients > 0 && !self.every.is_zero(), "--clients and --every: must be above 0");
        let own = [
            ("REALTIME__SERVER__HOST", "127.0.0.1"),
            ("REALTIME__SERVER__PORT", "0"),
            ("REALTIME__AUTH__JWT__SECRET", DEMO_SECRET),
            ("REALTIME__API__KEY", DEMO_KEY),
            ("REALTIME__LOG__LEVEL", "error"),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment: Vec<_> = own.into_iter().chain(self.env.iter().cloned()).collect();
        // The kernel ends a child with the thread that started it, so that is this one.
        let demo = Child::start(&self.demo, &[], &environment)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let seed = self.seed.unwrap_or(u64::from(now.subsec_nanos()));
        Runtime::new()?.block_on(self.load(&demo, seed))
    }

    async fn load(self, demo: &Child, seed: u64) -> anyhow::Result<ChurnReport> {
        let url = demo.url.strip_prefix("http://").context("the address of the demo")?;
        let site = Arc::new(Site {
            address: url.parse().with_context(|| format!("{url}: not an address"))?,
            jwt: JwtAuthenticator::new(JwtAlgorithm::Hs256, DEMO_SECRET)?,
            users: (self.clients / 2).max(1),
            over: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            published: AtomicU64::new(0),
            kicked: AtomicU64::new(0),
        });
        let processes = Processes::new(&[demo.pid()])?;
        // A first round, after which the server has what it keeps for good.
        client::visit(&site, &mut Rng::new(seed)).await.context("the first connection")?;
        sleep(Duration::from_secs(1)).await;
        let before = Sample::now(&processes, demo.pid(), &site, Duration::ZERO)?;
        println!("{before}");

        let begin = Instant::now();
        let mut tasks: Vec<_> = (0..self.clients)
            .map(|number| tokio::spawn(come_and_go(Arc::clone(&site), Rng::fork(seed, number))))
            .collect();
        tasks.push(tokio::spawn(publish(Arc::clone(&site), Rng::fork(seed, self.clients))));
        tasks.push(tokio::spawn(kick(Arc::clone(&site), Rng::fork(seed, self.clients + 1))));
        let mut samples = Samples::default();
        let mut ticks = interval(self.every);
        ticks.tick().await;
        while begin.elapsed() < self.duration {
            let left = self.duration.saturating_sub(begin.elapsed());
            tokio::select! {
                _ = ticks.tick() => {
                    let sample = Sample::now(&processes, demo.pid(), &site, begin.elapsed())?;
                    println!("{sample}");
                    samples.push(sample);
                }
                () = sleep(left) => {}
            }
        }
        site.over.store(true, Ordering::Relaxed);
        join_all(tasks).await;
        sleep(SETTLING).await;
        let after = Sample::now(&processes, demo.pid(), &site, begin.elapsed())?;
        println!("{after}");
        Ok(ChurnReport { seed, samples, before, after })
    }
}

/// One client after another.
async fn come_and_go(site: Arc<Site>, mut random: Rng) {
    while !site.is_over() {
        match client::visit(&site, &mut random).await {
            Ok(()) => {
                site.connections.fetch_add(1, Ordering::Relaxed);
            }
            // The server has cut it, which is its right; a server that is gone is seen by the readings.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Messages to all, to users and to topics, short and long, some retained.
async fn publish(site: Arc<Site>, mut random: Rng) {
    let mut api = Api::new(DEMO_KEY);
    while !site.is_over() {
        let text = "x".repeat(if random.one_in(50) { 20_000 } else { random.index(500) });
        let to = match random.index(4) {
            0 => r#""broadcast":true"#.to_owned(),
            1 => format!(r#""topics":["t{}"]"#, random.range(0..20)),
            _ => format!(r#""userIds":[{}]"#, site.user(&mut random)),
        };
        let more = if random.one_in(20) { r#","collapseKey":"k","retain":true"# } else { "" };
        let body = format!(r#"{{{to},"message":"{text}"{more}}}"#);
        if let Ok((200, _)) = api.call(site.address, "POST", "/api/publish", &body).await {
            site.published.fetch_add(1, Ordering::Relaxed);
        }
        sleep(random.millis(1..10)).await;
    }
}

/// Ends the logins of one user after another.
async fn kick(site: Arc<Site>, mut random: Rng) {
    let mut api = Api::new(DEMO_KEY);
    while !site.is_over() {
        let path = format!("/api/online/{}", site.user(&mut random));
        if let Ok((200, answer)) = api.call(site.address, "DELETE", &path, "").await {
            site.kicked.fetch_add(answer["closed"].as_u64().unwrap_or_default(), Ordering::Relaxed);
        }
        sleep(random.millis(50..150)).await;
    }
}

impl ChurnReport {
    /// What must not be, in words.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut violations = Vec::new();
        for (what, count) in [
            ("connection went to its end", self.after.connections),
            ("message was published", self.after.published),
        ] {
            if count == 0 {
                violations.push(format!("no {what}"));
            }
        }
        let Sample { connections, refused, .. } = self.after;
        if refused * REFUSED > connections + refused {
            violations
                .push(format!("{refused} connections were refused, and {connections} went to their ends"));
        }
        let (before, after) = (self.before.descriptors, self.after.descriptors);
        if after > before + SPARE {
            violations.push(format!("{after} descriptors afterwards, {before} before"));
        }
        if let Some(slope) = self.samples.slope().filter(|slope| *slope > GROWTH && self.after.at >= JUDGED) {
            violations.push(format!("memory grows by {slope:.0} KiB in 10 minutes"));
        }
        violations
    }
}

impl fmt::Display for ChurnReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.samples.slope() {
            Some(slope) => writeln!(f, "slope without the first third: {slope:+.0} KiB in 10 minutes")?,
            None => writeln!(f, "too few readings for a slope")?,
        }
        let (before, after) = (self.before, self.after);
        writeln!(f, "resident: {} KiB before, {} KiB afterwards", before.resident, after.resident)?;
        writeln!(f, "descriptors: {} before, {} afterwards", before.descriptors, after.descriptors)?;
        writeln!(
            f,
            "{} connections, {} refused, {} messages, {} kicked",
            after.connections, after.refused, after.published, after.kicked
        )?;
        writeln!(f, "seed {}", self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_refuses_is_a_violation() {
        let sample = |connections, refused| Sample {
            at: Duration::ZERO,
            resident: 0,
            descriptors: 0,
            connections,
            refused,
            published: 1,
            kicked: 0,
        };
        let violations = |connections, refused| {
            let after = sample(connections, refused);
            ChurnReport { seed: 0, samples: Samples::default(), before: sample(0, 0), after }.violations()
        };
        assert!(violations(100, 5).is_empty());
        assert_eq!(violations(90, 10), ["10 connections were refused, and 90 went to their ends"]);
    }
}

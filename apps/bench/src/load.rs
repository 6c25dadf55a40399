//! [`Load`]: a load on a server, and its measurement.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, ensure};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::{
    audience::Audience,
    client_pool::ClientPool,
    client_stats::millis,
    clock::Clock,
    counts::Counts,
    figure::{self, Figure, Measurement},
    growth::Growth,
    plan::LoadPlan,
    process::Processes,
    publisher::{Progress, Published, Publisher},
    target::Target,
    tokens::Tokens,
};

/// A load of connections and messages.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) websockets: usize,
    pub(crate) streams: usize,
    pub(crate) audience: Audience,
    pub(crate) messages: u32,
    /// Messages a second; 0 for no limit.
    pub(crate) rate: f64,
    /// Size of a message in bytes.
    pub(crate) size: usize,
    pub(crate) pipeline: usize,
    pub(crate) callers: u32,
    /// Number of client threads.
    pub(crate) threads: usize,
    /// Maximum number of connections that are opened at once; by default [`WINDOW`], in a storm all.
    pub(crate) window: Option<usize>,
    /// Time limit for connecting, and for the messages.
    pub(crate) time_limit: Duration,
}

/// Maximum number of connections that are opened at once, unless another one is asked for.
const WINDOW: usize = 256;

/// Number of connections that are opened before the memory of the others is counted.
const FIRST: usize = 100;

/// Pause before memory is read.
const REST: Duration = Duration::from_millis(500);

/// Time without an arrival after which missing messages are lost.
const QUIET: Duration = Duration::from_secs(3);

/// Pause in which doubles may still arrive.
const AFTERMATH: Duration = Duration::from_millis(100);

/// Time in which the server may release memory after a burst.
const SETTLE: Duration = Duration::from_secs(3);

/// Time between two looks at the progress.
const POLL_EVERY: Duration = Duration::from_millis(5);

impl Load {
    /// Connects, publishes, and counts the deliveries: `run`, `unicast`, `topics`, `api`.
    pub(crate) fn deliver(
        &self,
        target: &Target,
        tokens: &Arc<Tokens>,
        bar: &ProgressBar,
    ) -> anyhow::Result<Measurement> {
        let (server, mut figures) = (Processes::new(&target.pids)?, Measurement::default());
        let plan = Arc::new(self.plan(target, tokens));
        let pool = ClientPool::start(&plan, self.threads)?;
        let idle = self.connect(&pool, &server, None, &mut figures, bar)?;

        let before = cpu(&server)?;
        let (published, expected) = self.publish(&plan, &pool, bar)?;
        let used = cpu(&server)?.zip(before).map(|(after, before)| after.saturating_sub(before));
        thread::sleep(AFTERMATH);
        if let Some(idle) = idle {
            let kib = server.memory()?;
            figures.set(&figure::MEMORY_AFTER, kib.saturating_sub(idle) as f64 / self.clients());
            figures.set(&figure::MEMORY_ALL, kib as f64 / 1024.0);
        }
        let stats = pool.finish(Arc::clone(&published.sent))?;

        figures.set(&figure::TIMED_OUT, f64::from(u8::from(published.answered < self.messages)));
        self.enter_publishes(&mut figures, &published, used);
        if self.clients() > 0.0 {
            figures.set(&figure::EXPECTED, expected as f64);
            stats.enter(&mut figures);
            let counts = &stats.counts;
            let seconds = counts.last.saturating_sub(published.began) as f64 / 1e9;
            figures.set(&figure::DELIVERY_RATE, counts.delivered as f64 / seconds);
            stats.enter_latency(&mut figures);
            if let Some(used) = used {
                figures.set(&figure::DELIVERY_CPU, micros(used) / counts.delivered as f64);
                figures.set(&figure::SERVER_CPU, used.as_secs_f64() / seconds * 100.0);
            }
        }
        Ok(figures)
    }

    /// Does the same with few connections first, at as many deliveries a second, to compare the cost of a delivery.
    pub(crate) fn scale(
        &self,
        few: usize,
        target: &Target,
        tokens: &Arc<Tokens>,
        bar: &ProgressBar,
    ) -> anyhow::Result<Measurement> {
        ensure!(!target.pids.is_empty(), "{}: its process is unknown; pass --pid", target.name);
        let times = self.clients() / few as f64;
        let part = Self {
            websockets: self.websockets.min(few),
            streams: self.streams.min(few),
            messages: (f64::from(self.messages) * times) as u32,
            rate: self.rate * times,
            ..self.clone()
        };
        let part = part.deliver(target, tokens, bar)?;
        let mut figures = self.deliver(target, tokens, bar)?;
        figures.add_violations(&part);
        let costs = part.value(&figure::DELIVERY_CPU).zip(figures.value(&figure::DELIVERY_CPU));
        if let Some((few_cost, cost)) = costs {
            figures.set(&figure::FEW_CONNECTIONS, few as f64);
            figures.set(&figure::FEW_DELIVERY_CPU, few_cost);
            figures.set(&figure::SCALE, cost / few_cost);
        }
        Ok(figures)
    }

    /// Publishes the messages and waits until all have come, or nothing comes any more. Answers how many deliveries are due
    /// besides.
    fn publish(
        &self,
        plan: &Arc<LoadPlan>,
        pool: &ClientPool,
        bar: &ProgressBar,
    ) -> anyhow::Result<(Published, u64)> {
        let until = Instant::now() + self.time_limit;
        let progress = Arc::new(Progress::default());
        let publisher = Publisher {
            plan: Arc::clone(plan),
            rate: self.rate,
            pipeline: self.pipeline,
            progress: Arc::clone(&progress),
        };
        bar.set_message("publishing");
        bar.set_length(u64::from(self.messages));
        let publisher = thread::Builder::new().name("publisher".into()).spawn(move || publisher.run())?;
        while !publisher.is_finished() {
            bar.set_position(u64::from(progress.published.load(Ordering::Relaxed)));
            progress.stop.store(Instant::now() > until, Ordering::Relaxed);
            thread::sleep(POLL_EVERY);
        }
        let published = publisher.join().map_err(|_| anyhow!("the publisher panicked"))??;
        let expected = plan.expected(&published.sent);
        bar.set_message("receiving");
        bar.set_length(expected);
        let (mut seen, mut changed) = (pool.counts(), Instant::now());
        while seen.delivered < expected && changed.elapsed() < QUIET && Instant::now() < until {
            thread::sleep(POLL_EVERY);
            let now = pool.counts();
            if now != seen {
                (seen, changed) = (now, Instant::now());
            }
            bar.set_position(seen.delivered);
        }
        Ok((published, expected))
    }

    /// Connects all at once, drops all, connects all again.
    pub(crate) fn storm(
        &self,
        target: &Target,
        tokens: &Arc<Tokens>,
        bar: &ProgressBar,
    ) -> anyhow::Result<Measurement> {
        let (server, mut figures) = (Processes::new(&target.pids)?, Measurement::default());
        figures.set(&figure::CONNECTIONS, self.clients());
        let plan = Arc::new(self.plan(target, tokens));
        let mut failures = Counts::default();
        let mut before = cpu(&server)?;
        for again in [false, true] {
            let pool = ClientPool::start(&plan, self.threads)?;
            bar.set_message(if again { "connecting again" } else { "connecting" });
            bar.set_length(self.clients() as u64);
            let began = Instant::now();
            let window = self.window.unwrap_or(usize::MAX);
            let opened =
                pool.open(window, usize::MAX, began + self.time_limit, |opened| bar.set_position(opened));
            let took = began.elapsed();
            let counts = pool.counts();
            failures.failed += self.clients() as u64 - counts.opened;
            if let (Err(_), Some(problem)) | (Ok(()), Some(problem)) = (opened, pool.problems().first()) {
                bar.suspend(|| eprintln!("{problem}"));
            }
            thread::sleep(REST);
            let after = cpu(&server)?;
            // Closing the connections is part of the second round.
            let stats = pool.finish(Arc::default())?;
            failures.ended += stats.counts.ended;
            let [seconds, p50, p99, max, cpu] = if again { RECONNECT } else { CONNECT };
            figures.set(seconds, took.as_secs_f64());
            for (figure, quantile) in [(p50, 0.5), (p99, 0.99), (max, 1.0)] {
                figures.set(figure, millis(&stats.opening, quantile));
            }
            if let (Some(before), Some(after)) = (before, after) {
                figures.set(cpu, micros(after.saturating_sub(before)) / counts.opened as f64);
            }
            before = after;
        }
        figures.set(&figure::FAILED, failures.failed as f64);
        figures.set(&figure::ENDED, failures.ended as f64);
        Ok(figures)
    }

    /// Connects, waits for `hold`, and reads the memory before and after. With points it is also read at these numbers of
    /// connections. At the end come the messages, if there are any, and the memory after them.
    pub(crate) fn idle(
        &self,
        hold: Duration,
        points: &[usize],
        target: &Target,
        tokens: &Arc<Tokens>,
        bar: &ProgressBar,
    ) -> anyhow::Result<Measurement> {
        ensure!(!target.pids.is_empty(), "{}: its process is unknown; pass --pid", target.name);
        let (server, mut figures) = (Processes::new(&target.pids)?, Measurement::default());
        let plan = Arc::new(self.plan(target, tokens));
        let pool = ClientPool::start(&plan, self.threads)?;
        // One-time allocations for the first clients are not counted.
        let first = FIRST.min(self.clients() as usize / 10);
        pool.open(self.window.unwrap_or(WINDOW), first, Instant::now() + self.time_limit, |_| {})?;
        thread::sleep(REST);
        let mut growth = Growth::start(&server, first)?;
        let steps = Some((points, &mut growth));
        let idle = self.connect(&pool, &server, steps, &mut figures, bar)?.unwrap_or_default();
        growth.report(&mut figures);
        if !hold.is_zero() {
            bar.set_message("idle");
            bar.set_length(hold.as_secs());
            let (began, before) = (Instant::now(), server.cpu()?);
            while began.elapsed() < hold {
                thread::sleep(Duration::from_millis(200).min(hold));
                bar.set_position(began.elapsed().as_secs());
            }
            let used = server.cpu()?.saturating_sub(before);
            figures.set(&figure::IDLE_CPU, used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0);
            let kib = server.memory()?.saturating_sub(idle);
            figures.set(&figure::MEMORY_AFTER, kib as f64 / (self.clients() - first as f64));
        }
        let mut sent = Arc::default();
        if self.messages > 0 {
            let (published, expected) = self.publish(&plan, &pool, bar)?;
            figures.set(&figure::TIMED_OUT, f64::from(u8::from(published.answered < self.messages)));
            thread::sleep(SETTLE);
            growth.report_burst(&server, &mut figures)?;
            figures.set(&figure::EXPECTED, expected as f64);
            sent = published.sent;
        }
        figures.set(&figure::MEMORY_ALL, server.memory()? as f64 / 1024.0);
        let stats = pool.finish(sent)?;
        if self.messages > 0 {
            stats.enter(&mut figures);
        } else {
            figures.set(&figure::ENDED, stats.counts.ended as f64);
        }
        Ok(figures)
    }

    /// Opens all connections, in steps if there are any, and enters the costs. Returns the server's memory before in KiB, if
    /// known.
    fn connect(
        &self,
        pool: &ClientPool,
        server: &Processes,
        steps: Option<(&[usize], &mut Growth)>,
        figures: &mut Measurement,
        bar: &ProgressBar,
    ) -> anyhow::Result<Option<u64>> {
        if self.clients() == 0.0 {
            return Ok(None);
        }
        let (memory, before) = (server.known().then(|| server.memory()).transpose()?, cpu(server)?);
        let counted = self.clients() - steps.as_ref().map_or(0, |(_, growth)| growth.first()) as f64;
        bar.set_message("connecting");
        bar.set_length(self.clients() as u64);
        let mut took = Duration::ZERO;
        let mut open = |upto: usize| {
            let began = Instant::now();
            pool.open(self.window.unwrap_or(WINDOW), upto, began + self.time_limit, |opened| {
                bar.set_position(opened)
            })?;
            took += began.elapsed();
            pool.expect_all_open()?;
            thread::sleep(REST);
            anyhow::Ok(())
        };
        if let Some((points, growth)) = steps {
            for &point in points {
                open(point)?;
                growth.enter(point, server)?;
            }
        }
        open(self.websockets + self.streams)?;
        figures.set(&figure::CONNECTIONS, self.clients());
        figures.set(&figure::CONNECT_S, took.as_secs_f64());
        if let Some((after, before)) = cpu(server)?.zip(before) {
            figures.set(&figure::CONNECT_CPU, micros(after.saturating_sub(before)) / counted);
        }
        if let Some(memory) = memory {
            let kib = server.memory()?.saturating_sub(memory);
            figures.set(&figure::MEMORY, kib as f64 / counted);
        }
        Ok(memory)
    }

    fn enter_publishes(&self, figures: &mut Measurement, published: &Published, used: Option<Duration>) {
        let Published { answered: count, answers, began, ended, .. } = published;
        figures.set(&figure::PUBLISHED, f64::from(*count));
        figures.set(&figure::PUBLISH_RATE, f64::from(*count) / (ended.saturating_sub(*began) as f64 / 1e9));
        figures.set(&figure::ANSWER_P50, millis(answers, 0.5));
        figures.set(&figure::ANSWER_P99, millis(answers, 0.99));
        if self.clients() == 0.0
            && let Some(used) = used
        {
            figures.set(&figure::PUBLISH_CPU, micros(used) / f64::from(*count));
        }
    }

    /// Describes the load for a report.
    pub(crate) fn json(&self) -> Value {
        json!({
            "ws": self.websockets, "sse": self.streams, "messages": self.messages, "rate": self.rate,
            "size": self.size, "pipeline": self.pipeline, "callers": self.callers,
        })
    }

    fn clients(&self) -> f64 {
        (self.websockets + self.streams) as f64
    }

    fn plan(&self, target: &Target, tokens: &Arc<Tokens>) -> LoadPlan {
        static RUN: AtomicU32 = AtomicU32::new(1);
        LoadPlan {
            target: target.clone(),
            tokens: Arc::clone(tokens),
            audience: self.audience,
            websockets: self.websockets,
            streams: self.streams,
            run: RUN.fetch_add(1, Ordering::Relaxed),
            callers: self.callers,
            messages: self.messages,
            size: self.size,
            clock: Clock::start(),
        }
    }
}

const CONNECT: [&Figure; 5] = [
    &figure::CONNECT_S,
    &figure::CONNECT_P50,
    &figure::CONNECT_P99,
    &figure::CONNECT_MAX,
    &figure::CONNECT_CPU,
];
const RECONNECT: [&Figure; 5] = [
    &figure::RECONNECT_S,
    &figure::RECONNECT_P50,
    &figure::RECONNECT_P99,
    &figure::RECONNECT_MAX,
    &figure::RECONNECT_CPU,
];

fn cpu(server: &Processes) -> anyhow::Result<Option<Duration>> {
    server.known().then(|| server.cpu()).transpose()
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

//! [`Load`]: what is done to a server, and what is measured meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, ensure};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::{
    audience::Audience,
    clock::Clock,
    counts::Counts,
    figure::{self, Figure, Measurement},
    growth::Growth,
    process::Processes,
    publisher::{Progress, Published, Publisher},
    swarm::{Site, Swarm},
    target::Target,
    tokens::Tokens,
};

/// A load: so many connections, so many messages.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) websockets: usize,
    pub(crate) streams: usize,
    pub(crate) audience: Audience,
    pub(crate) messages: u32,
    /// Messages a second; 0 for as many as are taken.
    pub(crate) rate: f64,
    /// Bytes of a message.
    pub(crate) size: usize,
    pub(crate) pipeline: usize,
    pub(crate) callers: u32,
    /// Threads of the clients.
    pub(crate) threads: usize,
    /// How many connections are on the way at once.
    pub(crate) window: usize,
    /// How long connecting may take, and how long the messages.
    pub(crate) time_limit: Duration,
}

/// Connections after which the memory of the others is counted.
const FIRST: usize = 100;

/// How long everything is left alone before memory is read.
const REST: Duration = Duration::from_millis(500);

/// How long nothing must come before what is missing counts as lost.
const QUIET: Duration = Duration::from_secs(3);

/// How long is waited for what should not come: doubles.
const AFTERMATH: Duration = Duration::from_millis(100);

/// How long the server may give memory back after a burst.
const SETTLE: Duration = Duration::from_secs(3);

const LOOK: Duration = Duration::from_millis(5);

impl Load {
    /// Connects, publishes, and counts what comes: `run`, `unicast`, `topics`, `api`.
    pub(crate) fn deliver(
        &self,
        target: &Target,
        tokens: &Arc<Tokens>,
        bar: &ProgressBar,
    ) -> anyhow::Result<Measurement> {
        let (server, mut figures) = (Processes::new(&target.pids)?, Measurement::default());
        let site = Arc::new(self.site(target, tokens));
        let swarm = Swarm::start(&site, self.threads)?;
        let idle = self.connect(&swarm, &server, None, &mut figures, bar)?;

        let before = cpu(&server)?;
        let (published, expected) = self.publish(&site, &swarm, bar)?;
        let used = cpu(&server)?.zip(before).map(|(after, before)| after.saturating_sub(before));
        thread::sleep(AFTERMATH);
        let counts = swarm.counts();
        if let Some(idle) = idle {
            let kib = server.memory()?;
            figures.set(&figure::MEMORY_AFTER, kib.saturating_sub(idle) as f64 / self.clients());
            figures.set(&figure::MEMORY_ALL, kib as f64 / 1024.0);
        }
        let harvest = swarm.finish(Arc::clone(&published.sent))?;

        figures.set(&figure::TIMED_OUT, f64::from(u8::from(published.count < self.messages)));
        self.enter_publishes(&mut figures, &published, used);
        if self.clients() > 0.0 {
            figures.set(&figure::EXPECTED, expected as f64);
            enter_deliveries(&mut figures, &counts, harvest.lost);
            let seconds = counts.last.saturating_sub(published.began) as f64 / 1e9;
            figures.set(&figure::DELIVERY_RATE, counts.delivered as f64 / seconds);
            for (figure, quantile) in [
                (&figure::LATENCY_P50, 0.5),
                (&figure::LATENCY_P90, 0.9),
                (&figure::LATENCY_P99, 0.99),
                (&figure::LATENCY_P999, 0.999),
                (&figure::LATENCY_MAX, 1.0),
            ] {
                figures.set(figure, millis(&harvest.latency, quantile));
            }
            if let Some(used) = used {
                figures.set(&figure::DELIVERY_CPU, micros(used) / counts.delivered as f64);
                figures.set(&figure::SERVER_CPU, used.as_secs_f64() / seconds * 100.0);
            }
        }
        Ok(figures)
    }

    /// The same with few connections first, which get as many deliveries a second: what a delivery costs more when it is
    /// one of many.
    pub(crate) fn scale(
        &self,
        few: usize,
        target: &Target,
        tokens: &Arc<Tokens>,
        bar: &ProgressBar,
    ) -> anyhow::Result<Measurement> {
        ensure!(!target.pids.is_empty(), "{}: its process is not known; say --pid", target.name);
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
        figures.add_faults(&part);
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
        site: &Arc<Site>,
        swarm: &Swarm,
        bar: &ProgressBar,
    ) -> anyhow::Result<(Published, u64)> {
        let until = Instant::now() + self.time_limit;
        let progress = Arc::new(Progress::default());
        let publisher = Publisher {
            site: Arc::clone(site),
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
            thread::sleep(LOOK);
        }
        let published = publisher.join().map_err(|_| anyhow!("the publisher panicked"))??;
        let expected = site.expected(&published.sent);
        bar.set_message("receiving");
        bar.set_length(expected);
        let (mut seen, mut changed) = (swarm.counts(), Instant::now());
        while seen.delivered < expected && changed.elapsed() < QUIET && Instant::now() < until {
            thread::sleep(LOOK);
            let now = swarm.counts();
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
        let site = Arc::new(self.site(target, tokens));
        let mut faults = Counts::default();
        let mut before = cpu(&server)?;
        for again in [false, true] {
            let swarm = Swarm::start(&site, self.threads)?;
            bar.set_message(if again { "connecting again" } else { "connecting" });
            bar.set_length(self.clients() as u64);
            let began = Instant::now();
            let opened = swarm
                .open(usize::MAX, usize::MAX, began + self.time_limit, |opened| bar.set_position(opened));
            let took = began.elapsed();
            let counts = swarm.counts();
            faults.failed += self.clients() as u64 - counts.opened;
            faults.ended += counts.ended;
            if let (Err(_), Some(problem)) | (Ok(()), Some(problem)) = (opened, swarm.problems().first()) {
                bar.suspend(|| eprintln!("{problem}"));
            }
            thread::sleep(REST);
            let after = cpu(&server)?;
            // The drop itself is part of the second turn.
            let harvest = swarm.finish(Arc::default())?;
            let [seconds, p50, p99, max, cpu] = if again { RECONNECT } else { CONNECT };
            figures.set(seconds, took.as_secs_f64());
            for (figure, quantile) in [(p50, 0.5), (p99, 0.99), (max, 1.0)] {
                figures.set(figure, millis(&harvest.opening, quantile));
            }
            if let (Some(before), Some(after)) = (before, after) {
                figures.set(cpu, micros(after.saturating_sub(before)) / counts.opened as f64);
            }
            before = after;
        }
        figures.set(&figure::FAILED, faults.failed as f64);
        figures.set(&figure::ENDED, faults.ended as f64);
        Ok(figures)
    }

    /// Connects, leaves the connections alone for `hold`, and reads the memory before and after. With points it is read at
    /// these many connections too. Last come the messages, if there are any, and the memory after them.
    pub(crate) fn idle(
        &self,
        hold: Duration,
        points: &[usize],
        target: &Target,
        tokens: &Arc<Tokens>,
        bar: &ProgressBar,
    ) -> anyhow::Result<Measurement> {
        ensure!(!target.pids.is_empty(), "{}: its process is not known; say --pid", target.name);
        let (server, mut figures) = (Processes::new(&target.pids)?, Measurement::default());
        let site = Arc::new(self.site(target, tokens));
        let swarm = Swarm::start(&site, self.threads)?;
        // What a server reads and sets up for its first clients is none of the others'.
        let first = FIRST.min(self.clients() as usize / 10);
        swarm.open(self.window, first, Instant::now() + self.time_limit, |_| {})?;
        thread::sleep(REST);
        let mut growth = Growth::start(&server, first)?;
        let steps = Some((points, &mut growth));
        let idle = self.connect(&swarm, &server, steps, &mut figures, bar)?.unwrap_or_default();
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
            let (published, expected) = self.publish(&site, &swarm, bar)?;
            thread::sleep(SETTLE);
            growth.report_burst(&server, &mut figures)?;
            figures.set(&figure::EXPECTED, expected as f64);
            sent = published.sent;
        }
        figures.set(&figure::MEMORY_ALL, server.memory()? as f64 / 1024.0);
        let counts = swarm.counts();
        if self.messages > 0 {
            enter_deliveries(&mut figures, &counts, swarm.finish(sent)?.lost);
        } else {
            figures.set(&figure::ENDED, counts.ended as f64);
        }
        Ok(figures)
    }

    /// Opens all connections, in steps if there are any, and enters what that costs. Answers the server's memory in KiB before, where it is known.
    fn connect(
        &self,
        swarm: &Swarm,
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
            swarm.open(self.window, upto, began + self.time_limit, |opened| bar.set_position(opened))?;
            took += began.elapsed();
            swarm.expect_all_open()?;
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
        let Published { count, answers, began, ended, .. } = published;
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

    /// What it is, for a report.
    pub(crate) fn json(&self) -> Value {
        json!({
            "ws": self.websockets, "sse": self.streams, "messages": self.messages, "rate": self.rate,
            "size": self.size, "pipeline": self.pipeline, "callers": self.callers,
        })
    }

    fn clients(&self) -> f64 {
        (self.websockets + self.streams) as f64
    }

    fn site(&self, target: &Target, tokens: &Arc<Tokens>) -> Site {
        static RUN: AtomicU32 = AtomicU32::new(1);
        Site {
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

fn enter_deliveries(figures: &mut Measurement, counts: &Counts, lost: u64) {
    for (figure, value) in [
        (&figure::DELIVERED, counts.delivered),
        (&figure::LOST, lost),
        (&figure::DOUBLED, counts.doubled),
        (&figure::LATE, counts.late),
        (&figure::STRAY, counts.stray),
        (&figure::GAPS, counts.gaps),
        (&figure::ENDED, counts.ended),
    ] {
        figures.set(figure, value as f64);
    }
}

fn cpu(server: &Processes) -> anyhow::Result<Option<Duration>> {
    server.known().then(|| server.cpu()).transpose()
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn millis(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    if histogram.is_empty() { f64::NAN } else { histogram.value_at_quantile(quantile) as f64 / 1e6 }
}

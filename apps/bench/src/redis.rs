//! [`RedisComparison`]: two nodes over Redis, beside a raw client that does the same to the same server.

mod idle;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use futures_util::{StreamExt, stream::BoxStream};
use realtime_core::{
    Envelope, Message, Scope,
    bus::{Bus, BusEvent},
};
use realtime_redis::{RedisConfig, RedisStreamsBus};
use tokio::runtime::Runtime;

pub(crate) use self::idle::IdleCluster;
use crate::{
    cli::RedisLoad,
    client_stats::ClientStats,
    clock::Clock,
    endpoint::Reach,
    figure::{self, Measurement},
    marker::Marker,
    report::{Column, Report},
    resp::{RedisUrl, Resp},
    sequence_tracker::SequenceTracker,
};

/// The same load on two nodes over Redis and on a raw client.
pub(crate) struct RedisComparison {
    load: RedisLoad,
    url: RedisUrl,
    /// The runtimes of the publishing and of the reading node: an application's hub has one of its own, too.
    runtime: Runtime,
    reader: Runtime,
    clock: Clock,
}

/// The keys of a measurement in Redis, removed when this is dropped; they also expire after ten minutes.
struct Keys<'a> {
    url: &'a RedisUrl,
    prefix: String,
    /// The nodes' stream and epoch, and the raw client's stream.
    names: [String; 3],
}

/// The messages that a reader has received.
struct Received {
    stats: ClientStats,
    tracker: SequenceTracker,
}

const NODE_LOG: usize = 0;
const RAW_LOG: usize = 2;

const EXPIRE: &[u8] = b"600";

impl RedisComparison {
    /// Parses the URL, without contacting Redis.
    pub(crate) fn new(load: RedisLoad) -> anyhow::Result<Self> {
        let reach = if load.run.i_own_this_host { Reach::Anywhere } else { Reach::Loopback };
        let url = RedisUrl::parse(&load.redis, reach)?;
        let thread = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Ok(Self { load, url, runtime: thread()?, reader: thread()?, clock: Clock::start() })
    }

    /// Measures everything `runs` times, raw client and nodes in turn.
    pub(crate) fn run(&self) -> anyhow::Result<Report> {
        let (mut raw, mut nodes) = (Vec::new(), Vec::new());
        for _ in 0..self.load.run.runs {
            let mut pair = [Measurement::default(), Measurement::default()];
            self.latency(&mut pair).context("latency")?;
            self.throughput(&mut pair).context("publishes")?;
            self.window(&mut pair).context("window")?;
            let [first, second] = pair;
            raw.push(first);
            nodes.push(second);
        }
        let column = |name: &str, is_baseline, runs| Column { name: name.into(), is_baseline, runs };
        Ok(Report::new(vec![column("realtime", false, nodes), column("raw client", true, raw)]))
    }

    /// Measures the time from publish to receipt over two nodes, each of which reads the stream; the raw client has two
    /// readers, too.
    fn latency(&self, [raw, nodes]: &mut [Measurement; 2]) -> anyhow::Result<()> {
        let keys = self.keys();
        let received = self.raw_latency(&keys.names[RAW_LOG])?;
        received.enter(raw, self.load.messages);

        let (publisher, reader) = (self.node(&keys)?, self.node(&keys)?);
        let start = async |node: &RedisStreamsBus| {
            let mut events = node.subscribe();
            up(&mut events).await.map(|()| events)
        };
        let mut own = self.runtime.block_on(start(&publisher))?;
        let mut events = self.reader.block_on(start(&reader))?;
        keys.expire()?;
        let drain = self.runtime.spawn(async move { while own.next().await.is_some() {} });
        let (clock, messages, limit) = (self.clock, self.load.messages, self.load.run.time_limit);
        let reading = self.reader.spawn(async move {
            let mut received = Received::new()?;
            let reading = async {
                while received.delivered() < u64::from(messages) {
                    match events.next().await {
                        Some(BusEvent::Message { envelope, .. }) => {
                            received.message(envelope.message().data.as_bytes(), clock.now());
                        }
                        Some(BusEvent::Gap) => received.stats.counts.gaps += 1,
                        Some(_) => {}
                        None => break,
                    }
                }
            };
            tokio::time::timeout(limit, reading).await.ok();
            Ok::<_, anyhow::Error>(received)
        });
        self.spaced(|text| {
            let envelope = Arc::new(envelope(text));
            self.runtime.block_on(publisher.publish(&envelope))?;
            Ok(())
        })?;
        let received = self.reader.block_on(reading)??;
        drain.abort();
        received.enter(nodes, self.load.messages);
        Ok(())
    }

    fn raw_latency(&self, key: &str) -> anyhow::Result<Received> {
        let (mut writer, stop) = (self.url.open()?, AtomicBool::new(false));
        let (clock, messages) = (self.clock, self.load.messages);
        let until = Instant::now() + self.load.run.time_limit;
        let read = |mut reader: Resp| {
            let (mut received, mut last) = (Received::new()?, b"0-0".to_vec());
            while received.delivered() < u64::from(messages)
                && Instant::now() < until
                && !stop.load(Ordering::Relaxed)
            {
                reader.xread(key.as_bytes(), &mut last, true, |text| received.message(text, clock.now()))?;
            }
            Ok(received)
        };
        let readers = [self.url.open()?, self.url.open()?];
        thread::scope(|scope| {
            let readers = readers.map(|reader| scope.spawn(|| read(reader)));
            let published = self.spaced(|text| {
                xadd(&mut writer, key, &entry(text));
                writer.flush()?;
                writer.answer()
            });
            stop.store(published.is_err(), Ordering::Relaxed);
            let received = readers.map(|reader| reader.join().unwrap_or_else(|_| bail!("a reader panicked")));
            published?;
            let [received, other] = received;
            other?;
            received
        })
    }

    /// Publishes the messages of the latency measurement at their times, on this thread.
    fn spaced(&self, mut publish: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let RedisLoad { messages, rate, size, run, .. } = &self.load;
        let began = self.clock.now();
        for number in 0..*messages {
            let mut due = self.clock.now();
            if rate.0 > 0.0 {
                let at = began + (f64::from(number) / rate.0 * 1e9) as u64;
                if at > due {
                    thread::sleep(Duration::from_nanos(at - due));
                    due = self.clock.now();
                } else {
                    // The publish before has taken longer than the time to this one.
                    due = at;
                }
            }
            let took = Duration::from_nanos(self.clock.now() - began);
            ensure!(took < run.time_limit, "the time limit has passed after {number} messages");
            publish(&Self::text(number, *size, due))?;
        }
        Ok(())
    }

    /// Measures the publishes per second of one node with many callers; the raw client pipelines as many commands.
    fn throughput(&self, [raw, nodes]: &mut [Measurement; 2]) -> anyhow::Result<()> {
        let keys = self.keys();
        let RedisLoad { callers, publishes, size, .. } = self.load;
        let (mut writer, began) = (self.url.open()?, Instant::now());
        let entry = entry(&Self::text(0, size, 0));
        let (mut sent, mut answered) = (0, 0);
        while answered < publishes {
            while sent < publishes && ((sent - answered) as usize) < callers {
                xadd(&mut writer, &keys.names[RAW_LOG], &entry);
                sent += 1;
            }
            writer.flush()?;
            writer.answer()?;
            answered += 1;
            while answered < sent && writer.has_more() {
                writer.answer()?;
                answered += 1;
            }
            self.in_time(began)?;
        }
        raw.set(&figure::PUBLISH_RATE, f64::from(publishes) / began.elapsed().as_secs_f64());
        keys.expire()?;

        let node = self.node(&keys)?;
        let took = self.publish_all(&node, publishes)?;
        keys.expire()?;
        nodes.set(&figure::PUBLISH_RATE, f64::from(publishes) / took.as_secs_f64());
        Ok(())
    }

    /// Publishes from many callers at once. Returns the time that it took.
    fn publish_all(&self, node: &RedisStreamsBus, publishes: u32) -> anyhow::Result<Duration> {
        let next = Arc::new(AtomicU32::new(0));
        let envelope = Arc::new(envelope(&Self::text(0, self.load.size, 0)));
        self.runtime.block_on(async {
            // The first publish opens the connection, and is not timed.
            node.publish(&envelope).await?;
            let began = Instant::now();
            let mut callers = tokio::task::JoinSet::new();
            for _ in 0..self.load.callers {
                let (node, next, envelope) = (node.clone(), Arc::clone(&next), Arc::clone(&envelope));
                callers.spawn(async move {
                    while next.fetch_add(1, Ordering::Relaxed) < publishes {
                        node.publish(&envelope).await?;
                    }
                    Ok::<_, anyhow::Error>(())
                });
            }
            let all = async {
                while let Some(caller) = callers.join_next().await {
                    caller??;
                }
                Ok::<_, anyhow::Error>(())
            };
            tokio::time::timeout(self.load.run.time_limit, all)
                .await
                .context("the time limit has passed")??;
            Ok(began.elapsed())
        })
    }

    /// Measures the time in which a starting node reads the window; the raw client reads the same entries.
    fn window(&self, [raw, nodes]: &mut [Measurement; 2]) -> anyhow::Result<()> {
        let keys = self.keys();
        let history = self.load.history;
        self.publish_all(&self.node(&keys)?, history)?;
        keys.expire()?;

        let began = Instant::now();
        let (mut reader, mut last, mut count) = (self.url.open()?, b"0-0".to_vec(), 0);
        loop {
            let entries = reader.xread(keys.names[NODE_LOG].as_bytes(), &mut last, false, |_| {})?;
            count += entries;
            self.in_time(began)?;
            if entries == 0 {
                break;
            }
        }
        ensure!(count > history as usize, "the window has {count} entries instead of {history}");
        raw.set(&figure::WINDOW_S, began.elapsed().as_secs_f64());

        let (began, limit) = (Instant::now(), self.load.run.time_limit);
        let read = self.runtime.block_on(async {
            let mut events = self.node(&keys)?.subscribe();
            let reading = async {
                let mut read = 0;
                loop {
                    match events.next().await {
                        Some(BusEvent::Message { .. }) => read += 1,
                        Some(BusEvent::Up(_)) => break Ok(read),
                        Some(BusEvent::Down(why)) => bail!("the bus is down: {why}"),
                        Some(_) => {}
                        None => bail!("the bus has ended"),
                    }
                }
            };
            tokio::time::timeout(limit, reading).await.context("the time limit has passed")?
        })?;
        ensure!(read > history, "the node has read {read} messages instead of {history}");
        nodes.set(&figure::WINDOW_S, began.elapsed().as_secs_f64());
        Ok(())
    }

    fn node(&self, keys: &Keys<'_>) -> anyhow::Result<RedisStreamsBus> {
        let config = RedisConfig::single(&self.load.redis)
            .key_prefix(keys.prefix.clone())
            .max_len(self.load.history as usize + 10_000);
        Ok(RedisStreamsBus::new(config)?)
    }

    fn keys(&self) -> Keys<'_> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("realtime-bench:{}:{number}", std::process::id());
        let names = ["log", "epoch", "raw"].map(|name| format!("{{{prefix}:rt}}:{name}"));
        Keys { url: &self.url, prefix, names }
    }

    fn in_time(&self, began: Instant) -> anyhow::Result<()> {
        ensure!(began.elapsed() < self.load.run.time_limit, "the time limit has passed");
        Ok(())
    }

    fn text(number: u32, size: usize, due: u64) -> String {
        let mut text = Vec::new();
        Marker { run: 0, group: 0, caller: 0, number, due }.write(size, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Keys<'_> {
    /// Sets their expiry, in case this process is killed.
    fn expire(&self) -> anyhow::Result<()> {
        let mut redis = self.url.open()?;
        self.names.iter().try_for_each(|name| redis.call(&[b"EXPIRE", name.as_bytes(), EXPIRE]))
    }
}

impl Drop for Keys<'_> {
    fn drop(&mut self) {
        let [log, epoch, raw] = self.names.each_ref().map(|name| name.as_bytes());
        if let Err(error) = self.url.open().and_then(|mut redis| redis.call(&[b"DEL", log, epoch, raw])) {
            eprintln!("the keys {} could not be removed: {error:#}", self.names.join(", "));
        }
    }
}

impl Received {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { stats: ClientStats::new()?, tracker: SequenceTracker::default() })
    }

    fn delivered(&self) -> u64 {
        self.stats.counts.delivered
    }

    fn message(&mut self, text: &[u8], now: u64) {
        Marker::each(text, 0, |marker| {
            self.stats.record(self.tracker.enter(marker.number), marker.due, now);
        });
    }

    fn enter(mut self, figures: &mut Measurement, sent: u32) {
        self.stats.lost = self.tracker.lost(sent);
        figures.set(&figure::EXPECTED, f64::from(sent));
        self.stats.enter(figures);
        self.stats.enter_latency(figures);
    }
}

/// Waits until a bus is up.
async fn up(events: &mut BoxStream<'static, BusEvent>) -> anyhow::Result<()> {
    let waiting = async {
        loop {
            match events.next().await {
                Some(BusEvent::Up(_)) => return Ok(()),
                Some(BusEvent::Down(why)) => bail!("the bus is down: {why}"),
                Some(_) => {}
                None => bail!("the bus has ended"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.context("the bus is not up after 10 s")?
}

fn envelope(text: &str) -> Envelope {
    Envelope::broadcast(Scope::Both, Message::text(text))
}

/// Returns the value that a node writes for the same message.
fn entry(text: &str) -> String {
    serde_json::json!({"topics": ["all"], "event": "message", "data": text, "at": 1_800_000_000_000_u64})
        .to_string()
}

fn xadd(redis: &mut Resp, key: &str, entry: &str) {
    let max = b"110000";
    redis.push(&[b"XADD", key.as_bytes(), b"MAXLEN", b"~", max, b"*", b"v", b"1", b"e", entry.as_bytes()]);
}

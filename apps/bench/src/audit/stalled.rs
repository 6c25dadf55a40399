//! `realtime-bench stalled`: readers that stop reading among others that go on.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep},
};

use super::{
    api::Api,
    client::{
        ServerEvent,
        connection::{Connection, Request},
    },
    history::Transport,
    token::token,
};
use crate::{
    child::Child,
    cli,
    comparison::{DEMO_KEY, DEMO_SECRET, raise_file_limit},
    pool_shared::lock,
    process::Processes,
};

/// What each stalled reader is sent, more than the kernel keeps for a connection on loopback.
const FLOOD: usize = 100;
const FLOOD_BYTES: usize = 60_000;

/// The users of the stalled readers begin here.
const STALLED: u32 = 1_000_000;

/// Time limit of the cut, and the time after it at which the memory is looked at.
const CUT: Duration = Duration::from_secs(30);
const AFTER: Duration = Duration::from_secs(5);

/// Interval at which the sessions of stalled readers are looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Bytes of a read.
const READ: usize = 16 * 1024;

/// Latencies in microseconds.
type Latencies = Arc<Mutex<Vec<u32>>>;

/// Measures the others with and without stalled readers.
pub(crate) fn run(arguments: &cli::Stalled) -> anyhow::Result<Vec<String>> {
    ensure!(arguments.rounds > 0, "--rounds: at least one is required");
    ensure!(
        arguments.rate.0 > 0.0,
        "--rate: more than 0 is required, or the load itself is what delays messages"
    );
    raise_file_limit(arguments.clients + arguments.stalled as usize)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(stall(arguments))
}

async fn stall(arguments: &cli::Stalled) -> anyhow::Result<Vec<String>> {
    let settings = [
        ("REALTIME__AUTH__JWT__SECRET", DEMO_SECRET),
        ("REALTIME__API__KEY", DEMO_KEY),
        ("REALTIME__SERVER__HOST", "127.0.0.1"),
        ("REALTIME__SERVER__PORT", "0"),
        ("REALTIME__SERVER__WORKERS", "1"),
        // A window that is full from the beginning, so that the memory that is seen is that of the readers.
        ("REALTIME__HISTORY__MAXBYTES", "1048576"),
    ];
    let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let environment: Vec<_> = settings.into_iter().chain(arguments.env.iter().cloned()).collect();
    let child = Child::start(&arguments.demo, &[], &environment)?;
    let address: SocketAddr = child.url.trim_start_matches("http://").parse()?;
    let process = Processes::new(&[child.pid()])?;
    let (clock, latencies) = (Instant::now(), Latencies::default());
    let mut tasks = JoinSet::new();
    for user in 0..u32::try_from(arguments.clients)? {
        let connection = open(address, user, transport_of(user), false).await?;
        tasks.spawn(read(connection, clock, Arc::clone(&latencies)));
    }
    let mut publisher = JoinSet::new();
    publisher.spawn(publish(address, clock, arguments.rate.0));
    let mut api = Api::new(DEMO_KEY);
    // The same burst to readers that read: it fills the window, and takes what publishes and reads of that size take.
    let readers: Vec<_> = (0..arguments.stalled).map(|number| STALLED - 1 - number).collect();
    let mut reading = JoinSet::new();
    for &user in &readers {
        let connection = open(address, user, transport_of(user), false).await?;
        reading.spawn(read(connection, clock, Arc::default()));
    }
    burst(address, readers).await?;
    sleep(AFTER).await;
    reading.shutdown().await;
    let mut rounds = Vec::new();
    for round in 0..arguments.rounds {
        lock(&latencies).clear();
        sleep(arguments.time).await;
        let without = p99(&lock(&latencies));
        let before = process.resident()?;
        let mut stalled = Vec::new();
        for number in 0..arguments.stalled {
            let user = STALLED + round * arguments.stalled + number;
            stalled.push((user, open(address, user, transport_of(user), true).await?));
        }
        let mut left = burst(address, stalled.iter().map(|(user, _)| *user)).await?;
        // The burst itself would cost as much if they read.
        lock(&latencies).clear();
        let (mut highest, mut cuts) = (process.resident()?, Vec::new());
        let began = Instant::now();
        while !left.is_empty() {
            ensure!(began.elapsed() < CUT, "{} stalled readers are still there after {CUT:?}", left.len());
            let mut there = Vec::new();
            for (user, flooded) in left {
                if has_session(&mut api, address, user).await? {
                    there.push((user, flooded));
                } else {
                    cuts.push(flooded.elapsed());
                }
            }
            left = there;
            highest = highest.max(process.resident()?);
            sleep(LOOK).await;
        }
        let with = p99(&lock(&latencies));
        sleep(AFTER).await;
        let after = process.resident()?;
        rounds.push(Round {
            without,
            with,
            cut: cuts.into_iter().max().unwrap_or_default(),
            before,
            highest,
            after,
        });
    }
    let mut violations = Vec::new();
    if let Some(ended) = publisher.try_join_next() {
        let Err(error) = ended?;
        violations.push(format!("the publisher has failed: {error:#}"));
    }
    let cut = std::iter::from_fn(|| tasks.try_join_next()).count();
    if cut > 0 {
        violations.push(format!("{cut} of {} clients that read were cut", arguments.clients));
    }
    if rounds.iter().any(|round: &Round| round.with == 0 || round.without == 0) {
        violations.push("no message has come with or without stalled readers".into());
    }
    publisher.shutdown().await;
    tasks.shutdown().await;
    print(arguments, &rounds);
    Ok(violations)
}

/// What was measured around one group of stalled readers.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// The 99th percentile of the others' latencies in microseconds, without and with stalled readers.
    without: u32,
    with: u32,
    /// Time from a reader's burst to its cut, the longest of them.
    cut: Duration,
    /// Resident memory in KiB: without stalled readers, at most, and 5 s after the last cut.
    before: u64,
    highest: u64,
    after: u64,
}

fn print(arguments: &cli::Stalled, rounds: &[Round]) {
    let median = |figure: fn(&Round) -> u32| {
        let mut figures: Vec<_> = rounds.iter().map(figure).collect();
        figures.sort_unstable();
        figures[figures.len() / 2]
    };
    let ratio = f64::from(median(|round| round.with)) / f64::from(median(|round| round.without).max(1));
    if arguments.json {
        let rounds = rounds.iter().map(|round| {
            json!({
                "p99Without": round.without, "p99With": round.with, "cutSeconds": round.cut.as_secs_f64(),
                "rssBefore": round.before, "rssHighest": round.highest, "rssAfter": round.after,
            })
        });
        let rounds: Vec<_> = rounds.collect();
        println!(
            "{:#}",
            json!({ "clients": arguments.clients, "stalled": arguments.stalled, "ratio": ratio, "rounds": rounds })
        );
        return;
    }
    println!("{} clients, {} stalled", arguments.clients, arguments.stalled);
    println!(
        "| p99 without, us | p99 with, us | cut within | RSS before, KiB | at most | 5 s after the cut |"
    );
    println!(
        "|----------------:|-------------:|-----------:|----------------:|--------:|------------------:|"
    );
    for Round { without, with, cut, before, highest, after } in rounds {
        let cut = cut.as_secs_f64();
        println!("| {without:>15} | {with:>12} | {cut:>8.1} s | {before:>15} | {highest:>7} | {after:>17} |");
    }
    println!("p99 with stalled readers / without, medians: {ratio:.2}");
}

async fn has_session(api: &mut Api, address: SocketAddr, user: u32) -> anyhow::Result<bool> {
    let answer = api.call(address, "GET", &format!("/api/online/{user}"), "").await?.1;
    let sessions = [&answer["sessions"], &answer["data"]["sessions"]];
    let sessions = sessions.into_iter().find_map(|sessions| sessions.as_array());
    Ok(!sessions.context("an answer without sessions")?.is_empty())
}

fn transport_of(user: u32) -> Transport {
    if user.is_multiple_of(2) { Transport::Sse } else { Transport::WebSocket }
}

pub(super) async fn open(
    address: SocketAddr,
    user: u32,
    transport: Transport,
    small_buffer: bool,
) -> anyhow::Result<Connection> {
    let token = &token(DEMO_SECRET, user, &[])?;
    let request = Request { address, transport, token, cursor: None, small_buffer };
    Connection::open(&request).await.map_err(|end| anyhow::anyhow!("user {user} was not let in: {end:?}"))
}

/// Reads for as long as the connection lasts.
async fn read(mut connection: Connection, clock: Instant, latencies: Latencies) {
    let mut events = Vec::new();
    loop {
        let end = connection.read(READ, &mut events).await.is_err();
        let now = clock.elapsed().as_micros();
        for event in events.drain(..) {
            if let ServerEvent::Message { data, .. } = event
                && let Some(sent) = data.split(' ').next().and_then(|sent| sent.parse::<u128>().ok())
            {
                lock(&latencies).push(u32::try_from(now.saturating_sub(sent)).unwrap_or(u32::MAX));
            }
        }
        if end {
            return;
        }
    }
}

/// Publishes to all the time at which that was due.
async fn publish(address: SocketAddr, clock: Instant, rate: f64) -> anyhow::Result<Infallible> {
    let mut api = Api::new(DEMO_KEY);
    let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
    loop {
        let due = ticks.tick().await.duration_since(clock);
        let text = format!("{} {}", due.as_micros(), "x".repeat(140));
        let body = json!({ "broadcast": true, "message": text }).to_string();
        let status = api.call(address, "POST", "/api/publish", &body).await?.0;
        ensure!(status == 200, "a publish was answered with {status}");
    }
}

/// Sends much to each user, to all at once. Returns when each was sent all.
async fn burst(
    address: SocketAddr,
    users: impl IntoIterator<Item = u32>,
) -> anyhow::Result<Vec<(u32, Instant)>> {
    let mut bursts = JoinSet::new();
    for user in users {
        bursts.spawn(async move {
            flood(&mut Api::new(DEMO_KEY), address, user).await?;
            Ok((user, Instant::now()))
        });
    }
    bursts.join_all().await.into_iter().collect()
}

async fn flood(api: &mut Api, address: SocketAddr, user: u32) -> anyhow::Result<()> {
    let body = json!({ "userIds": [user], "message": "x".repeat(FLOOD_BYTES) }).to_string();
    for _ in 0..FLOOD {
        let status = api.call(address, "POST", "/api/publish", &body).await?.0;
        ensure!(status == 200, "a publish was answered with {status}");
    }
    Ok(())
}

fn p99(latencies: &[u32]) -> u32 {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len() * 99 / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

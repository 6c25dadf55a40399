//! `realtime-bench audit`: nodes under faults, and clients that count what they get.
//!
//! Clients, publishers and the fault injector record a history; [`check()`], a pure function, judges it.
//! docs/reliability.md lists the guarantees and defines each figure.

pub(crate) mod api;
mod check;
mod client;
mod cluster;
mod counts;
pub(crate) mod dead_peers;
mod fault;
mod history;
mod kicks;
mod message_text;
mod node;
mod plan;
mod proxy;
mod publisher;
mod redis_server;
mod report;
pub(crate) mod restarts;
pub(crate) mod rng;
mod site;
pub(crate) mod stalled;
mod temp_dir;
mod token;

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{broadcast, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

pub(crate) use self::fault::Fault;
use self::{
    api::Api,
    check::{Verdict, check},
    client::{chain::Client, program},
    cluster::{Cluster, OwnedServers},
    history::{Behaviour, Event, History, Target, Transport},
    node::Node,
    plan::Plan,
    redis_server::RedisServer,
    rng::Rng,
    site::{Phase, Site},
    token::token,
};
use crate::{
    cli,
    comparison::{DEMO_KEY, DEMO_SECRET, raise_file_limit},
    endpoint::{Endpoint, Reach},
};

/// Heartbeat interval of the nodes; the other limits are derived from it.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// After how long without a byte a client gives its connection up: the heartbeat's interval and some seconds.
const SILENCE: Duration = Duration::from_secs(5);

/// Time limit of the quiet phase, in which every client catches up.
const QUIET: Duration = Duration::from_secs(30);

/// The users of a topic.
const USERS_PER_TOPIC: u32 = 10;

/// Runs an audit, or judges the history of one.
pub(crate) fn run(arguments: &cli::Audit) -> anyhow::Result<Vec<String>> {
    if let Some(file) = &arguments.judge {
        return Ok(print_report(arguments, 0, &check(&history::read(file)?)));
    }
    let seed = arguments.seed.unwrap_or_else(|| Rng::new(history::wall_clock()).next() % 1_000_000);
    eprintln!("seed {seed}");
    raise_file_limit(arguments.users as usize * 8)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // The kernel ends a child with the thread that started it.
        .thread_keep_alive(Duration::from_secs(1_000_000))
        .enable_all()
        .build()?;
    let verdict = runtime.block_on(audit(arguments, seed))?;
    Ok(print_report(arguments, seed, &verdict))
}

fn print_report(arguments: &cli::Audit, seed: u64, verdict: &Verdict) -> Vec<String> {
    if arguments.json {
        println!("{:#}", verdict.json(seed));
    } else {
        for example in &verdict.examples {
            println!("{example}");
        }
        println!("{verdict}");
    }
    verdict.violations()
}

async fn audit(arguments: &cli::Audit, seed: u64) -> anyhow::Result<Verdict> {
    ensure!(arguments.users > 0 && arguments.nodes > 0, "at least one user and one node");
    let faults = faults(arguments)?;
    let mut stop = pin!(stop_signal()?);
    let (mut own, nodes) = tokio::select! {
        started = start(arguments) => started?,
        () = &mut stop => bail!("interrupted"),
    };
    let (secret, key) = match own {
        Some(_) => (DEMO_SECRET, DEMO_KEY),
        None => (arguments.secret.as_deref().context("--node needs --secret")?, arguments.api_key.as_str()),
    };
    let site = Arc::new(Site {
        seed,
        run: history::wall_clock(),
        history: History::new(arguments.history.as_deref())?,
        nodes,
        api_key: key.to_owned(),
        shared: own.is_none(),
        users: arguments.users,
        topics: arguments.users.div_ceil(USERS_PER_TOPIC),
        window: arguments.window,
        silence: arguments.silence.unwrap_or(SILENCE),
        phase: watch::Sender::new(Phase::Running),
        commands: broadcast::Sender::new(64),
        chains: AtomicU32::new(0),
        messages: AtomicU64::new(1),
        last: AtomicU64::new(u64::MAX),
        caught_up: AtomicUsize::new(0),
    });
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    site.history.push(Event::Run {
        seed,
        epoch_ms: history::wall_clock(),
        window_ms: millis(arguments.window),
        late_ms: millis(arguments.late),
    });

    let mut tasks = JoinSet::new();
    let clients = clients(&site, secret)?;
    let count = clients.len();
    if let Some(command) = arguments.client.clone() {
        let clients = clients.into_iter().map(Client::into_task).collect();
        tasks.spawn(program::run(Arc::clone(&site), command, HEARTBEAT, clients));
    } else {
        for client in clients {
            tasks.spawn(client.run());
        }
    }
    tasks.spawn(kicks::run(Arc::clone(&site), secret.to_owned()));
    tasks.spawn(publisher::run(Arc::clone(&site), arguments.rate.0));
    let mut cluster =
        Cluster { site: Arc::clone(&site), own: own.take(), rng: Rng::fork(seed, 2), api: Api::new(key) };
    let plan = Plan::new(&faults, arguments.duration, arguments.times, seed);
    tokio::select! {
        () = inject(&mut cluster, &plan, arguments.duration) => {}
        () = &mut stop => eprintln!("interrupted; what was seen so far is judged when all have caught up"),
    }
    tokio::select! {
        () = settle(&mut cluster, count) => {}
        () = stop_signal()? => bail!("interrupted"),
    }
    site.history.push(Event::Finish);
    site.phase.send_replace(Phase::Finish);
    tasks.shutdown().await;
    drop(cluster);
    let records = site.history.take();
    eprintln!("{} records", records.len());
    Ok(check(&records))
}

fn faults(arguments: &cli::Audit) -> anyhow::Result<Vec<Fault>> {
    let given = !arguments.node.is_empty();
    let all = Fault::ALL.into_iter().filter(|fault| !given || fault.needs_no_ownership());
    let faults = if arguments.faults.is_empty() { all.collect() } else { arguments.faults.clone() };
    if let Some(fault) = faults.iter().find(|fault| given && !fault.needs_no_ownership()) {
        bail!("{fault} is done to servers that the auditor has started, and --node names others");
    }
    Ok(faults)
}

/// Starts nodes and Redis, unless others were named.
async fn start(arguments: &cli::Audit) -> anyhow::Result<(Option<OwnedServers>, Vec<SocketAddr>)> {
    if !arguments.node.is_empty() {
        let reach = if arguments.i_own_this_host { Reach::Anywhere } else { Reach::Loopback };
        let nodes = arguments.node.iter().map(|url| Ok(Endpoint::parse(url, reach)?.address));
        return Ok((None, nodes.collect::<anyhow::Result<_>>()?));
    }
    let program = arguments.demo.as_deref().context("no nodes: pass --demo PATH, or --node URL for each")?;
    let redis = RedisServer::start().await?;
    let heartbeat = format!("{}ms", HEARTBEAT.as_millis());
    let window = format!("{}ms", arguments.window.as_millis());
    let settings = [
        ("REALTIME__AUTH__JWT__SECRET", DEMO_SECRET),
        ("REALTIME__API__KEY", DEMO_KEY),
        ("REALTIME__SERVER__WORKERS", "2"),
        ("REALTIME__HEARTBEAT__INTERVAL", &heartbeat),
        ("REALTIME__HEARTBEAT__TIMEOUT", "3s"),
        ("REALTIME__HISTORY__MAXAGE", &window),
        ("REALTIME__HISTORY__MAXBYTES", "268435456"),
        ("REALTIME__OUTBOX__MAXSTALL", "3s"),
        ("REALTIME__SSE__RETRY", "300ms"),
        ("REALTIME__DRAIN__WINDOW", "2s"),
    ];
    let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let environment: Vec<_> = settings.into_iter().chain(arguments.env.iter().cloned()).collect();
    let mut nodes = Vec::new();
    for name in 0..arguments.nodes {
        let mut node = Node::new(name, program, &environment, redis.port).await?;
        node.start().await?;
        node.until_ready(&mut Api::new(DEMO_KEY)).await?;
        nodes.push(node);
    }
    let addresses = nodes.iter().map(|node| node.address).collect();
    Ok((Some(OwnedServers { nodes, redis }), addresses))
}

/// Two clients of each user, one on each transport to begin with, with habits of their own.
fn clients(site: &Arc<Site>, secret: &str) -> anyhow::Result<Vec<Client>> {
    let mut rng = Rng::fork(site.seed, 3);
    let mut clients = Vec::new();
    for number in 0..site.users * 2 {
        let (user, transport) =
            (number / 2, if number % 2 == 0 { Transport::Sse } else { Transport::WebSocket });
        let slow = user < site.slow_users();
        let behaviour = match rng.range(0..100) {
            _ if slow => Behaviour::Slow,
            0..40 => Behaviour::Steady,
            40..58 => Behaviour::Mover,
            58..72 => Behaviour::Away,
            72..86 => Behaviour::Eager,
            _ => Behaviour::Fresh,
        };
        let token = token(secret, user, &[site.topic_of(user)])?;
        clients.push(Client::new(site, number, user, behaviour, transport, token));
    }
    Ok(clients)
}

async fn inject(cluster: &mut Cluster, plan: &Plan, duration: Duration) {
    let began = Instant::now();
    // All clients should be connected before the first fault.
    sleep(Duration::from_secs(2)).await;
    for (number, fault) in plan.faults.iter().enumerate() {
        eprintln!("{:>6.1} s  {fault} ({}/{})", began.elapsed().as_secs_f64(), number + 1, plan.faults.len());
        cluster.run(*fault).await;
        // A fault that took longer than its slot takes from the next, but leaves it some time to recover.
        let slot = plan.slot * u32::try_from(number + 1).unwrap_or(u32::MAX);
        sleep_until((began + slot).max(Instant::now() + Duration::from_millis(500))).await;
    }
    sleep_until(began + duration).await;
}

/// Stops publishing and waits until every client has received the last message.
async fn settle(cluster: &mut Cluster, clients: usize) {
    let site = Arc::clone(&cluster.site);
    // A fault that was interrupted has not been made good.
    cluster.recover().await;
    site.phase.send_replace(Phase::Quiet);
    site.history.push(Event::Quiet);
    let began = Instant::now();
    // Publishes in flight are answered by then, and what they publish stands before the last message.
    sleep(Duration::from_secs(5)).await;
    let (mut node, mut published) = (0, false);
    while !published && began.elapsed() < QUIET {
        let n = site.messages.fetch_add(1, Ordering::Relaxed);
        site.last.store(n, Ordering::Release);
        published = publisher::publish_as(&site, &mut cluster.api, node, n, Target::All, 0).await;
        if !published {
            node = (node + 1) % site.nodes.len();
            sleep(Duration::from_millis(200)).await;
        }
    }
    if !published {
        // Nothing is due then, so that nothing else would say so.
        let what = format!("no node has taken the last message within {QUIET:?}");
        site.history.push(Event::Problem { what });
    }
    while began.elapsed() < QUIET && site.caught_up.load(Ordering::Relaxed) < clients {
        sleep(Duration::from_millis(50)).await;
    }
    eprintln!(
        "{} of {clients} clients have the last message after {:.1} s",
        site.caught_up.load(Ordering::Relaxed),
        began.elapsed().as_secs_f64()
    );
}

fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

//! `realtime-bench restarts`: nodes that are restarted in turn under their clients.

mod report;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::{
    sync::{broadcast, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use self::report::{Restart, RestartReport};
use super::{
    QUIET,
    api::Api,
    check::check,
    client::chain::Client,
    cluster::{Cluster, OwnedServers},
    fault::Fault,
    history::{self, Behaviour, Event, History, Target, Transport},
    node::Node,
    publisher::publish,
    redis_server::RedisServer,
    rng::Rng,
    settle,
    site::{Phase, Site},
    token::token,
};
use crate::{
    cli,
    comparison::{DEMO_KEY, DEMO_SECRET, raise_file_limit},
};

/// Time beyond the window in which a node that was told to stop has to end.
const END: Duration = Duration::from_secs(2);

/// Clients that dial in a batch, and the pause behind it.
const BATCH: usize = 50;
const PAUSE: Duration = Duration::from_millis(25);

/// Time limit until all clients are connected.
const CONNECT: Duration = Duration::from_secs(60);

/// Number of times that the users who are online are counted in a second.
const LOOKS: u32 = 10;

/// Restarts each node in turn.
pub(crate) fn run(arguments: &cli::Restarts) -> anyhow::Result<Vec<String>> {
    raise_file_limit((arguments.ws + arguments.sse) * 2)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // The kernel ends a child with the thread that started it.
        .thread_keep_alive(Duration::from_secs(1_000_000))
        .enable_all()
        .build()?;
    let report = runtime.block_on(restarts(arguments))?;
    if arguments.json {
        println!("{:#}", report.json());
    } else {
        print!("{report}");
    }
    Ok(report.violations())
}

async fn restarts(arguments: &cli::Restarts) -> anyhow::Result<RestartReport> {
    let count = arguments.ws + arguments.sse;
    ensure!(count > 0 && arguments.nodes > 1, "at least one client and two nodes");
    let users = u32::try_from(count)?;
    let mut own = start(arguments).await?;
    let site = Arc::new(Site {
        seed: arguments.seed,
        run: history::wall_clock(),
        history: History::new(arguments.history.as_deref())?,
        nodes: own.nodes.iter().map(|node| node.address).collect(),
        api_key: DEMO_KEY.to_owned(),
        shared: false,
        users,
        topics: 1,
        window: Duration::from_secs(300),
        silence: Duration::from_secs(60),
        phase: watch::Sender::new(Phase::Running),
        commands: broadcast::Sender::new(1),
        chains: AtomicU32::new(0),
        messages: AtomicU64::new(1),
        last: AtomicU64::new(u64::MAX),
        caught_up: AtomicUsize::new(0),
    });
    site.history.push(Event::Run {
        seed: arguments.seed,
        epoch_ms: history::wall_clock(),
        window_ms: 300_000,
        late_ms: 60_000,
    });
    let mut tasks = JoinSet::new();
    for user in 0..users {
        let transport = if (user as usize) < arguments.ws { Transport::WebSocket } else { Transport::Sse };
        let token = token(DEMO_SECRET, user, &[])?;
        tasks.spawn(Client::new(&site, user, user, Behaviour::Steady, transport, token).run());
        if (user as usize + 1).is_multiple_of(BATCH) {
            sleep(PAUSE).await;
        }
    }
    let mut api = Api::new(DEMO_KEY);
    timeout(CONNECT, async {
        while online(&mut api, site.nodes[0]).await != Some(u64::from(users)) {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .context("not all clients are connected after 60 s")?;
    let least = Arc::new(AtomicU64::new(u64::from(users)));
    tasks.spawn(watch_presence(Arc::clone(&site), Arc::clone(&least)));
    tasks.spawn(publish_to_all(Arc::clone(&site), arguments.rate.0));
    let mut done = Vec::new();
    for (index, node) in own.nodes.iter_mut().enumerate() {
        eprintln!("node {index} is restarted");
        let begin = site.history.now();
        let detail = format!("node {index}");
        site.history.push(Event::FaultBegins { fault: Fault::Rolling, detail });
        let took = node.end(arguments.window + END).await.with_context(|| format!("node {index}"))?;
        done.push(Restart { node: u32::try_from(index)?, begin, took });
        node.start().await?;
        node.until_ready(&mut api).await?;
        // The last clients of it are back by then, and are not taken for those of the next one.
        sleep(arguments.window.min(Duration::from_secs(2))).await;
        site.history.push(Event::FaultEnds { fault: Fault::Rolling });
    }
    let least = least.load(Ordering::Relaxed);
    let mut cluster = Cluster {
        site: Arc::clone(&site),
        own: Some(own),
        rng: Rng::fork(arguments.seed, 2),
        api: Api::new(DEMO_KEY),
    };
    timeout(QUIET * 2, settle(&mut cluster, count)).await.context("the clients do not catch up")?;
    site.history.push(Event::Finish);
    site.phase.send_replace(Phase::Finish);
    tasks.shutdown().await;
    drop(cluster);
    let records = site.history.take();
    Ok(RestartReport::new(&records, &done, arguments.window, u64::from(users), least, check(&records)))
}

/// Starts the nodes and their Redis.
async fn start(arguments: &cli::Restarts) -> anyhow::Result<OwnedServers> {
    let redis = RedisServer::start().await?;
    let window = format!("{}ms", arguments.window.as_millis());
    let settings = [
        ("REALTIME__AUTH__JWT__SECRET", DEMO_SECRET),
        ("REALTIME__API__KEY", DEMO_KEY),
        ("REALTIME__SERVER__WORKERS", "1"),
        ("REALTIME__DRAIN__WINDOW", &window),
    ];
    let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let environment: Vec<_> = settings.into_iter().chain(arguments.env.iter().cloned()).collect();
    let mut nodes = Vec::new();
    for name in 0..arguments.nodes {
        let mut node = Node::new(name, &arguments.demo, &environment, redis.port).await?;
        node.start().await?;
        node.until_ready(&mut Api::new(DEMO_KEY)).await?;
        nodes.push(node);
    }
    Ok(OwnedServers { nodes, redis })
}

/// Publishes to all users until the run becomes quiet. What a node that stops does not take goes to the next one.
async fn publish_to_all(site: Arc<Site>, rate: f64) {
    let (mut api, mut node) = (Api::new(&site.api_key), 0);
    let mut phase = site.phase.subscribe();
    let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
        }
        // Each node in turn, one that drains included.
        node = (node + 1) % site.nodes.len();
        publish(&site, &mut api, node, Target::All, 100).await;
    }
}

/// Keeps the lowest number of users that any node says are online.
async fn watch_presence(site: Arc<Site>, least: Arc<AtomicU64>) {
    let mut api = Api::new(&site.api_key);
    let mut ticks = interval(Duration::from_secs(1) / LOOKS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for node in (0..site.nodes.len()).cycle() {
        ticks.tick().await;
        // A node that starts is refused, one that has ended does not answer.
        if let Some(online) = online(&mut api, site.nodes[node]).await {
            least.fetch_min(online, Ordering::Relaxed);
        }
    }
}

async fn online(api: &mut Api, node: SocketAddr) -> Option<u64> {
    let limit = Duration::from_secs(1);
    let answer = timeout(limit, api.call(node, "GET", "/api/online?page=1&size=1", "")).await;
    let Ok(Ok((200, answer))) = answer else { return None };
    [&answer["total"], &answer["data"]["total"]].into_iter().find_map(Value::as_u64)
}

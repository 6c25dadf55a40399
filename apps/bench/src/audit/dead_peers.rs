//! `realtime-bench dead-peers`: clients whose packets vanish, so that nothing tells the server that they have gone.
//!
//! Bench and server each run in a network namespace of their own, with a cable in between that is pulled. Linux only, and
//! only where an unprivileged user may create namespaces, or as root.

use std::{
    env, fs,
    path::Path,
    process::{self, Command},
    time::Duration,
};

use anyhow::{Context, ensure};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{history::Transport, stalled::open};
use crate::{
    child::Child,
    cli,
    comparison::{DEMO_KEY, DEMO_SECRET},
};

/// Set within the namespace.
const INSIDE: &str = "REALTIME_BENCH_NAMESPACE";

/// Lays the cable from the server's namespace, and starts the server.
const SERVER: &str = "nsenter -t $BENCH -n ip link add bench type veth peer name server netns $$ \
    && ip addr add 10.99.0.2/24 dev server && ip link set server up && ip link set lo up && exec \"$0\"";

/// Time limit until they are gone.
const LIMIT: Duration = Duration::from_secs(120);

/// Time for which they are there.
const STAY: Duration = Duration::from_secs(3);

/// Measures how long a server keeps what clients have left behind.
pub(crate) fn run(arguments: &cli::DeadPeers) -> anyhow::Result<Vec<String>> {
    if env::var_os(INSIDE).is_none() {
        let mut inside = Command::new("unshare");
        inside.args(["-r", "-n"]).arg(env::current_exe()?).args(env::args_os().skip(1)).env(INSIDE, "1");
        let status = inside.status().context("failed to run `unshare`")?;
        return Ok(if status.success() {
            Vec::new()
        } else {
            vec![format!("`unshare` has ended with {status}")]
        });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(pull(arguments))
}

async fn pull(arguments: &cli::DeadPeers) -> anyhow::Result<Vec<String>> {
    let demo = arguments.demo.canonicalize().context("--demo")?;
    let settings = [
        ("BENCH", process::id().to_string()),
        ("REALTIME__AUTH__JWT__SECRET", DEMO_SECRET.to_owned()),
        ("REALTIME__API__KEY", DEMO_KEY.to_owned()),
        ("REALTIME__SERVER__HOST", "10.99.0.2".to_owned()),
        ("REALTIME__SERVER__PORT", "8080".to_owned()),
    ];
    let settings = settings.map(|(key, value)| (key.to_owned(), value));
    let environment: Vec<_> = settings.into_iter().chain(arguments.env.iter().cloned()).collect();
    let arguments_of_unshare = ["-n", "sh", "-c", SERVER].map(str::to_owned);
    let arguments_of_unshare = arguments_of_unshare.into_iter().chain([demo.display().to_string()]);
    let child =
        Child::start(Path::new("/usr/bin/unshare"), &arguments_of_unshare.collect::<Vec<_>>(), &environment)?;
    ip(&["addr", "add", "10.99.0.1/24", "dev", "bench"])?;
    let address = "10.99.0.2:8080".parse()?;
    let mut violations = Vec::new();
    for (name, transport) in [("WebSocket", Transport::WebSocket), ("event stream", Transport::Sse)] {
        ip(&["link", "set", "bench", "up"])?;
        let none = sockets(child.pid())?;
        let mut tasks = JoinSet::new();
        for user in 0..arguments.clients {
            let mut connection = open(address, user, transport, false).await?;
            tasks.spawn(async move {
                let mut events = Vec::new();
                while connection.read(1024, &mut events).await.is_ok() {
                    events.clear();
                }
            });
        }
        sleep(STAY).await;
        let there = sockets(child.pid())?;
        ensure!(there >= none + arguments.clients as usize, "{there} sockets, {none} without clients");
        ip(&["link", "set", "bench", "down"])?;
        let began = Instant::now();
        let (mut first, mut left) = (None, there);
        while left > none && began.elapsed() < LIMIT {
            sleep(Duration::from_millis(50)).await;
            let now = sockets(child.pid())?;
            if now < there {
                first.get_or_insert(began.elapsed());
            }
            left = now;
        }
        let last = began.elapsed();
        let first = first.unwrap_or(last);
        println!(
            "{name}: {} clients gone {:.1} to {:.1} s after their packets vanished",
            arguments.clients,
            first.as_secs_f64(),
            last.as_secs_f64()
        );
        if left > none {
            violations.push(format!("{name}: {} connections are left", left - none));
        } else if last > arguments.within {
            violations.push(format!("{name}: gone after {last:?}"));
        }
        tasks.shutdown().await;
    }
    Ok(violations)
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("ip").args(arguments).status().context("failed to run `ip`")?;
    ensure!(status.success(), "`ip {}` has ended with {status}", arguments.join(" "));
    Ok(())
}

/// Number of sockets that a process has open.
fn sockets(pid: u32) -> anyhow::Result<usize> {
    let files = fs::read_dir(format!("/proc/{pid}/fd"))?;
    let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    Ok(links.filter(|link| link.to_string_lossy().starts_with("socket:")).count())
}

//! [`Cli`]: the command line.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{audit::Fault, rate::Rate, spec::Spec};

/// Puts realtime, or another push server, under load: deliveries, latency, CPU and memory, beside a bare floor.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Every message to every connection.
    Run(Deliveries),
    /// Each message to one user, in turn.
    Unicast(Deliveries),
    /// Each message to one topic, in turn; each connection is in one.
    Topics {
        /// How many topics the users are spread over.
        #[arg(long, default_value_t = 100)]
        topics: u32,
        #[command(flatten)]
        deliveries: Deliveries,
    },
    /// All connect at once, are dropped, and connect again.
    Storm {
        #[command(flatten)]
        clients: Clients,
        #[command(flatten)]
        contest: Contest,
    },
    /// The memory of connections that do nothing.
    Idle {
        /// How long they do nothing, such as `10m`.
        #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
        hold: Duration,
        /// Measure at these numbers of connections on the way, such as `2000,6000,12000,18000`, and put a line through.
        #[arg(long, value_delimiter = ',')]
        points: Vec<usize>,
        /// How many messages all of them get at the end, back to back, before the memory is read again.
        #[arg(long, default_value_t = 0)]
        burst: u32,
        #[command(flatten)]
        clients: Clients,
        #[command(flatten)]
        contest: Contest,
    },
    /// The load of `run`, with few connections first that get as many deliveries a second.
    Scale {
        /// How many they are.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
        few: u32,
        #[command(flatten)]
        deliveries: Deliveries,
    },
    /// How many publishes the HTTP API takes from 64 callers, with nobody connected unless --ws or --sse says so.
    Api(ApiLoad),
    /// The load of `run` on realtime and on other servers.
    Compare {
        /// Another server: a file of TOML, or `name=..,ws=..,sse=..,publish=..`; see docs/benchmarking.md.
        #[arg(long, required = true, num_args = 1.., value_name = "SPEC")]
        against: Vec<Spec>,
        #[command(flatten)]
        deliveries: Deliveries,
    },
    /// Two nodes over Redis, beside a raw client.
    Redis(RedisLoad),
    /// Nodes under faults: whether anything is lost, doubled, out of order or told wrongly.
    Audit(Audit),
    /// The bare server that others are measured by.
    Floor {
        /// The port on 127.0.0.1; 0 takes any.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// How many threads serve.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        #[arg(long, default_value_t = 0, hide = true)]
        drop_every: u64,
        #[arg(long, default_value_t = 0, hide = true)]
        double_every: u64,
    },
    /// Become another program that ends with this one.
    #[command(hide = true)]
    Exec {
        parent: u32,
        program: OsString,
        #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
        arguments: Vec<OsString>,
    },
}

/// A load of messages.
#[derive(Debug, Args)]
pub(crate) struct Deliveries {
    #[command(flatten)]
    pub(crate) clients: Clients,
    #[command(flatten)]
    pub(crate) messages: Messages,
    /// How many callers publish, each on a connection of its own. Order is judged for each caller.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) callers: u32,
    /// How many requests of a caller wait for their answers.
    #[arg(long, default_value_t = 1)]
    pub(crate) pipeline: usize,
    #[command(flatten)]
    pub(crate) contest: Contest,
}

/// Who is connected.
#[derive(Debug, Args)]
pub(crate) struct Clients {
    /// WebSocket connections.
    #[arg(long, default_value_t = 0)]
    pub(crate) ws: usize,
    /// Event streams.
    #[arg(long, default_value_t = 0)]
    pub(crate) sse: usize,
    /// How many users they belong to, 1 to N; by default each has one connection of a transport.
    #[arg(long)]
    pub(crate) users: Option<u32>,
    /// How many connections are on the way at once.
    #[arg(long, default_value_t = 256)]
    pub(crate) window: usize,
    /// Threads that the clients run on.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
}

/// What is published.
#[derive(Debug, Args)]
pub(crate) struct Messages {
    /// How many messages.
    #[arg(long, default_value_t = 100)]
    pub(crate) messages: u32,
    /// How many a second, such as `10/s`; 0 is back to back.
    #[arg(long, default_value = "10/s")]
    pub(crate) rate: Rate,
    /// Bytes of a message.
    #[arg(long, default_value_t = 150)]
    pub(crate) size: usize,
}

#[derive(Debug, Args)]
pub(crate) struct ApiLoad {
    /// WebSocket connections.
    #[arg(long, default_value_t = 0)]
    pub(crate) ws: usize,
    /// Event streams.
    #[arg(long, default_value_t = 0)]
    pub(crate) sse: usize,
    /// How many messages.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) messages: u32,
    /// Bytes of a message.
    #[arg(long, default_value_t = 150)]
    pub(crate) size: usize,
    /// How many callers publish.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) callers: u32,
    /// How many requests of a caller wait for their answers.
    #[arg(long, default_value_t = 1)]
    pub(crate) pipeline: usize,
    #[command(flatten)]
    pub(crate) contest: Contest,
}

#[derive(Debug, Args)]
pub(crate) struct RedisLoad {
    /// Where Redis is, such as `redis://127.0.0.1/`. A prefix of its own is used, and removed at the end.
    #[arg(long, value_name = "URL")]
    pub(crate) redis: String,
    /// Measure what Redis spends on so many idle nodes instead.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) nodes: Option<u32>,
    /// Users of each idle node.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) users: u32,
    /// Time for which Redis is watched while nothing is published.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) hold: Duration,
    /// Messages for the latency.
    #[arg(long, default_value_t = 5_000)]
    pub(crate) messages: u32,
    /// How many of them a second.
    #[arg(long, default_value = "1000/s")]
    pub(crate) rate: Rate,
    /// Bytes of a message.
    #[arg(long, default_value_t = 150)]
    pub(crate) size: usize,
    /// Callers of one node for publishes a second, and commands on the way of the raw client.
    #[arg(long, default_value_t = 256)]
    pub(crate) callers: usize,
    /// Messages for the publishes a second.
    #[arg(long, default_value_t = 200_000)]
    pub(crate) publishes: u32,
    /// Entries of the window that a node reads at its start.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) history: u32,
    /// How often everything is measured; medians are shown.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// The longest that a part of it may take.
    #[arg(long, default_value = "120s", value_parser = humantime::parse_duration)]
    pub(crate) time_limit: Duration,
    /// Print JSON for machines.
    #[arg(long)]
    pub(crate) json: bool,
    /// The host is mine, and may be put under load though it is not this machine.
    #[arg(long)]
    pub(crate) i_own_this_host: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Start nodes of this `realtime-demo`, and a redis-server for them.
    #[arg(long, value_name = "PATH", conflicts_with = "node")]
    pub(crate) demo: Option<PathBuf>,
    /// A variable of the nodes' environment, such as `REALTIME__SERVER__WORKERS=1`.
    #[arg(long, value_name = "KEY=VALUE", requires = "demo", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// How many nodes to start.
    #[arg(long, default_value_t = 3)]
    pub(crate) nodes: usize,
    /// A node that runs already, such as `http://127.0.0.1:8080`; only `cut` and `stall` are done then.
    #[arg(long, value_name = "URL")]
    pub(crate) node: Vec<String>,
    /// The key of the publish API of those nodes.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) api_key: String,
    /// The secret that signs the users' tokens for those nodes, HS256.
    #[arg(long)]
    pub(crate) secret: Option<String>,
    /// Users; each has two clients.
    #[arg(long, default_value_t = 200)]
    pub(crate) users: u32,
    /// How many messages are published a second.
    #[arg(long, default_value = "200/s")]
    pub(crate) rate: Rate,
    /// How long faults are done.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// Which faults: kill, stop, rolling, redis-kill, redis-restart, redis-pause, redis-flush, redis-trim, cut, stall,
    /// lag, partition, failover. All, if none is named.
    #[arg(long, value_delimiter = ',')]
    pub(crate) faults: Vec<Fault>,
    /// How often each is done; by default as often as the duration allows.
    #[arg(long)]
    pub(crate) times: Option<u32>,
    /// Repeats the faults and the clients of a run.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How long the nodes keep messages (`history.maxAge`).
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    pub(crate) window: Duration,
    /// From when on a delivery without a fault near it is late.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) late: Duration,
    /// After how long without a byte a client gives its connection up; by default 5 s, made for the heartbeats of nodes
    /// that were started here.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) silence: Option<Duration>,
    /// Write all that was seen to a file, a line of JSON each.
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
    /// Judge such a file again, and do nothing else.
    #[arg(long, value_name = "FILE")]
    pub(crate) judge: Option<PathBuf>,
    /// Print JSON for machines.
    #[arg(long)]
    pub(crate) json: bool,
    /// The hosts are mine, and may be put under load though they are not this machine.
    #[arg(long)]
    pub(crate) i_own_this_host: bool,
}

/// Which servers, and how often.
#[derive(Debug, Args)]
pub(crate) struct Contest {
    /// The server, such as `http://127.0.0.1:8080`.
    #[arg(long, conflicts_with = "demo")]
    pub(crate) url: Option<String>,
    /// Start this `realtime-demo` for each run, on a free port.
    #[arg(long, value_name = "PATH")]
    pub(crate) demo: Option<PathBuf>,
    /// A variable of its environment, such as `REALTIME__SERVER__WORKERS=1`.
    #[arg(long, value_name = "KEY=VALUE", requires = "demo", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Start it without `server.internal`, and publish where its clients are.
    #[arg(long, requires = "demo")]
    pub(crate) no_internal: bool,
    /// Where the server's publish API is, such as `http://127.0.0.1:9081`, if it is not at --url.
    #[arg(long, value_name = "URL", requires = "url")]
    pub(crate) api_url: Option<String>,
    /// The server's process on this machine, for its CPU and memory; its children count as well.
    #[arg(long)]
    pub(crate) pid: Vec<u32>,
    /// The key of the publish API.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) api_key: String,
    /// The secret that signs the users' tokens, HS256.
    #[arg(long, conflicts_with = "token_file")]
    pub(crate) secret: Option<String>,
    /// A file with a token a line, for each user one; for `unicast` with the user's id behind it.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The WebSocket endpoint.
    #[arg(long, default_value = "/resource/websocket")]
    pub(crate) ws_path: String,
    /// The event stream.
    #[arg(long, default_value = "/resource/sse")]
    pub(crate) sse_path: String,
    /// The publish API.
    #[arg(long, default_value = "/api/publish")]
    pub(crate) publish_path: String,
    /// Measure our own floor before, between and after, and show all figures as ratios to it.
    #[arg(long)]
    pub(crate) floor: bool,
    /// Threads of the floor.
    #[arg(long, default_value_t = 1)]
    pub(crate) floor_threads: usize,
    /// How often everything is measured; medians are shown.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// The longest that connecting may take, and the longest that the messages may take.
    #[arg(long, default_value = "120s", value_parser = humantime::parse_duration)]
    pub(crate) time_limit: Duration,
    /// Print JSON for machines.
    #[arg(long)]
    pub(crate) json: bool,
    /// The host is mine, and may be put under load though it is not this machine.
    #[arg(long)]
    pub(crate) i_own_this_host: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

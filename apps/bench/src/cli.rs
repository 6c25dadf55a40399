//! [`Cli`]: the command line.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{audit::Fault, capacity::Capacity, rate::Rate, spec::Spec};

/// Puts realtime, or another push server, under load: deliveries, latency, CPU and memory, compared with a minimal server.
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
        /// Number of topics over which the users are distributed.
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
        comparison: Comparison,
    },
    /// The memory of connections that do nothing.
    Idle {
        /// Time for which they do nothing, such as `10m`.
        #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
        hold: Duration,
        /// Measure also at these numbers of connections, such as `2000,6000,12000,18000`, and fit a line through them.
        #[arg(long, value_delimiter = ',')]
        points: Vec<usize>,
        /// Number of messages that all of them get at the end, back to back, before the memory is read again.
        #[arg(long, default_value_t = 0)]
        burst: u32,
        #[command(flatten)]
        clients: Clients,
        #[command(flatten)]
        comparison: Comparison,
    },
    /// The load of `run`, and before it the same number of deliveries a second to few connections.
    Scale {
        /// Number of the few connections.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
        few: u32,
        #[command(flatten)]
        deliveries: Deliveries,
    },
    /// Publishes a second through the HTTP API from 64 callers, without connections unless --ws or --sse are given.
    Api(ApiLoad),
    /// The load of `run` on realtime and on other servers.
    Compare {
        /// Other servers, each described by a file of TOML; see docs/benchmarking.md.
        #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
        against: Vec<Spec>,
        #[command(flatten)]
        deliveries: Deliveries,
    },
    /// Two nodes over Redis, compared with a raw client.
    Redis(RedisLoad),
    /// Nodes under faults: detects lost, doubled and misordered messages and wrong notices.
    Audit(Audit),
    /// Nodes that are restarted in turn under their clients: who is asked to come back, how evenly all come, what is lost.
    Restarts(Restarts),
    /// Readers that stop reading among others: what these notice, when those are cut, what memory is left.
    Stalled(Stalled),
    /// Clients whose packets vanish: when the server has let go of them. Linux, with `unshare`, `nsenter` and `ip`.
    DeadPeers(DeadPeers),
    /// Clients that connect, get messages, and close, break off or are kicked: memory and descriptors as time passes.
    Churn {
        /// Demo to start.
        #[arg(long, value_name = "PROGRAM")]
        demo: PathBuf,
        /// A variable of its environment, such as `REALTIME__SERVER__KIND=actix`.
        #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
        env: Vec<(String, String)>,
        /// Connections at a time.
        #[arg(long, default_value_t = 200)]
        clients: u64,
        /// Time for which clients come and go.
        #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
        duration: Duration,
        /// Time between two readings.
        #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
        every: Duration,
        /// Seed of the clients, to repeat a run.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// The nodes and the Redis that a load needs, by measured figures; see docs/capacity.md.
    Capacity(Capacity),
    /// The minimal server that others are compared with.
    #[command(visible_alias = "floor")]
    Baseline {
        /// The port on 127.0.0.1; 0 for any.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Number of threads.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        #[arg(long, default_value_t = 0, hide = true)]
        drop_every: u64,
        #[arg(long, default_value_t = 0, hide = true)]
        double_every: u64,
    },
    /// Run another program that ends with this one.
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
    /// Number of callers that publish, each on a connection of its own. Order is checked for each caller.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) callers: u32,
    /// Maximum number of a caller's requests without an answer.
    #[arg(long, default_value_t = 1)]
    pub(crate) pipeline: usize,
    #[command(flatten)]
    pub(crate) comparison: Comparison,
}

/// The connections of a load.
#[derive(Debug, Args)]
pub(crate) struct Clients {
    /// WebSocket connections.
    #[arg(long, default_value_t = 0)]
    pub(crate) ws: usize,
    /// Event streams.
    #[arg(long, default_value_t = 0)]
    pub(crate) sse: usize,
    /// Number of users that they belong to, 1 to N; by default each has one connection of a transport.
    #[arg(long)]
    pub(crate) users: Option<u32>,
    /// Maximum number of connections that are opened at once [default: 256; in a storm all].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) window: Option<u32>,
    /// Number of client threads.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
}

/// The messages of a load.
#[derive(Debug, Args)]
pub(crate) struct Messages {
    /// Number of messages.
    #[arg(long, default_value_t = 100)]
    pub(crate) messages: u32,
    /// Messages a second, such as `10/s`; 0 for back to back.
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
    /// Number of messages.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) messages: u32,
    /// Bytes of a message.
    #[arg(long, default_value_t = 150)]
    pub(crate) size: usize,
    /// Number of callers that publish.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) callers: u32,
    /// Maximum number of a caller's requests without an answer.
    #[arg(long, default_value_t = 1)]
    pub(crate) pipeline: usize,
    #[command(flatten)]
    pub(crate) comparison: Comparison,
}

#[derive(Debug, Args)]
pub(crate) struct RedisLoad {
    /// The URL of Redis, such as `redis://127.0.0.1/`. Keys get a prefix of their own, and are removed at the end.
    #[arg(long, value_name = "URL")]
    pub(crate) redis: String,
    /// Measure the CPU time of Redis with this number of idle nodes instead.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) nodes: Option<u32>,
    /// Number of users of each idle node.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) users: u32,
    /// Time for which Redis is measured while nothing is published.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) hold: Duration,
    /// Number of messages for the latency.
    #[arg(long, default_value_t = 5_000)]
    pub(crate) messages: u32,
    /// Messages a second.
    #[arg(long, default_value = "1000/s")]
    pub(crate) rate: Rate,
    /// Bytes of a message.
    #[arg(long, default_value_t = 150)]
    pub(crate) size: usize,
    /// Number of concurrent callers for the publishes a second, and of pipelined commands of the raw client.
    #[arg(long, default_value_t = 256)]
    pub(crate) callers: usize,
    /// Number of messages for the publishes a second.
    #[arg(long, default_value_t = 200_000)]
    pub(crate) publishes: u32,
    /// Number of entries that a starting node reads.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) history: u32,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Start nodes of this `realtime-demo`, and a redis-server for them.
    #[arg(long, value_name = "PATH", conflicts_with = "node")]
    pub(crate) demo: Option<PathBuf>,
    /// A variable of the nodes' environment, such as `REALTIME__SERVER__WORKERS=1`.
    #[arg(long, value_name = "KEY=VALUE", requires = "demo", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Number of nodes to start.
    #[arg(long, default_value_t = 3)]
    pub(crate) nodes: usize,
    /// A running node, such as `http://127.0.0.1:8080`; allows only the faults `cut` and `stall`.
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
    /// Messages a second.
    #[arg(long, default_value = "200/s")]
    pub(crate) rate: Rate,
    /// Time for which faults are injected.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// The faults: kill, stop, rolling, redis-kill, redis-restart, redis-pause, redis-flush, redis-trim, cut, stall,
    /// lag, partition, failover. All by default.
    #[arg(long, value_delimiter = ',')]
    pub(crate) faults: Vec<Fault>,
    /// Command of a program that runs the clients, such as `node apps/web-client/test/audit.js` for those of the browser
    /// client.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) client: Option<String>,
    /// Number of injections of each fault; by default as many as the duration allows.
    #[arg(long)]
    pub(crate) times: Option<u32>,
    /// Seed of the faults and clients, to repeat a run.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Time for which the nodes keep messages (`history.maxAge`).
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    pub(crate) window: Duration,
    /// Time limit of a delivery that is not near a fault.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) late: Duration,
    /// Time without a byte after which a client closes its connection; by default 5 s, for the heartbeats of nodes that
    /// were started here.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) silence: Option<Duration>,
    /// Write all events to a file, one line of JSON each.
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
    /// Check such a file again, and do nothing else.
    #[arg(long, value_name = "FILE")]
    pub(crate) judge: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Confirm that the hosts are yours and may be put under load, although they are not this machine.
    #[arg(long)]
    pub(crate) i_own_this_host: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restarts {
    /// Start nodes of this `realtime-demo`, and a redis-server for them.
    #[arg(long, value_name = "PATH")]
    pub(crate) demo: PathBuf,
    /// A variable of the nodes' environment, such as `REALTIME__SERVER__WORKERS=2`.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Number of nodes.
    #[arg(long, default_value_t = 3)]
    pub(crate) nodes: usize,
    /// WebSocket connections to begin with; a client changes its transport every other time.
    #[arg(long, default_value_t = 1000)]
    pub(crate) ws: usize,
    /// Event streams to begin with.
    #[arg(long, default_value_t = 1000)]
    pub(crate) sse: usize,
    /// The nodes' `drain.window`.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) window: Duration,
    /// Messages a second, each to all.
    #[arg(long, default_value = "5/s")]
    pub(crate) rate: Rate,
    /// Seed of the clients.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Write all events to a file, one line of JSON each.
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Stalled {
    /// Start this `realtime-demo`.
    #[arg(long, value_name = "PATH")]
    pub(crate) demo: PathBuf,
    /// A variable of its environment, such as `REALTIME__SERVER__KIND=actix`.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Clients that read, half of them on each transport.
    #[arg(long, default_value_t = 1000)]
    pub(crate) clients: usize,
    /// Clients that do not read.
    #[arg(long, default_value_t = 10)]
    pub(crate) stalled: u32,
    /// Messages a second, each to all.
    #[arg(long, default_value = "10/s")]
    pub(crate) rate: Rate,
    /// Number of groups of stalled readers, one after the other.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: u32,
    /// Time for which the others are measured before each of them.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) time: Duration,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DeadPeers {
    /// Start this `realtime-demo`.
    #[arg(long, value_name = "PATH")]
    pub(crate) demo: PathBuf,
    /// A variable of its environment, such as `REALTIME__SERVER__KIND=actix`.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Number of clients of each transport.
    #[arg(long, default_value_t = 50)]
    pub(crate) clients: u32,
    /// Time limit.
    #[arg(long, default_value = "35s", value_parser = humantime::parse_duration)]
    pub(crate) within: Duration,
}

/// The servers of a comparison.
#[derive(Debug, Args)]
pub(crate) struct Comparison {
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
    /// The URL of the server's publish API, such as `http://127.0.0.1:9081`, if it differs from --url.
    #[arg(long, value_name = "URL", requires = "url")]
    pub(crate) api_url: Option<String>,
    /// The server's process on this machine, for its CPU and memory, including its children.
    #[arg(long)]
    pub(crate) pid: Vec<u32>,
    /// The key of the publish API.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) api_key: String,
    /// The secret that signs the users' tokens, HS256.
    #[arg(long, conflicts_with = "token_file")]
    pub(crate) secret: Option<String>,
    /// A file with one token per line and user; for `unicast` followed by the user's id.
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
    /// Measure the minimal server before, between and after, and show all figures as ratios to it.
    #[arg(long, visible_alias = "floor")]
    pub(crate) baseline: bool,
    /// Number of threads of the minimal server.
    #[arg(long, default_value_t = 1, visible_alias = "floor-threads")]
    pub(crate) baseline_threads: usize,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

/// The options of all measurements.
#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// Number of measurements; the medians are shown.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Time limit of each part of a measurement, such as connecting.
    #[arg(long, default_value = "120s", value_parser = humantime::parse_duration)]
    pub(crate) time_limit: Duration,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Confirm that the host is yours and may be put under load, although it is not this machine.
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

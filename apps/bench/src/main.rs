//! `realtime-bench`: puts push servers under load and measures their deliveries and costs.
#![allow(clippy::print_stdout, reason = "a command line answers on stdout")]

mod audience;
mod audit;
mod baseline;
mod capacity;
mod child;
mod chunked;
mod churn;
mod cli;
mod client_pool;
mod client_stats;
mod clock;
mod comparison;
mod connection;
mod counts;
mod endpoint;
mod event;
mod figure;
mod frame;
mod growth;
mod head;
mod kernel;
mod line;
mod load;
mod marker;
mod plan;
mod pool_shared;
mod process;
mod publisher;
mod rate;
mod receiver;
mod redis;
mod report;
mod resp;
mod sequence_tracker;
mod spec;
mod target;
mod template;
mod tokens;

use std::process::ExitCode;

use anyhow::ensure;
use clap::Parser;
use serde_json::{Value, json};

use crate::{
    audience::Audience,
    baseline::Baseline,
    churn::Churn,
    cli::{ApiLoad, Cli, Clients, Command, Deliveries},
    comparison::{Comparison, raise_file_limit},
    load::Load,
    redis::{IdleCluster, RedisComparison},
    report::Report,
    spec::Spec,
};

fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(violations) if violations.is_empty() => ExitCode::SUCCESS,
        Ok(violations) => {
            for violation in violations {
                eprintln!("error: {violation}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command. Returns the violations found.
fn execute(command: Command) -> anyhow::Result<Vec<String>> {
    match command {
        Command::Run(deliveries) => deliver("run", &deliveries, Audience::Broadcast, &[]),
        Command::Compare { against, deliveries } => {
            deliver("compare", &deliveries, Audience::Broadcast, &against)
        }
        Command::Unicast(deliveries) => {
            let users = users(&deliveries.clients);
            deliver("unicast", &deliveries, Audience::User { users }, &[])
        }
        Command::Topics { topics, deliveries } => {
            ensure!(topics > 0, "--topics: at least one is required");
            deliver("topics", &deliveries, Audience::Topic { topics }, &[])
        }
        Command::Api(api) => publish(&api),
        Command::Storm { clients, comparison } => {
            let load = connections(&clients, &comparison)?;
            let report = Comparison::new(&comparison, &[], users(&clients), Audience::Broadcast)?
                .run(|target, tokens, bar| load.storm(target, tokens, bar))?;
            Ok(print_report("storm", &load.json(), comparison.run.json, &report))
        }
        Command::Idle { hold, points, burst, clients, comparison } => {
            // Back to back, with many requests in flight.
            let load =
                Load { messages: burst, size: 150, pipeline: 64, ..connections(&clients, &comparison)? };
            let all = clients.ws + clients.sse;
            ensure!(
                points.is_sorted()
                    && points.first() != Some(&0)
                    && points.last().is_none_or(|last| *last <= all),
                "--points: in ascending order, from 1 to the {all} connections of --ws and --sse"
            );
            // The memory of a connection depends on its transport, and WebSockets come first.
            ensure!(points.is_empty() || clients.ws.min(clients.sse) == 0, "--points: either --ws or --sse");
            let mut points = points;
            if burst > 0 || !points.is_empty() {
                points.push(all);
                points.dedup();
            }
            let report = Comparison::new(&comparison, &[], users(&clients), Audience::Broadcast)?
                .run(|target, tokens, bar| load.idle(hold, &points, target, tokens, bar))?;
            let mut shown = load.json();
            shown["points"] = json!(points);
            Ok(print_report("idle", &shown, comparison.run.json, &report))
        }
        Command::Scale { few, deliveries } => {
            let Clients { ws, sse, .. } = deliveries.clients;
            let few = few as usize;
            ensure!(ws.min(sse) == 0 && ws + sse > few, "--few: fewer than the connections of --ws or --sse");
            ensure!(deliveries.messages.rate.0 > 0.0, "--rate: must be above 0");
            let load = deliveries.load(Audience::Broadcast)?;
            let report = Comparison::new(
                &deliveries.comparison,
                &[],
                users(&deliveries.clients),
                Audience::Broadcast,
            )?
            .run(|target, tokens, bar| load.scale(few, target, tokens, bar))?;
            let mut shown = load.json();
            shown["few"] = json!(few);
            Ok(print_report("scale", &shown, deliveries.comparison.run.json, &report))
        }
        Command::Redis(load) => {
            let json = load.run.json;
            if let Some(nodes) = load.nodes {
                let report = IdleCluster::new(load, nodes)?.run()?;
                if json {
                    println!("{:#}", report.json());
                } else {
                    print!("{report}");
                }
                return Ok(Vec::new());
            }
            let shown = json!({
                "messages": load.messages, "rate": load.rate.0, "size": load.size, "callers": load.callers,
                "publishes": load.publishes, "history": load.history,
            });
            let report = RedisComparison::new(load)?.run()?;
            Ok(print_report("redis", &shown, json, &report))
        }
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Restarts(arguments) => audit::restarts::run(&arguments),
        Command::Stalled(arguments) => audit::stalled::run(&arguments),
        Command::DeadPeers(arguments) => audit::dead_peers::run(&arguments),
        Command::Churn { demo, env, clients, duration, every, seed } => {
            raise_file_limit(usize::try_from(clients)?)?;
            let report = Churn { demo, env, clients, duration, every, seed }.run()?;
            print!("{report}");
            Ok(report.violations())
        }
        Command::Capacity(capacity) => {
            print!("{capacity}");
            Ok(Vec::new())
        }
        Command::Baseline { port, threads, drop_every, double_every } => {
            Baseline { port, threads, drop_every, double_every }.serve()?;
            Ok(Vec::new())
        }
        Command::Exec { parent, program, arguments } => {
            child::exec(parent, &program, &arguments)?;
            Ok(Vec::new())
        }
    }
}

fn deliver(
    command: &str,
    deliveries: &Deliveries,
    audience: Audience,
    against: &[Spec],
) -> anyhow::Result<Vec<String>> {
    let load = deliveries.load(audience)?;
    let comparison = &deliveries.comparison;
    let Clients { ws, sse, .. } = deliveries.clients;
    let mut measured = Vec::new();
    for spec in against {
        match spec.lacks(ws > 0, sse > 0) {
            None => measured.push(spec.clone()),
            Some(key) => eprintln!("{} is left out: its description has no `{key}`", spec.name()),
        }
    }
    ensure!(against.is_empty() || !measured.is_empty(), "--against: no server is left");
    let report = Comparison::new(comparison, &measured, users(&deliveries.clients), audience)?
        .run(|target, tokens, bar| load.deliver(target, tokens, bar))?;
    Ok(print_report(command, &load.json(), comparison.run.json, &report))
}

impl Deliveries {
    fn load(&self, audience: Audience) -> anyhow::Result<Load> {
        let Self { clients, messages, callers, pipeline, comparison } = self;
        Ok(Load {
            audience,
            messages: messages.messages,
            rate: messages.rate.0,
            size: messages.size,
            pipeline: (*pipeline).max(1),
            callers: *callers,
            ..connections(clients, comparison)?
        })
    }
}

fn publish(api: &ApiLoad) -> anyhow::Result<Vec<String>> {
    let ApiLoad { ws, sse, messages, size, callers, pipeline, comparison } = api;
    raise_file_limit(ws + sse + *callers as usize)?;
    let load = Load {
        websockets: *ws,
        streams: *sse,
        audience: Audience::Broadcast,
        messages: *messages,
        rate: 0.0,
        size: *size,
        pipeline: (*pipeline).max(1),
        callers: *callers,
        threads: 1,
        window: None,
        time_limit: comparison.run.time_limit,
    };
    let users = u32::try_from(*ws.max(sse))?.max(1);
    let report = Comparison::new(comparison, &[], users, Audience::Broadcast)?
        .run(|target, tokens, bar| load.deliver(target, tokens, bar))?;
    Ok(print_report("api", &load.json(), comparison.run.json, &report))
}

/// Returns a load of connections without messages.
fn connections(clients: &Clients, comparison: &cli::Comparison) -> anyhow::Result<Load> {
    let Clients { ws, sse, window, threads, .. } = *clients;
    ensure!(ws + sse > 0, "no connections: pass --ws N, --sse N or both");
    raise_file_limit(ws + sse)?;
    Ok(Load {
        websockets: ws,
        streams: sse,
        audience: Audience::Broadcast,
        messages: 0,
        rate: 0.0,
        size: 0,
        pipeline: 1,
        callers: 1,
        threads,
        window: window.map(|window| window as usize),
        time_limit: comparison.run.time_limit,
    })
}

fn users(clients: &Clients) -> u32 {
    clients.users.unwrap_or_else(|| u32::try_from(clients.ws.max(clients.sse)).unwrap_or(u32::MAX)).max(1)
}

/// Prints the report and returns its violations.
fn print_report(command: &str, load: &Value, json: bool, report: &Report) -> Vec<String> {
    if json {
        println!("{:#}", report.json(command, load));
    } else {
        print!("{report}");
    }
    report.violations()
}

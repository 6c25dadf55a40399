//! `realtime-bench`: puts push servers under load and tells what they deliver and what it costs.
#![allow(clippy::print_stdout, reason = "a command line answers on stdout")]

mod audience;
mod audit;
mod child;
mod chunked;
mod cli;
mod clock;
mod connection;
mod contest;
mod counts;
mod endpoint;
mod event;
mod figure;
mod floor;
mod frame;
mod growth;
mod head;
mod kernel;
mod line;
mod load;
mod marker;
mod process;
mod publisher;
mod rate;
mod receiver;
mod redis;
mod report;
mod resp;
mod spec;
mod swarm;
mod target;
mod template;
mod tokens;
mod track;

use std::process::ExitCode;

use anyhow::ensure;
use clap::Parser;
use serde_json::{Value, json};

use crate::{
    audience::Audience,
    cli::{ApiLoad, Cli, Clients, Command, Deliveries},
    contest::{Contest, make_room},
    floor::Floor,
    load::Load,
    redis::{IdleCluster, RedisContest},
    report::Report,
    spec::Spec,
};

fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            for fault in faults {
                eprintln!("error: {fault}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Answers what should not have been.
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
            ensure!(topics > 0, "--topics: at least one");
            deliver("topics", &deliveries, Audience::Topic { topics }, &[])
        }
        Command::Api(api) => publish(&api),
        Command::Storm { clients, contest } => {
            let load = connections(&clients, &contest)?;
            let report = Contest::new(&contest, &[], users(&clients), Audience::Broadcast)?
                .run(|target, tokens, bar| load.storm(target, tokens, bar))?;
            Ok(tell("storm", &load.json(), contest.json, &report))
        }
        Command::Idle { hold, points, burst, clients, contest } => {
            // A burst is one: back to back, with many requests on the way.
            let load = Load { messages: burst, size: 150, pipeline: 64, ..connections(&clients, &contest)? };
            let all = clients.ws + clients.sse;
            ensure!(
                points.is_sorted()
                    && points.first() != Some(&0)
                    && points.last().is_none_or(|last| *last <= all),
                "--points: in ascending order, from 1 to the {all} connections of --ws and --sse"
            );
            // What a connection takes depends on its transport, and WebSockets come first.
            ensure!(points.is_empty() || clients.ws.min(clients.sse) == 0, "--points: either --ws or --sse");
            let mut points = points;
            if burst > 0 || !points.is_empty() {
                points.push(all);
                points.dedup();
            }
            let report = Contest::new(&contest, &[], users(&clients), Audience::Broadcast)?
                .run(|target, tokens, bar| load.idle(hold, &points, target, tokens, bar))?;
            let mut shown = load.json();
            shown["points"] = json!(points);
            Ok(tell("idle", &shown, contest.json, &report))
        }
        Command::Scale { few, deliveries } => {
            let Clients { ws, sse, .. } = deliveries.clients;
            let few = few as usize;
            ensure!(ws.min(sse) == 0 && ws + sse > few, "--few: fewer than the connections of --ws or --sse");
            ensure!(deliveries.messages.rate.0 > 0.0, "--rate: how many messages a second?");
            let load = deliveries.load(Audience::Broadcast)?;
            let report =
                Contest::new(&deliveries.contest, &[], users(&deliveries.clients), Audience::Broadcast)?
                    .run(|target, tokens, bar| load.scale(few, target, tokens, bar))?;
            let mut shown = load.json();
            shown["few"] = json!(few);
            Ok(tell("scale", &shown, deliveries.contest.json, &report))
        }
        Command::Redis(load) => {
            let json = load.json;
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
            let report = RedisContest::new(load)?.run()?;
            Ok(tell("redis", &shown, json, &report))
        }
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Floor { port, threads, drop_every, double_every } => {
            Floor { port, threads, drop_every, double_every }.serve()?;
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
    let contest = &deliveries.contest;
    let report = Contest::new(contest, against, users(&deliveries.clients), audience)?
        .run(|target, tokens, bar| load.deliver(target, tokens, bar))?;
    Ok(tell(command, &load.json(), contest.json, &report))
}

impl Deliveries {
    fn load(&self, audience: Audience) -> anyhow::Result<Load> {
        let Self { clients, messages, callers, pipeline, contest } = self;
        Ok(Load {
            audience,
            messages: messages.messages,
            rate: messages.rate.0,
            size: messages.size,
            pipeline: (*pipeline).max(1),
            callers: *callers,
            ..connections(clients, contest)?
        })
    }
}

fn publish(api: &ApiLoad) -> anyhow::Result<Vec<String>> {
    let ApiLoad { ws, sse, messages, size, callers, pipeline, contest } = api;
    make_room(ws + sse + *callers as usize)?;
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
        window: 256,
        time_limit: contest.time_limit,
    };
    let users = u32::try_from(*ws.max(sse))?.max(1);
    let report = Contest::new(contest, &[], users, Audience::Broadcast)?
        .run(|target, tokens, bar| load.deliver(target, tokens, bar))?;
    Ok(tell("api", &load.json(), contest.json, &report))
}

/// A load of connections without messages.
fn connections(clients: &Clients, contest: &cli::Contest) -> anyhow::Result<Load> {
    let Clients { ws, sse, window, threads, .. } = *clients;
    ensure!(ws + sse > 0, "how many connections? say --ws N, --sse N or both");
    make_room(ws + sse)?;
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
        window: window.max(1),
        time_limit: contest.time_limit,
    })
}

fn users(clients: &Clients) -> u32 {
    clients.users.unwrap_or_else(|| u32::try_from(clients.ws.max(clients.sse)).unwrap_or(u32::MAX)).max(1)
}

/// Prints the report and answers its faults.
fn tell(command: &str, load: &Value, json: bool, report: &Report) -> Vec<String> {
    if json {
        println!("{:#}", report.json(command, load));
    } else {
        print!("{report}");
    }
    report.faults()
}

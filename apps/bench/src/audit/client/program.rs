//! Clients in a program of their own, such as one that runs `@realtime/client`, in place of this tool's.
//!
//! The program reads lines of JSON from its standard input, an [`Order`] each, and ends with its standard input. It writes
//! a line of JSON for each thing that one of its clients sees, a [`Seen`].

use std::{
    collections::HashSet,
    process::{self, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, Command},
};

use super::excerpt;
use crate::audit::{
    history::{Behaviour, Cursor, End, Event, Transport},
    site::{ClientCommand, Phase, Site},
};

/// What a client is to do.
#[derive(Debug, Serialize)]
pub(crate) struct Task {
    /// The number of the client's chain.
    pub(crate) client: u32,
    pub(crate) token: String,
    /// The transport that it prefers.
    pub(crate) transport: Transport,
    pub(crate) behaviour: Behaviour,
}

/// A line that the program is given.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Order<'a> {
    /// The first: the nodes' addresses, milliseconds of their heartbeat and window, and the clients.
    Begin { nodes: Vec<String>, heartbeat: u128, window: u128, clients: &'a [Task] },
    /// One client in `drop` breaks its connections off.
    Drop { drop: u64 },
    /// From now on clients stay connected.
    Settle { settle: bool },
}

/// A line that the program writes.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Seen {
    /// It dials.
    Dial { client: u32, node: u32, transport: Transport, cursor: Option<Cursor> },
    /// Its session has begun.
    Hello { client: u32, cursor: Option<Cursor> },
    /// A message came.
    Message { client: u32, event: String, data: String, cursor: Option<Cursor> },
    /// Something else came; where its cursor is.
    Beat { client: u32, cursor: Option<Cursor> },
    /// A gap was announced.
    Gap { client: u32, reason: String, cursor: Option<Cursor> },
    /// The connection ended, or was not opened; it comes back.
    End { client: u32, code: Option<u16> },
    /// It does not come back.
    Final { client: u32, code: Option<u16>, reason: Option<String> },
    /// It left on its own, and comes back.
    Left { client: u32 },
}

/// Runs the program with these clients until the run is over. If it does not start, ends early or writes something else,
/// that is a problem of the run.
pub(crate) async fn run(site: Arc<Site>, command: String, heartbeat: Duration, tasks: Vec<Task>) {
    if let Err(error) = follow(&site, &command, heartbeat, &tasks).await {
        site.history.push(Event::Problem { what: format!("{error:#}") });
    }
}

async fn follow(site: &Site, command: &str, heartbeat: Duration, tasks: &[Task]) -> anyhow::Result<()> {
    let ourselves = std::env::current_exe().context("the path of this program")?;
    let mut program = Command::new(ourselves)
        .args(["exec", &process::id().to_string()])
        .args(command.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("failed to start {command}"))?;
    let mut input = program.stdin.take().context("its standard input is piped")?;
    let mut lines = BufReader::new(program.stdout.take().context("its standard output is piped")?).lines();
    let (mut phase, mut commands) = (site.phase.subscribe(), site.commands.subscribe());
    let nodes = site.nodes.iter().map(ToString::to_string).collect();
    let (heartbeat, window) = (heartbeat.as_millis(), site.window.as_millis());
    give(&mut input, &Order::Begin { nodes, heartbeat, window, clients: tasks }).await?;
    let mut caught_up = HashSet::new();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let line = line?.with_context(|| format!("{command} has ended"))?;
                let seen = serde_json::from_str(&line);
                record(site, seen.with_context(|| format!("{command}: {:?}", excerpt(&line)))?, &mut caught_up);
            }
            order = commands.recv() => {
                // It cannot stop reading; and what it did not hear of, it does not do.
                if let Ok(ClientCommand::Drop { one_in }) = order {
                    give(&mut input, &Order::Drop { drop: one_in }).await?;
                }
            }
            changed = phase.changed() => {
                changed?;
                let phase = *phase.borrow_and_update();
                match phase {
                    Phase::Running => {}
                    Phase::Quiet => give(&mut input, &Order::Settle { settle: true }).await?,
                    Phase::Finish => return Ok(()),
                }
            }
        }
    }
}

async fn give(input: &mut ChildStdin, order: &Order<'_>) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    input.write_all(&line).await.context("the program reads no more")
}

fn record(site: &Site, seen: Seen, caught_up: &mut HashSet<u32>) {
    let event = match seen {
        Seen::Dial { client: chain, node, transport, cursor } => {
            Event::Dial { chain, node, transport, cursor }
        }
        Seen::Hello { client: chain, cursor } => Event::Hello { chain, recovered: None, cursor },
        Seen::Message { client: chain, event, data, cursor } => {
            site.message(chain, &event, &data, cursor, || caught_up.insert(chain))
        }
        Seen::Beat { client: chain, cursor } => Event::Beat { chain, cursor },
        Seen::Gap { client: chain, reason, cursor } => Event::Gap { chain, reason, cursor },
        Seen::End { client: chain, code } => {
            Event::End { chain, end: code.filter(|code| *code >= 1000).map_or(End::Broken, End::Closed) }
        }
        Seen::Final { client: chain, code, reason } => {
            let end = code.unwrap_or_default();
            let text = format!("the client does not come back: {code:?} {reason:?}");
            site.history.push(Event::Malformed { chain, text });
            Event::End { chain, end: End::Refused(end) }
        }
        Seen::Left { client: chain } => Event::End { chain, end: End::Left },
    };
    site.history.push(event);
}

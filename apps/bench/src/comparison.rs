//! [`Contest`]: the same load on several servers in turn, the floor between them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    audience::Audience,
    child::Child,
    cli,
    endpoint::Reach,
    figure::Measurement,
    report::{Column, Report},
    spec::Spec,
    target::{Paths, Target},
    tokens::Tokens,
};

/// The same load on several servers in turn.
pub(crate) struct Contest {
    contestants: Vec<Contestant>,
    tokens: Arc<Tokens>,
    runs: u32,
}

struct Contestant {
    name: String,
    server: Server,
    measured: Vec<Measurement>,
}

enum Server {
    /// It runs already.
    Running(Box<Target>),
    /// A demo is started for each run.
    Demo {
        program: PathBuf,
        environment: Vec<(String, String)>,
        paths: Paths,
        key: String,
    },
    Floor {
        threads: usize,
    },
}

/// What a demo of ours is started with, unless the command line says otherwise.
pub(crate) const DEMO_SECRET: &str = "a secret of realtime-bench, for its own demo only";
pub(crate) const DEMO_KEY: &str = "a-key-of-realtime-bench-for-its-own-demo-only";

impl Contest {
    /// The servers that the command line names, with logins for as many users.
    pub(crate) fn new(
        arguments: &cli::Contest,
        against: &[Spec],
        users: u32,
        audience: Audience,
    ) -> anyhow::Result<Self> {
        let cli::Contest { url, demo, env, pid, api_key, floor, floor_threads, .. } = arguments;
        let reach = if arguments.i_own_this_host { Reach::Anywhere } else { Reach::Loopback };
        let paths = Paths {
            websocket: arguments.ws_path.clone(),
            sse: arguments.sse_path.clone(),
            publish: arguments.publish_path.clone(),
        };
        let mut servers = Vec::new();
        if let Some(program) = demo {
            let key = if api_key.is_empty() { DEMO_KEY } else { api_key };
            let secret = arguments.secret.as_deref().unwrap_or(DEMO_SECRET);
            let ours = [
                ("REALTIME__SERVER__HOST", "127.0.0.1"),
                ("REALTIME__SERVER__PORT", "0"),
                ("REALTIME__AUTH__JWT__SECRET", secret),
                ("REALTIME__API__KEY", key),
            ];
            let internal = (!arguments.no_internal).then_some(("REALTIME__SERVER__INTERNAL", "127.0.0.1:0"));
            let ours = ours.into_iter().chain(internal);
            let ours = ours.map(|(key, value)| (key.to_owned(), value.to_owned()));
            let environment = ours.chain(env.iter().cloned()).collect();
            servers.push((
                "realtime".to_owned(),
                Server::Demo { program: program.clone(), environment, paths, key: key.to_owned() },
            ));
        } else if let Some(url) = url {
            let mut target = Target::realtime(url, arguments.api_url.as_deref(), &paths, api_key, reach)?;
            target.pids.clone_from(pid);
            servers.push((target.name.clone(), Server::Running(Box::new(target))));
        }
        for spec in against {
            let target = spec.target(reach)?;
            servers.push((target.name.clone(), Server::Running(Box::new(target))));
        }
        if *floor {
            servers.insert(0, ("floor".into(), Server::Floor { threads: *floor_threads }));
        }
        ensure!(
            !servers.is_empty(),
            "which server? say --demo PATH, --url http://127.0.0.1:8080, or --floor"
        );
        let tokens = match (&arguments.token_file, &arguments.secret) {
            (Some(file), _) => Tokens::read(file)?,
            (None, Some(secret)) => Tokens::sign(secret, users, audience)?,
            (None, None) if demo.is_some() => Tokens::sign(DEMO_SECRET, users, audience)?,
            (None, None) if url.is_some() && users > 0 => {
                bail!(
                    "the users of {} need tokens; say --secret or --token-file",
                    url.as_deref().unwrap_or("")
                )
            }
            (None, None) => Tokens::none(users),
        };
        let contestants = servers
            .into_iter()
            .map(|(name, server)| Contestant { name, server, measured: Vec::new() })
            .collect();
        Ok(Self { contestants, tokens: Arc::new(tokens), runs: arguments.runs })
    }

    /// Measures each server in turn, as often as was asked for; the floor once more at the end.
    pub(crate) fn run(
        mut self,
        measure: impl Fn(&Target, &Arc<Tokens>, &ProgressBar) -> anyhow::Result<Measurement>,
    ) -> anyhow::Result<Report> {
        let runs = self.runs;
        for run in 1..=runs {
            for contestant in &mut self.contestants {
                contestant.measure(run, runs, &self.tokens, &measure)?;
            }
        }
        if self.contestants.len() > 1
            && let Some(floor) = self.contestants.iter_mut().find(|contestant| contestant.is_floor())
        {
            floor.measure(runs + 1, runs + 1, &self.tokens, &measure)?;
        }
        let columns = self.contestants.into_iter().map(|contestant| Column {
            is_floor: contestant.is_floor(),
            name: contestant.name,
            runs: contestant.measured,
        });
        Ok(Report::new(columns.collect()))
    }
}

impl Contestant {
    fn is_floor(&self) -> bool {
        matches!(self.server, Server::Floor { .. })
    }

    fn measure(
        &mut self,
        run: u32,
        runs: u32,
        tokens: &Arc<Tokens>,
        measure: &impl Fn(&Target, &Arc<Tokens>, &ProgressBar) -> anyhow::Result<Measurement>,
    ) -> anyhow::Result<()> {
        let (target, _child) = self.server.start()?;
        // On stderr, and only on a terminal.
        let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg} {elapsed}")?;
        let bar = ProgressBar::new(0).with_style(style).with_prefix(format!("{} {run}/{runs}", self.name));
        bar.enable_steady_tick(Duration::from_millis(200));
        let measured = measure(&target, tokens, &bar).with_context(|| self.name.clone());
        bar.finish_and_clear();
        self.measured.push(measured?);
        Ok(())
    }
}

impl Server {
    fn start(&self) -> anyhow::Result<(Target, Option<Child>)> {
        let (mut target, child) = match self {
            Self::Running(target) => return Ok(((**target).clone(), None)),
            Self::Demo { program, environment, paths, key } => {
                let child = Child::start(program, &[], environment)?;
                let api = child.api.as_deref();
                (Target::realtime(&child.url, api, paths, key, Reach::Loopback)?, child)
            }
            Self::Floor { threads } => {
                let arguments = ["floor".into(), "--threads".into(), threads.to_string()];
                let child = Child::start(&std::env::current_exe()?, &arguments, &[])?;
                (Target::floor(&child.url)?, child)
            }
        };
        target.pids = vec![child.pid()];
        Ok((target, Some(child)))
    }
}

/// Raises the limit of open files so that so many connections fit, here and in the children.
pub(crate) fn make_room(connections: usize) -> anyhow::Result<()> {
    let needed = connections as u64 + 200;
    let limit = getrlimit(Resource::Nofile);
    let Some(maximum) = limit.maximum else {
        return Ok(setrlimit(Resource::Nofile, Rlimit { current: None, maximum: None })?);
    };
    if maximum < needed {
        let raised = Rlimit { current: Some(needed), maximum: Some(needed) };
        if setrlimit(Resource::Nofile, raised).is_err() {
            bail!("{connections} connections need {needed} open files, {maximum} are allowed (ulimit -Hn)");
        }
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(maximum), maximum: Some(maximum) })?;
    Ok(())
}

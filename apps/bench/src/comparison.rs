//! [`Comparison`]: the same load on several servers in turn, with the baseline between them.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

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
pub(crate) struct Comparison {
    subjects: Vec<Subject>,
    tokens: Arc<Tokens>,
    runs: u32,
}

struct Subject {
    name: String,
    server: Server,
    measured: Vec<Measurement>,
}

enum Server {
    /// A server that is running already.
    Running(Box<Target>),
    /// A demo that is started for each run.
    Demo { program: PathBuf, environment: Vec<(String, String)>, paths: Paths, key: String },
    /// Another server that is started for each run.
    Program(Box<Spec>),
    /// The baseline, which is started for each run.
    Baseline { threads: usize },
}

/// The secret of tokens for a demo that was started here, by default.
pub(crate) const DEMO_SECRET: &str = "a secret of realtime-bench, for its own demo only";
/// The API key of a demo that was started here, by default.
pub(crate) const DEMO_KEY: &str = "a-key-of-realtime-bench-for-its-own-demo-only";

impl Comparison {
    /// Prepares the servers that the command line names, with tokens for all users.
    pub(crate) fn new(
        arguments: &cli::Comparison,
        against: &[Spec],
        users: u32,
        audience: Audience,
    ) -> anyhow::Result<Self> {
        let cli::Comparison { url, demo, env, pid, api_key, baseline, baseline_threads, run, .. } = arguments;
        let reach = if run.i_own_this_host { Reach::Anywhere } else { Reach::Loopback };
        let paths = Paths {
            websocket: arguments.ws_path.clone(),
            sse: arguments.sse_path.clone(),
            publish: arguments.publish_path.clone(),
        };
        let mut servers = Vec::new();
        if let Some(program) = demo {
            let key = if api_key.is_empty() { DEMO_KEY } else { api_key };
            let secret = arguments.secret.as_deref().unwrap_or(DEMO_SECRET);
            let defaults = [
                ("REALTIME__SERVER__HOST", "127.0.0.1"),
                ("REALTIME__SERVER__PORT", "0"),
                ("REALTIME__AUTH__JWT__SECRET", secret),
                ("REALTIME__API__KEY", key),
            ];
            let internal = (!arguments.no_internal).then_some(("REALTIME__SERVER__INTERNAL", "127.0.0.1:0"));
            let defaults = defaults.into_iter().chain(internal);
            let defaults = defaults.map(|(key, value)| (key.to_owned(), value.to_owned()));
            let environment = defaults.chain(env.iter().cloned()).collect();
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
            let server = match spec.program()? {
                Some(_) => Server::Program(Box::new(spec.clone())),
                None => Server::Running(Box::new(spec.target(reach)?)),
            };
            servers.push((spec.name().to_owned(), server));
        }
        if *baseline {
            servers.insert(0, ("baseline".into(), Server::Baseline { threads: *baseline_threads }));
        }
        ensure!(
            !servers.is_empty(),
            "no server: pass --demo PATH, --url http://127.0.0.1:8080, or --baseline"
        );
        let tokens = match (&arguments.token_file, &arguments.secret) {
            (Some(file), _) => Tokens::read(file)?,
            (None, Some(secret)) => Tokens::sign(secret, users, audience)?,
            (None, None) if demo.is_some() => Tokens::sign(DEMO_SECRET, users, audience)?,
            (None, None) if url.is_some() && users > 0 => {
                bail!(
                    "the users of {} need tokens; pass --secret or --token-file",
                    url.as_deref().unwrap_or("")
                )
            }
            (None, None) => Tokens::none(users),
        };
        let subjects = servers
            .into_iter()
            .map(|(name, server)| Subject { name, server, measured: Vec::new() })
            .collect();
        Ok(Self { subjects, tokens: Arc::new(tokens), runs: run.runs })
    }

    /// Measures each server in turn, `runs` times; the baseline once more at the end.
    pub(crate) fn run(
        mut self,
        measure: impl Fn(&Target, &Arc<Tokens>, &ProgressBar) -> anyhow::Result<Measurement>,
    ) -> anyhow::Result<Report> {
        let runs = self.runs;
        for run in 1..=runs {
            for subject in &mut self.subjects {
                subject.measure(run, runs, &self.tokens, &measure)?;
            }
        }
        if self.subjects.len() > 1
            && let Some(baseline) = self.subjects.iter_mut().find(|subject| subject.is_baseline())
        {
            baseline.measure(runs + 1, runs + 1, &self.tokens, &measure)?;
        }
        let columns = self.subjects.into_iter().map(|subject| Column {
            is_baseline: subject.is_baseline(),
            name: subject.name,
            runs: subject.measured,
        });
        Ok(Report::new(columns.collect()))
    }
}

impl Subject {
    fn is_baseline(&self) -> bool {
        matches!(self.server, Server::Baseline { .. })
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
            Self::Program(spec) => {
                let spec = spec.at_port(free_port()?);
                let target = spec.target(Reach::Loopback)?;
                let (program, arguments) = spec.program()?.context("it has a program")?;
                let child = Child::start_at(target.publish.endpoint.address, program, arguments)
                    .with_context(|| target.name.clone())?;
                (target, child)
            }
            Self::Baseline { threads } => {
                let arguments = ["baseline".into(), "--threads".into(), threads.to_string()];
                let child = Child::start(&std::env::current_exe()?, &arguments, &[])?;
                (Target::baseline(&child.url)?, child)
            }
        };
        target.pids = vec![child.pid()];
        Ok((target, Some(child)))
    }
}

/// Returns a free port on 127.0.0.1, below those that the kernel gives to outgoing connections: one of theirs could be taken
/// before the server listens.
fn free_port() -> anyhow::Result<u16> {
    let first = 20_000 + u16::try_from(std::process::id() % 5_000)?;
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (first..first + 1_000).find(is_free).context("no port of 20000 to 26000 is free")
}

/// Raises the limit of open files for a number of connections, here and in the children.
pub(crate) fn raise_file_limit(connections: usize) -> anyhow::Result<()> {
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

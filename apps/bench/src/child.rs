//! [`Child`]: a server that this tool has started, and that ends with it.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io::{BufRead, BufReader},
    os::unix::process::{CommandExt, parent_id},
    path::Path,
    process::{self, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::pool_shared::lock;

/// A server that this tool has started. Dropping it kills it; if this process is killed, the kernel does.
#[derive(Debug)]
pub(crate) struct Child {
    process: process::Child,
    /// `http://host:port`.
    pub(crate) url: String,
    /// The URL of its publish API, if that has an address of its own.
    pub(crate) api: Option<String>,
}

/// Time limit for the start of a server.
const START: Duration = Duration::from_secs(20);

/// Number of its last lines that are printed when it fails to start.
const LINES: usize = 10;

impl Child {
    /// Starts a program and waits for its line `... is ready at http://host:port/` on stderr. A line `internal api:
    /// http://host:port/ ...` may come before.
    pub(crate) fn start(
        program: &Path,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let name = program.display();
        let mut child = Self::spawn(program, arguments, environment, Stdio::piped())?;
        let stderr = child.process.stderr.take().context("stderr is piped")?;
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let (ready, address) = mpsc::channel();
        thread::spawn({
            let lines = Arc::clone(&lines);
            // Reads to the end, so that the child never waits for a reader.
            move || {
                let mut api = None;
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    if let Some(url) = line.strip_prefix("internal api: ") {
                        api = url.split_whitespace().next().map(without_slash);
                    }
                    if let Some((_, url)) = line.split_once(" is ready at ") {
                        ready.send((without_slash(url), api.take())).ok();
                    }
                    let mut lines = lock(&lines);
                    lines.push_back(line);
                    if lines.len() > LINES {
                        lines.pop_front();
                    }
                }
            }
        });
        match address.recv_timeout(START) {
            Ok((url, api)) => (child.url, child.api) = (url, api),
            Err(error) => {
                let lines: Vec<String> = lock(&lines).iter().cloned().collect();
                let why = match error {
                    mpsc::RecvTimeoutError::Timeout => "is not ready after 20 s",
                    mpsc::RecvTimeoutError::Disconnected => "has ended at once",
                };
                bail!("{name} {why}:\n{}", lines.join("\n"));
            }
        }
        Ok(child)
    }

    /// Starts a program that prints nothing when it is ready.
    pub(crate) fn start_quietly(program: &Path, arguments: &[String]) -> anyhow::Result<Self> {
        Self::spawn(program, arguments, &[], Stdio::null())
    }

    fn spawn(
        program: &Path,
        arguments: &[String],
        environment: &[(String, String)],
        stderr: Stdio,
    ) -> anyhow::Result<Self> {
        let ourselves = std::env::current_exe().context("the path of this program")?;
        let process = Command::new(ourselves)
            .args(["exec".into(), process::id().to_string().into(), program.as_os_str().to_owned()])
            .args(arguments)
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            // Ctrl-C is for this tool, which ends its children itself.
            .process_group(0)
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        Ok(Self { process, url: String::new(), api: None })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        // Its id cannot be reused before it was waited for, which happens only here.
        ensure!(self.process.try_wait()?.is_none(), "process {} has ended", self.pid());
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("a process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Returns its exit status if it has ended.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.process.try_wait()?)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn without_slash(url: &str) -> String {
    url.trim().trim_end_matches('/').to_owned()
}

/// Replaces this process by the program, which the kernel kills when its parent ends. Returns only if that fails.
pub(crate) fn exec(parent: u32, program: &OsString, arguments: &[OsString]) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended before that.
    ensure!(parent_id() == parent, "the parent has gone");
    Err(Command::new(program).args(arguments).exec())
        .with_context(|| format!("failed to start {}", Path::new(program).display()))
}

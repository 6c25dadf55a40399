//! [`Child`]: a server that this tool has started, and that ends with it.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    os::unix::process::{CommandExt, parent_id},
    path::Path,
    process::{self, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group, set_parent_process_death_signal};

use crate::pool_shared::lock;

/// A server that this tool has started. Dropping it kills it with its own children; if this process is killed, the kernel
/// kills the server alone.
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

/// Time between two attempts to connect to a server that starts.
const POLL_EVERY: Duration = Duration::from_millis(10);

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
        let (ready, address) = mpsc::channel();
        let mut api = None;
        let lines = LastLines::read(stderr, move |line| {
            if let Some(url) = line.strip_prefix("internal api: ") {
                api = url.split_whitespace().next().map(without_slash);
            }
            if let Some((_, url)) = line.split_once(" is ready at ") {
                ready.send((without_slash(url), api.take())).ok();
            }
        });
        match address.recv_timeout(START) {
            Ok((url, api)) => (child.url, child.api) = (url, api),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("{name} is not ready after 20 s:\n{}", lines.text())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("{name} has ended at once:\n{}", lines.text()),
        }
        Ok(child)
    }

    /// Starts a program and waits until it accepts connections at an address.
    ///
    /// # Errors
    /// If another program does already, if it ends, or after 20 s; with its last lines on stderr.
    pub(crate) fn start_at(
        address: SocketAddr,
        program: &Path,
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        let name = program.display();
        ensure!(
            TcpStream::connect(address).is_err(),
            "{name} is to listen at {address}, where something else listens already"
        );
        let mut child = Self::spawn(program, arguments, &[], Stdio::piped())?;
        let lines = LastLines::read(child.process.stderr.take().context("stderr is piped")?, |_| {});
        let until = Instant::now() + START;
        loop {
            let accepts = TcpStream::connect(address).is_ok();
            if let Some(status) = child.ended()? {
                lines.wait();
                bail!("{name} has ended at once, {status}:\n{}", lines.text());
            }
            if accepts {
                return Ok(child);
            }
            if Instant::now() > until {
                bail!("{name} accepts no connection at {address} after 20 s:\n{}", lines.text());
            }
            thread::sleep(POLL_EVERY);
        }
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
        // It leads the group of its own children; a process that has ended leads none.
        if let Ok(None) = self.process.try_wait()
            && let Some(group) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw)
        {
            kill_process_group(group, Signal::KILL).ok();
        }
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// The last lines that a server prints on stderr. A thread reads to the end, so that the server never waits for a reader.
struct LastLines {
    lines: Arc<Mutex<VecDeque<String>>>,
    ended: mpsc::Receiver<()>,
}

impl LastLines {
    fn read(stderr: ChildStderr, mut each: impl FnMut(&str) + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let (end, ended) = mpsc::channel();
        thread::spawn({
            let lines = Arc::clone(&lines);
            move || {
                let _end = end;
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    each(&line);
                    let mut lines = lock(&lines);
                    lines.push_back(line);
                    if lines.len() > LINES {
                        lines.pop_front();
                    }
                }
            }
        });
        Self { lines, ended }
    }

    /// Waits until the server has closed stderr, for a second at most: a child of it may hold it open.
    fn wait(&self) {
        self.ended.recv_timeout(Duration::from_secs(1)).ok();
    }

    fn text(&self) -> String {
        let lines: Vec<String> = lock(&self.lines).iter().cloned().collect();
        lines.join("\n")
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

//! [`Node`]: a node of the auditor's own, with its transport to Redis.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::{
    audit::{api::Api, proxy::Proxy, temp_dir::port},
    child::Child,
};

/// A node of the auditor's own. It is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) proxy: Proxy,
    program: PathBuf,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

/// Time limit for a node to become ready, from its start or the end of a fault.
pub(crate) const READY: Duration = Duration::from_secs(20);

impl Node {
    /// A node that is not started yet.
    pub(crate) async fn new(
        name: usize,
        program: &Path,
        environment: &[(String, String)],
        redis: u16,
    ) -> anyhow::Result<Self> {
        let proxy = Proxy::start(redis).await?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port()?));
        let own = [
            ("REALTIME__SERVER__HOST", "127.0.0.1".to_owned()),
            ("REALTIME__SERVER__PORT", address.port().to_string()),
            ("REALTIME__SERVER__NODE", format!("node-{name}")),
            ("REALTIME__REDIS__URL", format!("redis://127.0.0.1:{}/", proxy.port)),
        ];
        let own = own.map(|(key, value)| (key.to_owned(), value));
        let environment = own.into_iter().chain(environment.iter().cloned()).collect();
        Ok(Self { address, proxy, program: program.to_owned(), environment, child: None })
    }

    /// Starts it and waits until its port is open.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        let (program, environment) = (self.program.clone(), self.environment.clone());
        // A thread of the runtime, which outlives the child: the kernel ends a child with the thread that started it.
        let child = tokio::task::spawn_blocking(move || Child::start(&program, &[], &environment));
        self.child = Some(child.await??);
        Ok(())
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.child = None;
    }

    /// Stops the process (SIGSTOP).
    pub(crate) fn pause(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Resumes the process (SIGCONT).
    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        self.child.as_mut().context("the node is not running")?.signal(signal)
    }

    /// Asks it to drain and end, and returns the time that this took; kills it if it takes longer than `limit`, which is an
    /// error, as is another exit status than 0.
    pub(crate) async fn end(&mut self, limit: Duration) -> anyhow::Result<Duration> {
        let Some(mut child) = self.child.take() else { return Ok(Duration::ZERO) };
        child.signal(Signal::TERM)?;
        let began = Instant::now();
        loop {
            if let Some(status) = child.ended()? {
                ensure!(status.success(), "has ended with {status}");
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < limit, "has not ended {limit:?} after SIGTERM");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The exit status if the process has ended on its own.
    pub(crate) fn crashed(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.ended().ok()??;
        self.child = None;
        Some(format!("ended by itself: {status}"))
    }

    /// Returns true if it has been started and not ended.
    pub(crate) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Waits until its readiness check succeeds.
    pub(crate) async fn until_ready(&self, api: &mut Api) -> anyhow::Result<()> {
        let began = Instant::now();
        while !api.ready(self.address).await {
            ensure!(began.elapsed() < READY, "is not ready after {READY:?}");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

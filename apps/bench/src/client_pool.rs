//! [`ClientPool`]: the clients of a load, on a few threads of their own.

use std::{
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail};

use crate::{
    client_stats::ClientStats,
    counts::Counts,
    plan::LoadPlan,
    pool_shared::{PoolCommand, PoolShared, lock},
    receiver::Receiver,
};

/// The clients of a load. Dropping it disconnects them.
#[derive(Debug)]
pub(crate) struct ClientPool {
    threads: Vec<(Sender<PoolCommand>, JoinHandle<ClientStats>)>,
    shared: Arc<PoolShared>,
    clients: u64,
}

/// Time between two looks at the state of the clients.
const POLL_EVERY: Duration = Duration::from_millis(5);

impl ClientPool {
    /// Starts the threads, without connections.
    pub(crate) fn start(plan: &Arc<LoadPlan>, threads: usize) -> anyhow::Result<Self> {
        let clients = plan.websockets + plan.streams;
        let shared = Arc::new(PoolShared::default());
        let share = clients.div_ceil(threads.max(1)).max(1);
        let mut pool = Self { threads: Vec::new(), shared, clients: clients as u64 };
        for first in (0..clients).step_by(share) {
            let (sender, commands) = mpsc::channel();
            let slots = first..clients.min(first + share);
            let receiver = Receiver::new(Arc::clone(plan), Arc::clone(&pool.shared), slots)?;
            let thread =
                thread::Builder::new().name("clients".into()).spawn(move || receiver.run(&commands))?;
            pool.threads.push((sender, thread));
        }
        Ok(pool)
    }

    /// Returns the counts so far.
    pub(crate) fn counts(&self) -> Counts {
        *lock(&self.shared.counts)
    }

    /// Returns the first few problems.
    pub(crate) fn problems(&self) -> Vec<String> {
        lock(&self.shared.problems).clone()
    }

    /// Opens those of the first `upto` connections that are not open yet, and waits until each is accepted or refused.
    pub(crate) fn open(
        &self,
        window: usize,
        upto: usize,
        until: Instant,
        mut progress: impl FnMut(u64),
    ) -> anyhow::Result<()> {
        let window = window.div_ceil(self.threads.len().max(1));
        for (thread, _) in &self.threads {
            // A thread that has ended is reported by `finish`.
            thread.send(PoolCommand::Open { window, upto }).ok();
        }
        let asked = (upto as u64).min(self.clients);
        loop {
            let Counts { opened, failed, .. } = self.counts();
            progress(opened);
            if opened + failed == asked {
                return Ok(());
            }
            if Instant::now() > until {
                bail!(
                    "{} of {asked} connections have had no answer within the time limit; {opened} are open, {failed} failed{}",
                    asked - opened - failed,
                    self.first_problem()
                );
            }
            thread::sleep(POLL_EVERY);
        }
    }

    /// Fails if a connection could not be opened, or has ended.
    pub(crate) fn expect_all_open(&self) -> anyhow::Result<()> {
        let Counts { failed, ended, .. } = self.counts();
        if failed + ended > 0 {
            bail!("{} of {} connections failed{}", failed + ended, self.clients, self.first_problem());
        }
        Ok(())
    }

    /// Closes all connections and returns their stats. Messages in `sent` that have not arrived are lost.
    pub(crate) fn finish(mut self, sent: Arc<[u32]>) -> anyhow::Result<ClientStats> {
        *lock(&self.shared.sent) = sent;
        let mut sum = ClientStats::new()?;
        for (commands, thread) in self.threads.drain(..) {
            drop(commands);
            sum.add(&thread.join().map_err(|_| anyhow!("a thread of the clients panicked"))?)?;
        }
        sum.counts = self.counts();
        Ok(sum)
    }

    fn first_problem(&self) -> String {
        self.problems().first().map(|problem| format!("; {problem}")).unwrap_or_default()
    }
}

impl Drop for ClientPool {
    fn drop(&mut self) {
        for (commands, thread) in self.threads.drain(..) {
            drop(commands);
            thread.join().ok();
        }
    }
}

//! [`Swarm`]: the clients of a load, on a few threads of their own.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use hdrhistogram::Histogram;

use crate::{
    audience::Audience,
    clock::Clock,
    counts::Counts,
    receiver::Receiver,
    target::{Target, Transport},
    tokens::Tokens,
};

/// The clients of a load. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Swarm {
    threads: Vec<(Sender<Order>, JoinHandle<Harvest>)>,
    shared: Arc<Shared>,
    clients: u64,
}

/// What the clients are to know.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) target: Target,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) audience: Audience,
    /// How many connections of each transport there are.
    pub(crate) websockets: usize,
    pub(crate) streams: usize,
    /// Which load its messages belong to, how many publish them, and how large they are.
    pub(crate) run: u32,
    pub(crate) callers: u32,
    pub(crate) messages: u32,
    pub(crate) size: usize,
    pub(crate) clock: Clock,
}

impl Site {
    /// Transport and user of a connection: WebSockets come first, and on both transports users take turns.
    pub(crate) fn seat(&self, number: usize) -> (Transport, u32) {
        let users = self.tokens.users() as usize;
        let (transport, number) = match number.checked_sub(self.websockets) {
            None => (Transport::WebSocket, number),
            Some(number) => (Transport::Sse, number),
        };
        (transport, (number % users) as u32)
    }

    /// How many deliveries are due when so many messages were sent, `group * callers + caller`.
    pub(crate) fn expected(&self, sent: &[u32]) -> u64 {
        let callers = self.callers as usize;
        let groups: Vec<u64> =
            sent.chunks(callers).map(|sent| sent.iter().map(|&sent| u64::from(sent)).sum()).collect();
        let seats = 0..self.websockets + self.streams;
        seats.map(|number| groups[self.audience.group(self.seat(number).1) as usize]).sum()
    }
}

/// What the threads are told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Open the connections before number `upto`, with so many on the way at once.
    Open { window: usize, upto: usize },
}

/// What the threads tell while they run.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) counts: Mutex<Counts>,
    /// The first few things that went wrong.
    pub(crate) problems: Mutex<Vec<String>>,
    /// How many of the caller's messages each group was sent, `group * callers + caller`; set at the end.
    pub(crate) sent: Mutex<Arc<[u32]>>,
}

/// What the threads tell at their end.
#[derive(Debug)]
pub(crate) struct Harvest {
    /// Messages that have not come.
    pub(crate) lost: u64,
    /// From publish to receipt, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// From the first SYN to the server's yes, in nanoseconds.
    pub(crate) opening: Histogram<u64>,
}

/// How often the state of the clients is looked at.
const LOOK: Duration = Duration::from_millis(5);

impl Swarm {
    /// Starts the threads; nothing is connected yet.
    pub(crate) fn start(site: &Arc<Site>, threads: usize) -> anyhow::Result<Self> {
        let clients = site.websockets + site.streams;
        let shared = Arc::new(Shared::default());
        let share = clients.div_ceil(threads.max(1)).max(1);
        let mut swarm = Self { threads: Vec::new(), shared, clients: clients as u64 };
        for first in (0..clients).step_by(share) {
            let (sender, orders) = mpsc::channel();
            let seats = first..clients.min(first + share);
            let receiver = Receiver::new(Arc::clone(site), Arc::clone(&swarm.shared), seats)?;
            let thread =
                thread::Builder::new().name("clients".into()).spawn(move || receiver.run(&orders))?;
            swarm.threads.push((sender, thread));
        }
        Ok(swarm)
    }

    /// What has been seen so far.
    pub(crate) fn counts(&self) -> Counts {
        *lock(&self.shared.counts)
    }

    /// The first few things that went wrong.
    pub(crate) fn problems(&self) -> Vec<String> {
        lock(&self.shared.problems).clone()
    }

    /// Opens the first `upto` connections, as far as they are not yet, and waits until each has been accepted or refused.
    pub(crate) fn open(
        &self,
        window: usize,
        upto: usize,
        until: Instant,
        mut progress: impl FnMut(u64),
    ) -> anyhow::Result<()> {
        let window = window.div_ceil(self.threads.len().max(1));
        self.order(|| Order::Open { window, upto });
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
            thread::sleep(LOOK);
        }
    }

    /// An error if a connection could not be opened, or has ended.
    pub(crate) fn expect_all_open(&self) -> anyhow::Result<()> {
        let Counts { failed, ended, .. } = self.counts();
        if failed + ended > 0 {
            bail!("{} of {} connections failed{}", failed + ended, self.clients, self.first_problem());
        }
        Ok(())
    }

    /// Ends all connections and adds up what has come, of the messages that were sent.
    pub(crate) fn finish(mut self, sent: Arc<[u32]>) -> anyhow::Result<Harvest> {
        *lock(&self.shared.sent) = sent;
        let mut sum = Harvest::new()?;
        for (orders, thread) in self.threads.drain(..) {
            drop(orders);
            let harvest = thread.join().map_err(|_| anyhow!("a thread of the clients panicked"))?;
            sum.lost += harvest.lost;
            sum.latency.add(&harvest.latency).context("latency")?;
            sum.opening.add(&harvest.opening).context("opening")?;
        }
        Ok(sum)
    }

    fn order(&self, order: impl Fn() -> Order) {
        for (thread, _) in &self.threads {
            // A thread that is gone is noticed by `finish`.
            thread.send(order()).ok();
        }
    }

    fn first_problem(&self) -> String {
        self.problems().first().map(|problem| format!("; {problem}")).unwrap_or_default()
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        for (orders, thread) in self.threads.drain(..) {
            drop(orders);
            thread.join().ok();
        }
    }
}

impl Harvest {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self { lost: 0, latency: histogram()?, opening: histogram()? })
    }
}

/// Nanoseconds from a microsecond to ten minutes, to three digits.
pub(crate) fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1_000, 600_000_000_000, 3).context("histogram")
}

/// What is behind these locks is whole at any time.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

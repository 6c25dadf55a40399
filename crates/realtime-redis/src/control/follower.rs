//! [`Follower`]: applies the commands of the cluster on this node.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use realtime_core::{
    Position,
    control::{Command, LocalResult, Question},
};
use tokio::{
    sync::watch,
    task::{JoinSet, yield_now},
    time::{Instant, sleep, sleep_until},
};

use super::{
    shared::{BATCH, CONFIRM_TIMEOUT, ControlShared},
    store::{CommandId, KEEP_COMMANDS, RENEW_EVERY, RETURN, Receipt, Renewed, SLICE, command_id, is_passing},
};
use crate::{backoff::Backoff, commands::Entries, content::StreamEntry};

/// Pause before the next write when Redis accepts reads but no writes.
const WRITE_RETRY: Duration = Duration::from_secs(1);

/// Number of questions that a node answers at once.
const MAX_ANSWERS: usize = 1000;

/// Reads commands, applies them, and writes receipts.
pub(super) struct Follower {
    shared: Arc<ControlShared>,
    started: watch::Sender<bool>,
    /// The last command that was read.
    last: CommandId,
    /// The commands that were read: after a lost connection or lease all are read again, since another master may have
    /// numbered new ones below the last.
    seen: BTreeSet<CommandId>,
    /// Set while the revocations of this node and of Redis are known to agree.
    in_sync: bool,
    /// The number of connections that were replaced when the revocations were read.
    reopened: u64,
    /// The time of the next attempt to write revocations, after a failed one.
    retry_at: Option<Instant>,
    /// The tasks that answer questions.
    answers: JoinSet<()>,
    /// The last question was not answered, since there are too many; this is logged once.
    is_overrun: bool,
    /// The time of the next renewal of the lease.
    renew_at: Instant,
    /// Redis had lost the lease when it was renewed last: it has lost its data, perhaps just after the revocations were
    /// compared.
    has_lost: bool,
    reports: Vec<Report>,
}

/// The result of a command, until its receipt is written.
struct Report {
    id: String,
    at: Instant,
    receipt: Receipt,
    /// The tokens that other nodes must refuse. It is added before the receipt is written.
    refuse: Option<Command>,
}

impl Follower {
    pub(super) fn new(shared: Arc<ControlShared>, started: watch::Sender<bool>) -> Self {
        Self {
            shared,
            started,
            last: (0, 0),
            seen: BTreeSet::new(),
            in_sync: false,
            reopened: 0,
            retry_at: None,
            renew_at: Instant::now(),
            has_lost: false,
            reports: Vec::new(),
            answers: JoinSet::new(),
            is_overrun: false,
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            // What was read is remembered: a command that panics is not carried out again, and no other one.
            let step = AssertUnwindSafe(self.step()).catch_unwind().await;
            let step = step.unwrap_or_else(|_| {
                tracing::error!("control has panicked, and goes on behind the command");
                Err("a panic".to_owned())
            });
            match step {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    tracing::debug!(%error, "failed to read commands");
                    self.doubt();
                    self.forget_late_reports();
                    sleep(backoff.next()).await;
                }
            }
        }
    }

    /// Begins anew with what Redis has: another server, or the same one after a restart, may have lost data.
    fn doubt(&mut self) {
        (self.in_sync, self.renew_at) = (false, Instant::now());
    }

    /// Returns whether a connection was replaced, also within a request that was then repeated.
    fn is_reconnected(&self) -> bool {
        self.reopened != self.shared.store.reopened()
    }

    async fn step(&mut self) -> Result<(), String> {
        if self.is_reconnected() {
            self.doubt();
        }
        let unsynced = self.shared.unsynced.is_some();
        let is_due = self.retry_at.is_none_or(|at| at <= Instant::now());
        if !self.in_sync || (unsynced && is_due) {
            self.synchronise().await?;
        }
        self.keep_lease().await;
        if mem::take(&mut self.has_lost) {
            self.in_sync = false;
            return Ok(());
        }
        // Those of commands that were read to catch up; the next read may wait for some.
        self.report().await;
        self.read().await?;
        self.report().await;
        Ok(())
    }

    /// Renews the lease if it is time.
    async fn keep_lease(&mut self) {
        if self.renew_at <= Instant::now() {
            match self.renew_lease().await {
                Ok(had_lease) => self.has_lost |= !had_lease,
                // Redis may only reject writes. In all other cases reading fails as well.
                Err(error) => tracing::debug!(%error, "failed to renew the lease of control"),
            }
        }
    }

    /// Waits for something that may take longer than the lease of a node that has started, and renews it meanwhile.
    async fn with_lease<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let has_started = *self.started.borrow();
            tokio::select! {
                result = &mut work => return result,
                () = sleep_until(self.renew_at), if has_started => self.keep_lease().await,
            }
        }
    }

    /// Reads the revocations in Redis, and adds those of this node that are missing there. The first call also starts the
    /// node.
    async fn synchronise(&mut self) -> Result<(), String> {
        // What is missing in Redis may be the lease as well.
        self.renew_at = Instant::now();
        // Revocations from now on are handled by the next call.
        let shared = Arc::clone(&self.shared);
        let unsynced = shared.unsynced.last();
        let snapshot = self.with_lease(shared.store.snapshot()).await?;
        self.reopened = snapshot.reopened;
        if *self.started.borrow() {
            if !self.in_sync {
                self.last = (0, 0);
            }
            // First the commands: they hold the position behind which a session ends. Then the revocations without a command.
            self.catch_up(snapshot.last).await?;
        }
        for revocations in snapshot.revocations.chunks(SLICE) {
            shared.local.revoke(revocations);
            yield_now().await;
        }
        if !*self.started.borrow() {
            self.read_up_to(snapshot.before).await?;
            self.join().await?;
            // Steps of one read over two servers miss some: a cursor is a place in the memory of one.
            if self.is_reconnected() {
                return Err("a connection was replaced while the refusals were read".to_owned());
            }
            self.started.send_replace(true);
        }
        self.in_sync = true;
        self.retry_at = None;
        match self.with_lease(shared.add_missing(&snapshot)).await {
            Ok(()) => shared.unsynced.written(unsynced),
            Err(error) => self.retry_later(&error),
        }
        Ok(())
    }

    /// Takes the lease before the first connection, so that every kick from now on waits for this node; then applies those that
    /// came before it, which did not.
    async fn join(&mut self) -> Result<(), String> {
        let opened = self.shared.store.opened();
        // A Redis that only rejects writes has no kicks.
        if let Err(error) = self.renew_lease().await {
            tracing::debug!(%error, "failed to take the lease of control");
        }
        let newest = self.shared.store.newest().await?;
        if self.shared.store.opened() != opened {
            return Err("the connection broke while the lease was taken".to_owned());
        }
        self.catch_up(newest).await
    }

    /// Applies the commands up to one.
    async fn catch_up(&mut self, newest: CommandId) -> Result<(), String> {
        while self.last < newest {
            if self.read().await? == 0 {
                break;
            }
            if *self.started.borrow() {
                self.keep_lease().await;
            }
        }
        Ok(())
    }

    /// Reads the commands after the last one, and applies them. Returns how many there were.
    async fn read(&mut self) -> Result<usize, String> {
        let Entries { entries, begun_anew } = self.shared.store.commands_after(self.last).await?;
        let count = entries.len();
        for StreamEntry { id, fields } in entries {
            self.apply(id, &fields);
        }
        if begun_anew {
            self.last = (0, 0);
        }
        Ok(count)
    }

    /// Applies the revocations from before the start of this node: nodes of an older version store them in the commands only.
    /// Old kicks are skipped, since there are no sessions yet.
    async fn read_up_to(&mut self, newest: CommandId) -> Result<(), String> {
        while self.last < newest {
            let Entries { entries, begun_anew } = self.shared.store.commands_after(self.last).await?;
            let is_end = entries.is_empty() || begun_anew;
            let mut revocations = Vec::new();
            for StreamEntry { id, fields } in entries {
                if command_id(&id).is_some_and(|id| id > newest) {
                    self.apply(id, &fields);
                } else if self.see(&id) {
                    match decode(&fields) {
                        Some(command) if is_passing(&command) => self.forget(&id),
                        Some(command) => {
                            revocations.extend(command.revocations());
                            self.report_old(id, newest);
                        }
                        None => {
                            self.forget(&id);
                            self.shared.store.skip_command();
                        }
                    }
                }
            }
            // Before the next read: if that fails, these commands are not read again.
            self.shared.local.revoke(&revocations);
            if begun_anew {
                self.last = (0, 0);
            }
            if is_end {
                break;
            }
        }
        Ok(())
    }

    /// Confirms a command from before the start if its sender may still wait: it will, for this node, too, once that has its
    /// lease.
    fn report_old(&mut self, id: String, (newest, _): CommandId) {
        let recent = RETURN + CONFIRM_TIMEOUT;
        if command_id(&id).is_some_and(|(at, _)| Duration::from_millis(newest.saturating_sub(at)) < recent) {
            self.reports.push(Report { id, at: Instant::now(), receipt: Receipt::default(), refuse: None });
        }
    }

    /// Renews the lease. Returns false if Redis did not have it.
    async fn renew_lease(&mut self) -> Result<bool, String> {
        self.renew_at = Instant::now() + WRITE_RETRY;
        let Renewed { had_lease, since, nodes } = self.shared.store.renew_lease().await?;
        self.renew_at = Instant::now() + RENEW_EVERY;
        self.shared.peers.lock().unwrap_or_else(PoisonError::into_inner).renewed(since, nodes);
        Ok(had_lease)
    }

    /// Records that a command was read. Returns whether it is new.
    fn see(&mut self, id: &str) -> bool {
        let Some(id) = command_id(id) else { return false };
        self.last = id;
        let new = self.seen.insert(id);
        if self.seen.len() > 2 * KEEP_COMMANDS {
            self.seen.pop_first();
        }
        new
    }

    /// Takes a command out of those that were seen: it may leave the stream before older ones, which would be carried out again
    /// if they were forgotten for it.
    fn forget(&mut self, id: &str) {
        if let Some(id) = command_id(id) {
            self.seen.remove(&id);
        }
    }

    fn apply(&mut self, id: String, fields: &HashMap<String, String>) {
        if !self.see(&id) {
            return;
        }
        let Some(command) = decode(fields) else {
            tracing::debug!(id, "skipped a command that this version cannot read");
            self.forget(&id);
            return self.shared.store.skip_command();
        };
        if is_passing(&command) {
            self.forget(&id);
        }
        match command {
            Command::Report { position, within } => return self.report_deliveries(id, position, within),
            Command::Ask { question } => return self.answer(id, question),
            _ => {}
        }
        let LocalResult { closed, changed, revoked } = self.shared.local.apply(&command);
        let refuse = match command {
            // Only this node knows the tokens of its sessions.
            Command::Kick { user, after, .. } if !revoked.is_empty() => {
                Some(Command::Revoke { user: Some(user), tokens: revoked, after })
            }
            _ => None,
        };
        if refuse.is_some() {
            self.shared.has_reports.store(true, Ordering::Release);
        }
        let receipt = Receipt { closed, changed, ..Receipt::default() };
        self.reports.push(Report { id, at: Instant::now(), receipt, refuse });
    }

    /// Answers a question for deliveries.
    fn report_deliveries(&mut self, id: String, position: Position, within: u64) {
        let shared = Arc::clone(&self.shared);
        self.reply(id, async move {
            let delivery = shared.local.delivered(position, Duration::from_millis(within)).await;
            Receipt { delivery, ..Receipt::default() }
        });
    }

    /// Answers a question about this node.
    fn answer(&mut self, id: String, question: Question) {
        let shared = Arc::clone(&self.shared);
        self.reply(id, async move {
            Receipt { answer: Some(shared.local.answer(&question)), ..Receipt::default() }
        });
    }

    /// Answers a question in a task of its own, since the answer takes its time.
    fn reply(&mut self, id: String, receipt: impl Future<Output = Receipt> + Send + 'static) {
        while self.answers.try_join_next().is_some() {}
        if self.answers.len() >= MAX_ANSWERS {
            if !mem::replace(&mut self.is_overrun, true) {
                tracing::warn!(id, "too much is asked at once; no question is answered until others are");
            }
            return;
        }
        self.is_overrun = false;
        let shared = Arc::clone(&self.shared);
        self.answers.spawn(async move {
            let receipt = receipt.await;
            if let Err(error) = shared.store.write_receipts([(id.as_str(), &receipt)].into_iter()).await {
                tracing::debug!(id, error, "failed to answer a question");
            }
        });
    }

    /// Adds the commands that follow from those that were applied, and writes receipts. After a failure the revocations are
    /// written later, and a receipt is retried for as long as the sender waits for it.
    async fn report(&mut self) {
        // A receipt says that the other nodes have been sent what this one refuses.
        if self.reports.is_empty() || self.is_reconnected() {
            return;
        }
        match self.try_report().await {
            Ok(()) => {
                self.reports.clear();
                self.shared.has_reports.store(false, Ordering::Release);
            }
            Err(error) => {
                self.retry_later(&error);
                self.forget_late_reports();
            }
        }
    }

    /// Removes the results of commands whose senders do not wait any more.
    fn forget_late_reports(&mut self) {
        let is_lost = |report: &Report| report.refuse.is_some() && report.at.elapsed() >= RETURN;
        if self.reports.iter().any(is_lost) {
            // Its tokens are compared with Redis instead.
            self.shared.unsynced.add();
        }
        self.reports.retain(|report| report.at.elapsed() < RETURN);
    }

    async fn try_report(&mut self) -> Result<(), String> {
        let store = &self.shared.store;
        for reports in self.reports.chunks_mut(BATCH) {
            let with_command: Vec<_> = reports.iter_mut().filter(|report| report.refuse.is_some()).collect();
            let commands: Vec<_> = with_command.iter().filter_map(|report| report.refuse.clone()).collect();
            if !commands.is_empty() {
                let added = store.add(&commands, true).await?;
                for (report, id) in with_command.into_iter().zip(added.ids) {
                    (report.receipt.refuse, report.refuse) = (Some(id), None);
                }
            }
            store.write_receipts(reports.iter().map(|report| (report.id.as_str(), &report.receipt))).await?;
        }
        Ok(())
    }

    fn retry_later(&mut self, error: &str) {
        tracing::debug!(error, "failed to write revocations to Redis");
        self.shared.unsynced.add();
        self.retry_at = Some(Instant::now() + WRITE_RETRY);
    }
}

fn decode(fields: &HashMap<String, String>) -> Option<Command> {
    fields.get("c").and_then(|json| serde_json::from_str(json).ok())
}

//! [`Follower`]: carries out the orders of the cluster on this node.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use realtime_core::{Applied, Order};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    CONFIRM, Shared, TELL,
    store::{KEEP_ORDERS, OrderId, Receipt, order_id},
};
use crate::backoff::Backoff;

/// How often a node renews its lease.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// How long Redis is left alone when it reads but does not write.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// Reads orders, carries them out, and reports.
pub(super) struct Follower {
    shared: Arc<Shared>,
    started: watch::Sender<bool>,
    /// The last order that was read.
    last: OrderId,
    /// The orders that were seen: after a doubt all are read again, since another master may have numbered new ones
    /// below the last.
    seen: BTreeSet<OrderId>,
    /// What this node refuses and what Redis keeps were compared, and nothing was lost since.
    in_step: bool,
    /// Redis did not take what this node refuses; when to try again.
    tell_at: Option<Instant>,
    /// When the lease is renewed next.
    renew_at: Instant,
    /// The node has had a lease since it was last in doubt.
    has_lease: bool,
    reports: Vec<Report>,
}

/// An order that was carried out.
struct Report {
    id: String,
    at: Instant,
    receipt: Receipt,
    /// What the others have to refuse. It goes out before the receipt.
    refuse: Option<Order>,
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, started: watch::Sender<bool>) -> Self {
        Self {
            shared,
            started,
            last: (0, 0),
            seen: BTreeSet::new(),
            in_step: false,
            tell_at: None,
            renew_at: Instant::now(),
            has_lease: false,
            reports: Vec::new(),
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            match self.step().await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    tracing::debug!(%error, "orders cannot be read");
                    // Another server, or the same one after a restart, may have forgotten anything.
                    (self.in_step, self.has_lease, self.renew_at) = (false, false, Instant::now());
                    self.reports.retain(|report| report.at.elapsed() < CONFIRM);
                    sleep(backoff.next()).await;
                }
            }
        }
    }

    async fn step(&mut self) -> Result<(), String> {
        let untold = self.shared.untold.load(Ordering::Acquire);
        let tell = untold && self.tell_at.is_none_or(|at| at <= Instant::now());
        if !self.in_step || tell {
            self.synchronise().await?;
        }
        if self.renew_at <= Instant::now() {
            match self.renew_lease().await {
                Ok(true) => {}
                Ok(false) => {
                    // Redis has been emptied.
                    self.in_step = false;
                    return Ok(());
                }
                // It may be that Redis only takes no writes. If there is more to it, reading fails as well.
                Err(error) => tracing::debug!(%error, "the lease of control cannot be renewed"),
            }
        }
        for (id, fields) in self.shared.store.orders_after(self.last).await? {
            self.carry_out(id, &fields);
        }
        self.report().await;
        Ok(())
    }

    /// Learns what is refused, and tells what is not known there. The first time it also starts the node.
    async fn synchronise(&mut self) -> Result<(), String> {
        // What is added from now on is looked at the next time.
        self.shared.untold.store(false, Ordering::Release);
        let snapshot = self.shared.store.snapshot().await;
        let snapshot = snapshot.inspect_err(|_| self.shared.untold.store(true, Ordering::Release))?;
        if *self.started.borrow() {
            if !self.in_step {
                self.last = (0, 0);
            }
            // First the orders: they say behind which message a session ends. Then what they do not hold any more.
            while self.last < snapshot.last {
                let orders = self.shared.store.orders_after(self.last).await?;
                if orders.is_empty() {
                    break;
                }
                for (id, fields) in orders {
                    self.carry_out(id, &fields);
                }
            }
        }
        self.shared.local.revoke(&snapshot.revocations);
        if !*self.started.borrow() {
            self.read_up_to(snapshot.last).await?;
            // Before anybody is here, so that no kick passes this node by. A Redis that takes no writes has no kicks.
            self.renew_lease().await.ok();
            self.started.send_replace(true);
        }
        self.in_step = true;
        self.tell_at = None;
        if let Err(error) = self.shared.tell(&snapshot).await {
            self.could_not_tell(&error);
        }
        Ok(())
    }

    /// Refuses what was refused before this node began: nodes of an older version keep that in the orders alone. Old
    /// kicks are not carried out, since nobody is here yet.
    async fn read_up_to(&mut self, newest: OrderId) -> Result<(), String> {
        let mut revocations = Vec::new();
        while self.last < newest {
            let orders = self.shared.store.orders_after(self.last).await?;
            if orders.is_empty() {
                break;
            }
            for (id, fields) in orders {
                if order_id(&id).is_some_and(|id| id > newest) {
                    self.carry_out(id, &fields);
                } else if self.see(&id) {
                    revocations.extend(decode(&fields).iter().flat_map(Order::revocations));
                }
            }
        }
        self.shared.local.revoke(&revocations);
        Ok(())
    }

    /// Whether the node had a lease already, or has not needed one so far.
    async fn renew_lease(&mut self) -> Result<bool, String> {
        self.renew_at = Instant::now() + WRITE_AGAIN;
        let (had, nodes) = self.shared.store.renew_lease().await?;
        self.renew_at = Instant::now() + RENEW_EVERY;
        self.shared.peers.lock().unwrap_or_else(PoisonError::into_inner).renewed(had, nodes);
        Ok(had || !mem::replace(&mut self.has_lease, true))
    }

    /// Notes that an order was read. Returns whether it is new.
    fn see(&mut self, id: &str) -> bool {
        let Some(id) = order_id(id) else { return false };
        self.last = id;
        let new = self.seen.insert(id);
        if self.seen.len() > 2 * KEEP_ORDERS {
            self.seen.pop_first();
        }
        new
    }

    fn carry_out(&mut self, id: String, fields: &HashMap<String, String>) {
        if !self.see(&id) {
            return;
        }
        let Some(order) = decode(fields) else {
            tracing::warn!(id, "an order that this version does not know is skipped");
            return;
        };
        let Applied { closed, refused } = self.shared.local.apply(&order);
        let refuse = match order {
            // Only this node knows these tokens.
            Order::Kick { user, after, .. } if !refused.is_empty() => {
                Some(Order::Refuse { user: Some(user), tokens: refused, after })
            }
            _ => None,
        };
        let receipt = Receipt { closed, refuse: None };
        self.reports.push(Report { id, at: Instant::now(), receipt, refuse });
    }

    /// Tells what follows from the orders that were carried out, and leaves receipts. What is not taken now is told
    /// later, and its receipt is tried again for as long as somebody waits for it.
    async fn report(&mut self) {
        if self.reports.is_empty() {
            return;
        }
        match self.try_report().await {
            Ok(()) => self.reports.clear(),
            Err(error) => {
                self.could_not_tell(&error);
                self.reports.retain(|report| report.at.elapsed() < CONFIRM);
            }
        }
    }

    async fn try_report(&mut self) -> Result<(), String> {
        let store = &self.shared.store;
        for reports in self.reports.chunks_mut(TELL) {
            let told: Vec<_> = reports.iter_mut().filter(|report| report.refuse.is_some()).collect();
            let orders: Vec<_> = told.iter().filter_map(|report| report.refuse.clone()).collect();
            if !orders.is_empty() {
                let added = store.add(&orders, true).await?;
                for (report, id) in told.into_iter().zip(added.ids) {
                    (report.receipt.refuse, report.refuse) = (Some(id), None);
                }
            }
            store.leave_receipts(reports.iter().map(|report| (report.id.as_str(), &report.receipt))).await?;
        }
        Ok(())
    }

    fn could_not_tell(&mut self, error: &str) {
        tracing::debug!(error, "refused logins cannot be told to the cluster");
        self.shared.untold.store(true, Ordering::Release);
        self.tell_at = Some(Instant::now() + WRITE_AGAIN);
    }
}

fn decode(fields: &HashMap<String, String>) -> Option<Order> {
    fields.get("o").and_then(|json| serde_json::from_str(json).ok())
}

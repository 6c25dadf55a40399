//! [`OutboxGroup`]: the state that the outboxes of one shard share.

use std::{
    mem,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use crate::{
    metrics::Counter,
    settings::OutboxLimits,
    sync::{Mutex, lock},
};

/// State that the outboxes of one shard share.
#[derive(Debug)]
pub(crate) struct OutboxGroup {
    pub(super) max_messages: usize,
    pub(super) max_bytes: usize,
    /// Slots of the outboxes that a tick has to check: those with frames, or with state that an idle session does not
    /// have.
    watched: Mutex<Vec<u32>>,
    /// Bodies that were woken and have not pulled since.
    woken: AtomicUsize,
    /// Number of such bodies that [`Self::asked`] waits for.
    goal: AtomicUsize,
    reached: Notify,
    /// Bytes that have left the outboxes, in either way.
    sent: Counter,
    /// Bytes that came from the clients.
    received: Counter,
}

impl OutboxGroup {
    pub(crate) fn new(limits: &OutboxLimits) -> Self {
        Self {
            max_messages: limits.max_messages,
            max_bytes: limits.max_bytes,
            watched: Mutex::default(),
            woken: AtomicUsize::default(),
            goal: AtomicUsize::default(),
            reached: Notify::new(),
            sent: Counter::default(),
            received: Counter::default(),
        }
    }

    /// Bytes that have left the outboxes, and bytes that came from the clients.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.sent.value(), self.received.value())
    }

    /// Counts bytes that came from a client.
    pub(crate) fn received(&self, bytes: usize) {
        self.received.add(bytes as u64);
    }

    /// Counts bytes that have left an outbox.
    pub(super) fn sent(&self, bytes: u64) {
        self.sent.add(bytes);
    }

    /// The slots of the outboxes that the next tick will check; some may be free by now, and some are there twice.
    pub(crate) fn watched(&self) -> Vec<u32> {
        lock(&self.watched).clone()
    }

    /// Number of bodies that were woken and have not pulled since.
    pub(crate) fn woken(&self) -> usize {
        self.woken.load(Ordering::Acquire)
    }

    /// Waits until at most `goal` bodies were woken and have not pulled since: the others have written, or are about
    /// to. Only one task may wait.
    pub(crate) async fn asked(&self, goal: usize) {
        self.goal.store(goal, Ordering::Release);
        while self.woken() > goal {
            self.reached.notified().await;
        }
    }

    /// Takes the slots of the outboxes that a tick has to check, ascending; some may be free by now. Outboxes that are
    /// still to be watched after [`super::Outbox::tick`] are among the next ones.
    pub(crate) fn take_watched(&self) -> Vec<u32> {
        let mut watched = mem::take(&mut *lock(&self.watched));
        watched.sort_unstable();
        watched.dedup();
        watched
    }

    /// Marks an outbox to be checked by the next tick.
    pub(super) fn watch(&self, slot: u32) {
        lock(&self.watched).push(slot);
    }

    /// Counts a body that was woken, or removes one that has pulled since.
    pub(super) fn count(&self, woken: bool) {
        if woken {
            self.woken.fetch_add(1, Ordering::AcqRel);
        } else if self.woken.fetch_sub(1, Ordering::AcqRel) == self.goal.load(Ordering::Acquire) + 1 {
            self.reached.notify_one();
        }
    }
}

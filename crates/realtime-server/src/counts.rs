//! [`Counts`]: the number of connections of one worker.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Connections of one worker: those that the HTTP dispatcher serves, and those that were taken over.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    dispatched: Cell<usize>,
    taken: Cell<usize>,
    /// Services that wait for room, and the future that represents all connections that were taken over.
    waiting: RefCell<Vec<Waker>>,
    /// That future exists.
    represented: Cell<bool>,
}

thread_local! {
    static COUNTS: Rc<Counts> = Rc::default();
}

impl Counts {
    /// Counts of the calling thread.
    pub(crate) fn of_thread() -> Rc<Self> {
        COUNTS.with(Rc::clone)
    }

    pub(crate) fn dispatched(&self) {
        self.dispatched.set(self.dispatched.get() + 1);
    }

    pub(crate) fn dispatch_ended(&self) {
        self.dispatched.set(self.dispatched.get() - 1);
        self.wake();
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn taken(&self) {
        self.taken.set(self.taken.get() + 1);
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn released(&self) {
        self.taken.set(self.taken.get() - 1);
        self.wake();
    }

    /// Pending while there are `limit` connections or more.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>, limit: usize) -> Poll<()> {
        if self.dispatched.get() + self.taken.get() < limit {
            return Poll::Ready(());
        }
        self.wait(cx);
        Poll::Pending
    }

    /// Ready once no connection is taken over. Only one caller waits; all others are ready at once.
    pub(crate) fn poll_none_taken(&self, cx: &mut Context<'_>, waits: &mut bool) -> Poll<()> {
        if self.taken.get() == 0 || (!*waits && self.represented.get()) {
            if std::mem::take(waits) {
                self.represented.set(false);
            }
            return Poll::Ready(());
        }
        *waits = true;
        self.represented.set(true);
        self.wait(cx);
        Poll::Pending
    }

    /// Records that the representing future was dropped.
    pub(crate) fn no_longer_represented(&self) {
        self.represented.set(false);
    }

    fn wait(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
    }

    fn wake(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }
}

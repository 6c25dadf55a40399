//! [`PoolShared`]: the state between a client pool and its threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::counts::Counts;

/// A command to the threads of a client pool.
#[derive(Debug)]
pub(crate) enum PoolCommand {
    /// Opens the connections before number `upto`, at most `window` at once.
    Open { window: usize, upto: usize },
}

/// The state between a client pool and its threads.
#[derive(Debug, Default)]
pub(crate) struct PoolShared {
    pub(crate) counts: Mutex<Counts>,
    /// The first few problems.
    pub(crate) problems: Mutex<Vec<String>>,
    /// Number of each caller's messages to each group, `group * callers + caller`; set at the end.
    pub(crate) sent: Mutex<Arc<[u32]>>,
}

/// Locks a mutex whose value is consistent at any time, also after a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

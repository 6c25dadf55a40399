//! [`Hooks`]: functions of the application that run when sessions open and end.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::handle::SessionHandle;
use crate::CloseReason;

/// Functions that are called with every session of a node.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) on_open: Option<Box<OnOpen>>,
    pub(crate) on_close: Option<Box<OnClose>>,
}

pub(crate) type OnOpen = dyn Fn(&SessionHandle) + Send + Sync;

pub(crate) type OnClose = dyn Fn(&SessionHandle, CloseReason) + Send + Sync;

impl Hooks {
    pub(crate) fn opened(&self, session: impl FnOnce() -> SessionHandle) {
        if let Some(on_open) = &self.on_open {
            let session = session();
            caught("on_open", &session, || on_open(&session));
        }
    }

    pub(crate) fn closed(&self, session: impl FnOnce() -> SessionHandle, reason: CloseReason) {
        if let Some(on_close) = &self.on_close {
            let session = session();
            caught("on_close", &session, || on_close(&session, reason));
        }
    }
}

/// A hook that panics must not break the connection, or the worker, that runs it.
fn caught(hook: &str, session: &SessionHandle, call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!(hook, session = %session.id(), user = %session.user(), "a hook panicked");
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("on_open", &self.on_open.is_some())
            .field("on_close", &self.on_close.is_some())
            .finish()
    }
}

//! [`NoPresence`]: disabled presence.

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{
    future::ready,
    stream::{StreamExt, pending},
};

use super::{OnlineCount, OnlineNode, OnlineSession, OnlineUser, Presence, PresenceError, PresenceEvent};
use crate::UserId;

/// Disabled presence: every query returns an error.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPresence;

impl NoPresence {
    fn refuse<T: Send + 'static>() -> BoxFuture<'static, Result<T, PresenceError>> {
        Box::pin(ready(Err(PresenceError("it is switched off".into()))))
    }
}

impl Presence for NoPresence {
    fn is_off(&self) -> bool {
        true
    }

    fn changes(&self) -> BoxStream<'static, PresenceEvent> {
        pending().boxed()
    }

    fn is_online<'a>(&'a self, _: &'a [UserId]) -> BoxFuture<'a, Result<Vec<bool>, PresenceError>> {
        Self::refuse()
    }

    fn count(&self) -> BoxFuture<'_, Result<OnlineCount, PresenceError>> {
        Self::refuse()
    }

    fn users(&self, _: usize, _: usize) -> BoxFuture<'_, Result<Vec<OnlineUser>, PresenceError>> {
        Self::refuse()
    }

    fn sessions<'a>(&'a self, _: &'a UserId) -> BoxFuture<'a, Result<Vec<OnlineSession>, PresenceError>> {
        Self::refuse()
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<OnlineNode>, PresenceError>> {
        Self::refuse()
    }
}

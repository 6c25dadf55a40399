//! [`PresenceShared`]: the state that the parts of one presence share.

use futures_util::future::join;
use realtime_core::presence::PresenceError;
use redis::{RedisResult, aio::MultiplexedConnection};

use super::changes::{ChangeId, Changes};
use crate::commands::{Commands, StreamEntry};

/// The state that the queries, the keeper and the reader of changes share.
#[derive(Debug)]
pub(super) struct PresenceShared {
    pub(super) commands: Commands,
    pub(super) keys: Keys,
    pub(super) changes: Changes,
}

/// The keys of presence; [`scripts`](super::scripts) has the table of their contents.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) nodes: String,
    node_prefix: String,
    pub(super) counts: String,
    pub(super) refs: String,
    pub(super) users: String,
    pub(super) online: String,
    pub(super) leaving: String,
    pub(super) since: String,
    pub(super) changes: String,
    pub(super) changed: String,
    pub(super) swept: String,
    pub(super) expected: String,
    pub(super) left: String,
}

impl Keys {
    /// Names the keys that share a hash tag.
    pub(super) fn new(tag: &str) -> Self {
        let key = |name: &str| format!("{tag}:{name}");
        Self {
            nodes: key("nodes"),
            node_prefix: key("node:"),
            counts: key("counts"),
            refs: key("refs"),
            users: key("users"),
            online: key("online"),
            leaving: key("leaving"),
            since: key("since"),
            changes: key("changes"),
            changed: key("changed"),
            swept: key("swept"),
            expected: key("expected"),
            left: key("left"),
        }
    }

    /// Returns the key of an incarnation's hash.
    pub(super) fn node(&self, incarnation: &str) -> String {
        format!("{}{incarnation}", self.node_prefix)
    }
}

impl PresenceShared {
    /// Runs a query; unless changes are being read, it also asks for the newest change.
    pub(super) async fn ask<T>(
        &self,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, PresenceError> {
        if self.changes.is_read() {
            return self.commands.run(work).await.map_err(PresenceError);
        }
        // A later listener does not receive changes that this answer includes. The newest change is asked for first,
        // so that none is lost between the two.
        let (newest, answer) = self
            .commands
            .run(async |connection| {
                let mut beside = connection.clone();
                let (newest, answer) = join(self.newest_change(&mut beside), work(connection)).await;
                Ok((newest?, answer?))
            })
            .await
            .map_err(PresenceError)?;
        self.changes.set_known(newest);
        Ok(answer)
    }

    async fn newest_change(&self, connection: &mut MultiplexedConnection) -> RedisResult<ChangeId> {
        let newest = redis::cmd("XREVRANGE")
            .arg(&self.keys.changes)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1)
            .query_async::<Vec<StreamEntry>>(connection)
            .await?;
        let newest = newest.into_iter().next().map(|(id, fields)| ChangeId::new(id, &fields));
        Ok(newest.unwrap_or_else(|| ChangeId { id: "0-0".to_owned(), number: Some(0) }))
    }
}

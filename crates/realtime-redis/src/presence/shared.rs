//! [`PresenceShared`]: the state that the parts of one presence share.

use futures_util::future::join;
use realtime_core::presence::PresenceError;
use redis::{RedisResult, aio::MultiplexedConnection};

use super::changes::{ChangeId, Changes};
use crate::{
    commands::Commands,
    content::StreamEntry,
    repair::{Loss, Repair},
};

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

    /// Returns what is done about broken keys. Their contents belong together, except for those of the changes.
    pub(super) fn repair(&self) -> Repair {
        let Self {
            counts, refs, users, online, leaving, since, changes, changed, swept, expected, left, ..
        } = self;
        Repair::default()
            .key(&self.nodes, "zset", Loss::Leases)
            .key(counts, "hash", Loss::Together)
            .key(refs, "hash", Loss::Together)
            .key(users, "zset", Loss::Together)
            .key(online, "set", Loss::Together)
            .key(leaving, "zset", Loss::Together)
            .key(since, "hash", Loss::Together)
            .key(changes, "stream", Loss::Alone)
            .key(changed, "string", Loss::Alone)
            .key(swept, "string", Loss::Alone)
            .key(expected, "hash", Loss::Together)
            .key(left, "hash", Loss::Together)
    }

    /// Does the same for an incarnation's hash.
    pub(super) fn repair_node(&self, incarnation: &str) -> Repair {
        Repair::default().key(self.node(incarnation), "hash", Loss::Together)
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
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T> + Clone,
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
        let newest = newest.into_iter().next().map(|StreamEntry { id, fields }| ChangeId::new(id, &fields));
        Ok(newest.unwrap_or_else(ChangeId::before_all))
    }
}

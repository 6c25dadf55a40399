//! The reader of the stream of changes that the scripts write; it reads by position, and only while there are listeners.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use realtime_core::presence::{PresenceChange, PresenceState};
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep};

use super::{
    changes::{ChangeId, Start},
    member,
    shared::PresenceShared,
};
use crate::{backoff::Backoff, commands::Entries, content::StreamEntry};

/// Average time between reads that return changes: a hundred nodes that each woke for every change would saturate Redis'
/// core.
const PACE: Duration = Duration::from_millis(100);

/// Time by which reads may be ahead of that pace, so that a few changes are delivered at once.
const BURST: Duration = Duration::from_secs(2);

/// Delivers changes to the listeners. Never returns.
pub(super) async fn follow(shared: Arc<PresenceShared>) {
    let changes = &shared.changes;
    changes.restart_interrupted();
    loop {
        let (start, interrupted) = changes.wait_for_listener().await;
        if interrupted {
            changes.feed.send_gap();
        }
        let after = match start {
            Start::Behind(change) => change,
            Start::Since(since) => shared.change_before(since).await,
        };
        read(&shared, after).await;
    }
}

/// Delivers the changes after one for as long as there are listeners.
async fn read(shared: &PresenceShared, mut last: ChangeId) {
    let (changes, mut backoff) = (&shared.changes, Backoff::default());
    // The time at which the reads so far would have ended at that pace.
    let mut due = Instant::now();
    while !changes.end_without_listeners() {
        let Entries { entries, begun_anew } =
            match shared.commands.entries_after(&shared.keys.changes, &last.id).await {
                Ok(entries) => entries,
                Err(error) => {
                    tracing::debug!(%error, "failed to read changes of presence");
                    sleep(backoff.next()).await;
                    continue;
                }
            };
        backoff.reset();
        let some = !entries.is_empty();
        for StreamEntry { id, fields } in entries {
            let next = ChangeId::new(id, &fields);
            let change = decode(&fields);
            if change.is_none() {
                shared.commands.skipped().record("a change of presence that this version cannot read");
            }
            if last.number.is_some_and(|number| next.number != Some(number + 1)) || change.is_none() {
                changes.feed.send_gap();
            }
            if let Some(change) = change {
                changes.feed.send(change);
            }
            last = next;
        }
        if begun_anew {
            changes.feed.send_gap();
            last = ChangeId { number: None, ..ChangeId::before_all() };
        }
        if some {
            due = due.max(Instant::now()) + PACE;
            sleep(due.saturating_duration_since(Instant::now() + BURST)).await;
        }
    }
}

impl PresenceShared {
    /// Returns an id before the first change that was written since a time, by Redis' clock; it is earlier by at most the
    /// latency of the question.
    async fn change_before(&self, since: Instant) -> ChangeId {
        let mut backoff = Backoff::default();
        loop {
            let time = async |connection: &mut MultiplexedConnection| {
                redis::cmd("TIME").query_async::<(u64, u64)>(connection).await
            };
            match self.commands.run(time).await {
                Ok((seconds, micros)) => {
                    let now = Duration::from_secs(seconds) + Duration::from_micros(micros);
                    let then = now.saturating_sub(since.elapsed()).as_millis();
                    return ChangeId { id: format!("{}-0", then.saturating_sub(1)), number: None };
                }
                Err(error) => {
                    tracing::debug!(%error, "failed to ask Redis for the time");
                    sleep(backoff.next()).await;
                }
            }
        }
    }
}

fn decode(fields: &HashMap<String, String>) -> Option<PresenceChange> {
    let state = match fields.get("s")?.as_str() {
        "online" => PresenceState::Online,
        "offline" => PresenceState::Offline,
        _ => return None,
    };
    let since = UNIX_EPOCH.checked_add(Duration::from_millis(fields.get("t")?.parse().ok()?))?;
    Some(PresenceChange { user_id: member::decode(fields.get("u")?)?, state, since })
}

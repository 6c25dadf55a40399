//! Who comes and goes over the cluster: what the scripts have written into a stream, read by position.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use realtime_core::{PresenceChange, PresenceState};
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep};

use super::{Shared, user};
use crate::{backoff::Backoff, commands::StreamEntry};

/// How far this node has read.
#[derive(Debug)]
struct Place {
    id: String,
    /// The number of that change: the next one has the next number, or something is missing.
    number: u64,
}

/// Time between reads that bring something, in the long run: a hundred nodes that each woke for every change would fill
/// Redis' core.
const PACE: Duration = Duration::from_millis(100);

/// How far reads may be ahead of that, so that few changes are told at once.
const BURST: Duration = Duration::from_secs(2);

/// Tells the feed for ever.
pub(super) async fn follow(shared: Arc<Shared>) {
    let mut backoff = Backoff::default();
    let mut place = None;
    let mut late = false;
    // When the reads so far would have ended at that pace.
    let mut due = Instant::now();
    loop {
        let step = async {
            let place = match &mut place {
                Some(place) => place,
                None => {
                    let newest = shared.newest_change().await?;
                    if late {
                        // Nobody knows what was missed until now.
                        shared.feed.send_gap();
                    }
                    place.insert(newest)
                }
            };
            let entries = shared.commands.entries_after(&shared.keys.changes, &place.id).await?;
            let some = !entries.is_empty();
            for (id, fields) in entries {
                let number = fields.get("n").and_then(|number| number.parse().ok()).unwrap_or(0);
                let change = change(&fields);
                if number != place.number + 1 || change.is_none() {
                    shared.feed.send_gap();
                }
                if let Some(change) = change {
                    shared.feed.send(change);
                }
                *place = Place { id, number };
            }
            Ok::<bool, String>(some)
        };
        match step.await {
            Ok(some) => {
                backoff.reset();
                if some {
                    due = due.max(Instant::now()) + PACE;
                    sleep(due.saturating_duration_since(Instant::now() + BURST)).await;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "changes of presence cannot be read");
                late = true;
                sleep(backoff.next()).await;
            }
        }
    }
}

impl Shared {
    async fn newest_change(&self) -> Result<Place, String> {
        let ask = async |connection: &mut MultiplexedConnection| {
            redis::pipe()
                .atomic()
                .cmd("GET")
                .arg(&self.keys.changed)
                .cmd("XREVRANGE")
                .arg(&self.keys.changes)
                .arg("+")
                .arg("-")
                .arg("COUNT")
                .arg(1)
                .query_async::<(Option<u64>, Vec<StreamEntry>)>(connection)
                .await
        };
        let (number, newest) = self.commands.run(ask).await?;
        let id = newest.into_iter().next().map_or_else(|| "0-0".to_owned(), |(id, _)| id);
        Ok(Place { id, number: number.unwrap_or(0) })
    }
}

fn change(fields: &HashMap<String, String>) -> Option<PresenceChange> {
    let state = match fields.get("s")?.as_str() {
        "online" => PresenceState::Online,
        "offline" => PresenceState::Offline,
        _ => return None,
    };
    let since = UNIX_EPOCH + Duration::from_millis(fields.get("t")?.parse().ok()?);
    Some(PresenceChange { user_id: user(fields.get("u")?)?, state, since })
}

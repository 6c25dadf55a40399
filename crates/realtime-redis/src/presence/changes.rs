//! [`Changes`]: who comes and goes over the cluster, as the scripts have written it into a stream; read by position, and
//! only while somebody listens.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use futures_core::stream::BoxStream;
use realtime_core::{PresenceChange, PresenceEvent, PresenceFeed, PresenceState};
use redis::{RedisResult, aio::MultiplexedConnection};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{Shared, user};
use crate::{backoff::Backoff, commands::StreamEntry};

/// Who comes and goes, told to whoever listens.
///
/// A listener gets what follows the newest change that this node had word of when the listener came. Every answer of
/// Redis about presence brings word of it, the renewal of the lease once a second at least. So nothing is missing between
/// the call and the first read, and nothing comes that the listener could have known from this node. On a node that has had
/// no word yet, a listener gets what follows the time at which it came, by Redis' clock.
#[derive(Debug, Default)]
pub(super) struct Changes {
    feed: PresenceFeed,
    state: Mutex<State>,
    /// Somebody listens, or the place at which to begin is known.
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The newest change that this node has had word of; `None` before the first word.
    known: Option<Place>,
    /// Somebody listens, or did a moment ago.
    reading: bool,
    /// Where the reading begins; taken by the reader.
    start: Option<Start>,
    /// The reader has taken it and has not ended.
    taken: bool,
    /// The reader before this one has panicked: nobody knows what was missed.
    broken_off: bool,
}

/// Beginning of a reading.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Start {
    /// Behind a change.
    Behind(Place),
    /// With what was written since then.
    Since(Instant),
}

/// A change's id in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) id: String,
    /// The number of that change, where it is known: the next one has the next number, or something is missing.
    pub(super) number: Option<u64>,
}

/// Time between reads that bring something, in the long run: a hundred nodes that each woke for every change would fill
/// Redis' core.
const PACE: Duration = Duration::from_millis(100);

/// How far reads may be ahead of that, so that few changes are told at once.
const BURST: Duration = Duration::from_secs(2);

impl Changes {
    /// What changes from now on.
    pub(super) fn listen(&self) -> BoxStream<'static, PresenceEvent> {
        let mut state = self.state();
        if !state.reading {
            let start = state.known.clone().map_or_else(|| Start::Since(Instant::now()), Start::Behind);
            (state.reading, state.start) = (true, Some(start));
            self.wake.notify_one();
        }
        self.feed.subscribe()
    }

    /// Whether changes are read, so that the newest of them is known anyway.
    pub(super) fn is_read(&self) -> bool {
        self.state().reading
    }

    /// An answer of Redis was as of the change `newest`.
    pub(super) fn learn(&self, newest: Place) {
        self.state().known = Some(newest);
    }

    /// Waits until somebody listens; where the reading begins, and whether something may be missing before.
    async fn begun(&self) -> (Start, bool) {
        loop {
            {
                let mut state = self.state();
                if let Some(start) = state.start.take() {
                    state.taken = true;
                    return (start, std::mem::take(&mut state.broken_off));
                }
            }
            self.wake.notified().await;
        }
    }

    /// Ends the reading at a place unless somebody listens. Returns whether it has ended.
    fn end_unless_heard(&self) -> bool {
        // Under the lock: whoever comes meanwhile begins anew.
        let mut state = self.state();
        if self.feed.listeners() == 0 {
            (state.reading, state.taken) = (false, false);
        }
        !state.reading
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the listeners for ever.
pub(super) async fn follow(shared: Arc<Shared>) {
    let changes = &shared.changes;
    {
        let mut state = changes.state();
        if state.taken {
            // The reader before this one has panicked.
            let start = state.known.clone().map_or_else(|| Start::Since(Instant::now()), Start::Behind);
            (state.start, state.broken_off) = (Some(start), true);
        }
    }
    loop {
        let (start, broken_off) = changes.begun().await;
        if broken_off {
            changes.feed.send_gap();
        }
        let place = match start {
            Start::Behind(place) => place,
            Start::Since(since) => shared.place_at(since).await,
        };
        read(&shared, place).await;
    }
}

/// Tells what follows a place for as long as somebody listens.
async fn read(shared: &Shared, mut place: Place) {
    let (changes, mut backoff) = (&shared.changes, Backoff::default());
    // When the reads so far would have ended at that pace.
    let mut due = Instant::now();
    while !changes.end_unless_heard() {
        let entries = match shared.commands.entries_after(&shared.keys.changes, &place.id).await {
            Ok(entries) => entries,
            Err(error) => {
                tracing::debug!(%error, "changes of presence cannot be read");
                sleep(backoff.next()).await;
                continue;
            }
        };
        backoff.reset();
        let some = !entries.is_empty();
        for (id, fields) in entries {
            let next = Place::new(id, &fields);
            let change = change(&fields);
            if place.number.is_some_and(|number| next.number != Some(number + 1)) || change.is_none() {
                changes.feed.send_gap();
            }
            if let Some(change) = change {
                changes.feed.send(change);
            }
            place = next;
        }
        if some {
            due = due.max(Instant::now()) + PACE;
            sleep(due.saturating_duration_since(Instant::now() + BURST)).await;
        }
    }
}

impl Place {
    fn new(id: String, fields: &HashMap<String, String>) -> Self {
        Self { id, number: fields.get("n").and_then(|number| number.parse().ok()) }
    }
}

impl Shared {
    /// The place before the first change that was written since a time, by Redis' clock: at most as much earlier as it takes
    /// to ask for it.
    async fn place_at(&self, since: Instant) -> Place {
        let mut backoff = Backoff::default();
        loop {
            let time = async |connection: &mut MultiplexedConnection| {
                redis::cmd("TIME").query_async::<(u64, u64)>(connection).await
            };
            match self.commands.run(time).await {
                Ok((seconds, micros)) => {
                    let now = Duration::from_secs(seconds) + Duration::from_micros(micros);
                    let then = now.saturating_sub(since.elapsed()).as_millis();
                    return Place { id: format!("{}-0", then.saturating_sub(1)), number: None };
                }
                Err(error) => {
                    tracing::debug!(%error, "Redis cannot be asked for the time");
                    sleep(backoff.next()).await;
                }
            }
        }
    }

    /// The newest change.
    pub(super) async fn newest_change(&self, connection: &mut MultiplexedConnection) -> RedisResult<Place> {
        let newest = redis::cmd("XREVRANGE")
            .arg(&self.keys.changes)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1)
            .query_async::<Vec<StreamEntry>>(connection)
            .await?;
        let newest = newest.into_iter().next().map(|(id, fields)| Place::new(id, &fields));
        Ok(newest.unwrap_or_else(|| Place { id: "0-0".to_owned(), number: Some(0) }))
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn place(number: u64) -> Place {
        Place { id: format!("{number}-0"), number: Some(number) }
    }

    fn behind(number: u64) -> (Start, bool) {
        (Start::Behind(place(number)), false)
    }

    #[tokio::test]
    async fn a_listener_begins_behind_what_its_node_had_word_of() {
        let changes = Changes::default();
        assert!(changes.begun().now_or_never().is_none(), "nobody listens");
        changes.learn(place(3));
        let first = changes.listen();
        changes.learn(place(5));
        let second = changes.listen();
        assert_eq!(changes.begun().await, behind(3));
        assert!(changes.begun().now_or_never().is_none(), "there is one reader");
        drop(first);
        assert!(!changes.end_unless_heard());
        drop(second);
        assert!(changes.end_unless_heard());
        changes.learn(place(6));
        let third = changes.listen();
        assert_eq!(changes.begun().await, behind(6));
        drop(third);
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_from_before_the_first_word_begins_when_it_came() {
        let (changes, came) = (Changes::default(), Instant::now());
        let listener = changes.listen();
        sleep(Duration::from_secs(1)).await;
        // Others may have written these since.
        changes.learn(place(5));
        assert_eq!(changes.begun().await, (Start::Since(came), false));
        drop(listener);
    }
}

//! [`PresenceWatch`]: the stream of presence changes for the sessions in the topic `presence`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_core::stream::BoxStream;
use tokio::sync::Notify;

use super::PresenceEvent;

/// Stream of presence changes for the sessions in the topic `presence`. It is read only while there are such sessions.
///
/// The stream begins when a session enters the topic, within the same call, so that no change is missed between the
/// two.
#[derive(Default)]
pub(crate) struct PresenceWatch {
    stage: Mutex<Stage>,
    begun: Notify,
}

#[derive(Default)]
enum Stage {
    /// There are no listeners.
    #[default]
    Idle,
    /// A session has entered the topic, and the announcer has not taken the stream yet.
    Begun(BoxStream<'static, PresenceEvent>),
    /// The announcer reads the stream.
    Reading,
}

impl PresenceWatch {
    /// Notes that a session has entered the topic. `changes` creates the stream unless there is one.
    pub(crate) fn begin(&self, changes: impl FnOnce() -> BoxStream<'static, PresenceEvent>) {
        let mut stage = self.stage();
        if matches!(*stage, Stage::Idle) {
            *stage = Stage::Begun(changes());
            self.begun.notify_one();
        }
    }

    /// Waits for a session to enter the topic and returns the changes from then on.
    pub(crate) async fn begun(&self) -> BoxStream<'static, PresenceEvent> {
        loop {
            {
                let mut stage = self.stage();
                match std::mem::replace(&mut *stage, Stage::Reading) {
                    Stage::Begun(changes) => return changes,
                    other => *stage = other,
                }
            }
            self.begun.notified().await;
        }
    }

    /// Stops reading unless a session is in the topic. Returns `true` if reading has stopped.
    pub(crate) fn end_unless(&self, is_watched: impl FnOnce() -> bool) -> bool {
        // Under the lock, so that a session that enters the topic concurrently starts a new stream.
        let mut stage = self.stage();
        let ends = !is_watched();
        if ends {
            *stage = Stage::Idle;
        }
        ends
    }

    /// Returns `true` if the reader was dropped without stopping, so that the stream is no longer read, and resets the
    /// state.
    pub(crate) fn was_broken_off(&self) -> bool {
        let mut stage = self.stage();
        let broken_off = matches!(*stage, Stage::Reading);
        if broken_off {
            *stage = Stage::Idle;
        }
        broken_off
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{StreamExt, stream};
    use tokio::time::timeout;

    use super::*;

    fn one() -> BoxStream<'static, PresenceEvent> {
        stream::iter([PresenceEvent::Gap]).boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_one_stream_while_a_session_watches() {
        let watch = PresenceWatch::default();
        watch.begin(one);
        watch.begin(|| panic!("there is one"));
        assert_eq!(watch.begun().await.next().await, Some(PresenceEvent::Gap));
        watch.begin(|| panic!("it is being read"));
        assert!(!watch.end_unless(|| true));
        assert!(watch.end_unless(|| false));
        timeout(Duration::from_secs(1), watch.begun()).await.map(drop).unwrap_err();
        watch.begin(one);
        drop(watch.begun().await);
    }
}

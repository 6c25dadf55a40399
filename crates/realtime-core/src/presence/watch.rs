//! [`PresenceWatch`]: the changes of presence on their way to the sessions that are in the topic `presence`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_core::stream::BoxStream;
use tokio::sync::Notify;

use super::PresenceEvent;

/// The changes of presence on their way to the sessions that are in the topic `presence`, read only while there are
/// any.
///
/// The stream begins when a session enters the topic, in the call that enters it, so that nothing is missing between
/// the two.
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
    /// A session has entered the topic; the announcer has yet to take the stream.
    Begun(BoxStream<'static, PresenceEvent>),
    /// The announcer reads.
    Reading,
}

impl PresenceWatch {
    /// A session has entered the topic: `changes` makes the stream unless there is one.
    pub(crate) fn begin(&self, changes: impl FnOnce() -> BoxStream<'static, PresenceEvent>) {
        let mut stage = self.stage();
        if matches!(*stage, Stage::Idle) {
            *stage = Stage::Begun(changes());
            self.begun.notify_one();
        }
    }

    /// Waits for a session to enter the topic; the changes from then on.
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

    /// Ends the reading unless a session is in the topic. Returns whether it has ended.
    pub(crate) fn end_unless(&self, is_watched: impl FnOnce() -> bool) -> bool {
        // Under the lock: whoever enters the topic meanwhile begins anew.
        let mut stage = self.stage();
        let ends = !is_watched();
        if ends {
            *stage = Stage::Idle;
        }
        ends
    }

    /// Whether a reader has gone without ending the reading. Nobody reads then.
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
    async fn there_is_one_stream_while_somebody_watches() {
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

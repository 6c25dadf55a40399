//! [`RotatingKeys`]: a set of keys that is read again and again.

use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{PublicKeyAlgorithm, key_set::KeySet, source::JwkSource};

/// Keys of a JSON Web Key Set (RFC 7517) that its issuer exchanges from time to time.
///
/// The set is read at once, then at an interval, and when a token names a key that is not known (or, as long as the set has
/// never been read, names none), though not more often than every [`Self::cooldown`]. A key that has left the set admits no
/// further login from then on, also of tokens that were verified before; sessions that are open go on to the end of their
/// tokens. While the set cannot be read, the keys of the last time hold, which is said in the log each time.
///
/// A clone is the same set. The last one ends the reading.
#[derive(Clone)]
pub struct RotatingKeys(Arc<Rotation>);

struct Rotation {
    shared: Arc<Shared>,
    reading: JoinHandle<()>,
}

struct Shared {
    source: Arc<dyn JwkSource>,
    options: Options,
    /// `None` until the set has been read once.
    keys: RwLock<Option<Arc<KeySet>>>,
    phase: watch::Sender<Phase>,
    asked: Notify,
}

#[derive(Clone)]
struct Options {
    interval: Duration,
    cooldown: Duration,
    algorithms: Option<Vec<PublicKeyAlgorithm>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The set is being read, or about to be.
    Reading,
    /// It was read or could not be, and may be asked for again from then on.
    Idle { again: Instant, failed: bool },
}

/// Keys after a question for one that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The set is as new as it can be.
    Current,
    /// The set could not be read.
    Failed,
}

/// Time of a read at most, and of a handshake's wait for one.
const READ: Duration = Duration::from_secs(10);

/// Pause before another attempt, where the interval is not shorter.
const RETRY: Duration = Duration::from_secs(15);

/// Builder of [`RotatingKeys`].
#[derive(Debug)]
pub struct RotatingKeysBuilder {
    source: Arc<dyn JwkSource>,
    interval: Duration,
    cooldown: Duration,
    algorithms: Option<Vec<PublicKeyAlgorithm>>,
}

impl RotatingKeys {
    /// Returns a builder for a set from this source, with an interval of five minutes and a cooldown of ten seconds.
    pub fn builder(source: impl JwkSource) -> RotatingKeysBuilder {
        RotatingKeysBuilder {
            source: Arc::new(source),
            interval: Duration::from_secs(300),
            cooldown: Duration::from_secs(10),
            algorithms: None,
        }
    }

    /// The ids of the keys that hold now.
    pub fn ids(&self) -> Vec<String> {
        self.keys().iter().flat_map(|keys| keys.names()).map(str::to_owned).collect()
    }

    /// Pause between two reads that tokens with unknown keys have caused.
    pub fn cooldown(&self) -> Duration {
        self.0.shared.options.cooldown
    }

    /// Waits until the set has been read once, or could not be.
    pub async fn settled(&self) {
        self.0.shared.settled().await;
    }

    /// The keys that hold now; `None` before the set has been read once.
    pub(super) fn keys(&self) -> Option<Arc<KeySet>> {
        self.0.shared.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the set again unless that was done just now, and waits for it.
    pub(super) async fn ask(&self) -> Answer {
        self.0.shared.ask().await
    }
}

impl RotatingKeysBuilder {
    /// Sets the interval between two reads.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets the pause between two reads that tokens with unknown keys cause: anybody can make such tokens.
    #[must_use]
    pub fn cooldown(mut self, cooldown: Duration) -> Self {
        self.cooldown = cooldown;
        self
    }

    /// Accepts these algorithms only. Without it, those that a key names, or all of its kind.
    #[must_use]
    pub fn only(mut self, algorithms: impl IntoIterator<Item = PublicKeyAlgorithm>) -> Self {
        self.algorithms = Some(algorithms.into_iter().collect());
        self
    }

    /// Starts to read the set.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(self) -> RotatingKeys {
        let Self { source, interval, cooldown, algorithms } = self;
        let shared = Arc::new(Shared {
            source,
            options: Options { interval, cooldown, algorithms },
            keys: RwLock::default(),
            phase: watch::Sender::new(Phase::Reading),
            asked: Notify::new(),
        });
        let reading = tokio::spawn(read_forever(Arc::clone(&shared)));
        RotatingKeys(Arc::new(Rotation { shared, reading }))
    }
}

impl Drop for Rotation {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn read_forever(shared: Arc<Shared>) {
    let Options { interval, cooldown, .. } = shared.options;
    loop {
        shared.phase.send_replace(Phase::Reading);
        // A source is an application's: if it panics, the set is read again all the same.
        let read = AssertUnwindSafe(shared.read()).catch_unwind().await;
        let failed = !read.unwrap_or_else(|_| shared.failed("reading it has panicked"));
        let now = Instant::now();
        let later = |pause| now.checked_add(pause);
        let next = later(if failed { interval.min(RETRY) } else { interval });
        shared.phase.send_replace(Phase::Idle { again: later(cooldown).unwrap_or(now), failed });
        let timer = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        // An earlier question may have left a permit.
        let asked = async {
            while *shared.phase.borrow() != Phase::Reading {
                shared.asked.notified().await;
            }
        };
        tokio::select! {
            () = timer => {}
            () = asked => {}
        }
    }
}

impl Shared {
    /// Reads the set. Returns `false` if that failed.
    async fn read(&self) -> bool {
        let json = match timeout(READ, self.source.read()).await {
            Ok(Ok(json)) => json,
            Ok(Err(error)) => return self.failed(&error.0),
            Err(_) => return self.failed("no answer in time"),
        };
        let new = match KeySet::parse(&json, self.options.algorithms.as_deref()) {
            Ok(new) => new,
            Err(error) => return self.failed(&error.to_string()),
        };
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.as_ref().is_none_or(|keys| keys.keys() != new.keys()) {
            let from = keys.as_ref().map(|keys| keys.names()).unwrap_or_default();
            tracing::info!(?from, to = ?new.names(), "the keys of logins have changed");
            if new.keys().is_empty() {
                tracing::warn!(source = ?self.source, "the JSON Web Key Set has no key that can be used");
            }
            *keys = Some(Arc::new(new));
        }
        true
    }

    fn failed(&self, problem: &str) -> bool {
        let held = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let kept = held.as_ref().map_or(0, |keys| keys.keys().len());
        tracing::warn!(problem, kept, "the JSON Web Key Set cannot be read; the keys of the last time hold");
        false
    }

    async fn settled(&self) -> Answer {
        let mut phase = self.phase.subscribe();
        let idle = phase.wait_for(|phase| *phase != Phase::Reading);
        match timeout(READ, idle).await {
            Ok(Ok(phase)) => match *phase {
                Phase::Idle { failed: false, .. } => Answer::Current,
                _ => Answer::Failed,
            },
            _ => Answer::Failed,
        }
    }

    async fn ask(&self) -> Answer {
        let mut begun = false;
        self.phase.send_if_modified(|phase| {
            if let Phase::Idle { again, .. } = *phase
                && again <= Instant::now()
            {
                *phase = Phase::Reading;
                begun = true;
            }
            begun
        });
        if begun {
            self.asked.notify_one();
        }
        self.settled().await
    }
}

impl fmt::Debug for RotatingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RotatingKeys")
            .field("source", &self.0.shared.source)
            .field("keys", &self.ids())
            .finish_non_exhaustive()
    }
}

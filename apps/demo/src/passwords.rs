//! [`Passwords`]: compares passwords with their hashes, a few at once.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, available_parallelism},
    time::Duration,
};

use actix_web::http::StatusCode;
use argon2::{Algorithm, Argon2, Block, Params, PasswordHash, Version};
use subtle::ConstantTimeEq;
use tokio::{sync::oneshot, time::timeout};

use crate::api_error::ApiError;

/// Threads that compare passwords, started at the first login.
///
/// A comparison takes the memory that its hash asks for (8 MiB and more), and the allocator keeps it: on the runtime's
/// pool of blocking threads some hundred logins in one moment would take gigabytes for good. So each thread here has one
/// piece of memory, which it uses again.
#[derive(Default)]
pub(crate) struct Passwords(OnceLock<SyncSender<Comparison>>);

struct Comparison {
    password: String,
    hash: PasswordHash,
    equal: oneshot::Sender<bool>,
}

/// The most threads, however many cores there are.
const MOST_THREADS: usize = 4;

/// Logins that wait for their turn; more are refused at once.
const QUEUE: usize = 1024;

/// Time that a login waits for a free thread.
const PATIENCE: Duration = Duration::from_secs(10);

impl Passwords {
    /// Checks a password against a hash.
    pub(crate) async fn verify(&self, password: String, hash: PasswordHash) -> Result<bool, ApiError> {
        let busy = || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many logins at once; try again");
        let (equal, answer) = oneshot::channel();
        let queue = self.0.get_or_init(start);
        queue.try_send(Comparison { password, hash, equal }).map_err(|_| busy())?;
        timeout(PATIENCE, answer).await.ok().and_then(Result::ok).ok_or_else(busy)
    }
}

fn start() -> SyncSender<Comparison> {
    let (queue, comparisons) = sync_channel(QUEUE);
    let comparisons = Arc::new(Mutex::new(comparisons));
    for _ in 0..available_parallelism().map_or(1, usize::from).min(MOST_THREADS) {
        let comparisons = Arc::clone(&comparisons);
        let thread = thread::Builder::new().name("passwords".to_owned()).spawn(move || compare(&comparisons));
        if let Err(error) = thread {
            tracing::error!(%error, "no thread to compare passwords");
        }
    }
    queue
}

fn compare(comparisons: &Mutex<Receiver<Comparison>>) {
    let mut memory = Vec::new();
    loop {
        let next = comparisons.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Comparison { password, hash, equal }) = next else { return };
        // A login that timed out is skipped.
        if !equal.is_closed() {
            let verified = catch_unwind(AssertUnwindSafe(|| verify(&password, &hash, &mut memory)));
            if let Ok(verified) = verified {
                equal.send(verified.unwrap_or(false)).ok();
            }
        }
    }
}

/// The comparison of `PasswordVerifier`, in reused memory. An incomplete hash matches nothing.
fn verify(password: &str, hash: &PasswordHash, memory: &mut Vec<Block>) -> Option<bool> {
    let params = Params::try_from(hash).ok()?;
    let algorithm = Algorithm::new(hash.algorithm).ok()?;
    let version = hash.version.map_or(Ok(Version::default()), Version::try_from).ok()?;
    let (salt, expected) = (hash.salt?, hash.hash?);
    memory.resize(params.block_count().max(memory.len()), Block::default());
    let mut output = vec![0; expected.len()];
    Argon2::new(algorithm, version, params)
        .hash_password_into_with_memory(password.as_bytes(), &salt, &mut output, memory)
        .ok()?;
    // Takes the same time wherever they differ.
    Some(expected.as_bytes().ct_eq(&output).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_used_before_changes_no_answer() {
        let small = "$argon2id$v=19$m=8192,t=2,p=1$KOepo+H+GDh0flcOAW7y4A$89E53bDvRgg+u9ttc8nEq3X6IMzs8w+A9rY6f1HA54Q";
        let hash = PasswordHash::new(small).unwrap();
        let mut memory = vec![Block::default(); 3 * 8192];
        for (password, equal) in [("demo", true), ("demo ", false), ("", false), ("demo", true)] {
            assert_eq!(verify(password, &hash, &mut memory), Some(equal), "{password:?}");
        }
        let incomplete = PasswordHash::new("$argon2id$v=19$m=8192,t=2,p=1$KOepo+H+GDh0flcOAW7y4A").unwrap();
        assert_eq!(verify("demo", &incomplete, &mut memory), None);
    }
}

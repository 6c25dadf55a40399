//! [`Passwords`]: compares passwords with their hashes, a few at once.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::available_parallelism,
    time::Duration,
};

use actix_web::{http::StatusCode, web};
use argon2::{Algorithm, Argon2, Block, Params, PasswordHash, Version};
use subtle::ConstantTimeEq;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::api_error::ApiError;

/// Comparisons of passwords, a few of them at once.
///
/// A comparison takes the memory that its hash asks for (8 MiB and more), and the allocator keeps it: some hundred
/// logins in one moment would take gigabytes for good. So those at work are bounded, and each has a piece of memory that
/// was used before.
pub(crate) struct Passwords {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    memory: Arc<Mutex<Vec<Vec<Block>>>>,
}

/// Permission for one comparison.
pub(crate) struct Turn {
    permit: OwnedSemaphorePermit,
    memory: Arc<Mutex<Vec<Vec<Block>>>>,
}

/// The most comparisons at once. Half the cores are left to everything else.
const MOST_AT_ONCE: usize = 4;

/// Logins that wait for their turn; more are refused at once.
const MOST_WAITING: usize = 1024;

/// Time that a login waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);

impl Default for Passwords {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            turns: Arc::new(Semaphore::new((cores / 2).clamp(1, MOST_AT_ONCE))),
            waiting: AtomicUsize::new(0),
            memory: Arc::default(),
        }
    }
}

/// A login that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Passwords {
    /// Waits for a turn; a login that would wait too long is refused with 429.
    pub(crate) async fn turn(&self) -> Result<Turn, ApiError> {
        let busy = || ApiError::too_many("too many logins at once", Duration::from_secs(1));
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        if before >= MOST_WAITING {
            return Err(busy());
        }
        let permit =
            timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await.ok().and_then(Result::ok);
        drop(waiting);
        Ok(Turn { permit: permit.ok_or_else(busy)?, memory: Arc::clone(&self.memory) })
    }
}

impl Turn {
    /// Checks a password against a hash.
    pub(crate) async fn verify(self, password: String, hash: PasswordHash) -> Result<bool, ApiError> {
        let Self { permit, memory } = self;
        let verified = web::block(move || {
            // Held by the thread, which goes on when the client has left.
            let _permit = permit;
            let pool = || memory.lock().unwrap_or_else(PoisonError::into_inner);
            let mut blocks = pool().pop().unwrap_or_default();
            let verified = verify(&password, &hash, &mut blocks);
            pool().push(blocks);
            verified.unwrap_or(false)
        });
        let failed = |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the password was not compared");
        verified.await.map_err(failed)
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

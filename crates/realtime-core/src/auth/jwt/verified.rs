//! [`VerifiedTokens`]: a cache of valid tokens.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::times::check_times;
use crate::{
    Principal,
    auth::{AuthError, TokenHash},
};

/// Bounded cache of the logins of valid tokens, by token hash. The least recently used ones are dropped.
#[derive(Default)]
pub(super) struct VerifiedTokens(Mutex<Generations>);

/// Login of a valid token.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) principal: Principal,
    pub(super) expires_at: SystemTime,
    pub(super) nbf: Option<f64>,
}

/// Two generations: when the newer one is full, it replaces the older one.
#[derive(Default)]
struct Generations {
    newer: HashMap<TokenHash, Login>,
    older: HashMap<TokenHash, Login>,
}

/// Tokens of one generation.
const TOKENS: usize = 1792;

impl Login {
    /// Rejects a token that is not valid yet or has expired.
    pub(super) fn check_times(&self) -> Result<(), AuthError> {
        check_times(self.expires_at, self.nbf)
    }
}

impl VerifiedTokens {
    /// The login of the token with this hash.
    pub(super) fn find(&self, token: TokenHash) -> Option<Login> {
        let mut generations = self.lock();
        if let Some(login) = generations.newer.get(&token) {
            return Some(login.clone());
        }
        let login = generations.older.remove(&token)?;
        generations.insert(token, login.clone());
        Some(login)
    }

    /// Stores the login of a valid token.
    pub(super) fn insert(&self, token: TokenHash, login: Login) {
        self.lock().insert(token, login);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let generations = self.lock();
        generations.newer.len() + generations.older.len()
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn insert(&mut self, token: TokenHash, login: Login) {
        if self.newer.len() >= TOKENS {
            mem::swap(&mut self.older, &mut self.newer);
            self.newer.clear();
        }
        self.newer.insert(token, login);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_a_bound_and_those_that_are_shown_are_kept() {
        let verified = VerifiedTokens::default();
        let login = |token: &str| Login {
            principal: Principal::new(1.into(), token),
            expires_at: SystemTime::UNIX_EPOCH,
            nbf: None,
        };
        let insert = |token: &str| verified.insert(TokenHash::of(token), login(token));
        insert("shown");
        insert("forgotten");
        for n in 0..4 * TOKENS {
            insert(&n.to_string());
            assert!(verified.find(TokenHash::of("shown")).is_some());
        }
        assert!(verified.len() <= 2 * TOKENS, "{}", verified.len());
        assert!(verified.find(TokenHash::of("forgotten")).is_none());
    }
}

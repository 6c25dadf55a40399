//! [`VerifiedTokens`]: a cache of valid tokens.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::times::check_times;
use crate::{
    Principal,
    auth::{AuthError, TokenHash},
};

/// Bounded cache of the logins of valid tokens, by token hash and what was required of the token. The least recently used
/// ones are dropped.
#[derive(Default)]
pub(super) struct VerifiedTokens(Mutex<Generations>);

/// Login of a valid token.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) principal: Principal,
    pub(super) expires_at: SystemTime,
    pub(super) nbf: Option<f64>,
}

/// Issuer and audience that a token has to name; authenticators with the same keys may require different ones.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Required {
    pub(super) issuer: Option<Arc<str>>,
    pub(super) audience: Option<Arc<str>>,
}

/// Two generations: when the newer one is full, it replaces the older one.
#[derive(Default)]
struct Generations {
    newer: HashMap<Key, Login>,
    older: HashMap<Key, Login>,
}

type Key = (TokenHash, Required);

/// Tokens of one generation.
const TOKENS: usize = 1792;

impl Login {
    /// Rejects a token that is not valid yet or has expired.
    pub(super) fn check_times(&self) -> Result<(), AuthError> {
        check_times(self.expires_at, self.nbf)
    }
}

impl VerifiedTokens {
    /// The login of the token with this hash, if it names what is required.
    pub(super) fn find(&self, token: TokenHash, required: &Required) -> Option<Login> {
        let key = (token, required.clone());
        let mut generations = self.lock();
        if let Some(login) = generations.newer.get(&key) {
            return Some(login.clone());
        }
        let login = generations.older.remove(&key)?;
        generations.insert(key, login.clone());
        Some(login)
    }

    /// Stores the login of a valid token that names what is required.
    pub(super) fn insert(&self, token: TokenHash, required: &Required, login: Login) {
        self.lock().insert((token, required.clone()), login);
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
    fn insert(&mut self, key: Key, login: Login) {
        if self.newer.len() >= TOKENS {
            mem::swap(&mut self.older, &mut self.newer);
            self.newer.clear();
        }
        self.newer.insert(key, login);
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
        let insert = |token: &str| verified.insert(TokenHash::of(token), &Required::default(), login(token));
        let find = |token: &str| verified.find(TokenHash::of(token), &Required::default());
        insert("shown");
        insert("forgotten");
        for n in 0..4 * TOKENS {
            insert(&n.to_string());
            assert!(find("shown").is_some());
        }
        assert!(verified.len() <= 2 * TOKENS, "{}", verified.len());
        assert!(find("forgotten").is_none());
    }
}

//! [`Refusals`]: tokens that were kicked and must not come back.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use crate::TokenHash;

/// The hashes of kicked tokens, each kept until its token would have expired anyway.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    until: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tokens: HashMap<TokenHash, Option<SystemTime>>,
    prune_at: usize,
}

impl Refusals {
    /// Refuses a token from now on. Without an end it is refused for as long as this process lives.
    pub(crate) fn refuse(&self, token: TokenHash, expires_at: Option<SystemTime>) {
        let mut state = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if state.tokens.len() >= state.prune_at {
            let now = SystemTime::now();
            state.tokens.retain(|_, end| end.is_none_or(|end| end > now));
            state.prune_at = (state.tokens.len() * 2).max(1024);
        }
        state.tokens.insert(token, expires_at);
    }

    /// Whether the token is refused.
    pub(crate) fn refuses(&self, token: &TokenHash) -> bool {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).tokens.contains_key(token)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn expired_refusals_are_forgotten_and_live_ones_are_kept() {
        let refusals = Refusals::default();
        let past = SystemTime::now() - Duration::from_secs(1);
        refusals.refuse(TokenHash::of("kept"), None);
        for n in 0..3000 {
            refusals.refuse(TokenHash::of(&n.to_string()), Some(past));
        }
        assert!(refusals.refuses(&TokenHash::of("kept")));
        assert!(refusals.until.lock().unwrap().tokens.len() < 2000);
    }
}

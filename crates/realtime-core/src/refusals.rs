//! [`Refusals`]: tokens that were kicked and must not come back.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use crate::{Principal, TokenHash, UserId};

/// The hashes of kicked tokens, each kept until its token would have expired anyway.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    until: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tokens: HashMap<TokenHash, Option<SystemTime>>,
    /// Tokens of these users that were issued earlier are refused.
    users: HashMap<UserId, SystemTime>,
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

    /// Refuses a user's tokens that were issued before a time, or do not say when.
    pub(crate) fn refuse_before(&self, user: UserId, issued: SystemTime) {
        let mut state = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.users.entry(user).or_insert(issued);
        *before = issued.max(*before);
    }

    /// Whether the login is refused.
    pub(crate) fn refuses(&self, principal: &Principal) -> bool {
        let state = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.users.get(&principal.user);
        state.tokens.contains_key(&principal.token)
            || before.is_some_and(|before| principal.issued_at.is_none_or(|issued| issued < *before))
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
        assert!(refusals.refuses(&Principal::new(1.into(), "kept")));
        assert!(!refusals.refuses(&Principal::new(1.into(), "another")));
        assert!(refusals.until.lock().unwrap().tokens.len() < 2000);
    }

    #[test]
    fn only_older_tokens_of_the_user_are_refused() {
        let refusals = Refusals::default();
        let now = SystemTime::now();
        refusals.refuse_before(1.into(), now);
        refusals.refuse_before(1.into(), now - Duration::from_secs(9));
        let issued = |user: i64, issued_at| Principal { issued_at, ..Principal::new(user.into(), "t") };
        assert!(refusals.refuses(&issued(1, Some(now - Duration::from_secs(1)))));
        assert!(refusals.refuses(&issued(1, None)));
        assert!(!refusals.refuses(&issued(1, Some(now))));
        assert!(!refusals.refuses(&issued(2, None)));
    }
}

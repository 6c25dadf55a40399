//! [`RevocationList`]: logins that were kicked or revoked.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    CloseReason, Principal, UserId,
    auth::TokenHash,
    control::{Revocation, RevokedToken},
};

/// The hashes of refused tokens, each kept until its token would have expired anyway, and the users whose older tokens
/// are refused.
#[derive(Debug, Default)]
pub(crate) struct RevocationList {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Tokens that are refused for every user.
    tokens: HashMap<TokenHash, End>,
    users: HashMap<UserId, OfUser>,
    /// Number of entries at which expired ones are removed.
    prune_at: usize,
    added: usize,
}

/// Expiry of a token; `None`: never.
type End = Option<SystemTime>;

#[derive(Debug, Default)]
struct OfUser {
    /// Tokens that are refused for this user only: other users may share a token.
    tokens: HashMap<TokenHash, Kicked>,
    /// Tokens that were issued before this time are refused.
    issued_before: Option<SystemTime>,
}

#[derive(Debug)]
struct Kicked {
    until: End,
    /// A session of this node had the token, so this node has to send the refusal to the others.
    own: bool,
}

impl RevocationList {
    /// Refuses a token from now on, for one user or for all. Returns `true` if it was not refused before.
    pub(crate) fn revoke(&self, user: Option<&UserId>, token: TokenHash, until: End) -> bool {
        let mut state = self.lock();
        match user {
            Some(user) => state.revoke_of(user, token, until, false),
            None => {
                state.make_room();
                let known = state.tokens.get(&token).copied();
                state.tokens.insert(token, known.map_or(until, |known| later(known, until)));
                known.is_none()
            }
        }
    }

    /// Refuses a token of a session of this node.
    pub(crate) fn revoke_own(&self, user: &UserId, token: TokenHash, until: End) {
        self.lock().revoke_of(user, token, until, true);
    }

    /// Refuses a user's tokens that were issued before a time or have no time of issue. Returns `true` if that refuses
    /// more than before.
    pub(crate) fn revoke_before(&self, user: &UserId, issued: SystemTime) -> bool {
        let issued = whole_seconds(issued);
        let mut state = self.lock();
        state.make_room();
        let before = &mut state.users.entry(user.clone()).or_default().issued_before;
        let news = before.is_none_or(|before| before < issued);
        if news {
            *before = Some(issued);
        }
        news
    }

    /// Returns `true` if the login is refused.
    pub(crate) fn is_revoked(&self, principal: &Principal) -> bool {
        self.reason(principal).is_some()
    }

    /// Close reason of a refused login's sessions.
    pub(crate) fn reason(&self, principal: &Principal) -> Option<CloseReason> {
        let state = self.lock();
        let of_user = state.users.get(&principal.user);
        if of_user.is_some_and(|of_user| of_user.tokens.contains_key(&principal.token)) {
            Some(CloseReason::Kicked)
        } else if state.tokens.contains_key(&principal.token)
            || of_user.is_some_and(|of_user| of_user.is_too_old(principal))
        {
            Some(CloseReason::Revoked)
        } else {
            None
        }
    }

    /// Returns `true` if the login is refused because of its time of issue.
    pub(crate) fn is_too_old(&self, principal: &Principal) -> bool {
        self.lock().users.get(&principal.user).is_some_and(|of_user| of_user.is_too_old(principal))
    }

    /// The refused tokens of a user's sessions on this node.
    pub(crate) fn own_of(&self, user: &UserId) -> Vec<RevokedToken> {
        let state = self.lock();
        let tokens = state.users.get(user).into_iter().flat_map(|of_user| &of_user.tokens);
        let own = tokens.filter(|(_, kicked)| kicked.own && !has_ended(kicked.until));
        own.map(|(token, kicked)| RevokedToken { token: *token, until: kicked.until }).collect()
    }

    /// All revocations.
    pub(crate) fn all(&self) -> Vec<Revocation> {
        let mut state = self.lock();
        state.prune();
        let of_anybody = state.tokens.iter().map(|(token, until)| Revocation::Token {
            user: None,
            token: RevokedToken { token: *token, until: *until },
        });
        let of_users = state.users.iter().flat_map(|(user, of_user)| {
            let tokens = of_user.tokens.iter().map(|(token, kicked)| Revocation::Token {
                user: Some(user.clone()),
                token: RevokedToken { token: *token, until: kicked.until },
            });
            let before =
                of_user.issued_before.map(|time| Revocation::IssuedBefore { user: user.clone(), time });
            tokens.chain(before)
        });
        of_anybody.chain(of_users).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn revoke_of(&mut self, user: &UserId, token: TokenHash, until: End, own: bool) -> bool {
        self.make_room();
        let tokens = &mut self.users.entry(user.clone()).or_default().tokens;
        match tokens.get_mut(&token) {
            Some(kicked) => {
                kicked.until = later(kicked.until, until);
                kicked.own |= own;
                false
            }
            None => {
                tokens.insert(token, Kicked { until, own });
                true
            }
        }
    }

    /// Removes expired entries once as many have been added as there were before.
    fn make_room(&mut self) {
        self.added += 1;
        if self.added >= self.prune_at {
            self.prune();
            let kept = self.tokens.len() + self.users.values().map(|of| of.tokens.len() + 1).sum::<usize>();
            self.prune_at = kept.max(1024);
            self.added = 0;
        }
    }

    fn prune(&mut self) {
        self.tokens.retain(|_, until| !has_ended(*until));
        let oldest = SystemTime::now().checked_sub(Revocation::LONGEST).unwrap_or(UNIX_EPOCH);
        self.users.retain(|_, of_user| {
            of_user.tokens.retain(|_, kicked| !has_ended(kicked.until));
            of_user.issued_before = of_user.issued_before.filter(|before| *before > oldest);
            !of_user.tokens.is_empty() || of_user.issued_before.is_some()
        });
    }
}

impl OfUser {
    fn is_too_old(&self, principal: &Principal) -> bool {
        self.issued_before
            .is_some_and(|before| principal.issued_at.is_none_or(|issued| whole_seconds(issued) < before))
    }
}

fn has_ended(until: End) -> bool {
    until.is_some_and(|end| end <= SystemTime::now())
}

fn later(a: End, b: End) -> End {
    Some(a?.max(b?))
}

/// Truncates a time to seconds, the resolution of tokens' times of issue and of commands.
pub(crate) fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: i64, token: &str) -> Principal {
        Principal::new(user.into(), token)
    }

    #[test]
    fn expired_revocations_are_forgotten_and_live_ones_are_kept() {
        let revoked = RevocationList::default();
        let past = SystemTime::now() - Duration::from_secs(1);
        let long_ago = SystemTime::now() - Revocation::LONGEST * 2;
        revoked.revoke(None, TokenHash::of("kept"), None);
        revoked.revoke(Some(&1.into()), TokenHash::of("kept too"), None);
        for n in 0..3000 {
            revoked.revoke(None, TokenHash::of(&n.to_string()), Some(past));
            revoked.revoke(Some(&n.into()), TokenHash::of("t"), Some(past));
            revoked.revoke_before(&n.into(), long_ago);
        }
        assert!(revoked.is_revoked(&login(1, "kept")));
        assert!(revoked.is_revoked(&login(1, "kept too")));
        assert!(!revoked.is_revoked(&login(1, "another")));
        let state = revoked.state.lock().unwrap();
        assert!(state.tokens.len() < 2000, "{}", state.tokens.len());
        assert!(state.users.len() < 2000, "{}", state.users.len());
    }

    #[test]
    fn only_older_tokens_of_the_user_are_refused() {
        let revoked = RevocationList::default();
        let now = SystemTime::now();
        revoked.revoke_before(&1.into(), now);
        revoked.revoke_before(&1.into(), now - Duration::from_secs(9));
        let issued = |user, issued_at| Principal { issued_at, ..login(user, "t") };
        assert!(revoked.is_revoked(&issued(1, Some(now - Duration::from_secs(1)))));
        assert!(revoked.is_revoked(&issued(1, None)));
        assert!(!revoked.is_revoked(&issued(1, Some(now))));
        assert!(!revoked.is_revoked(&issued(2, None)));
    }

    #[test]
    fn a_token_that_users_have_in_common_refuses_one_of_them() {
        let revoked = RevocationList::default();
        revoked.revoke_own(&1.into(), TokenHash::of("t"), None);
        assert!(revoked.is_revoked(&login(1, "t")));
        assert!(!revoked.is_revoked(&login(2, "t")));
        revoked.revoke(None, TokenHash::of("t"), None);
        assert_eq!(revoked.reason(&login(1, "t")), Some(CloseReason::Kicked));
        assert_eq!(revoked.reason(&login(2, "t")), Some(CloseReason::Revoked));
    }

    #[test]
    fn a_nodes_own_tokens_are_kept_to_be_sent_again_and_a_refusal_is_never_shortened() {
        let revoked = RevocationList::default();
        let user: UserId = 1.into();
        let soon = Some(SystemTime::now() + Duration::from_secs(60));
        revoked.revoke_own(&user, TokenHash::of("own"), None);
        assert!(revoked.revoke(Some(&user), TokenHash::of("another's"), soon));
        assert!(!revoked.revoke(Some(&user), TokenHash::of("own"), soon), "it is no news");
        assert_eq!(revoked.own_of(&user), [RevokedToken { token: TokenHash::of("own"), until: None }]);
        assert_eq!(revoked.all().len(), 2);
    }
}

//! The suite for [`Authenticator`].

use std::time::SystemTime;

use futures_util::future::join_all;

use super::{broken, check, within};
use crate::{
    Principal, UserId,
    auth::{AuthError, Authenticator, Handshake},
};

/// Handshakes of which an authenticator knows what to think.
#[derive(Debug, Clone, Default)]
pub struct Logins {
    accepted: Vec<(Handshake, UserId)>,
    refused: Vec<Handshake>,
}

impl Logins {
    /// No login yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a login of a user.
    #[must_use]
    pub fn accepted(mut self, handshake: Handshake, user: impl Into<UserId>) -> Self {
        self.accepted.push((handshake, user.into()));
        self
    }

    /// Adds a handshake that is none, for instance one without a token, with a bad signature, or one that has ended.
    #[must_use]
    pub fn refused(mut self, handshake: Handshake) -> Self {
        self.refused.push(handshake);
        self
    }
}

const ACCEPTED: &str = "a valid login is that of its user";
const STABLE: &str = "one login is the same principal each time";
const TIMES: &str = "a login that is accepted has not ended";
const REFUSED: &str = "a bad or missing login is `Unauthorized` or `Forbidden`";
const SECRET: &str = "no error shows a token";
const BOUNDED: &str = "an answer comes within a bounded time, to many at once, too";

/// Tests an authenticator against [its contract](Authenticator).
///
/// # Panics
/// With the clause that is broken, and when no login is to be accepted or none refused.
pub async fn authenticator_conforms(authenticator: &(impl Authenticator + ?Sized), logins: &Logins) {
    assert!(
        !logins.accepted.is_empty() && !logins.refused.is_empty(),
        "the suite needs logins of both kinds"
    );
    let ask = async |handshake| within(BOUNDED, "an answer", authenticator.authenticate(handshake)).await;
    for (handshake, user) in &logins.accepted {
        let principal = accepted(ask(handshake).await);
        check(ACCEPTED, principal.user == *user, || format!("user {} instead of {user}", principal.user));
        let again = accepted(ask(handshake).await);
        check(STABLE, login(&again) == login(&principal), || format!("{again:?} after {principal:?}"));
        let ended = principal.expires_at.is_some_and(|end| end <= SystemTime::now());
        check(TIMES, !ended, || format!("it ended at {:?}", principal.expires_at));
    }
    for handshake in &logins.refused {
        let error = match ask(handshake).await {
            Ok(principal) => broken(REFUSED, format_args!("it was accepted for user {}", principal.user)),
            Err(error) => error,
        };
        check(REFUSED, matches!(error, AuthError::Unauthorized(_) | AuthError::Forbidden(_)), || {
            format!("{error:?}")
        });
        if let Some(token) = handshake.token().filter(|token| !token.is_empty()) {
            let shown = [error.to_string(), format!("{error:?}"), error.answer().to_owned()];
            // The token is not shown here, either.
            check(SECRET, !shown.iter().any(|text| text.contains(token)), || {
                "the handshake's token is in it".into()
            });
        }
    }
    let many =
        (0..50).flat_map(|_| &logins.accepted).map(|(handshake, _)| authenticator.authenticate(handshake));
    for answer in within(BOUNDED, "an answer to each of many", join_all(many)).await {
        accepted(answer);
    }
}

fn accepted(answer: Result<Principal, AuthError>) -> Principal {
    answer.unwrap_or_else(|error| broken(ACCEPTED, format_args!("it was refused: {error}")))
}

/// Fields that distinguish logins.
fn login(principal: &Principal) -> impl PartialEq + use<'_> {
    let Principal { user, client_id, token, issued_at, expires_at, topics, .. } = principal;
    (user, client_id, *token, *issued_at, *expires_at, topics)
}

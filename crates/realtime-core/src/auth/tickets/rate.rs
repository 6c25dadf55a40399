//! [`TicketRate`]: a bound for the tickets of one login.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{UserId, auth::TokenHash};

/// Counts the tickets of each login on this node.
#[derive(Debug, Default)]
pub(crate) struct TicketRate(Mutex<Windows>);

#[derive(Debug, Default)]
struct Windows {
    /// Beginning of a login's window, and the tickets in it. Logins without a token are told apart by the user.
    logins: HashMap<(UserId, TokenHash), (Instant, u32)>,
    /// Number of logins at which those whose window has ended are forgotten.
    prune_at: usize,
}

/// Tickets of a login in a window: those of some pages, each with two connections that come back a few times.
const MOST: u32 = 60;
const WINDOW: Duration = Duration::from_secs(30);

impl TicketRate {
    /// Returns whether the login may have another ticket.
    pub(crate) fn allows(&self, user: &UserId, token: TokenHash) -> bool {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if windows.logins.len() >= windows.prune_at {
            windows.logins.retain(|_, (begin, _)| now - *begin < WINDOW);
            windows.prune_at = (2 * windows.logins.len()).max(1024);
        }
        let (begin, tickets) = windows.logins.entry((user.clone(), token)).or_insert((now, 0));
        if now - *begin >= WINDOW {
            (*begin, *tickets) = (now, 0);
        }
        *tickets += 1;
        *tickets <= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_login_has_so_many_tickets_in_a_window_and_others_have_theirs() {
        let rate = TicketRate::default();
        let allows = |user: i64, token: &str| rate.allows(&user.into(), TokenHash::of(token));
        assert_eq!((0..100).filter(|_| allows(1, "one")).count(), MOST as usize);
        assert!(allows(1, "other") && allows(2, "one"));
        tokio::time::advance(WINDOW).await;
        assert!(allows(1, "one"));
        for n in 0..5000 {
            assert!(allows(1, &n.to_string()));
        }
        tokio::time::advance(WINDOW).await;
        for n in 0..5000 {
            allows(1, &format!("later {n}"));
        }
        assert!(rate.0.lock().unwrap().logins.len() <= 10_100);
    }
}

//! [`TicketRate`]: a bound for the tickets of one login.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::auth::TokenHash;

/// Counts the tickets of each login on this node.
#[derive(Debug, Default)]
pub(crate) struct TicketRate(Mutex<Windows>);

#[derive(Debug, Default)]
struct Windows {
    /// Beginning of a login's window, and the tickets in it.
    logins: HashMap<TokenHash, (Instant, u32)>,
    /// Number of logins at which those whose window has ended are forgotten.
    prune_at: usize,
}

/// Tickets of a login in a window: those of some pages, each with two connections that come back a few times.
const MOST: u32 = 60;
const WINDOW: Duration = Duration::from_secs(30);

impl TicketRate {
    /// Returns whether the login may have another ticket.
    pub(crate) fn allows(&self, token: TokenHash) -> bool {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if windows.logins.len() >= windows.prune_at {
            windows.logins.retain(|_, (begin, _)| now - *begin < WINDOW);
            windows.prune_at = (2 * windows.logins.len()).max(1024);
        }
        let (begin, tickets) = windows.logins.entry(token).or_insert((now, 0));
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
        let (one, other) = (TokenHash::of("one"), TokenHash::of("other"));
        assert_eq!((0..100).filter(|_| rate.allows(one)).count(), MOST as usize);
        assert!(rate.allows(other));
        tokio::time::advance(WINDOW).await;
        assert!(rate.allows(one));
        for n in 0..5000 {
            assert!(rate.allows(TokenHash::of(&n.to_string())));
        }
        tokio::time::advance(WINDOW).await;
        for n in 0..5000 {
            rate.allows(TokenHash::of(&format!("later {n}")));
        }
        assert!(rate.0.lock().unwrap().logins.len() <= 10_100);
    }
}

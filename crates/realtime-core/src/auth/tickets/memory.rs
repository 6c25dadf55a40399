//! [`MemoryTickets`]: the tickets of a node that is alone.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_core::future::BoxFuture;
use tokio::time::Instant;

use super::contract::{TicketError, TicketKey, TicketStore};
use crate::Principal;

/// Tickets in the memory of this process, up to 65,536.
#[derive(Default)]
pub struct MemoryTickets(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    logins: HashMap<TicketKey, (Instant, Principal)>,
    /// In the order of their issue. Those that were used stay until their end.
    ends: VecDeque<(Instant, TicketKey)>,
}

const MOST: usize = 65_536;

impl MemoryTickets {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Kept {
    /// Forgets tickets that have ended.
    fn prune(&mut self, now: Instant) {
        while let Some((end, key)) = self.ends.front()
            && *end <= now
        {
            self.logins.remove(key);
            self.ends.pop_front();
        }
    }
}

impl TicketStore for MemoryTickets {
    fn put(&self, key: TicketKey, login: Principal, ttl: Duration) -> BoxFuture<'_, Result<(), TicketError>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.prune(now);
        let end = now.checked_add(ttl).unwrap_or(now);
        let result = if kept.ends.len() < MOST {
            kept.logins.insert(key, (end, login));
            kept.ends.push_back((end, key));
            Ok(())
        } else {
            Err(TicketError::TooMany)
        };
        Box::pin(async { result })
    }

    fn take(&self, key: TicketKey) -> BoxFuture<'_, Result<Option<Principal>, TicketError>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.prune(now);
        let login = kept.logins.remove(&key).filter(|(end, _)| *end > now).map(|(_, login)| login);
        Box::pin(async { Ok(login) })
    }
}

impl fmt::Debug for MemoryTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("MemoryTickets").field("kept", &kept.logins.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tickets_have_a_bound_and_make_room_when_they_end() {
        let store = MemoryTickets::new();
        let put = |n: usize, ttl| {
            store.put(TicketKey::of(&n.to_string()), Principal::new(1.into(), "t"), Duration::from_secs(ttl))
        };
        for n in 0..MOST {
            put(n, 30).await.unwrap();
        }
        assert_eq!(put(MOST, 30).await, Err(TicketError::TooMany));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(store.take(TicketKey::of("0")).await.unwrap(), None);
        put(MOST, 30).await.unwrap();
        assert_eq!(format!("{store:?}"), "MemoryTickets { kept: 1 }");
    }
}

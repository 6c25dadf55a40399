//! [`TicketStore`]: where single-use tickets are kept.

use std::{fmt, sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use serde::{Serialize, Serializer, ser::SerializeStruct};
use sha2::{Digest, Sha256};

use crate::Principal;

/// Keeps the logins of tickets until they are used, on every node of a cluster.
pub trait TicketStore: Send + Sync + 'static {
    /// Keeps a login for a time.
    ///
    /// # Errors
    /// [`TicketError`] if it cannot be kept.
    fn put(&self, key: TicketKey, login: Principal, ttl: Duration) -> BoxFuture<'_, Result<(), TicketError>>;

    /// Returns the login and removes it: of all calls for a key, on all nodes, at most one gets it, and none after its
    /// time.
    ///
    /// # Errors
    /// [`TicketError::Unavailable`] if the store cannot be asked.
    fn take(&self, key: TicketKey) -> BoxFuture<'_, Result<Option<Principal>, TicketError>>;
}

/// A store that is chosen at run time: `Arc<dyn TicketStore>`.
impl<S: TicketStore + ?Sized> TicketStore for Arc<S> {
    fn put(&self, key: TicketKey, login: Principal, ttl: Duration) -> BoxFuture<'_, Result<(), TicketError>> {
        (**self).put(key, login, ttl)
    }

    fn take(&self, key: TicketKey) -> BoxFuture<'_, Result<Option<Principal>, TicketError>> {
        (**self).take(key)
    }
}

/// A ticket: its login, once, for [`Ticket::TTL`], without the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    text: String,
    ttl: Duration,
}

/// The SHA-256 of a ticket. A store knows no ticket, so that what leaks from it is worth nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TicketKey([u8; 32]);

/// Error of a ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The login was kicked or revoked, or has ended.
    #[error("the login has ended")]
    Refused,
    /// The login has had too many tickets within a short time, or this node keeps too many.
    #[error("too many tickets")]
    TooMany,
    /// The login has extensions, which are not sent to other nodes.
    #[error("there are no tickets for a login of this kind")]
    Unsupported,
    /// The store is unavailable. The text is for the log.
    #[error("{0}")]
    Unavailable(String),
}

impl Ticket {
    /// Time in which a ticket has to be used, unless its login ends before.
    pub const TTL: Duration = Duration::from_secs(30);

    /// Creates a random ticket.
    pub(crate) fn random(ttl: Duration) -> Self {
        // The generator of the thread is cryptographically secure.
        Self { text: format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>()), ttl }
    }

    /// The text that a client sends.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Time in which it has to be used.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }
}

/// Serializes as the answer to the client that asked for it: `{"ticket": …, "expiresIn": 30000}`, in milliseconds.
impl Serialize for Ticket {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut answer = serializer.serialize_struct("Ticket", 2)?;
        answer.serialize_field("ticket", &self.text)?;
        answer.serialize_field("expiresIn", &self.ttl.as_millis())?;
        answer.end()
    }
}

/// Does not show the ticket.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(..)")
    }
}

impl TicketKey {
    /// The key of a ticket.
    pub fn of(ticket: &str) -> Self {
        Self(Sha256::digest(ticket.as_bytes()).into())
    }
}

/// Shows the key in hexadecimal.
impl fmt::Display for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKey({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

impl TicketError {
    /// HTTP status of the response to a request that failed with this error.
    pub fn status(&self) -> u16 {
        match self {
            Self::Refused => 401,
            Self::TooMany => 429,
            Self::Unsupported => 409,
            Self::Unavailable(_) => 503,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn tickets_are_random_and_not_shown() {
        let tickets: HashSet<_> = (0..1000).map(|_| Ticket::random(Ticket::TTL).text).collect();
        assert_eq!(tickets.len(), 1000);
        let ticket = Ticket::random(Ticket::TTL);
        assert_eq!(ticket.expose().len(), 64);
        let key = TicketKey::of(ticket.expose());
        assert_eq!(key, TicketKey::of(ticket.expose()));
        let shown = format!("{ticket:?} {key:?} {key}");
        assert!(!shown.contains(ticket.expose()), "{shown}");
        assert_eq!(
            TicketKey::of("abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}

//! Tickets: single-use logins.

mod contract;
mod memory;
mod rate;

pub(crate) use self::rate::TicketRate;
pub use self::{
    contract::{Ticket, TicketError, TicketKey, TicketStore},
    memory::MemoryTickets,
};

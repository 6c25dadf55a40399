//! Message buses: what carries envelopes between nodes.
//!
//! [`MemoryBus`] serves a single node; `realtime-redis` has buses for a cluster. Implement [`Bus`] for another broker; the
//! feature `conformance` has a suite that tests it clause by clause.

mod contract;
mod memory;

pub use self::{
    contract::{Bus, BusError, BusEvent, Published, RetainedMessage},
    memory::MemoryBus,
};

//! Message buses: what carries envelopes between nodes.
//!
//! [`MemoryBus`] serves a single node; `realtime-redis` has buses for a cluster. Implement [`Bus`] for another broker.

mod contract;
mod memory;

pub use self::{
    contract::{Bus, BusError, BusEvent, Published},
    memory::MemoryBus,
};

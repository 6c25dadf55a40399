//! Message buses: what carries envelopes between nodes.
//!
//! [`MemoryBus`] serves a single node; `realtime-redis` has buses for a cluster. Implement [`Bus`] for another broker; the
//! feature `conformance` has a suite that tests it clause by clause.

mod contract;
mod error;
mod memory;
mod stream_store;

pub use self::{
    contract::{Bus, BusEvent, Published, RetainedMessage},
    error::BusError,
    memory::MemoryBus,
    stream_store::{StreamHead, StreamStore, StreamWrite, StreamWritten, WriteCondition},
};

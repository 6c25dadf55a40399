//! Live traces: what happens to one user or topic, as it happens. See [`Hub::trace`](crate::Hub::trace).

mod event;
mod ring;
mod traces;
mod watch;

pub use self::{
    event::{NodeTrace, TraceEvent, TraceKind, TraceTarget},
    traces::TooManyTraces,
};
pub(crate) use self::{
    traces::{Permit, Traces},
    watch::{Sent, Watch},
};

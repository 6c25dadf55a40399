//! A model of realtime's positions, epochs, claims, gaps and cursors, for the model checker `stateright`.
//!
//! [`Protocol`] has the steps that are possible in each state; the checker takes all of them, in every order, within
//! the bounds of [`Budget`], and checks the properties in each state that it reaches. README.md describes what is modelled
//! and how a counterexample is read.

mod client;
mod log;
mod node;
mod position;
mod protocol;
mod rules;
mod server;

pub use client::{Client, End, Faults, Frame, Session, Stage};
pub use log::{Item, Log, Run};
pub use node::{Link, Node, Tail};
pub use position::Position;
pub use protocol::{Budget, Cluster, FORGED, Message, Protocol, Step};
pub use rules::{
    Ahead, Claim, Early, Fence, Head, Heartbeat, Numbering, OwnMessage, Ping, Refused, Rules, Skipped,
    Trimmed, UnknownEpoch,
};
pub use server::{Content, Entry, Server};

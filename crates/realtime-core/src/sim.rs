//! One node for simulations, which decide its events and passes: log, shard and sessions without tasks, timers and
//! sockets.
//!
//! Behind the feature `sim`, and not part of the public API.

use std::sync::Arc;

use crate::{
    CloseReason, Position, Principal, Session, Settings, Transport, UserId,
    bus::BusEvent,
    error::ConnectError,
    hub::pump::apply,
    node,
    ticks::Ticks,
    wire::{Shard, WireFormat},
};

/// A node with one worker.
#[derive(Debug)]
pub struct Node {
    node: Arc<node::Node>,
    shard: Arc<Shard>,
    ticks: u64,
}

impl Node {
    /// Creates a node whose bus is not up yet.
    pub fn new(settings: Settings) -> Self {
        let node = Arc::new(node::Node::new(settings));
        let shard = Shard::new(Arc::clone(&node));
        Self { node, shard, ticks: 0 }
    }

    /// Applies an event of the bus, as the hub's pump does.
    pub fn apply(&self, event: BusEvent) {
        apply(event, &self.node);
    }

    /// Records a position that the bus has acknowledged to this node.
    pub fn acknowledge(&self, position: Position) {
        self.node.acknowledge(Some(position));
    }

    /// Runs one pass. Returns `true` if there is more.
    pub fn pass(&self) -> bool {
        self.shard.pass().more
    }

    /// Runs one tick of the worker's timer.
    pub fn tick(&mut self) {
        self.ticks += 1;
        self.shard.tick(self.ticks, Ticks::new(&self.node.settings));
    }

    /// Opens a session.
    ///
    /// # Errors
    /// If a limit is reached.
    pub fn connect(
        &self,
        user: &UserId,
        transport: Transport,
        wire: &Arc<dyn WireFormat>,
        cursor: Option<&str>,
    ) -> Result<Session, ConnectError> {
        let wire = self.node.wire(wire)?;
        let principal = Principal::new(user.clone(), &user.to_string());
        self.shard.register(principal, transport, wire, cursor.map(str::parse)).map(Session::new)
    }

    /// Ends a user's sessions after a position.
    pub fn close_after(&self, user: &UserId, reason: CloseReason, after: Position) {
        for session in self.node.directory.of(user) {
            session.close_after(reason, Some(after));
        }
    }
}

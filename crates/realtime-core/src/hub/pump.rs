//! The pump: moves what comes over the bus into the log, and knows whether anything comes.

use std::sync::{Arc, Mutex, PoisonError};

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use tokio::sync::watch;

use crate::{bus::BusEvent, node::Node, registry::Registry, wire::GapReason};

/// Whether envelopes get here.
#[derive(Debug)]
pub(super) struct Health {
    down: Mutex<Option<String>>,
    /// A task without which the hub does nothing has ended.
    failed: watch::Sender<Option<String>>,
}

impl Health {
    pub(super) fn new(problem: &str) -> Self {
        Self { down: Mutex::new(Some(problem.to_owned())), failed: watch::Sender::new(None) }
    }

    pub(super) fn set(&self, down: Option<String>) {
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = down;
    }

    /// The hub cannot work any more.
    pub(super) fn fail(&self, problem: String) {
        tracing::error!(problem, "this hub has failed");
        self.failed.send_replace(Some(problem));
    }

    pub(super) fn problem(&self) -> Option<String> {
        let failed = self.failed.borrow().clone();
        failed.or_else(|| self.down.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Waits until the hub has failed; returns the reason.
    pub(super) async fn failed(&self) -> String {
        let mut failed = self.failed.subscribe();
        let problem = failed.wait_for(Option::is_some).await.map(|problem| problem.clone());
        problem.ok().flatten().unwrap_or_default()
    }
}

/// Moves what comes over the bus into the log and wakes the shards.
pub(super) async fn pump(events: BoxStream<'static, BusEvent>, registry: Arc<Registry>, health: Arc<Health>) {
    let mut events = events.ready_chunks(PUMP_EVENTS);
    while let Some(chunk) = events.next().await {
        for event in chunk {
            match &event {
                BusEvent::Up(_) => {
                    tracing::info!("bus is up");
                    health.set(None);
                }
                BusEvent::Down(problem) => {
                    if health.problem().is_none() {
                        tracing::warn!(%problem, "bus is down");
                    } else {
                        tracing::debug!(%problem, "bus is still down");
                    }
                    health.set(Some(problem.clone()));
                }
                _ => {}
            }
            apply(event, &registry.node);
        }
        // Entries before the bus is up for the first time are history, and no session is served.
        if registry.node.log.up().is_some() {
            registry.wake();
        }
    }
    registry.node.set_bus_down(true);
}

/// Takes an event of the bus into the log.
pub(crate) fn apply(event: BusEvent, node: &Node) {
    match event {
        BusEvent::Message(position, envelope) => {
            node.metrics.received.add(1);
            node.log.push(position, envelope);
        }
        BusEvent::Marker(position) => node.log.push_marker(position),
        BusEvent::Up(position) => {
            node.log.begin(position);
            node.set_bus_down(false);
        }
        BusEvent::Gap => node.log.push_gap(GapReason::Bus),
        BusEvent::CaughtUp(at) => node.log.set_caught_up(at),
        BusEvent::Down(_) => node.set_bus_down(true),
    }
}

/// Events that are taken from the bus before the shards are woken.
const PUMP_EVENTS: usize = 256;

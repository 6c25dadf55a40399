//! Reaction to an outage of the bus: closes sessions during a long outage, so that clients connect to other nodes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::departures::{self, Departures};
use crate::{node::Node, settings::OnDown};

/// Interval at which the state of the bus is checked.
const LOOK: Duration = Duration::from_millis(100);

/// Flag that is set while sessions are closed and refused because of an outage of the bus.
#[derive(Debug, Default)]
pub(super) struct Outage(AtomicBool);

impl Outage {
    pub(super) fn is_draining(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Watches the bus. Runs until it is dropped.
pub(super) async fn watch(outage: Arc<Outage>, node: Arc<Node>) {
    let settings = &node.settings;
    if settings.bus.on_down == OnDown::Keep {
        return;
    }
    let mut timer = interval(LOOK);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Measured with a monotonic clock, since the wall clock may be changed.
    let mut down = None;
    let mut leaving: Option<Departures> = None;
    loop {
        timer.tick().await;
        if node.bus_down().is_none() {
            down = None;
            outage.0.store(false, Ordering::SeqCst);
            if let Some(staying) = leaving.take().map(|leaving| leaving.left()).filter(|left| *left > 0) {
                tracing::info!(sessions = staying, "sessions stay, since the bus is available again");
            }
            continue;
        }
        let since = *down.get_or_insert_with(Instant::now);
        if since.elapsed() < settings.bus.down_after {
            continue;
        }
        let leaving = leaving.get_or_insert_with(|| {
            // New connections are refused before the existing ones are closed.
            outage.0.store(true, Ordering::SeqCst);
            let sessions = node.directory.all();
            tracing::warn!(sessions = sessions.len(), "closing sessions, since the bus is unavailable");
            Departures::new(sessions, settings.drain.window)
        });
        while let Some(session) = leaving.next_due() {
            session.outbox.close(departures::reason());
        }
    }
}

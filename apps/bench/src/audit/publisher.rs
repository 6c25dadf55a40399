//! The publishers: they publish at a steady rate and record each outcome.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use crate::audit::{
    api::Api,
    history::{Cursor, Event, Target},
    message_text::MessageText,
    rng::Rng,
    site::{Phase, Site},
};

/// Number of publishers, each with its own connection, so that a stopped node does not block all of them.
const CALLERS: u32 = 16;

/// The longest filler of a usual message.
const FILLER: u64 = 400;

/// Publishes until the run becomes quiet.
pub(crate) async fn run(site: Arc<Site>, rate: f64) {
    let callers =
        (0..CALLERS).map(|caller| tokio::spawn(call(Arc::clone(&site), caller, rate / f64::from(CALLERS))));
    for caller in callers.collect::<Vec<_>>() {
        caller.await.ok();
    }
}

async fn call(site: Arc<Site>, caller: u32, rate: f64) {
    let mut rng = Rng::fork(site.seed, 0x100 + u64::from(caller));
    let mut api = Api::new(&site.api_key);
    let mut node = rng.index(site.nodes.len());
    let mut phase = site.phase.subscribe();
    let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Spread over the period.
    tokio::time::sleep(Duration::from_secs_f64(f64::from(caller) / f64::from(CALLERS) / rate)).await;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
        }
        let target = match rng.range(0..100) {
            0 => Target::All,
            1..21 => Target::Topic(rng.range(0..u64::from(site.topics)) as u32),
            _ => Target::User(rng.range(0..u64::from(site.users)) as u32),
        };
        let filler = rng.range(0..FILLER) as usize;
        if publish(&site, &mut api, node, target, filler).await.is_none() || rng.one_in(50) {
            node = rng.index(site.nodes.len());
        }
    }
}

/// Publishes a message; answers its number if it was acknowledged.
pub(crate) async fn publish(
    site: &Site,
    api: &mut Api,
    node: usize,
    target: Target,
    filler: usize,
) -> Option<u64> {
    let n = site.messages.fetch_add(1, Ordering::Relaxed);
    publish_as(site, api, node, n, target, filler).await.then_some(n)
}

/// Publishes a message under a number of the caller's; answers whether it was acknowledged.
pub(crate) async fn publish_as(
    site: &Site,
    api: &mut Api,
    node: usize,
    n: u64,
    target: Target,
    filler: usize,
) -> bool {
    let text = MessageText { run: site.run, n, target: target.clone(), filler }.to_string();
    let body = match &target {
        Target::User(user) => json!({ "userIds": [user], "message": text }),
        Target::Topic(topic) => json!({ "topics": [format!("audit:{topic}")], "message": text }),
        Target::All => json!({ "broadcast": true, "message": text }),
    };
    let began = site.history.now();
    let answer = api.call(site.nodes[node], "POST", "/api/publish", &body.to_string()).await;
    let (status, answer) = answer.unwrap_or_default();
    if status == 200 {
        let cursor = answer["position"].as_str().and_then(|cursor| cursor.parse::<Cursor>().ok());
        site.history.push(Event::Acknowledged { n, target, began, cursor });
    } else {
        site.history.push(Event::Unacknowledged { n, target, began, status });
    }
    status == 200
}

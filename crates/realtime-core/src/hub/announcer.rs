//! The announcer sends presence changes to the sessions of this node that are in the topic `presence`.
//!
//! Every node receives every change itself, so nothing is sent over the bus, and a bus without topics works as well.
//! Changes are read only while a session is in the topic.

use std::{sync::Arc, time::Duration};

use futures_core::stream::BoxStream;
use futures_util::{
    future::ready,
    stream::{StreamExt, once},
};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::pump::send_local;
use crate::{
    Envelope, EventName, Message, Scope, Topic,
    log::{Content, Entry},
    presence::{PresenceChange, PresenceEvent},
    registry::Registry,
};

/// Text of a message. It has a `type` field, for clients that do not get the event's name.
#[derive(Serialize)]
#[serde(tag = "type", content = "data", rename_all = "lowercase")]
enum Text {
    Presence {
        /// Changes are missing before the ones listed.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        gap: bool,
        changes: Vec<PresenceChange>,
    },
}

/// Maximum number of changes in a message: when a node fails, all of its users go offline.
const BATCH: usize = 500;
/// Pause between messages.
const PAUSE: Duration = Duration::from_millis(25);

/// Interval at which the announcer checks that a session is still in the topic.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until it is dropped.
pub(super) async fn announce(registry: Arc<Registry>) {
    let topic = Topic::new(Topic::PRESENCE).expect("`presence` is a topic");
    if registry.node.watch.was_broken_off() && has_subscribers(&registry, &topic) {
        let gap = once(ready(PresenceEvent::Gap));
        registry.node.watch.begin(|| gap.chain(registry.node.presence_changes()).boxed());
    }
    loop {
        let changes = registry.node.watch.begun().await;
        publish_changes(changes, &registry, &topic).await;
    }
}

/// Sends changes until the topic has no sessions.
async fn publish_changes(events: BoxStream<'static, PresenceEvent>, registry: &Registry, topic: &Topic) {
    let name = EventName::new(Topic::PRESENCE).expect("`presence` is an event's name");
    let mut batches = events.ready_chunks(BATCH);
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let batch = tokio::select! {
            batch = batches.next() => batch,
            _ = look.tick() => {
                if registry.node.watch.end_unless(|| has_subscribers(registry, topic)) {
                    return;
                }
                continue;
            }
        };
        let Some(batch) = batch else {
            registry.node.watch.end_unless(|| false);
            return;
        };
        let shards: Vec<_> =
            registry.shards().into_iter().filter(|shard| shard.has_subscribers(topic)).collect();
        if shards.is_empty() {
            continue;
        }
        let gap = batch.contains(&PresenceEvent::Gap);
        let changes = batch.into_iter().filter_map(|event| match event {
            PresenceEvent::Changed(change) => Some(change),
            PresenceEvent::Gap => None,
        });
        let text = Text::Presence { gap, changes: changes.collect() };
        let text = serde_json::to_string(&text).expect("strings are always JSON");
        let message = Message::new(name.clone(), text);
        let envelope = Envelope::to_topics([topic.clone()], Scope::Both, message);
        let envelope = Arc::new(envelope.expect("a list of one topic is not empty"));
        let entry = Arc::new(Entry::new(None, Content::Envelope(envelope)));
        for shard in shards {
            send_local(&shard, &entry).await;
        }
        sleep(PAUSE).await;
    }
}

fn has_subscribers(registry: &Registry, topic: &Topic) -> bool {
    registry.shards().iter().any(|shard| shard.has_subscribers(topic))
}

//! The announcer: tells the sessions of this node that are in the topic `presence` who comes and goes.
//!
//! Every node hears of every change by itself, so nothing goes over the bus, and a bus that carries no topics makes
//! no difference.

use std::{sync::Arc, time::Duration};

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    Envelope, EventName, Message, PresenceChange, PresenceEvent, Scope, Topic,
    log::{Content, Entry},
    registry::Registry,
};

/// The text of a message. It says what it is, for clients that see no event's name.
#[derive(Serialize)]
#[serde(tag = "type", content = "data", rename_all = "lowercase")]
enum Text {
    Presence {
        /// Changes are missing before these.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        gap: bool,
        changes: Vec<PresenceChange>,
    },
}

/// How many changes go out together at most: a node that dies takes all of its users along.
const BATCH: usize = 500;
/// How long sockets have for one message before the next.
const PAUSE: Duration = Duration::from_millis(25);

/// Runs until it is dropped.
pub(super) async fn announce(events: BoxStream<'static, PresenceEvent>, registry: Arc<Registry>) {
    let topic = Topic::new(Topic::PRESENCE).expect("a plain word is a topic");
    let name = EventName::new(Topic::PRESENCE).expect("a plain word is an event's name");
    let mut batches = events.ready_chunks(BATCH);
    while let Some(batch) = batches.next().await {
        let shards: Vec<_> =
            registry.shards().into_iter().filter(|shard| shard.has_subscribers(&topic)).collect();
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
        let envelope = Arc::new(envelope.expect("one topic is not none"));
        let entry = Arc::new(Entry::new(None, Content::Envelope(envelope)));
        for shard in shards {
            while shard.send_local(Arc::clone(&entry)).is_err() {
                sleep(PAUSE).await;
            }
        }
        sleep(PAUSE).await;
    }
}

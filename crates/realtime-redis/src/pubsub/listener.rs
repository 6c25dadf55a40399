//! The listener: a node's subscription, on a connection of its own, and the heartbeats that prove that it works.
//!
//! A heartbeat carries the time at which it was published. Everything published before the newest one that came back was
//! received. If no newer one comes back, the subscription is broken, the publisher reaches no subscriber, or the hub takes
//! events too slowly; in each case the connection is replaced, and a gap announces the messages that may be missing.

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use futures_util::StreamExt;
use realtime_core::{Envelope, Message, Scope, UserId, bus::BusEvent};
use redis::{Client, ConnectionAddr, ConnectionInfo, Msg, RedisError, RedisResult, aio::PubSubStream};
use tokio::{
    sync::mpsc::Sender,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::shared::{Channel, NOT_A_MASTER, PubSubShared};
use crate::{backoff::Backoff, ruoyi::Dto};

/// Time between two heartbeats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Age limit of the last heartbeat.
const HEARTBEAT_LIMIT: Duration = Duration::from_millis(2500);

/// Time for which other nodes may continue to publish to a master that this node has left.
const LATE_PUBLISH_WINDOW: Duration = Duration::from_secs(3);

/// Listens until the receiver of the events is dropped.
pub(super) async fn run(shared: Arc<PubSubShared>, events: Sender<BusEvent>) {
    let last_heartbeat = shared.started_at;
    let mut listener = Listener {
        shared,
        events,
        last_heartbeat,
        up: false,
        started: false,
        missed: false,
        moved: false,
        missing_until: None,
    };
    let mut backoff = Backoff::default();
    let mut last = None;
    loop {
        let Err(problem) = listener.follow().await;
        if listener.up {
            backoff.reset();
        }
        // The same problem is reported once, not after every attempt.
        if listener.up || last.as_ref() != Some(&problem) {
            last = Some(problem.clone());
            if listener.events.send(BusEvent::Down(problem)).await.is_err() {
                return;
            }
        }
        (listener.up, listener.missed) = (false, listener.started);
        sleep(backoff.next()).await;
    }
}

struct Listener {
    shared: Arc<PubSubShared>,
    events: Sender<BusEvent>,
    /// The time at which the newest heartbeat that came back was published.
    last_heartbeat: Instant,
    /// Set while the hub has `Up` as its last state: it receives everything.
    up: bool,
    /// Set once the hub has received something.
    started: bool,
    /// Set when something may be missing before the next message.
    missed: bool,
    /// Set when the last server has lost its role behind the same address.
    moved: bool,
    /// The time until which other nodes may still publish to the master that this node has left.
    missing_until: Option<Instant>,
}

impl Listener {
    /// Listens over one connection, until it fails.
    async fn follow(&mut self) -> Result<Infallible, String> {
        let shared = Arc::clone(&self.shared);
        let text = |error: RedisError| error.to_string();
        shared.counters.connected();
        let server = shared.lookup.master(shared.key()).await.map_err(text)?;
        let addr = server.addr().clone();
        let limit = shared.config.command_timeout;
        let messages = timeout(limit, shared.subscribe(server)).await;
        let messages = messages.map_err(|_| format!("no subscription within {limit:?}"))?.map_err(text)?;
        // The limit starts anew for the first heartbeat over this connection.
        self.last_heartbeat = Instant::now();
        if self.started && (shared.lookup.can_change() || std::mem::take(&mut self.moved)) {
            self.missing_until = Some(self.last_heartbeat + LATE_PUBLISH_WINDOW);
        }
        tokio::select! {
            ended = self.receive(messages) => ended,
            () = shared.publish_heartbeats() => {
                self.moved = true;
                Err(NOT_A_MASTER.into())
            }
            () = shared.until_moved(&addr) => Err("the master has changed".into()),
        }
    }

    async fn receive(&mut self, mut messages: PubSubStream) -> Result<Infallible, String> {
        let overdue = || format!("no heartbeat has come back for {HEARTBEAT_LIMIT:?}");
        loop {
            let limit = self.last_heartbeat + HEARTBEAT_LIMIT;
            let message = timeout_at(limit, messages.next()).await.map_err(|_| overdue())?;
            let message = message.ok_or("the connection of the subscription was closed")?;
            if self.missing_until.is_some_and(|until| until <= Instant::now()) {
                self.emit(BusEvent::Gap).await?;
                self.missing_until = None;
            }
            if let Some(event) = self.event(&message) {
                if self.missed {
                    self.emit(BusEvent::Gap).await?;
                    self.missed = false;
                }
                self.emit(event).await?;
                self.started = true;
            }
            if Instant::now() > limit {
                return Err(overdue());
            }
        }
    }

    /// Converts a message of Redis into an event for the hub.
    fn event(&mut self, message: &Msg) -> Option<BusEvent> {
        let (name, payload) = (message.get_channel_name(), message.get_payload_bytes());
        if name == self.shared.heartbeat_channel {
            self.last_heartbeat = self.shared.published_at(payload)?;
            return (!std::mem::replace(&mut self.up, true)).then_some(BusEvent::Up(None));
        }
        let channel = self.shared.channels.iter().find(|channel| channel.name == name)?;
        match channel.form.decode(payload) {
            Ok(dto) => Some(BusEvent::message(None, Arc::new(channel.envelope(dto)), Duration::ZERO)),
            Err(problem) => {
                if self.shared.counters.skipped_first(name, &problem.to_string()) {
                    let bytes = payload.len();
                    tracing::warn!(channel = name, bytes, %problem, "skipped an unreadable message; logged once per problem");
                }
                None
            }
        }
    }

    /// Sends an event to the hub. If the hub takes none for too long the connection is closed: redis-rs queues without a
    /// bound.
    async fn emit(&mut self, event: BusEvent) -> Result<(), String> {
        match timeout_at(self.last_heartbeat + HEARTBEAT_LIMIT, self.events.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err("the receiver of the events was dropped".into()),
            Err(_) => Err("the hub takes events too slowly".into()),
        }
    }
}

impl PubSubShared {
    async fn subscribe(&self, server: ConnectionInfo) -> RedisResult<PubSubStream> {
        let mut subscription = Client::open(server)?.get_async_pubsub().await?;
        let [first, second] = &self.channels;
        subscription.subscribe(&[&first.name, &second.name, &self.heartbeat_channel]).await?;
        Ok(subscription.into_on_message())
    }

    /// Publishes heartbeats until their server is not a master any more.
    async fn publish_heartbeats(self: &Arc<Self>) {
        let mut backoff = Backoff::default();
        loop {
            match self.publish_heartbeat().await {
                Ok(true) => {
                    backoff.reset();
                    sleep(HEARTBEAT_INTERVAL).await;
                }
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!(%error, "failed to publish a heartbeat");
                    sleep(backoff.next()).await;
                }
            }
        }
    }

    /// Returns the time at which a heartbeat was published.
    fn published_at(&self, heartbeat: &[u8]) -> Option<Instant> {
        let millis = str::from_utf8(heartbeat).ok()?.parse().ok()?;
        Some(self.started_at.checked_add(Duration::from_millis(millis))?.min(Instant::now()))
    }

    /// Waits until another server is the master: a node that is isolated with an old one receives its own heartbeats.
    async fn until_moved(&self, addr: &ConnectionAddr) {
        if !self.lookup.can_change() {
            pending().await
        }
        loop {
            sleep(HEARTBEAT_INTERVAL).await;
            if let Ok(master) = self.lookup.recent_master(self.key()).await {
                self.connection.discard_unless_to(master.addr());
                if master.addr() != addr {
                    return;
                }
            }
        }
    }
}

impl Channel {
    fn envelope(&self, Dto { users, message }: Dto) -> Envelope {
        let (scope, message) = (Scope::Only(self.transport), Message::text(message));
        let users: Vec<UserId> = users.into_iter().map(UserId::from).collect();
        // Java nodes write "all users" as no user.
        Envelope::to_users(&users, scope, message.clone())
            .unwrap_or_else(|_| Envelope::broadcast(scope, message))
    }
}

//! The listener: a node's subscription, on a connection of its own, and the canaries that prove that it lives.
//!
//! A canary carries the time at which it was published. The time of the newest one that came back is the proof: up to
//! then everything was heard. So a proof that grows old means a dead subscription, a publisher that reaches nobody, or
//! a hub that takes events too slowly; all three end the connection, and what may be missing is a gap.

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use futures_util::StreamExt;
use realtime_core::{BusEvent, Envelope, Message, Scope, Transport, UserId};
use redis::{Client, ConnectionAddr, ConnectionInfo, Msg, RedisError, RedisResult, aio::PubSubStream};
use tokio::{
    sync::mpsc::Sender,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{Channel, Shared, count, publisher::NO_MASTER};
use crate::{
    backoff::Backoff,
    ruoyi::{Dto, Undecodable},
};

/// How often a canary is published.
const CANARY: Duration = Duration::from_secs(1);

/// How old the proof may grow.
const PROOF_LIMIT: Duration = Duration::from_millis(2500);

/// How long others may go on publishing to a master that this node has left.
const STRAGGLERS: Duration = Duration::from_secs(3);

/// Listens for ever, or until nobody wants to know.
pub(super) async fn run(shared: Arc<Shared>, events: Sender<BusEvent>) {
    let proof = shared.born;
    let mut listener = Listener {
        shared,
        events,
        proof,
        up: false,
        started: false,
        missed: false,
        moved: false,
        missing_until: None,
        warned: Vec::new(),
    };
    let mut backoff = Backoff::default();
    let mut last = None;
    loop {
        let Err(problem) = listener.follow().await;
        if listener.up {
            backoff.reset();
        }
        // The same problem is not told again with every attempt.
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
    shared: Arc<Shared>,
    events: Sender<BusEvent>,
    /// When the newest canary that came back was published.
    proof: Instant,
    /// The hub believes that it gets everything.
    up: bool,
    /// The hub has got something.
    started: bool,
    /// Something may be missing between what the hub has got and what comes next.
    missed: bool,
    /// The server at the address that was followed is no master any more.
    moved: bool,
    /// Until when others may still publish where this node does not listen any more.
    missing_until: Option<Instant>,
    /// The kinds of unreadable messages that were logged.
    warned: Vec<(Transport, Undecodable)>,
}

impl Listener {
    /// Listens over one connection, until that fails.
    async fn follow(&mut self) -> Result<Infallible, String> {
        let shared = Arc::clone(&self.shared);
        let text = |error: RedisError| error.to_string();
        count(&shared.metrics.connects);
        let server = shared.servers.master(shared.home()).await.map_err(text)?;
        let addr = server.addr().clone();
        let limit = shared.config.command_timeout;
        let messages = timeout(limit, shared.listen(server)).await;
        let messages = messages.map_err(|_| format!("no subscription within {limit:?}"))?.map_err(text)?;
        // The first canary over this connection has its time.
        self.proof = Instant::now();
        if self.started && (shared.servers.can_change() || std::mem::take(&mut self.moved)) {
            self.missing_until = Some(self.proof + STRAGGLERS);
        }
        tokio::select! {
            ended = self.hear(messages) => ended,
            () = shared.sing() => {
                self.moved = true;
                Err(NO_MASTER.into())
            }
            () = shared.until_moved(&addr) => Err("the master has changed".into()),
        }
    }

    async fn hear(&mut self, mut messages: PubSubStream) -> Result<Infallible, String> {
        let old = || format!("no canary has come back for {PROOF_LIMIT:?}");
        loop {
            let limit = self.proof + PROOF_LIMIT;
            let message = timeout_at(limit, messages.next()).await.map_err(|_| old())?;
            let message = message.ok_or("the subscription's connection has ended")?;
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
                return Err(old());
            }
        }
    }

    /// What the hub is told about a message of Redis.
    fn event(&mut self, message: &Msg) -> Option<BusEvent> {
        let (name, payload) = (message.get_channel_name(), message.get_payload_bytes());
        if name == self.shared.canary {
            self.proof = self.shared.published(payload)?;
            return (!std::mem::replace(&mut self.up, true)).then_some(BusEvent::Up(None));
        }
        let channel = self.shared.channels.iter().find(|channel| channel.name == name)?;
        match channel.form.decode(payload) {
            Ok(dto) => Some(BusEvent::Message(None, Arc::new(channel.envelope(dto)))),
            Err(problem) => {
                count(&self.shared.metrics.undecodable);
                let kind = (channel.transport, problem);
                if !self.warned.contains(&kind) {
                    self.warned.push(kind);
                    let bytes = payload.len();
                    tracing::warn!(channel = name, bytes, %problem, "a message is skipped; said once");
                }
                None
            }
        }
    }

    /// Tells the hub. One that takes nothing for long loses the connection: redis-rs queues without a bound.
    async fn emit(&mut self, event: BusEvent) -> Result<(), String> {
        match timeout_at(self.proof + PROOF_LIMIT, self.events.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err("nobody listens any more".into()),
            Err(_) => Err("events are taken too slowly".into()),
        }
    }
}

impl Shared {
    async fn listen(&self, server: ConnectionInfo) -> RedisResult<PubSubStream> {
        let mut subscription = Client::open(server)?.get_async_pubsub().await?;
        let [first, second] = &self.channels;
        subscription.subscribe(&[&first.name, &second.name, &self.canary]).await?;
        Ok(subscription.into_on_message())
    }

    /// Publishes canaries until the server that they go to is no master any more.
    async fn sing(&self) {
        let mut backoff = Backoff::default();
        loop {
            match self.publish_canary().await {
                Ok(true) => {
                    backoff.reset();
                    sleep(CANARY).await;
                }
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!(%error, "no canary was published");
                    sleep(backoff.next()).await;
                }
            }
        }
    }

    /// When a canary was published.
    fn published(&self, canary: &[u8]) -> Option<Instant> {
        let millis = str::from_utf8(canary).ok()?.parse().ok()?;
        Some(self.born.checked_add(Duration::from_millis(millis))?.min(Instant::now()))
    }

    /// Waits until another server than this one is the master: a node that is left alone with an old one hears itself.
    async fn until_moved(&self, addr: &ConnectionAddr) {
        if !self.servers.can_change() {
            pending().await
        }
        loop {
            sleep(CANARY).await;
            if let Ok(master) = self.servers.recent_master(self.home()).await {
                self.leave_unless_at(master.addr());
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
        // No user at all is how Java nodes write everybody.
        Envelope::to_users(&users, scope, message.clone())
            .unwrap_or_else(|_| Envelope::broadcast(scope, message))
    }
}

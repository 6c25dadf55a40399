//! The hub's settings: sizes, times and limits, each with its default.

use std::time::Duration;

use serde::Deserialize;

/// Sizes, times and limits of a node. Every field has a default.
///
/// It deserializes from the camelCase keys of the configuration file; durations are written `10s`, `5m`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// The window of recent envelopes.
    pub history: History,
    /// The messages that are kept for sessions that enter their topics.
    pub retained: RetainedLimits,
    /// Batching of bursts.
    pub fanout: Fanout,
    /// The buffer between a session and its socket.
    pub outbox: OutboxLimits,
    /// Heartbeats of clients.
    pub heartbeat: Heartbeat,
    /// Times of presence.
    pub presence: PresenceTimes,
    /// Times of logins.
    pub auth: LoginTimes,
    /// Limits of a node and of a user.
    pub limits: Limits,
    /// Graceful shutdown.
    pub drain: Drain,
    /// Behaviour while the bus is unavailable.
    pub bus: BusOutage,
    /// Bounds of text streams.
    pub streams: Streams,
}

/// A node's window of recent envelopes: the queue of all sessions and the source of replay.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct History {
    /// Time for which an envelope is kept. Default: 300 s.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// Maximum number of envelopes. Default: 100,000.
    pub max_messages: usize,
    /// Maximum size of the envelopes and their encodings in bytes. Default: 64 MiB; at least eight times
    /// `limits.maxMessageBytes` and 4 KiB, since an envelope that does not fit reaches no session.
    pub max_bytes: usize,
}

impl Default for History {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(300), max_messages: 100_000, max_bytes: 64 << 20 }
    }
}

/// The bounds of the messages that are kept for sessions that enter their topics: see
/// [`Envelope::retain`](crate::Envelope::retain). Beyond them the oldest messages go first, and are counted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RetainedLimits {
    /// Maximum number of messages. Default: 10,000.
    pub max_messages: usize,
    /// Maximum size of the messages in bytes. Default: 16 MiB. Their encodings come on top: about as much again for each
    /// wire format in which they were sent.
    pub max_bytes: usize,
    /// Maximum number of messages of one topic, each with a collapse key of its own: all of them are sent to a session that
    /// enters it. Default: 256.
    pub max_per_topic: usize,
}

impl Default for RetainedLimits {
    fn default() -> Self {
        Self { max_messages: 10_000, max_bytes: 16 << 20, max_per_topic: 256 }
    }
}

/// Batching of bursts.
///
/// A worker delivers everything new in one pass. Before the next pass it waits until the connections have written it,
/// and then pauses for about as long as that took. Messages published during that time leave each connection as one
/// write. A single message never waits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Fanout {
    /// The longest wait and the longest pause. Default: 5 ms, at most 100 ms; 0 means none.
    #[serde(with = "humantime_serde")]
    pub max_delay: Duration,
}

impl Default for Fanout {
    fn default() -> Self {
        Self { max_delay: Duration::from_millis(5) }
    }
}

/// The bounds of each session's outbox. A session whose outbox is full continues to read from the log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OutboxLimits {
    /// Maximum number of queued frames. Default: 256.
    pub max_messages: usize,
    /// Maximum size of the queued frames in bytes; a single larger frame is still accepted. Default: 256 KiB.
    pub max_bytes: usize,
    /// Time without progress after which a session ends as a slow consumer. Default: 8 s.
    #[serde(with = "humantime_serde")]
    pub max_stall: Duration,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self { max_messages: 256, max_bytes: 256 << 10, max_stall: Duration::from_secs(8) }
    }
}

/// The two-way heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Heartbeat {
    /// Interval of heartbeats. Default: 20 s, since proxies cut idle connections after 30 to 60 s.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Time for a client to answer a heartbeat. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval: Duration::from_secs(20), timeout: Duration::from_secs(10) }
    }
}

/// Times of presence.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PresenceTimes {
    /// Time for which a user stays online after the last session has ended. Default: 2 s, for page reloads.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

impl Default for PresenceTimes {
    fn default() -> Self {
        Self { grace: Duration::from_secs(2) }
    }
}

/// Times of logins.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LoginTimes {
    /// Time before the end of a session's login at which its client is told, so that it renews the login. A login that
    /// is shorter is told at once. Default: 30 s; 0 tells nobody.
    #[serde(with = "humantime_serde")]
    pub expiring_notice: Duration,
}

impl Default for LoginTimes {
    fn default() -> Self {
        Self { expiring_notice: Duration::from_secs(30) }
    }
}

/// Limits of a node and of a user; 0 means no limit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// Sessions on this node. Default: 0, no limit.
    pub max_connections: usize,
    /// Sessions of one user on this node, over both transports. Default: 64.
    pub max_connections_per_user: usize,
    /// Sessions of one user on all nodes, as far as presence knows them. Default: 0, no limit.
    pub max_connections_per_user_in_cluster: usize,
    /// Sessions of one token on this node. Default: 0, no limit.
    pub max_connections_per_token: usize,
    /// What happens beyond the limits of a user and a token. Default: `refuse`.
    pub on_exceeded: OnExceeded,
    /// Connections of one client address on this node; of IPv6, of a network of 64 bits. Default: 0, no limit, since many
    /// people may share an address.
    pub max_connections_per_address: usize,
    /// Handshakes per second on this node, averaged over ten seconds. Default: 0, no limit.
    pub max_handshake_rate: u32,
    /// Handshakes per second of one client address, averaged over ten seconds. Default: 0, no limit.
    pub max_handshake_rate_per_address: u32,
    /// Bytes of a published message. Default: 64 KiB.
    pub max_message_bytes: usize,
    /// Topics of one envelope, users included. Default: 100,000.
    pub max_targets: usize,
    /// Bytes of a message from a client. Default: 64 KiB.
    pub max_inbound_bytes: usize,
    /// Messages per second from one client, averaged over ten seconds. Default: 50.
    pub max_inbound_rate: u32,
    /// WebSocket frames per second from one client, fragments of messages and control frames among them, averaged over
    /// ten seconds. Default: 1000.
    pub max_inbound_frame_rate: u32,
    /// Bytes per second from one client of a WebSocket, averaged over ten seconds. At least `max_inbound_bytes`. Default:
    /// 4 MiB.
    pub max_inbound_byte_rate: u32,
    /// Topics of one session besides `all` and its user's own, as far as its client subscribes to them. Default: 100.
    pub max_topics_per_session: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 0,
            max_connections_per_user: 64,
            max_connections_per_user_in_cluster: 0,
            max_connections_per_token: 0,
            on_exceeded: OnExceeded::default(),
            max_connections_per_address: 0,
            max_handshake_rate: 0,
            max_handshake_rate_per_address: 0,
            max_message_bytes: 64 << 10,
            max_targets: 100_000,
            max_inbound_bytes: 64 << 10,
            max_inbound_rate: 50,
            max_inbound_frame_rate: 1000,
            max_inbound_byte_rate: 4 << 20,
            max_topics_per_session: 100,
        }
    }
}

impl Limits {
    /// Returns `true` if `amount` is above `limit`, where 0 means no limit.
    pub fn exceeds(amount: usize, limit: usize) -> bool {
        limit != 0 && amount > limit
    }
}

/// What happens beyond the limits of a user's and a token's sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum OnExceeded {
    /// The new connection is refused, and those that are open stay: tabs of a user do not push each other out.
    #[default]
    Refuse,
    /// The new session begins, and the oldest one ends with
    /// [`CloseReason::TooManySessions`](crate::CloseReason::TooManySessions). Sessions that are ending still count, up to
    /// as many again: beyond that the new connection is refused.
    EndOldest,
}

impl TryFrom<String> for OnExceeded {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "refuse" => Ok(Self::Refuse),
            "endOldest" => Ok(Self::EndOldest),
            _ => Err(format!("`{name}` is none of: refuse, endOldest")),
        }
    }
}

/// Graceful shutdown.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Drain {
    /// Time over which a node spreads what all of its clients have to do: a node that stops closes its sessions evenly
    /// over it, and after a gap each client loads its state at a random time within it. Default: 5 s.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { window: Duration::from_secs(5) }
    }
}

/// Behaviour of a node's sessions while the bus is unavailable. Published messages do not reach them then, and their
/// heartbeats report the outage.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BusOutage {
    /// Default: `keep`.
    pub on_down: OnDown,
    /// Duration of an outage after which sessions are drained. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub down_after: Duration,
}

impl Default for BusOutage {
    fn default() -> Self {
        Self { on_down: OnDown::default(), down_after: Duration::from_secs(10) }
    }
}

/// Behaviour of sessions while the bus is unavailable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum OnDown {
    /// Sessions stay open, and continue where they stopped once the bus is available again. Suitable if no other node
    /// would do better.
    #[default]
    Keep,
    /// Sessions are closed, evenly over `drain.window`, and new ones are refused until the bus is available again.
    /// Suitable for several nodes of which one is cut off.
    Drain,
}

impl TryFrom<String> for OnDown {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "keep" => Ok(Self::Keep),
            "drain" => Ok(Self::Drain),
            _ => Err(format!("`{name}` is none of: keep, drain")),
        }
    }
}

/// Bounds of [text streams](crate::streams).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Streams {
    /// Maximum size of one text in bytes. A stream that would become longer fails. Default: 1 MiB.
    pub max_bytes: usize,
    /// Maximum size of all text streams in bytes, the same on all nodes, since each keeps all of them: of their texts, and 512
    /// and its names for each. Streams that have ended are forgotten early for it; a text that does not fit beside the others
    /// that are being written fails. Default: 64 MiB.
    pub max_node_bytes: usize,
    /// Time for which a stream is kept after its end, for clients that come late. Default: 10 minutes.
    #[serde(with = "humantime_serde")]
    pub keep: Duration,
    /// Time after a publish in which what is appended is published together. Default: 20 ms, at most 1 s; 0 means none.
    #[serde(with = "humantime_serde")]
    pub max_delay: Duration,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 20,
            max_node_bytes: 64 << 20,
            keep: Duration::from_secs(600),
            max_delay: Duration::from_millis(20),
        }
    }
}

/// Error of settings that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
#[non_exhaustive]
pub struct SettingsError {
    /// The dotted key.
    pub key: &'static str,
    /// The problem.
    pub problem: String,
}

impl Settings {
    /// Checks the values against each other.
    ///
    /// # Errors
    /// [`SettingsError`] with the key of the invalid value.
    pub fn check(&self) -> Result<(), SettingsError> {
        let fail = |key, problem: String| Err(SettingsError { key, problem });
        let tenth = Duration::from_millis(100);
        if self.heartbeat.interval < tenth {
            return fail("heartbeat.interval", "must be at least 100ms".into());
        }
        if self.heartbeat.timeout < tenth {
            return fail("heartbeat.timeout", "must be at least 100ms".into());
        }
        // An idle client's cursor is as old as its last heartbeat; one lost heartbeat must not let it expire.
        if self.heartbeat.interval.saturating_mul(3) >= self.history.max_age {
            let problem = format!(
                "{:?} is not below a third of history.maxAge ({:?})",
                self.heartbeat.interval, self.history.max_age
            );
            return fail("heartbeat.interval", problem);
        }
        for (key, value) in [
            ("history.maxMessages", self.history.max_messages),
            ("history.maxBytes", self.history.max_bytes),
            ("retained.maxMessages", self.retained.max_messages),
            ("retained.maxBytes", self.retained.max_bytes),
            ("retained.maxPerTopic", self.retained.max_per_topic),
            ("outbox.maxMessages", self.outbox.max_messages),
            ("outbox.maxBytes", self.outbox.max_bytes),
            ("streams.maxBytes", self.streams.max_bytes),
            ("streams.maxNodeBytes", self.streams.max_node_bytes),
        ] {
            if value == 0 {
                return fail(key, "must be at least 1".into());
            }
        }
        // The window is the queue of all sessions. A message has a few encodings, and each may be larger than the text.
        let least = self.limits.max_message_bytes.saturating_mul(8).max(4 << 10);
        if self.limits.max_message_bytes != 0 && self.history.max_bytes < least {
            let problem = format!(
                "must be at least {least}, eight times limits.maxMessageBytes ({})",
                self.limits.max_message_bytes
            );
            return fail("history.maxBytes", problem);
        }
        let (message, rate) = (self.limits.max_inbound_bytes, self.limits.max_inbound_byte_rate);
        if rate != 0 && message > rate as usize {
            let problem = format!("must be at least limits.maxInboundBytes ({message}), is {rate}");
            return fail("limits.maxInboundByteRate", problem);
        }
        if self.fanout.max_delay > tenth {
            return fail("fanout.maxDelay", "must be at most 100ms".into());
        }
        if self.streams.max_bytes > self.streams.max_node_bytes {
            let problem = format!(
                "must be at most streams.maxNodeBytes ({}), is {}",
                self.streams.max_node_bytes, self.streams.max_bytes
            );
            return fail("streams.maxBytes", problem);
        }
        if self.streams.max_delay > Duration::from_secs(1) {
            return fail("streams.maxDelay", "must be at most 1s".into());
        }
        if self.outbox.max_stall < tenth {
            return fail("outbox.maxStall", "must be at least 100ms".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_together() {
        Settings::default().check().unwrap();
    }

    #[test]
    fn a_heartbeat_that_lets_cursors_age_is_refused() {
        let mut settings = Settings::default();
        settings.history.max_age = Duration::from_secs(60);
        assert_eq!(settings.check().unwrap_err().key, "heartbeat.interval");
    }

    #[test]
    fn the_outage_behaviour_is_parsed_by_name() {
        let settings: Settings = serde_json::from_str(r#"{"bus":{"onDown":"drain"}}"#).unwrap();
        assert_eq!(settings.bus.on_down, OnDown::Drain);
        let error = serde_json::from_str::<Settings>(r#"{"bus":{"onDown":"stay"}}"#).unwrap_err();
        assert!(error.to_string().starts_with("`stay` is none of: keep, drain"), "{error}");
    }

    #[test]
    fn a_window_that_holds_no_message_is_refused() {
        let mut settings = Settings::default();
        settings.history.max_bytes = 1;
        assert_eq!(settings.check().unwrap_err().key, "history.maxBytes");
        settings.limits.max_message_bytes = 100;
        settings.history.max_bytes = 4 << 10;
        settings.check().unwrap();
    }

    #[test]
    fn a_rate_of_less_than_a_message_is_refused() {
        let mut settings = Settings::default();
        settings.limits.max_inbound_bytes = 5 << 20;
        assert_eq!(settings.check().unwrap_err().key, "limits.maxInboundByteRate");
        settings.limits.max_inbound_byte_rate = 0;
        settings.check().unwrap();
    }

    #[test]
    fn a_text_that_no_node_could_keep_is_refused() {
        let mut settings = Settings::default();
        settings.streams.max_node_bytes = settings.streams.max_bytes - 1;
        assert_eq!(settings.check().unwrap_err().key, "streams.maxBytes");
    }

    #[test]
    fn the_longest_durations_do_not_panic() {
        let mut settings = Settings::default();
        settings.heartbeat.interval = Duration::MAX;
        assert_eq!(settings.check().unwrap_err().key, "heartbeat.interval");
        settings.history.max_age = Duration::MAX;
        settings.heartbeat.interval = Duration::from_secs(20);
        settings.heartbeat.timeout = Duration::MAX;
        settings.outbox.max_stall = Duration::MAX;
        settings.streams.keep = Duration::MAX;
        settings.check().unwrap();
        crate::ticks::Ticks::new(&settings);
    }

    #[test]
    fn keys_are_camel_case_and_unknown_ones_are_named() {
        let settings: Settings =
            serde_json::from_str(r#"{"outbox":{"maxStall":"3s"},"limits":{"maxConnections":7}}"#).unwrap();
        assert_eq!(settings.outbox.max_stall, Duration::from_secs(3));
        assert_eq!(settings.limits.max_connections, 7);
        let error = serde_json::from_str::<Settings>(r#"{"outbox":{"max_stall":"3s"}}"#).unwrap_err();
        assert!(error.to_string().contains("max_stall"), "{error}");
    }
}

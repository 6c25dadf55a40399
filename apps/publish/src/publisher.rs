//! [`Publisher`]: publishes envelopes, and says what came of it.

use std::{
    fmt::Display,
    io::{self, Write},
    str,
};

use anyhow::Context;
use realtime_core::{
    Envelope, Hub, Position, Settings, bus::BusError, error::PublishError, wire::replace_lone_surrogates,
};
use realtime_redis::{RedisMode, RedisPubSubBus, RedisStreamsBus};
use serde_json::json;

use crate::{config::Config, request::Request};

/// A node that has no sessions, presence or control: it publishes, and reads the bus only to know that it is up.
pub(crate) struct Publisher(Hub);

/// What came of a message, and the exit code for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Published = 0,
    Failed = 1,
    Wrong = 2,
    /// It may have been published.
    Unknown = 3,
}

impl Publisher {
    pub(crate) fn start(config: &Config) -> anyhow::Result<Self> {
        let mut settings = Settings::default();
        settings.limits = config.limits.clone();
        // Each entry trims the stream as far as the nodes do, or not at all.
        let mut redis = config.redis.clone().without_trimming();
        if let Some(history) = &config.history {
            redis = redis.history(history);
            settings.history = history.clone();
        }
        if let Some(retained) = &config.retained {
            redis = redis.retained(retained);
            settings.retained = retained.clone();
        }
        let hub = Hub::builder().settings(settings);
        let hub = match redis.mode {
            RedisMode::Streams => hub.bus(RedisStreamsBus::new(redis).context("redis")?),
            RedisMode::PubSub => hub.bus(RedisPubSubBus::new(redis).context("redis")?),
        };
        Ok(Self(hub.start()?))
    }

    /// Publishes a message. Prints its position, or the error.
    pub(crate) async fn publish(&self, envelope: Envelope) -> Outcome {
        match self.0.publish(envelope).await {
            Ok(published) => {
                let text = text(published.position).unwrap_or_else(|| "published".to_owned());
                Outcome::Published.told(&text)
            }
            Err(error) => {
                complain(&error);
                Outcome::of(&error)
            }
        }
    }

    /// Publishes a line of JSON. Prints a line of JSON for it.
    pub(crate) async fn publish_line(&self, line: &[u8]) -> Outcome {
        let envelope = parse(line).and_then(Request::envelope);
        let (answer, outcome) = match envelope {
            Ok(envelope) => match self.0.publish(envelope).await {
                Ok(published) => (json!({ "position": text(published.position) }), Outcome::Published),
                Err(error) => (json!({ "error": error.to_string() }), Outcome::of(&error)),
            },
            Err(error) => (json!({ "error": format!("{error:#}") }), Outcome::Wrong),
        };
        outcome.told(&answer)
    }
}

impl Outcome {
    /// The outcome once it has been told on stdout. Whoever could not be told that a message was published must not take it
    /// for one that was refused.
    fn told(self, answer: &impl Display) -> Self {
        match writeln!(io::stdout(), "{answer}") {
            Ok(()) => self,
            Err(error) => {
                complain(&format_args!("stdout: {error}"));
                if self == Self::Published { Self::Unknown } else { self }
            }
        }
    }

    fn of(error: &PublishError) -> Self {
        match error {
            PublishError::Bus { source: BusError::OutcomeUnknown(_), .. } => Self::Unknown,
            PublishError::Bus { source: BusError::Unsupported(_), .. } => Self::Wrong,
            PublishError::Bus { .. } => Self::Failed,
            _ => Self::Wrong,
        }
    }
}

/// Prints an error to stderr, which may not be read any more.
pub(crate) fn complain(error: &impl Display) {
    writeln!(io::stderr(), "error: {error}").ok();
}

/// Reads a message as `POST /api/publish` does.
fn parse(line: &[u8]) -> anyhow::Result<Request> {
    Ok(serde_json::from_str(&replace_lone_surrogates(str::from_utf8(line).context("no UTF-8")?))?)
}

fn text(position: Option<Position>) -> Option<String> {
    position.map(|position| position.to_string())
}

//! [`Publisher`]: publishes envelopes, and says what came of it.

use std::{
    fmt::Display,
    io::{self, Write},
};

use anyhow::Context;
use realtime_core::{Envelope, Hub, Position, Settings, bus::BusError, error::PublishError};
use realtime_redis::{RedisMode, RedisPubSubBus, RedisStreamsBus};
use serde_json::json;

use crate::{config::Config, request::Request};

/// A node that has no sessions and belongs to no cluster: it only writes.
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
        settings.history = config.history.clone();
        settings.retained = config.retained.clone();
        settings.limits = config.limits.clone();
        // Each entry trims the stream, as far as the nodes do.
        let redis = config.redis.clone().history(&settings.history).retained(&settings.retained);
        let hub = Hub::builder().settings(settings);
        let hub = match redis.mode {
            RedisMode::Streams => hub.bus(RedisStreamsBus::new(redis).context("redis")?),
            RedisMode::PubSub => hub.bus(RedisPubSubBus::new(redis).context("redis")?),
        };
        Ok(Self(hub.start()?))
    }

    /// Publishes a message. Prints its position, or the error.
    pub(crate) async fn publish(&self, envelope: Envelope) -> anyhow::Result<Outcome> {
        match self.0.publish(envelope).await {
            Ok(published) => {
                print(&text(published.position).unwrap_or_else(|| "published".to_owned()))?;
                Ok(Outcome::Published)
            }
            Err(error) => {
                eprintln!("error: {error}");
                Ok(Outcome::of(&error))
            }
        }
    }

    /// Publishes a line of JSON. Prints a line of JSON for it.
    pub(crate) async fn publish_line(&self, line: &str) -> anyhow::Result<Outcome> {
        let envelope = serde_json::from_str(line).map_err(Into::into).and_then(Request::envelope);
        let (answer, outcome) = match envelope {
            Ok(envelope) => match self.0.publish(envelope).await {
                Ok(published) => (json!({ "position": text(published.position) }), Outcome::Published),
                Err(error) => (json!({ "error": error.to_string() }), Outcome::of(&error)),
            },
            Err(error) => (json!({ "error": format!("{error:#}") }), Outcome::Wrong),
        };
        print(&answer)?;
        Ok(outcome)
    }
}

impl Outcome {
    fn of(error: &PublishError) -> Self {
        match error {
            PublishError::Bus { source: BusError::OutcomeUnknown(_), .. } => Self::Unknown,
            PublishError::Bus { source: BusError::Unsupported(_), .. } => Self::Wrong,
            PublishError::Bus { .. } => Self::Failed,
            _ => Self::Wrong,
        }
    }
}

/// Prints a line to stdout.
fn print(line: &impl Display) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{line}").context("stdout")
}

fn text(position: Option<Position>) -> Option<String> {
    position.map(|position| position.to_string())
}

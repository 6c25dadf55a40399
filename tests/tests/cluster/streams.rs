//! The bus over a Redis stream, on a real redis-server.

mod callers;
mod outages;
mod window;

use std::{sync::Arc, time::Duration};

use realtime_core::{
    Envelope, Position,
    bus::{Bus, BusError},
};
use realtime_redis::{RedisConfig, RedisStreamsBus};
use realtime_tests::{Redis, within};
use tokio::time::sleep;

fn bus(redis: &Redis) -> RedisStreamsBus {
    RedisStreamsBus::new(RedisConfig::single(redis.url())).unwrap()
}

/// Publishes until Redis takes it.
async fn insist(bus: &impl Bus, envelope: &Arc<Envelope>) -> Position {
    within("Redis to take an envelope", async {
        loop {
            match bus.publish(envelope).await {
                Ok(published) => return published.position.unwrap(),
                Err(BusError::Unavailable(_) | BusError::OutcomeUnknown(_)) => {
                    sleep(Duration::from_millis(20)).await
                }
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

/// Returns whether something may be missing between two positions that follow each other.
fn is_hole(last: Option<Position>, next: Position) -> bool {
    last.is_some_and(|last| last.next() != next)
}

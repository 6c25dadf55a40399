//! Reads the retained messages from Redis, for a node that starts or has missed some.

use std::{collections::HashMap, time::Instant};

use realtime_core::{Position, bus::RetainedMessage};
use redis::{RedisResult, aio::MultiplexedConnection};

use super::{
    clock::RedisTime,
    entry::{decode_envelope, parse_position},
    shared::StreamsShared,
};
use crate::repair::is_broken_key;

/// Number of messages that one step of a read asks for.
const STEP: usize = 128;

/// A name in the hash, and its value.
type Pair = (Vec<u8>, Vec<u8>);

impl StreamsShared {
    /// Reads the retained messages over the connection of a tail, whose clock shows `time`. Those that change during the read
    /// are among what the tail reads next.
    pub(super) async fn read_retained(
        &self,
        connection: &mut MultiplexedConnection,
        time: RedisTime,
    ) -> RedisResult<Vec<RetainedMessage>> {
        let mut found: HashMap<Vec<u8>, RetainedMessage> = HashMap::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(&self.keys.retained.values).arg(&cursor).arg("COUNT").arg(STEP);
            let (next, pairs): (String, Vec<Pair>) = match scan.query_async(connection).await {
                Err(error) if is_broken_key(&error) => {
                    self.remove_broken(&self.keys.retained.repair(), connection).await?;
                    return Ok(found.into_values().collect());
                }
                answer => answer?,
            };
            // The empty name has the total size.
            for (name, value) in pairs.into_iter().filter(|(name, _)| !name.is_empty()) {
                match decode(&value, time) {
                    Ok(message) => {
                        found.insert(name, message);
                    }
                    Err(problem) => {
                        self.counters.skipped();
                        tracing::warn!(problem, "skipped an unreadable retained message");
                    }
                }
            }
            if next == "0" {
                return Ok(found.into_values().collect());
            }
            cursor = next;
        }
    }
}

fn decode(value: &[u8], time: RedisTime) -> Result<RetainedMessage, &'static str> {
    let space = value.iter().position(|byte| *byte == b' ').ok_or("no position")?;
    let (position, json) = value.split_at(space);
    let position: Position = str::from_utf8(position).ok().and_then(parse_position).ok_or("no position")?;
    let (envelope, at) = decode_envelope(&json[1..])?;
    let age = time.age(at, Instant::now());
    Ok(RetainedMessage::new(Some(position), envelope, age))
}

//! Reads the retained messages from Redis, for a node that starts or has missed some.

use std::{collections::HashMap, time::Instant};

use realtime_core::{Position, bus::RetainedMessage};
use redis::{RedisResult, aio::MultiplexedConnection};

use super::{
    clock::RedisTime,
    entry::{decode_envelope, parse_position},
    shared::StreamsShared,
};
use crate::{large_entry::LARGE, repair::is_broken_key};

/// Approximate size of one step of a read: also over a slow network it arrives in much less than the time limit of a tail.
const STEP_BYTES: u64 = 256 << 10;

/// Number of times that one step of a read goes on in the hash: a script blocks everything else in Redis.
const STEP: usize = 128;

/// KEYS: hash. ARGV: cursor, bytes of a step, number of times that it goes on, size from which values are skipped, or empty.
/// Returns the next cursor, the number of skipped values, and the others with their names.
const SCAN: &str = r"
local cursor, bytes, skipped, found = ARGV[1], 0, 0, {}
local largest = tonumber(ARGV[4])
for _ = 1, tonumber(ARGV[3]) do
  local step = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', 1)
  cursor = step[1]
  for i = 1, #step[2], 2 do
    local name, value = step[2][i], step[2][i + 1]
    if largest and #value >= largest then
      skipped = skipped + 1
    else
      found[#found + 1], found[#found + 2] = name, value
      bytes = bytes + #name + #value
    end
  end
  if cursor == '0' or bytes >= tonumber(ARGV[2]) then break end
end
return { cursor, skipped, found }
";

/// The word for retained messages among the kinds of broken content.
const RETAINED: &str = "a retained message";

/// A name in the hash, and its value.
type Pair = (Vec<u8>, Vec<u8>);

/// Treatment of the retained messages from [`LARGE`] on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Large {
    #[default]
    Read,
    /// The last read did not arrive in time.
    Skip,
}

impl StreamsShared {
    /// Reads the retained messages over the connection of a tail, whose clock shows `time`. Those that change during the read
    /// are among what the tail reads next. Large ones may be skipped: one that does not arrive in time ends the connection.
    pub(super) async fn read_retained(
        &self,
        connection: &mut MultiplexedConnection,
        time: RedisTime,
        large: Large,
    ) -> RedisResult<Vec<RetainedMessage>> {
        let mut found: HashMap<Vec<u8>, RetainedMessage> = HashMap::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = redis::cmd("EVAL");
            scan.arg(SCAN).arg(1).arg(&self.keys.retained.values).arg(&cursor).arg(STEP_BYTES).arg(STEP);
            match large {
                Large::Read => scan.arg(""),
                Large::Skip => scan.arg(LARGE),
            };
            let (next, skipped, pairs): (String, u64, Vec<Pair>) = match scan.query_async(connection).await {
                Err(error) if is_broken_key(&error) => {
                    self.remove_broken(&self.keys.retained.repair(), connection).await?;
                    return Ok(found.into_values().collect());
                }
                answer => answer?,
            };
            for _ in 0..skipped {
                if self.counters.skipped_first(RETAINED, "too large") {
                    tracing::warn!(
                        "skipped a retained message that is too large to arrive in time; logged once"
                    );
                }
            }
            // The empty name has the total size.
            for (name, value) in pairs.into_iter().filter(|(name, _)| !name.is_empty()) {
                match decode(&value, time) {
                    Ok(message) => {
                        found.insert(name, message);
                    }
                    Err(problem) => {
                        if self.counters.skipped_first(RETAINED, problem) {
                            let name = String::from_utf8_lossy(&name);
                            tracing::warn!(
                                %name,
                                problem,
                                "skipped an unreadable retained message; logged once per problem"
                            );
                        }
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

//! [`Repair`]: removes keys that hold something else than this crate writes, so that they are begun anew.

use redis::{Pipeline, RedisError, RedisResult, aio::MultiplexedConnection};

/// KEYS: a key of ours. ARGV: its type. Removes it if it has another type, or is a stream that takes no entry any more.
/// Returns whether it was removed.
const REMOVE: &str = r"
local is = redis.call('TYPE', KEYS[1])['ok']
if is == 'none' then return 0 end
if is == ARGV[1] then
  if is ~= 'stream' then return 0 end
  local info, full = redis.call('XINFO', 'STREAM', KEYS[1]), false
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then full = info[i + 1] == '18446744073709551615-18446744073709551615' end
  end
  if not full then return 0 end
end
redis.call('DEL', KEYS[1])
return 1
";

/// The keys of a part and their types.
#[derive(Debug, Clone, Default)]
pub(crate) struct Repair {
    keys: Vec<(String, &'static str, Loss)>,
}

/// The effect of a key's loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// None for other keys.
    Alone,
    /// The keys of this kind, and those that are [`Loss::Leases`], are removed with it: they are written together.
    Together,
    /// As for [`Loss::Together`]; it has the leases, and is removed with any other key. Nodes that miss their leases write
    /// everything again.
    Leases,
}

impl Repair {
    /// Adds a key.
    pub(crate) fn key(mut self, name: impl Into<String>, kind: &'static str, loss: Loss) -> Self {
        self.keys.push((name.into(), kind, loss));
        self
    }

    /// Adds the keys of another one.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.keys.extend(other.keys);
        self
    }

    /// Removes the broken keys, and those that are lost with them. Returns the names of the broken ones.
    pub(crate) async fn run(&self, connection: &mut MultiplexedConnection) -> RedisResult<Vec<String>> {
        if self.keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = Pipeline::with_capacity(self.keys.len());
        for (name, kind, _) in &self.keys {
            pipe.cmd("EVAL").arg(REMOVE).arg(1).arg(name).arg(kind);
        }
        let removed: Vec<bool> = pipe.query_async(connection).await?;
        let removed: Vec<_> =
            self.keys.iter().zip(removed).filter(|(_, removed)| *removed).map(|(key, _)| key).collect();
        let together = removed.iter().any(|(.., loss)| *loss != Loss::Alone);
        let mut pipe = redis::pipe();
        for (name, _, loss) in &self.keys {
            let is_lost = match loss {
                Loss::Alone => false,
                Loss::Together => together,
                Loss::Leases => !removed.is_empty(),
            };
            if is_lost {
                pipe.cmd("DEL").arg(name).ignore();
            }
        }
        if !pipe.is_empty() {
            pipe.query_async::<()>(connection).await?;
        }
        Ok(removed.into_iter().map(|(name, ..)| name.clone()).collect())
    }
}

/// Returns whether a key holds something else than it should, or takes nothing any more.
pub(crate) fn is_broken_key(error: &RedisError) -> bool {
    let is = |code: &str, detail: &str| {
        code == "WRONGTYPE"
            || detail.contains("WRONGTYPE")
            || detail.contains("stream has exhausted the last possible ID")
    };
    if is(error.code().unwrap_or_default(), error.detail().unwrap_or_default()) {
        return true;
    }
    let errors = error.clone().into_server_errors();
    errors
        .is_some_and(|all| all.iter().any(|(_, error)| is(error.code(), error.details().unwrap_or_default())))
}

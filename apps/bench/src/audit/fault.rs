//! [`Fault`]: a fault injected into the nodes, Redis or the network between them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A fault injected into the nodes, Redis or the network between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fault {
    /// A node is killed and started again.
    Kill,
    /// A node is stopped and resumed (SIGSTOP, SIGCONT).
    Stop,
    /// Each node in turn drains, ends and is started again.
    Rolling,
    /// Redis is killed and comes back empty.
    RedisKill,
    /// Redis ends and comes back with what it had.
    RedisRestart,
    /// Redis is stopped and resumed.
    RedisPause,
    /// FLUSHALL.
    RedisFlush,
    /// A node is cut off while the stream is trimmed under it.
    RedisTrim,
    /// Connections are cut: of clients to nodes, of nodes to Redis.
    Cut,
    /// Clients stop reading while much is sent to them.
    Stall,
    /// Traffic between Redis and a node is delayed by half a second.
    Lag,
    /// No traffic passes between a node and Redis.
    Partition,
    /// The master is killed; a replica takes over that lacks the last messages.
    Failover,
}

impl Fault {
    /// All of them.
    pub(crate) const ALL: [Self; 13] = [
        Self::Kill,
        Self::Stop,
        Self::Rolling,
        Self::RedisKill,
        Self::RedisRestart,
        Self::RedisPause,
        Self::RedisFlush,
        Self::RedisTrim,
        Self::Cut,
        Self::Stall,
        Self::Lag,
        Self::Partition,
        Self::Failover,
    ];

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Rolling => "rolling",
            Self::RedisKill => "redis-kill",
            Self::RedisRestart => "redis-restart",
            Self::RedisPause => "redis-pause",
            Self::RedisFlush => "redis-flush",
            Self::RedisTrim => "redis-trim",
            Self::Cut => "cut",
            Self::Stall => "stall",
            Self::Lag => "lag",
            Self::Partition => "partition",
            Self::Failover => "failover",
        }
    }

    /// Returns true if it can be injected into servers that the auditor has not started.
    pub(crate) fn needs_no_ownership(self) -> bool {
        matches!(self, Self::Cut | Self::Stall)
    }

    /// Returns true if it can break the history, so that a new epoch is justified.
    pub(crate) fn breaks_the_history(self) -> bool {
        matches!(self, Self::RedisKill | Self::RedisRestart | Self::RedisFlush | Self::Failover)
    }

    /// Returns true if Redis loses acknowledged data.
    pub(crate) fn loses_data(self) -> bool {
        matches!(self, Self::RedisKill | Self::RedisFlush | Self::Failover)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|fault| fault.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|fault| fault.name()).collect();
            format!("{text:?} is none of: {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_found_by_its_name() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(fault));
            assert_eq!(serde_json::to_string(&fault).unwrap(), format!("{:?}", fault.name()));
        }
        assert!("flood".parse::<Fault>().is_err());
    }
}

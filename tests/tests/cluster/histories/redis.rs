//! [`Redis`]: a server with one stream, its epoch, and a replica that lags.

use realtime_core::Position;
use realtime_redis::sim::Item;

/// A server's data: what a replica copies.
#[derive(Debug, Clone, Default)]
struct Data {
    /// The entries, each with the time at which it was added.
    entries: Vec<(Position, Item, u64)>,
    /// The newest id, also when its entry was trimmed; `None`: there is no stream.
    newest: Option<Position>,
    /// The stored epoch, and the replication id that it was made for.
    epoch: Option<(u64, u64)>,
}

#[derive(Debug)]
pub(crate) struct Redis {
    data: Data,
    /// State of the replica, and of a restart.
    behind: Data,
    replication: u64,
    /// Changes with each failover and restart: connections from before are broken.
    pub(crate) life: u64,
    pub(crate) up: bool,
    /// Milliseconds.
    pub(crate) now: u64,
    /// Epochs within which entries were trimmed or skipped for their age: gaps within them are justified.
    pub(crate) trimmed: Vec<u64>,
}

/// The epoch of a claim is not the stream's any more.
#[derive(Debug)]
pub(crate) struct Stale;

impl Redis {
    pub(crate) fn new() -> Self {
        Self {
            data: Data::default(),
            behind: Data::default(),
            replication: 1,
            life: 1,
            up: true,
            now: 1_000_000,
            trimmed: Vec::new(),
        }
    }

    /// The claim script. Returns the end of the stream.
    pub(crate) fn claim(&mut self, seen: u64) -> Position {
        let (mut epoch, made_for) = self.data.epoch.unwrap_or((0, 0));
        if let Some(newest) = self.data.newest {
            if made_for == self.replication && epoch >= seen && epoch == newest.epoch {
                return newest;
            }
            epoch = epoch.max(newest.epoch);
        }
        let fresh = self.now.max(epoch + 1).max(seen + 1);
        self.data.epoch = Some((fresh, self.replication));
        self.data.newest.get_or_insert(Position { epoch: 0, offset: 0 });
        self.add(fresh, Item::Claim).unwrap_or_else(|Stale| unreachable!("the epoch is a new one"))
    }

    /// `XADD <epoch>-*` with NOMKSTREAM.
    pub(crate) fn add(&mut self, epoch: u64, item: Item) -> Result<Position, Stale> {
        let newest = self.data.newest.ok_or(Stale)?;
        let position = match epoch.cmp(&newest.epoch) {
            std::cmp::Ordering::Less => return Err(Stale),
            std::cmp::Ordering::Equal => newest.next(),
            std::cmp::Ordering::Greater => Position { epoch, offset: 0 },
        };
        self.data.newest = Some(position);
        self.data.entries.push((position, item, self.now));
        Ok(position)
    }

    /// Up to `count` entries behind one.
    pub(crate) fn read(&self, after: Option<Position>, count: usize) -> &[(Position, Item, u64)] {
        let first =
            self.data.entries.partition_point(|(position, ..)| after.is_some_and(|after| *position <= after));
        let entries = &self.data.entries[first..];
        &entries[..entries.len().min(count)]
    }

    /// The replica catches up, and so does what is on disk.
    pub(crate) fn replicate(&mut self) {
        self.behind = self.data.clone();
    }

    /// The replica, which may lag, becomes the master; or the server was killed and has what was on disk.
    pub(crate) fn fail_over(&mut self) {
        self.data = self.behind.clone();
        self.replication += 1;
        self.life += 1;
    }

    /// A restart without persistence.
    pub(crate) fn forget(&mut self) {
        self.data = Data::default();
        self.behind = Data::default();
        self.replication += 1;
        self.life += 1;
    }

    pub(crate) fn flush(&mut self) {
        // A node that has yet to read some of it misses that within the epoch.
        self.age();
        self.data = Data::default();
    }

    pub(crate) fn trim(&mut self, keep: usize) {
        let gone = self.data.entries.len().saturating_sub(keep);
        self.trimmed.extend(self.data.entries.drain(..gone).map(|(position, ..)| position.epoch));
        self.trimmed.dedup();
    }

    /// Marks every entry added until now as too old for what follows.
    pub(crate) fn age(&mut self) {
        self.trimmed.extend(self.data.entries.iter().map(|(position, ..)| position.epoch));
        self.trimmed.dedup();
    }
}

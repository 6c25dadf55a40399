//! [`Peers`]: the nodes whose receipts a command waits for.

use std::collections::HashSet;

use tokio::time::Instant;

use super::store::LEASE;

/// The nodes with a lease, as this node has seen them last: a Redis that has lost its data does not know them.
#[derive(Debug, Default)]
pub(super) struct Peers {
    nodes: HashSet<String>,
    /// The time since when leases have been renewed without a pause, at this node's last renewal.
    since: Option<u64>,
    /// Set when Redis has lost leases. Until then nodes that were seen before are waited for.
    doubted_until: Option<Instant>,
}

impl Peers {
    /// Records a renewal of this node's lease: the time since when leases have been renewed without a pause, and the nodes
    /// that have one now.
    pub(super) fn renewed(&mut self, since: u64, nodes: HashSet<String>) {
        if self.since.replace(since).is_some_and(|known| known != since) {
            self.doubt();
        }
        if self.is_in_doubt() {
            self.nodes.extend(nodes);
        } else {
            self.nodes = nodes;
        }
    }

    /// Records that this node's lease is lost, and so may be those of other live nodes.
    pub(super) fn doubt(&mut self) {
        self.doubted_until = Some(Instant::now() + LEASE);
    }

    fn is_in_doubt(&self) -> bool {
        self.doubted_until.is_some_and(|until| Instant::now() < until)
    }

    /// Returns the nodes that may be alive although Redis does not know them.
    pub(super) fn doubted(&self) -> impl Iterator<Item = &String> {
        let in_doubt = self.is_in_doubt();
        self.nodes.iter().filter(move |_| in_doubt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_with_a_lost_lease_are_waited_for_until_it_would_have_ended() {
        let mut peers = Peers::default();
        peers.renewed(1, nodes(&["a"]));
        assert_eq!(peers.doubted().count(), 0, "a starting node has seen no others");
        peers.renewed(1, nodes(&["a", "b", "gone"]));
        peers.renewed(1, nodes(&["a", "b"]));
        assert_eq!(peers.doubted().count(), 0);
        peers.renewed(2, nodes(&["a"]));
        peers.renewed(2, nodes(&["a", "c"]));
        assert_eq!(peers.doubted().cloned().collect::<HashSet<_>>(), nodes(&["a", "b", "c"]));
        tokio::time::advance(LEASE).await;
        assert_eq!(peers.doubted().count(), 0);
        peers.renewed(2, nodes(&["a", "c"]));
        assert_eq!(peers.nodes, nodes(&["a", "c"]));
    }
}

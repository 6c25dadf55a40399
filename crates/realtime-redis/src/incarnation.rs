//! [`Incarnation`]: one run of one node.

use std::{fmt, sync::Arc};

/// One run of one node, from start to stop: its name and 64 random bits. A node that restarts has a new one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Incarnation(Arc<str>);

impl Incarnation {
    /// Creates a new incarnation of the node with this name.
    pub fn new(node: &str) -> Self {
        Self(format!("{node}~{:016x}", rand::random::<u64>()).into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the node's name in the text of an incarnation.
    pub(crate) fn node(text: &str) -> &str {
        text.rsplit_once('~').map_or(text, |(node, _)| node)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_incarnations_of_a_node_differ_and_have_its_name() {
        let (first, second) = (Incarnation::new("a~b"), Incarnation::new("a~b"));
        assert_ne!(first, second);
        assert_eq!(Incarnation::node(first.as_str()), "a~b");
    }
}

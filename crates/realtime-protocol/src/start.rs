//! [`START`]: the patience with a node that starts.

use std::time::Duration;

/// Time that a request waits for the node to start.
pub(crate) const START: Duration = Duration::from_secs(5);

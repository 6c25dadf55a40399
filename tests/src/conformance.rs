//! The suites of `realtime-core`, and what the tests of buses have in common.

use std::{fmt::Display, sync::Arc};

pub use realtime_core::conformance::{
    BusTerms as Terms, Logins, Subscriber, authenticator_conforms, bus_conforms, control_conforms,
    late_node_conforms, presence_conforms, streams_conform, tickets_conform,
};
use realtime_core::{Envelope, Message, Scope};

/// A broadcast with a text.
pub fn envelope(text: impl Display) -> Arc<Envelope> {
    Arc::new(Envelope::broadcast(Scope::Both, Message::text(format!("{text}"))))
}

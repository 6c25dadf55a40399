//! Presence: the users that are online, on this node or in the cluster.
//!
//! [`LocalPresence`] lists the users of one node; `realtime-redis` has a [`Presence`] for the cluster.

mod contract;
mod feed;
mod local;
mod none;
pub(crate) mod watch;

pub use self::{
    contract::{
        OnlineCount, OnlineNode, OnlineSession, OnlineUser, Presence, PresenceChange, PresenceError,
        PresenceEvent, PresenceState,
    },
    feed::PresenceFeed,
    local::LocalPresence,
    none::NoPresence,
};

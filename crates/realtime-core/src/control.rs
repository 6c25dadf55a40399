//! Kicks and revocations: commands that every node of a cluster applies.
//!
//! `Hub::kick`, `Hub::revoke_token` and their siblings dispatch a [`Command`] through the hub's [`Control`].
//! [`LocalControl`] applies it on one node; `realtime-redis` takes it to every node.

mod contract;
mod encoding;
mod local;
mod question;

pub use self::{
    contract::{Command, CommandResult, Control, ControlError, Revocation, RevokedToken},
    local::{LocalControl, LocalResult},
    question::{Answer, Answers, Question},
};
pub use crate::delivery::{Confirmation, Delivery, DeliveryReport, NodeDelivery};

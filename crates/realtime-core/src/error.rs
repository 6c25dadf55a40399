//! Errors of the hub's methods and of invalid names.

pub use crate::{
    collapse_key::CollapseKeyError,
    connect_error::ConnectError,
    envelope_id::EnvelopeIdError,
    global::AlreadyInstalled,
    hub::{confirmations::ConfirmError, kicks::KickError},
    message::{EmptyTargets, EventNameError},
    position::CursorError,
    renewal::RenewError,
    send_error::{NotRetainable, NotText, PublishError, SendError, TooLarge},
    session::id::SessionIdError,
    topic::TopicError,
    user::UserIdError,
};

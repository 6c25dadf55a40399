//! Errors of the hub's methods and of invalid names.

pub use crate::{
    connect_error::ConnectError,
    envelope_id::EnvelopeIdError,
    global::AlreadyInstalled,
    hub::kicks::KickError,
    message::{EmptyTargets, EventNameError},
    position::CursorError,
    send_error::{NotText, PublishError, SendError, TooLarge},
    session::id::SessionIdError,
    topic::TopicError,
    user::UserIdError,
};

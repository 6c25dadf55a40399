//! Names and shapes of RuoYi-Vue-Plus: channels, DTOs, replies and error statuses.

mod dto;
mod error_status;
mod reply;

pub use self::{
    dto::{SSE_TOPIC, SseMessageDto, WEBSOCKET_TOPIC, WebSocketMessageDto},
    error_status::{ErrorStatus, UnknownErrorStatus},
    reply::Reply,
};

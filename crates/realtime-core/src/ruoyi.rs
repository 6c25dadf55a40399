//! Types of RuoYi-Vue-Plus: the DTOs of its channels, the reply of its HTTP API, and the status of its errors.

pub(crate) mod dto;
pub(crate) mod error_status;
pub(crate) mod reply;

//! What is RuoYi-Vue-Plus' own: the DTOs of its channels, the form of its HTTP answers, and how they tell of errors.

pub(crate) mod dto;
pub(crate) mod error_status;
pub(crate) mod reply;

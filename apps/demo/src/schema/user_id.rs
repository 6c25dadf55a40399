//! Schema of a user's id.

#![allow(unused_qualifications, reason = "utoipa's macros write paths in full")]

use serde::Serialize;
use utoipa::ToSchema;

/// A user: a number of 64 bits, or a text. A text that is such a number is that number; beyond ±(2^53−1) it is written as
/// text.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the values are those of the type of core")]
pub(crate) enum UserId {
    Number(i64),
    Text(String),
}

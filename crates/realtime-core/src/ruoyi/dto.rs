//! The DTOs that RuoYi-Vue-Plus nodes exchange over Redis, and their channels.

use serde::{Deserialize, Serialize, Serializer};

use crate::{UserId, user::JavaUser};

/// The Redis channel on which RuoYi nodes exchange [`WebSocketMessageDto`]s.
pub const WEBSOCKET_TOPIC: &str = "global:websocket";

/// The Redis channel on which RuoYi nodes exchange [`SseMessageDto`]s.
pub const SSE_TOPIC: &str = "global:sse";

/// DTO of RuoYi-Vue-Plus' `WebSocketUtils.publishMessage`: `{"sessionKeys":[1,2],"message":"text"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebSocketMessageDto {
    /// The users, by id. Publishing to an empty list is an error.
    #[serde(serialize_with = "java_users")]
    pub session_keys: Vec<UserId>,
    /// The text of the frame.
    pub message: String,
}

impl WebSocketMessageDto {
    /// Creates a DTO with a text for some users.
    pub fn new(users: impl IntoIterator<Item = impl Into<UserId>>, message: impl Into<String>) -> Self {
        Self { session_keys: users.into_iter().map(Into::into).collect(), message: message.into() }
    }
}

/// DTO of RuoYi-Vue-Plus' `SseMessageUtils.publishMessage`: `{"userIds":[1,2],"message":"text"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SseMessageDto {
    /// The users, by id. Publishing to an empty list is an error.
    #[serde(serialize_with = "java_users")]
    pub user_ids: Vec<UserId>,
    /// The event's data.
    pub message: String,
}

impl SseMessageDto {
    /// Creates a DTO with a text for some users.
    pub fn new(users: impl IntoIterator<Item = impl Into<UserId>>, message: impl Into<String>) -> Self {
        Self { user_ids: users.into_iter().map(Into::into).collect(), message: message.into() }
    }
}

/// Numbers whatever their size: Java reads these.
fn java_users<S: Serializer>(users: &[UserId], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(users.iter().map(JavaUser))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dtos_have_ruoyis_json_names() {
        let websocket = WebSocketMessageDto::new([1], "hi");
        assert_eq!(serde_json::to_string(&websocket).unwrap(), r#"{"sessionKeys":[1],"message":"hi"}"#);
        let snowflake = WebSocketMessageDto::new([1_925_000_000_000_000_001], "hi");
        let json = r#"{"sessionKeys":[1925000000000000001],"message":"hi"}"#;
        assert_eq!(serde_json::to_string(&snowflake).unwrap(), json);
        let sse = SseMessageDto::new(["a".parse::<UserId>().unwrap()], "hi");
        assert_eq!(serde_json::to_string(&sse).unwrap(), r#"{"userIds":["a"],"message":"hi"}"#);
    }
}

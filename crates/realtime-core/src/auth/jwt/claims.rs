//! [`Claims`]: the contents of a token.

use serde::{Deserialize, Serialize, Serializer};

use crate::{Position, Topic, UserId, auth::TopicPattern, user::JavaUser};

/// The claims of a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Claims {
    /// The user; takes precedence over `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "java_user")]
    pub user_id: Option<UserId>,
    /// The user, if there is no `userId`.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "java_user")]
    pub sub: Option<UserId>,
    /// The client id that a connection must match if it sends one.
    #[serde(default, rename = "clientid", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Named topics that its sessions are subscribed to. Others are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<Topic>,
    /// Named topics that its clients may subscribe to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<TopicPattern>,
    /// Position at which the history of its sessions begins: [`Principal::history_after`](crate::Principal::history_after).
    #[serde(default, skip_serializing_if = "Option::is_none", with = "cursor")]
    pub history_after: Option<Position>,
    /// Expiry, in seconds since 1970.
    pub exp: u64,
    /// Time of issue, in seconds since 1970; [`Hub::revoke_user`](crate::Hub::revoke_user) compares it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// Distinguishes two tokens of one second, so that kicking one does not affect the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
}

impl Claims {
    /// Creates the claims of a user that expire at a time in seconds since 1970.
    pub fn new(user: impl Into<UserId>, exp: u64) -> Self {
        Self { user_id: Some(user.into()), exp, ..Self::default() }
    }
}

/// A number whatever its size: other services read tokens, too.
fn java_user<S: Serializer>(user: &Option<UserId>, serializer: S) -> Result<S::Ok, S::Error> {
    user.as_ref().map(JavaUser).serialize(serializer)
}

/// Claims of a received token.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Received {
    #[serde(default)]
    pub(super) user_id: Option<UserId>,
    #[serde(default)]
    pub(super) sub: Option<UserId>,
    #[serde(default, rename = "clientid")]
    pub(super) client_id: Option<String>,
    #[serde(default)]
    pub(super) topics: Option<Vec<Topic>>,
    #[serde(default)]
    pub(super) grants: Option<Vec<TopicPattern>>,
    /// One that cannot be read makes the token none.
    #[serde(default, with = "cursor")]
    pub(super) history_after: Option<Position>,
    #[serde(default)]
    pub(super) exp: Option<f64>,
    #[serde(default)]
    pub(super) nbf: Option<f64>,
    #[serde(default)]
    pub(super) iat: Option<f64>,
    #[serde(default)]
    iss: serde_json::Value,
    #[serde(default)]
    aud: serde_json::Value,
}

impl Received {
    /// Returns `true` for tokens of this issuer (RFC 7519, section 4.1.1).
    pub(super) fn is_from(&self, issuer: &str) -> bool {
        self.iss == issuer
    }

    /// Returns `true` for tokens that are meant for this audience, alone or among others (RFC 7519, section 4.1.3).
    pub(super) fn is_for(&self, audience: &str) -> bool {
        match &self.aud {
            serde_json::Value::Array(all) => all.iter().any(|one| one == audience),
            one => one == audience,
        }
    }
}

/// A position as its text.
mod cursor {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::Position;

    pub(super) fn serialize<S: Serializer>(
        position: &Option<Position>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        position.map(|position| position.to_string()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Position>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

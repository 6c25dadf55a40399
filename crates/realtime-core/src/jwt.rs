//! [`JwtAuthenticator`]: logins that are signed tokens.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_core::future::BoxFuture;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};

use crate::{AuthError, Authenticator, ClientIdPolicy, Handshake, Principal, TokenHash, Topic, UserId};

/// Checks tokens signed with a shared secret.
///
/// The algorithm is fixed when the authenticator is made and never taken from the token; `exp` must be there and
/// is honoured to the second, also on live sessions. Claims: `userId` or else `sub` (number or string), and
/// optionally `clientid` and `topics` (a list of names).
#[derive(Clone)]
pub struct JwtAuthenticator {
    algorithm: JwtAlgorithm,
    encoding: EncodingKey,
    decoding: DecodingKey,
    client_id: ClientIdPolicy,
}

/// How tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    #[default]
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
}

/// The claims of a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claims {
    /// The user; it beats `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The user, where there is no `userId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<UserId>,
    /// The client id that a connection has to name, if it names one.
    #[serde(default, rename = "clientid", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Named topics that its sessions are in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<Topic>,
    /// When it ends, in seconds since 1970.
    pub exp: u64,
    /// When it was issued, in seconds since 1970; revoking a user's older tokens goes by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// Makes two tokens of one second differ, so that kicking one does not hit the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
}

/// A secret that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the JWT secret must not be empty")]
pub struct EmptySecret;

impl JwtAuthenticator {
    /// An authenticator for one algorithm and secret (its UTF-8 bytes).
    ///
    /// # Errors
    /// [`EmptySecret`]: an empty secret signs for everybody.
    pub fn new(algorithm: JwtAlgorithm, secret: &str) -> Result<Self, EmptySecret> {
        if secret.is_empty() {
            return Err(EmptySecret);
        }
        let (encoding, decoding) =
            (EncodingKey::from_secret(secret.as_bytes()), DecodingKey::from_secret(secret.as_bytes()));
        Ok(Self { algorithm, encoding, decoding, client_id: ClientIdPolicy::Optional })
    }

    /// Whether a connection has to name its client id.
    #[must_use]
    pub fn client_id_policy(mut self, policy: ClientIdPolicy) -> Self {
        self.client_id = policy;
        self
    }

    /// Signs a token.
    ///
    /// # Errors
    /// When the claims cannot be written as JSON.
    pub fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        jsonwebtoken::encode(&Header::new(self.algorithm.into()), claims, &self.encoding)
    }

    /// Checks a token and tells whom it belongs to.
    ///
    /// # Errors
    /// [`AuthError::Unauthorized`] with what is wrong; never with the token.
    pub fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        let unauthorized = |problem: &str| AuthError::Unauthorized(problem.to_owned());
        let mut validation = Validation::new(self.algorithm.into());
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        let data = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation).map_err(|error| {
            unauthorized(match error.kind() {
                ErrorKind::ExpiredSignature => "token has expired",
                ErrorKind::ImmatureSignature => "token is not valid yet",
                ErrorKind::InvalidSignature => "token signature is wrong",
                ErrorKind::InvalidAlgorithm => "token algorithm is not the configured one",
                ErrorKind::MissingRequiredClaim(_) => "token has no exp",
                ErrorKind::Json(_) => "token claims cannot be read",
                _ => "token is malformed",
            })
        })?;
        let Claims { user_id, sub, client_id, topics, exp, iat, .. } = data.claims;
        let user = user_id.or(sub).ok_or_else(|| unauthorized("token has neither userId nor sub"))?;
        let expires_at = UNIX_EPOCH
            .checked_add(Duration::from_secs(exp))
            .ok_or_else(|| unauthorized("token has an exp beyond all time"))?;
        if expires_at <= SystemTime::now() {
            return Err(unauthorized("token has expired"));
        }
        let issued_at = iat.and_then(|iat| UNIX_EPOCH.checked_add(Duration::from_secs(iat)));
        let (token, expires_at) = (TokenHash::of(token), Some(expires_at));
        Ok(Principal { user, client_id, token, issued_at, expires_at, topics, credential: None })
    }
}

impl Authenticator for JwtAuthenticator {
    fn authenticate<'a>(&'a self, handshake: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
        Box::pin(async move {
            let token = handshake
                .token()
                .ok_or_else(|| AuthError::Unauthorized("Authorization is missing".into()))?;
            let principal = self.verify(token)?;
            handshake.check_client_id(principal.client_id.as_deref(), self.client_id)?;
            Ok(principal)
        })
    }
}

impl fmt::Debug for JwtAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAuthenticator").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl From<JwtAlgorithm> for Algorithm {
    fn from(algorithm: JwtAlgorithm) -> Self {
        match algorithm {
            JwtAlgorithm::Hs256 => Self::HS256,
            JwtAlgorithm::Hs384 => Self::HS384,
            JwtAlgorithm::Hs512 => Self::HS512,
        }
    }
}

/// A name of no algorithm that is supported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of HS256, HS384, HS512")]
pub struct UnknownAlgorithm(String);

impl FromStr for JwtAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "HS256" => Ok(Self::Hs256),
            "HS384" => Ok(Self::Hs384),
            "HS512" => Ok(Self::Hs512),
            _ => Err(UnknownAlgorithm(name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a secret of the tests, long enough";

    fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    fn refused(result: Result<Principal, AuthError>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.status(), 401);
        error.to_string()
    }

    #[test]
    fn a_signed_token_tells_its_principal() {
        let jwt = JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap();
        let claims = Claims {
            user_id: Some(7.into()),
            sub: Some("other".parse().unwrap()),
            client_id: Some("web".into()),
            topics: vec![Topic::new("role:admin").unwrap()],
            exp: now() + 60,
            iat: Some(7),
            jti: None,
        };
        let token = jwt.sign(&claims).unwrap();
        let principal = jwt.verify(&token).unwrap();
        assert_eq!(principal.user, UserId::from(7));
        assert_eq!(principal.client_id.as_deref(), Some("web"));
        assert_eq!(principal.topics, claims.topics);
        assert_eq!(principal.expires_at, Some(UNIX_EPOCH + Duration::from_secs(claims.exp)));
        assert_eq!(principal.issued_at, Some(UNIX_EPOCH + Duration::from_secs(7)));
        assert_eq!(principal.token, TokenHash::of(&token));
    }

    #[test]
    fn the_algorithm_is_never_taken_from_the_token() {
        let strict = JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap();
        let other = JwtAuthenticator::new(JwtAlgorithm::Hs512, SECRET).unwrap();
        let claims = Claims { sub: Some(1.into()), exp: now() + 60, ..Claims::default() };
        assert!(refused(strict.verify(&other.sign(&claims).unwrap())).contains("algorithm"));
        // {"alg":"none"} . {"sub":1,"exp":9999999999} . nothing
        let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOjEsImV4cCI6OTk5OTk5OTk5OX0.";
        refused(strict.verify(none));
    }

    #[test]
    fn bad_tokens_are_told_apart() {
        let jwt = JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap();
        let stranger = JwtAuthenticator::new(JwtAlgorithm::Hs256, "another secret").unwrap();
        let good = Claims { sub: Some(1.into()), exp: now() + 60, ..Claims::default() };
        for (token, problem) in [
            (stranger.sign(&good).unwrap(), "signature"),
            (jwt.sign(&Claims { exp: now() - 1, ..good.clone() }).unwrap(), "expired"),
            (jwt.sign(&Claims { exp: now(), ..good.clone() }).unwrap(), "expired"),
            (jwt.sign(&Claims { sub: None, ..good.clone() }).unwrap(), "neither userId nor sub"),
            (jwt.sign(&Claims { exp: u64::MAX, ..good }).unwrap(), "exp"),
            ("not a token".into(), "malformed"),
        ] {
            let message = refused(jwt.verify(&token));
            assert!(message.contains(problem), "{message} should say {problem}");
        }
        assert_eq!(JwtAuthenticator::new(JwtAlgorithm::Hs256, "").unwrap_err(), EmptySecret);
    }
}

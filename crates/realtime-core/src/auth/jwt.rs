//! [`JwtAuthenticator`]: authentication with signed tokens.

mod times;
mod verified;

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, OnceLock},
};

use futures_core::future::BoxFuture;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};

use crate::{
    Authenticator, Principal, Topic, UserId,
    auth::{AuthError, ClientIdPolicy, Extensions, Handshake, TokenHash, TopicPattern},
};
use times::{check_times, time};
use verified::{Login, VerifiedTokens};

/// Verifies tokens signed with a shared secret.
///
/// The algorithm is fixed when the authenticator is created and never taken from the token. `exp` is required and
/// enforced to the second, also for open sessions. Claims: `userId` or else `sub` (number or string), and optionally
/// `nbf`, `iat`, `clientid`, `topics` (a list of names) and `grants` (a list of [patterns](TopicPattern)). Times are seconds since 1970, whole or with a fraction (RFC
/// 7519, section 2); a fraction of `exp` and `iat` is rounded down. A header with `crit` is rejected (RFC 7515, section
/// 4.1.11: no extension is supported), and so is one with `zip`, `enc` or `b64: false`.
///
/// Each token is verified once: the login of a valid token is cached under the token's hash, for up to 3,584 of the
/// most recently used tokens, and shared by all clones. The cache never admits a login that verification would reject:
/// a hash identifies one token, and the secret and algorithm never change. Times and the client id are compared at each
/// handshake, and [`Hub::connect`](crate::Hub::connect) checks each time whether the login has been kicked or revoked.
/// Invalid tokens are not cached.
#[derive(Clone)]
pub struct JwtAuthenticator {
    algorithm: JwtAlgorithm,
    encoding: EncodingKey,
    decoding: DecodingKey,
    client_id: ClientIdPolicy,
    verified: Arc<VerifiedTokens>,
    /// The encoded header of the first valid token: tokens of one issuer have the same header.
    header: Arc<OnceLock<Box<str>>>,
}

/// Signature algorithm of tokens.
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
#[non_exhaustive]
pub struct Claims {
    /// The user; takes precedence over `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The user, if there is no `userId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<UserId>,
    /// The client id that a connection must match if it sends one.
    #[serde(default, rename = "clientid", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Named topics that its sessions are subscribed to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<Topic>,
    /// Named topics that its clients may subscribe to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<TopicPattern>,
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

/// Claims of a received token.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Received {
    #[serde(default)]
    user_id: Option<UserId>,
    #[serde(default)]
    sub: Option<UserId>,
    #[serde(default, rename = "clientid")]
    client_id: Option<String>,
    #[serde(default)]
    topics: Vec<Topic>,
    #[serde(default)]
    grants: Vec<TopicPattern>,
    #[serde(default)]
    exp: Option<f64>,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    iat: Option<f64>,
}

/// Error of an empty secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the JWT secret must not be empty")]
pub struct EmptySecret;

impl JwtAuthenticator {
    /// Creates an authenticator for one algorithm and secret (its UTF-8 bytes).
    ///
    /// # Errors
    /// [`EmptySecret`] for an empty secret, with which anyone could sign tokens.
    pub fn new(algorithm: JwtAlgorithm, secret: &str) -> Result<Self, EmptySecret> {
        if secret.is_empty() {
            return Err(EmptySecret);
        }
        let (encoding, decoding) =
            (EncodingKey::from_secret(secret.as_bytes()), DecodingKey::from_secret(secret.as_bytes()));
        Ok(Self {
            algorithm,
            encoding,
            decoding,
            client_id: ClientIdPolicy::Optional,
            verified: Arc::default(),
            header: Arc::default(),
        })
    }

    /// Sets whether a connection has to send its client id.
    #[must_use]
    pub fn client_id_policy(mut self, policy: ClientIdPolicy) -> Self {
        self.client_id = policy;
        self
    }

    /// Signs a token.
    ///
    /// # Errors
    /// If the claims cannot be serialized as JSON.
    pub fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        jsonwebtoken::encode(&Header::new(self.algorithm.into()), claims, &self.encoding)
    }

    /// Verifies a token and returns its principal.
    ///
    /// # Errors
    /// [`AuthError::Unauthorized`] with the reason. The text never contains the token.
    pub fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        let hash = TokenHash::of(token);
        if let Some(login) = self.verified.find(hash) {
            login.check_times()?;
            return Ok(login.principal);
        }
        let login = self.decode(token, hash)?;
        self.verified.insert(hash, login.clone());
        Ok(login.principal)
    }

    fn decode(&self, token: &str, hash: TokenHash) -> Result<Login, AuthError> {
        let unauthorized = |problem: &str| AuthError::Unauthorized(problem.to_owned());
        let algorithm = Algorithm::from(self.algorithm);
        let encoded_header = token.split('.').next().unwrap_or_default();
        if self.header.get().is_none_or(|known| **known != *encoded_header) {
            let header = jsonwebtoken::decode_header(token).map_err(|error| {
                unauthorized(match error.kind() {
                    ErrorKind::Json(_) => "token header cannot be read",
                    _ => "token is malformed",
                })
            })?;
            if header.alg != algorithm {
                return Err(unauthorized("token algorithm is not the configured one"));
            }
            check_header(&header).map_err(unauthorized)?;
        }
        let mut validation = Validation::new(algorithm);
        // Times are compared below, since the library rounds them.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let data = jsonwebtoken::decode::<Received>(token, &self.decoding, &validation).map_err(|error| {
            unauthorized(match error.kind() {
                ErrorKind::InvalidSignature => "token signature is wrong",
                ErrorKind::Json(_) => "token claims cannot be read",
                _ => "token is malformed",
            })
        })?;
        self.header.get_or_init(|| encoded_header.into());
        let Received { user_id, sub, client_id, topics, grants, exp, nbf, iat } = data.claims;
        let exp = exp.ok_or_else(|| unauthorized("token has no exp"))?;
        let expires_at =
            time(exp.floor()).ok_or_else(|| unauthorized("token has an exp that is out of range"))?;
        check_times(expires_at, nbf)?;
        let user = user_id.or(sub).ok_or_else(|| unauthorized("token has neither userId nor sub"))?;
        let principal = Principal {
            user,
            client_id: client_id.map(Into::into),
            token: hash,
            issued_at: iat.and_then(|iat| time(iat.floor())),
            expires_at: Some(expires_at),
            topics,
            grants,
            history_after: None,
            credential: None,
            extensions: Extensions::new(),
        };
        Ok(Login { principal, expires_at, nbf })
    }
}

/// Rejects header parameters that would change the meaning of the token.
fn check_header(header: &Header) -> Result<(), &'static str> {
    if header.crit.is_some() {
        Err("token has critical header parameters, none of which is supported")
    } else if header.zip.is_some() || header.enc.is_some() {
        Err("token is compressed or encrypted")
    } else if header.extras.inner().get("b64").is_some_and(|b64| *b64 != true) {
        // RFC 7797
        Err("token has an unencoded payload")
    } else {
        Ok(())
    }
}

impl Authenticator for JwtAuthenticator {
    fn authenticate<'a>(&'a self, handshake: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
        Box::pin(async move {
            let principal = self.verify(handshake.require_token()?)?;
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

/// Error of an unsupported algorithm name.
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
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    fn a_signed_token_yields_its_principal() {
        let jwt = JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap();
        let claims = Claims {
            user_id: Some(7.into()),
            sub: Some("other".parse().unwrap()),
            client_id: Some("web".into()),
            topics: vec![Topic::new("role:admin").unwrap()],
            grants: vec![TopicPattern::new("order:*").unwrap()],
            exp: now() + 60,
            iat: Some(7),
            jti: None,
        };
        let token = jwt.sign(&claims).unwrap();
        let principal = jwt.verify(&token).unwrap();
        assert_eq!(principal.user, UserId::from(7));
        assert_eq!(principal.client_id.as_deref(), Some("web"));
        assert_eq!((principal.topics, principal.grants), (claims.topics, claims.grants));
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
    fn bad_tokens_are_distinguished() {
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

    /// A correctly signed token with any header and claims.
    fn forge(header: &str, claims: &str) -> String {
        let part = |json: &str| {
            let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            json.as_bytes().chunks(3).fold(String::new(), |mut text, three| {
                let bits = (0..3).fold(0, |bits, n| bits << 8 | u32::from(*three.get(n).unwrap_or(&0)));
                for n in 0..=three.len() {
                    text.push(char::from(alphabet[(bits >> (18 - 6 * n) & 63) as usize]));
                }
                text
            })
        };
        let message = format!("{}.{}", part(header), part(claims));
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{message}.{signature}")
    }

    #[test]
    fn a_header_that_changes_the_meaning_of_the_token_is_refused() {
        let jwt = JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap();
        let claims = format!(r#"{{"sub":1,"exp":{}}}"#, now() + 60);
        for accepted in ["", r#","typ":"JWT","kid":"1","x":2"#, r#","b64":true"#] {
            jwt.verify(&forge(&format!(r#"{{"alg":"HS256"{accepted}}}"#), &claims)).unwrap();
        }
        for (header, problem) in [
            (r#","crit":["exp"],"exp":1"#, "critical"),
            (r#","crit":["b64"],"b64":true"#, "critical"),
            (r#","crit":[]"#, "critical"),
            (r#","crit":"exp""#, "header cannot be read"),
            (r#","zip":"DEF""#, "compressed"),
            (r#","zip":"GZ""#, "compressed"),
            (r#","enc":"A128GCM""#, "encrypted"),
            (r#","b64":false"#, "unencoded"),
            (r#","b64":"false""#, "unencoded"),
            (r#","alg":"HS256""#, "header cannot be read"),
        ] {
            let message = refused(jwt.verify(&forge(&format!(r#"{{"alg":"HS256"{header}}}"#), &claims)));
            assert!(message.contains(problem), "{header}: {message} should say {problem}");
        }
    }

    #[test]
    fn a_token_is_verified_once_and_still_ends_in_time() {
        let jwt = JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap();
        let claims = Claims { sub: Some(1.into()), exp: now() + 60, ..Claims::default() };
        let token = jwt.sign(&claims).unwrap();
        let hash = TokenHash::of(&token);
        let principal = jwt.verify(&token).unwrap();
        let clone = jwt.clone();
        assert_eq!(clone.verified.find(hash).unwrap().principal, principal);
        assert_eq!(clone.verify(&token).unwrap(), principal);
        // A cached login is checked like a token.
        let ended = UNIX_EPOCH + Duration::from_secs(now());
        jwt.verified.insert(hash, Login { principal: principal.clone(), expires_at: ended, nbf: None });
        assert!(refused(jwt.verify(&token)).contains("expired"));
        let soon = Some((now() + 60) as f64);
        jwt.verified
            .insert(hash, Login { principal, expires_at: ended + Duration::from_secs(60), nbf: soon });
        assert!(refused(jwt.verify(&token)).contains("not valid yet"));
    }

    #[test]
    fn a_refused_token_is_not_cached() {
        let jwt = JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap();
        let stranger = JwtAuthenticator::new(JwtAlgorithm::Hs256, "another secret").unwrap();
        let good = Claims { sub: Some(1.into()), exp: now() + 60, ..Claims::default() };
        let crit =
            forge(r#"{"alg":"HS256","crit":["exp"]}"#, &format!(r#"{{"sub":1,"exp":{}}}"#, now() + 60));
        let early = format!(r#"{{"sub":1,"exp":{},"nbf":{}}}"#, now() + 60, now() + 30);
        for token in [
            stranger.sign(&good).unwrap(),
            jwt.sign(&Claims { exp: now() - 1, ..good.clone() }).unwrap(),
            jwt.sign(&Claims { sub: None, ..good }).unwrap(),
            forge(r#"{"alg":"HS256"}"#, &early),
            crit,
            "not a token".into(),
        ] {
            refused(jwt.verify(&token));
            refused(jwt.verify(&token));
        }
        assert_eq!(jwt.verified.len(), 0);
    }

    #[test]
    fn times_may_have_a_fraction_and_no_number_is_a_panic() {
        let jwt = JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap();
        let verify =
            |claims: &str| jwt.verify(&forge(r#"{"alg":"HS256"}"#, &format!(r#"{{"sub":1,{claims}}}"#)));
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        for (exp, seconds) in
            [("4102444800", 4_102_444_800), ("4102444800.75", 4_102_444_800), ("4.1e9", 4_100_000_000)]
        {
            for (iat, issued_at) in [
                (r#","iat":7"#, at(7)),
                (r#","iat":7.9"#, at(7)),
                (r#","iat":1e9"#, at(1_000_000_000)),
                (r#","iat":-1.5"#, Some(UNIX_EPOCH - Duration::from_secs(2))),
                (r#","iat":1e300"#, None),
                (r#","iat":null"#, None),
                ("", None),
            ] {
                let principal = verify(&format!(r#""exp":{exp}{iat}"#)).unwrap();
                assert_eq!(
                    (principal.expires_at, principal.issued_at),
                    (at(seconds), issued_at),
                    "{exp}{iat}"
                );
            }
        }
        let past = format!(r#""exp":{}.5"#, now() - 1);
        let future = format!(r#""exp":4e9,"nbf":{}.5"#, now() + 60);
        for (claims, problem) in [
            (past.as_str(), "expired"),
            (r#""exp":-1"#, "expired"),
            (r#""exp":-0.5"#, "expired"),
            (r#""exp":1e3"#, "expired"),
            (r#""exp":18446744073709551615"#, "out of range"),
            (r#""exp":1e300"#, "out of range"),
            (r#""exp":-1e300"#, "out of range"),
            (r#""exp":1e400"#, "claims cannot be read"),
            (r#""exp":"4102444800""#, "claims cannot be read"),
            (r#""exp":4e9,"exp":5e9"#, "claims cannot be read"),
            (r#""exp":null"#, "no exp"),
            (r#""iat":1"#, "no exp"),
            (future.as_str(), "not valid yet"),
            (r#""exp":4e9,"nbf":1e300"#, "not valid yet"),
            (r#""exp":4e9,"nbf":[]"#, "claims cannot be read"),
            (r#""exp":4e9,"iat":"now""#, "claims cannot be read"),
        ] {
            let message = refused(verify(claims));
            assert!(message.contains(problem), "{claims}: {message} should say {problem}");
        }
        for nbf in ["1.5", "-1e300", "null", "0"] {
            verify(&format!(r#""exp":4e9,"nbf":{nbf}"#)).unwrap();
        }
    }
}

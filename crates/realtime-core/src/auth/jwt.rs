//! [`JwtAuthenticator`]: authentication with signed tokens.

mod algorithm;
mod claims;
mod key;
mod key_set;
#[cfg(test)]
mod public_keys;
mod rotation;
mod signing;
mod source;
#[cfg(test)]
pub(crate) mod test_keys;
mod times;
#[cfg(feature = "jwks")]
mod url;
mod verified;

use std::{fmt, iter, sync::Arc};

use futures_core::future::BoxFuture;
use jsonwebtoken::{Algorithm, Header, crypto, dangerous, errors::ErrorKind};

use crate::{
    Authenticator, Principal,
    auth::{AuthError, ClientIdPolicy, Extensions, Handshake, TokenHash},
};
use claims::Received;
use key_set::{KeySet, Known};
use rotation::Answer;
use signing::Signed;
use times::{check_times, time};
use verified::{Login, Required};

#[cfg(feature = "jwks")]
pub use self::url::JwkUrl;
pub use self::{
    algorithm::{JwtAlgorithm, PublicKeyAlgorithm, UnknownAlgorithm},
    claims::Claims,
    key::{JwtKey, JwtKeyError},
    rotation::{RotatingKeys, RotatingKeysBuilder},
    signing::JwtSigningKey,
    source::{JwkFile, JwkSource, JwkSourceError},
};

/// Verifies signed tokens, with a shared secret or with public keys.
///
/// A [key](JwtKey) knows the algorithms that it may be used with; a token's `alg` and `kid` choose among the keys, and
/// never how a key is used. `exp` is required and enforced to the second, also for open sessions. Claims: `userId` or else
/// `sub` (number or string), and optionally `nbf`, `iat`, `clientid`, `topics` (a list of names), `grants` (a list of
/// [patterns](crate::auth::TopicPattern)) and `historyAfter` (a cursor: [`Principal::history_after`]). Times are seconds
/// since 1970, whole or with a fraction (RFC 7519, section 2); a fraction of `exp` and `iat` is rounded down. A header with
/// `crit` is rejected (RFC 7515, section 4.1.11: no extension is supported), and so is one with `zip`, `enc` or
/// `b64: false`.
///
/// A token with `kid` is compared with the keys of that id, and if there are none with the keys without an id. A token
/// without `kid` is compared with all keys of its algorithm, of which there may be up to eight. A token whose key is not known
/// has [rotating keys](Self::rotating) read again; as long as they have never been read, that is each without `kid` for which no
/// other key is right.
///
/// Each token is verified once: the login of a valid token is cached under the token's hash, for up to 3,584 of the
/// most recently used tokens, and shared by all clones. The cache never admits a login that verification would reject:
/// a hash identifies one token, the cache is given up with the keys when one of them changes, and it holds what was verified
/// for the same issuer and audience. Times and the client id are compared at each handshake, and
/// [`Hub::connect`](crate::Hub::connect) checks each time whether the login has been kicked or revoked. Invalid tokens are
/// not cached.
#[derive(Clone)]
pub struct JwtAuthenticator {
    fixed: Arc<KeySet>,
    rotating: Option<RotatingKeys>,
    signing: Option<JwtSigningKey>,
    required: Required,
    client_id: ClientIdPolicy,
}

/// Error of a token that cannot be signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// There is neither a secret nor a signing key, and the public keys cannot sign.
    #[error("there is no secret to sign tokens with")]
    NoSecret,
    /// The claims cannot be serialized as JSON.
    #[error("the claims cannot be signed: {0}")]
    Claims(String),
}

/// Reason why a token is not accepted.
enum Rejection {
    /// It is none.
    Token(AuthError),
    /// Its key is not known; a newer set may have it.
    UnknownKey,
}

/// Keys that a token without `kid` is compared with at most: each costs a verification.
const MAX_CANDIDATES: usize = 8;

impl JwtAuthenticator {
    /// Creates an authenticator for one algorithm and secret (its UTF-8 bytes).
    ///
    /// # Errors
    /// [`JwtKeyError::EmptySecret`] for an empty secret, with which anyone could sign tokens.
    pub fn new(algorithm: JwtAlgorithm, secret: &str) -> Result<Self, JwtKeyError> {
        let mut new = Self::with_keys([JwtKey::secret(algorithm, secret)?]);
        new.signing = Some(JwtSigningKey::secret(algorithm, secret));
        Ok(new)
    }

    /// Creates an authenticator for these keys. It cannot sign without a [key for that](Self::signing_key).
    pub fn with_keys(keys: impl IntoIterator<Item = JwtKey>) -> Self {
        Self {
            fixed: Arc::new(KeySet::new(keys.into_iter().collect())),
            rotating: None,
            signing: None,
            required: Required::default(),
            client_id: ClientIdPolicy::Optional,
        }
    }

    /// Adds keys to those that there are.
    #[must_use]
    pub fn keys(mut self, keys: impl IntoIterator<Item = JwtKey>) -> Self {
        self.fixed = Arc::new(KeySet::new(self.fixed.keys().iter().cloned().chain(keys).collect()));
        self
    }

    /// Adds keys that change.
    #[must_use]
    pub fn rotating(mut self, keys: RotatingKeys) -> Self {
        self.rotating = Some(keys);
        self
    }

    /// Accepts tokens of this issuer (`iss`) only.
    #[must_use]
    pub fn issuer(mut self, issuer: &str) -> Self {
        self.required.issuer = Some(issuer.into());
        self
    }

    /// Accepts tokens for this audience (`aud`) only. Where an issuer serves several applications, their tokens differ in
    /// nothing else.
    #[must_use]
    pub fn audience(mut self, audience: &str) -> Self {
        self.required.audience = Some(audience.into());
        self
    }

    /// Sets whether a connection has to send its client id.
    #[must_use]
    pub fn client_id_policy(mut self, policy: ClientIdPolicy) -> Self {
        self.client_id = policy;
        self
    }

    /// Sets the key that signs, in place of the secret. Tokens that it signs are accepted only if its public key is among
    /// the keys.
    #[must_use]
    pub fn signing_key(mut self, key: JwtSigningKey) -> Self {
        self.signing = Some(key);
        self
    }

    /// Signs a token with the signing key or the secret. Where one [issuer](Self::issuer) or [audience](Self::audience) is
    /// accepted only, the token names it.
    ///
    /// # Errors
    /// [`SignError`] without a signing key and a secret.
    pub fn sign(&self, claims: &Claims) -> Result<String, SignError> {
        let signing = self.signing.as_ref().ok_or(SignError::NoSecret)?;
        let (iss, aud) = (self.required.issuer.as_deref(), self.required.audience.as_deref());
        signing.sign(&Signed { claims, iss, aud }).map_err(|error| SignError::Claims(error.to_string()))
    }

    /// Verifies a token with the keys that are known now, and returns its principal.
    ///
    /// # Errors
    /// [`AuthError::Unauthorized`] with the reason. The text never contains the token.
    pub fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        Ok(self.check(token)?)
    }

    /// Verifies a token; one whose key is not known has the rotating keys read again.
    async fn verify_anew(&self, token: &str) -> Result<Principal, AuthError> {
        let checked = self.check(token);
        let (Err(Rejection::UnknownKey), Some(rotating)) = (&checked, &self.rotating) else {
            return Ok(checked?);
        };
        let answer = rotating.ask().await;
        match (self.check(token), answer) {
            (Err(Rejection::UnknownKey), Answer::Failed) => Err(AuthError::Unavailable(
                "the key of a token is not known, and the JSON Web Key Set cannot be read".to_owned(),
            )),
            (checked, _) => Ok(checked?),
        }
    }

    fn check(&self, token: &str) -> Result<Principal, Rejection> {
        let hash = TokenHash::of(token);
        let rotating = self.rotating.as_ref().and_then(RotatingKeys::keys);
        let sets = || iter::once(&self.fixed).chain(&rotating);
        if let Some(login) = sets().find_map(|set| set.verified.find(hash, &self.required)) {
            login.check_times()?;
            return Ok(login.principal);
        }
        let encoded = token.split('.').next().unwrap_or_default();
        // Only a hint where it fails: another set may have had no key of this algorithm then.
        let tried: Vec<_> = sets()
            .filter_map(|set| Some((set, set.known.get().filter(|known| *known.encoded == *encoded)?)))
            .collect();
        let mut rejection = None;
        for (set, known) in &tried {
            match decode(token, known.algorithm, &set.keys()[known.key]) {
                Ok(received) => return Ok(self.admit(set, hash, received)?),
                Err(error) => rejection = Some(error),
            }
        }
        let header = read_header(token)?;
        let named = |set: &KeySet| {
            header.kid.is_some() && set.keys().iter().any(|key| key.name() == header.kid.as_deref())
        };
        let is_known = sets().any(|set| named(set));
        let is_candidate = |key: &JwtKey| match (&header.kid, is_known) {
            (Some(kid), true) => key.name() == Some(kid),
            (Some(_), false) => key.name().is_none(),
            (None, _) => true,
        };
        let candidates: Vec<(&Arc<KeySet>, usize)> = sets()
            .flat_map(|set| set.keys().iter().enumerate().map(move |(n, key)| (set, n, key)))
            .filter(|(_, _, key)| is_candidate(key) && key.has(header.alg))
            .filter(|(set, n, _)| !tried.iter().any(|(of, known)| Arc::ptr_eq(of, set) && known.key == *n))
            .map(|(set, n, _)| (set, n))
            .collect();
        if candidates.len() > MAX_CANDIDATES {
            return Err(unauthorized("token names none of the keys").into());
        }
        // A set that has never been read may have the key of any token.
        let is_unknown = self.rotating.is_some() && !is_known && (header.kid.is_some() || rotating.is_none());
        for (set, n) in &candidates {
            match decode(token, header.alg, &set.keys()[*n]) {
                Ok(received) => {
                    if candidates.len() == 1 && !is_unknown {
                        let known = Known { encoded: encoded.into(), algorithm: header.alg, key: *n };
                        set.known.set(known).ok();
                    }
                    return Ok(self.admit(set, hash, received)?);
                }
                Err(error) => rejection = Some(error),
            }
        }
        let rejection =
            rejection.unwrap_or_else(|| unauthorized("token algorithm is not the configured one"));
        Err(if is_unknown { Rejection::UnknownKey } else { rejection.into() })
    }

    /// Checks the claims of a token whose signature is right.
    fn admit(&self, set: &KeySet, hash: TokenHash, received: Received) -> Result<Principal, AuthError> {
        let Required { issuer, audience } = &self.required;
        if issuer.as_deref().is_some_and(|issuer| !received.is_from(issuer)) {
            return Err(unauthorized("token is of another issuer"));
        }
        if audience.as_deref().is_some_and(|audience| !received.is_for(audience)) {
            return Err(unauthorized("token is for another audience"));
        }
        let Received { user_id, sub, client_id, topics, grants, history_after, exp, nbf, iat, .. } = received;
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
            // `null` is absent, as Java's writers of JSON mean it.
            topics: topics.unwrap_or_default(),
            grants: grants.unwrap_or_default(),
            history_after,
            credential: None,
            extensions: Extensions::new(),
        };
        let login = Login { principal: principal.clone(), expires_at, nbf };
        set.verified.insert(hash, &self.required, login);
        Ok(principal)
    }
}

impl From<AuthError> for Rejection {
    fn from(error: AuthError) -> Self {
        Self::Token(error)
    }
}

impl From<Rejection> for AuthError {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Token(error) => error,
            Rejection::UnknownKey => unauthorized("token is signed with a key that is not known"),
        }
    }
}

fn unauthorized(problem: &str) -> AuthError {
    AuthError::Unauthorized(problem.to_owned())
}

fn read_header(token: &str) -> Result<Header, AuthError> {
    let header = jsonwebtoken::decode_header(token).map_err(|error| {
        unauthorized(match error.kind() {
            ErrorKind::Json(_) => "token header cannot be read",
            _ => "token is malformed",
        })
    })?;
    check_header(&header).map_err(unauthorized)?;
    Ok(header)
}

/// Verifies a token's signature with a key, which has the algorithm, and reads its claims. The header was checked before,
/// with this token or an earlier one; times, issuer and audience are compared afterwards.
fn decode(token: &str, algorithm: Algorithm, key: &JwtKey) -> Result<Received, AuthError> {
    let malformed = || unauthorized("token is malformed");
    let (message, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
    if message.matches('.').count() != 1 {
        return Err(malformed());
    }
    match crypto::verify(signature, message.as_bytes(), key.decoding(), algorithm) {
        Ok(true) if key.may_have(signature) => {}
        Ok(_) => return Err(unauthorized("token signature is wrong")),
        Err(_) => return Err(malformed()),
    }
    dangerous::insecure_decode_claims(token).map_err(|error| match error.kind() {
        ErrorKind::Json(_) => unauthorized("token claims cannot be read"),
        _ => malformed(),
    })
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
            let principal = self.verify_anew(handshake.require_token()?).await?;
            handshake.check_client_id(principal.client_id.as_deref(), self.client_id)?;
            Ok(principal)
        })
    }
}

impl fmt::Debug for JwtAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAuthenticator")
            .field("keys", &self.fixed.keys())
            .field("rotating", &self.rotating)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
    use jsonwebtoken::EncodingKey;

    use super::*;
    use crate::{Topic, UserId, auth::TopicPattern};

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
            history_after: Some("7.3".parse().unwrap()),
        };
        let token = jwt.sign(&claims).unwrap();
        let principal = jwt.verify(&token).unwrap();
        assert_eq!(principal.user, UserId::from(7));
        assert_eq!(principal.client_id.as_deref(), Some("web"));
        assert_eq!((principal.topics, principal.grants), (claims.topics, claims.grants));
        assert_eq!(principal.history_after, claims.history_after);
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
            (jwt.sign(&Claims { exp: u64::MAX, ..good.clone() }).unwrap(), "exp"),
            ("not a token".into(), "malformed"),
        ] {
            let message = refused(jwt.verify(&token));
            assert!(message.contains(problem), "{message} should say {problem}");
        }
        // The header of a valid token is known from then on, which excuses nothing behind it.
        let valid = jwt.sign(&good).unwrap();
        jwt.verify(&valid).unwrap();
        let parts: Vec<_> = valid.split('.').collect();
        let [header, claims, signature] = parts[..] else { panic!("{valid}") };
        for (token, problem) in [
            (stranger.sign(&good).unwrap(), "signature"),
            (format!("{header}.{claims}."), "signature"),
            (format!("{header}.{claims}.{signature}!"), "malformed"),
            (format!("{header}.{claims}.{signature}="), "malformed"),
            (format!("{header}.{claims}.{claims}.{signature}"), "malformed"),
            (format!("{header}..{signature}"), "signature"),
            (format!("{header}.{signature}"), "malformed"),
            (header.to_owned(), "malformed"),
            (format!(".{valid}"), "malformed"),
            (forge_parts(header, "!"), "malformed"),
            (forge_parts(header, ""), "claims cannot be read"),
        ] {
            let message = refused(jwt.verify(&token));
            assert!(message.contains(problem), "{token}: {message} should say {problem}");
        }
        assert_eq!(JwtAuthenticator::new(JwtAlgorithm::Hs256, "").unwrap_err(), JwtKeyError::EmptySecret);
    }

    /// A correctly signed token with any header and claims.
    fn forge(header: &str, claims: &str) -> String {
        let [header, claims] = [header, claims].map(|json| BASE64_URL_SAFE_NO_PAD.encode(json.as_bytes()));
        forge_parts(&header, &claims)
    }

    /// A correctly signed token of any two parts.
    fn forge_parts(header: &str, claims: &str) -> String {
        let message = format!("{header}.{claims}");
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
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
        assert_eq!(clone.fixed.verified.find(hash, &jwt.required).unwrap().principal, principal);
        assert_eq!(clone.verify(&token).unwrap(), principal);
        // A cached login is checked like a token.
        let ended = UNIX_EPOCH + Duration::from_secs(now());
        let insert = |login| jwt.fixed.verified.insert(hash, &jwt.required, login);
        insert(Login { principal: principal.clone(), expires_at: ended, nbf: None });
        assert!(refused(jwt.verify(&token)).contains("expired"));
        let soon = Some((now() + 60) as f64);
        insert(Login { principal, expires_at: ended + Duration::from_secs(60), nbf: soon });
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
        assert_eq!(jwt.fixed.verified.len(), 0);
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

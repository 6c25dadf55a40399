//! [`KeySet`]: keys that hold together, and what has been verified with them.

use std::sync::OnceLock;

use jsonwebtoken::{Algorithm, jwk::Jwk};
use serde::Deserialize;

use super::{JwtKey, PublicKeyAlgorithm, verified::VerifiedTokens};

/// Keys, and the cache of tokens that they have verified.
///
/// A set never changes: when a key is added or removed, another set with a cache of its own takes its place. So no token
/// outlives its key in a cache, even one that is being verified meanwhile.
#[derive(Default)]
pub(super) struct KeySet {
    keys: Vec<JwtKey>,
    pub(super) verified: VerifiedTokens,
    /// The header of the first valid token, and its key: the tokens of one issuer have the same header. Tokens of another
    /// set's keys may have it too.
    pub(super) known: OnceLock<Known>,
}

/// A header that was checked.
pub(super) struct Known {
    pub(super) encoded: Box<str>,
    pub(super) algorithm: Algorithm,
    pub(super) key: usize,
}

/// Keys of a set at most; a set is bounded, like everything that comes from outside.
const MAX_KEYS: usize = 100;

/// A set of keys that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no JSON Web Key Set: {0}")]
pub(super) struct NoKeySet(String);

impl KeySet {
    pub(super) fn new(keys: Vec<JwtKey>) -> Self {
        Self { keys, ..Self::default() }
    }

    /// Reads a JSON Web Key Set. Keys that cannot be used are left out (RFC 7517, section 5), and said in the log.
    pub(super) fn parse(json: &str, algorithms: Option<&[PublicKeyAlgorithm]>) -> Result<Self, NoKeySet> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<serde_json::Value>,
        }
        let Document { keys } = serde_json::from_str(json).map_err(|error| NoKeySet(error.to_string()))?;
        if keys.len() > MAX_KEYS {
            return Err(NoKeySet(format!("{} keys, more than {MAX_KEYS}", keys.len())));
        }
        let mut usable = Vec::new();
        for key in keys {
            let kid = key.get("kid").and_then(|id| id.as_str()).unwrap_or_default().to_owned();
            let key = serde_json::from_value::<Jwk>(key).map_err(|error| error.to_string());
            let key = key.and_then(|key| {
                let key = JwtKey::from_jwk(&key);
                let key = key.and_then(|key| match algorithms {
                    Some(only) => key.only(only.iter().copied()),
                    None => Ok(key),
                });
                key.map_err(|error| error.to_string())
            });
            match key {
                Ok(key) => usable.push(key),
                Err(problem) => tracing::info!(kid, problem, "left out a key of the JSON Web Key Set"),
            }
        }
        Ok(Self::new(usable))
    }

    pub(super) fn keys(&self) -> &[JwtKey] {
        &self.keys
    }

    /// The keys' ids, for the log.
    pub(super) fn names(&self) -> Vec<&str> {
        self.keys.iter().map(|key| key.name().unwrap_or("(no kid)")).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::test_keys::{ED25519, OTHER_RSA, P256, RSA, jwk, set},
        *,
    };

    #[test]
    fn keys_that_cannot_be_used_are_left_out_and_the_others_hold() {
        let rsa = |extra| jwk(Algorithm::RS256, RSA, &extra);
        let bad_point = json!({ "x": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" });
        let json = set(&[
            rsa(json!({ "kid": "a" })),
            rsa(json!({ "kid": "encryption", "use": "enc" })),
            rsa(json!({ "kid": "signing", "key_ops": ["sign"] })),
            rsa(json!({ "kid": "of another kind", "alg": "ES256" })),
            rsa(json!({ "kid": "an HMAC", "alg": "HS256" })),
            rsa(json!({ "kid": "not base64", "n": "#" })),
            rsa(json!({ "kid": "short", "n": "AQAB" })),
            jwk(Algorithm::ES256, P256, &bad_point),
            json!({ "kty": "oct", "kid": "a secret", "alg": "HS256", "k": "c2VjcmV0" }),
            json!({ "kty": "AKP", "kid": "of the future", "alg": "ML-DSA-44", "pub": "AA" }),
            json!({ "kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA" }),
            json!("no key"),
            jwk(Algorithm::RS256, OTHER_RSA, &json!({ "kid": "b", "alg": null })),
            jwk(Algorithm::EdDSA, ED25519, &json!({ "kid": "c", "use": "sig" })),
        ]);
        let keys = KeySet::parse(&json, None).unwrap();
        assert_eq!(keys.names(), ["a", "b", "c"]);
        let all = |n: usize| keys.keys()[n].clone();
        assert!(all(0).has(Algorithm::RS256) && !all(0).has(Algorithm::RS512), "the one that it names");
        assert!(all(1).has(Algorithm::RS256) && all(1).has(Algorithm::PS512), "all of its kind");
        let keys =
            KeySet::parse(&json, Some(&[PublicKeyAlgorithm::Ps512, PublicKeyAlgorithm::EdDsa])).unwrap();
        assert_eq!(keys.names(), ["b", "c"]);
        assert!(keys.keys()[0].has(Algorithm::PS512) && !keys.keys()[0].has(Algorithm::RS256));
    }

    #[test]
    fn what_is_no_set_is_an_error_and_an_empty_one_is_a_set() {
        for bad in ["", "<html>", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":null}"#] {
            assert!(KeySet::parse(bad, None).is_err(), "{bad}");
        }
        assert!(KeySet::parse(&set(&vec![json!({}); MAX_KEYS + 1]), None).is_err());
        assert!(KeySet::parse(r#"{"keys":[],"other":1}"#, None).unwrap().keys().is_empty());
    }
}

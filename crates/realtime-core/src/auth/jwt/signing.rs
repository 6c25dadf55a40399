//! [`JwtSigningKey`]: a key that signs tokens.

use std::fmt;

use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto, jwk::Jwk};
use serde::Serialize;

use super::{Claims, JwtAlgorithm, JwtKey, JwtKeyError, PublicKeyAlgorithm, key::choose_cryptography};

/// A key that signs tokens, and the algorithm with which it does.
#[derive(Clone)]
pub struct JwtSigningKey {
    header: Header,
    key: EncodingKey,
}

/// What is signed.
#[derive(Serialize)]
pub(super) struct Signed<'a> {
    #[serde(flatten)]
    pub(super) claims: &'a Claims,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) aud: Option<&'a str>,
}

impl JwtSigningKey {
    /// The shared secret of an HMAC (its UTF-8 bytes).
    pub(super) fn secret(algorithm: JwtAlgorithm, secret: &str) -> Self {
        choose_cryptography();
        Self { header: Header::new(algorithm.into()), key: EncodingKey::from_secret(secret.as_bytes()) }
    }

    /// Reads a private key in PEM form: RSA of 2048 to 4096 bits, P-256, P-384 or Ed25519, in PKCS #8 (`BEGIN PRIVATE KEY`),
    /// an RSA key also in PKCS #1. It signs with the first of `algorithms` that it can be used with; if there are none, with
    /// RS256, ES256, ES384 or EdDSA, as its kind is. Signing with RSA takes a time that depends a little on the key
    /// (RUSTSEC-2023-0071): prefer another kind where strangers can have many tokens signed and time it.
    ///
    /// # Errors
    /// [`JwtKeyError`] if it is none of these, or cannot be used with any of `algorithms`. The text has nothing of the key.
    pub fn from_pem(pem: &str, algorithms: &[PublicKeyAlgorithm]) -> Result<Self, JwtKeyError> {
        if !pem.contains("PRIVATE KEY-----") {
            return Err(JwtKeyError::NotPrivate);
        }
        choose_cryptography();
        let bytes = pem.as_bytes();
        let read = [EncodingKey::from_rsa_pem, EncodingKey::from_ec_pem, EncodingKey::from_ed_pem];
        let keys: Vec<_> = read.iter().filter_map(|read| read(bytes).ok()).collect();
        // A signature tells the curve of a key.
        let can_sign = |key: &EncodingKey, algorithm| crypto::sign(b"", key, algorithm).is_ok();
        let kinds = KINDS.iter().flat_map(|kind| keys.iter().map(move |key| (kind, key)));
        let (kind, key) =
            kinds.into_iter().find(|(kind, key)| can_sign(key, **kind)).ok_or(JwtKeyError::Unsupported)?;
        // What verifies it has the last word on its length.
        let mut jwk = Jwk::from_encoding_key(key, *kind).map_err(|_| JwtKeyError::Broken)?;
        jwk.common.key_algorithm = None;
        let public = JwtKey::from_jwk(&jwk)?;
        let algorithm = match algorithms {
            [] => Some(*kind),
            named => named.iter().map(|one| Algorithm::from(*one)).find(|one| public.has(*one)),
        };
        let names = || algorithms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let algorithm = algorithm.ok_or_else(|| JwtKeyError::Algorithm(names()))?;
        Ok(Self { header: Header::new(algorithm), key: key.clone() })
    }

    /// Sets the id (`kid`) that the tokens name.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.header.kid = Some(id.into());
        self
    }

    pub(super) fn sign(&self, signed: &Signed<'_>) -> Result<String, jsonwebtoken::errors::Error> {
        jsonwebtoken::encode(&self.header, signed, &self.key)
    }
}

/// Shows id and algorithm, but not the key.
impl fmt::Debug for JwtSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSigningKey")
            .field("id", &self.header.kid)
            .field("algorithm", &self.header.alg)
            .finish_non_exhaustive()
    }
}

/// The algorithm of each kind of key.
const KINDS: [Algorithm; 4] = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

#[cfg(test)]
mod tests {
    use super::{
        super::{
            JwtAuthenticator,
            test_keys::{
                ED25519, ED25519_PUBLIC, P256, P256_PUBLIC, P384, P384_PUBLIC, RSA, RSA_PUBLIC, now,
            },
        },
        *,
    };

    #[test]
    fn a_private_key_signs_what_its_public_key_verifies() {
        let only = [PublicKeyAlgorithm::Ps512, PublicKeyAlgorithm::Es256];
        for (private, public, algorithms, expected) in [
            (RSA, RSA_PUBLIC, &[][..], "RS256"),
            (RSA, RSA_PUBLIC, &only, "PS512"),
            (P256, P256_PUBLIC, &[], "ES256"),
            (P256, P256_PUBLIC, &only, "ES256"),
            (P384, P384_PUBLIC, &[], "ES384"),
            (ED25519, ED25519_PUBLIC, &[], "EdDSA"),
        ] {
            let key = JwtSigningKey::from_pem(private, algorithms).unwrap().id("a");
            assert!(format!("{key:?}").contains(r#"id: Some("a")"#), "{key:?}");
            let jwt = JwtAuthenticator::with_keys([JwtKey::from_pem(public).unwrap()]).signing_key(key);
            let token = jwt.sign(&Claims::new(7, now() + 60)).unwrap();
            assert_eq!(jwt.verify(&token).unwrap().user, 7.into(), "{expected}");
            let header = jsonwebtoken::decode_header(&token).unwrap();
            assert_eq!((format!("{:?}", header.alg).as_str(), header.kid.as_deref()), (expected, Some("a")));
        }
    }

    #[test]
    fn a_text_that_is_no_usable_private_key_is_refused_without_its_text() {
        for (pem, expected) in [
            (RSA_PUBLIC, JwtKeyError::NotPrivate),
            ("", JwtKeyError::NotPrivate),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", JwtKeyError::Unsupported),
        ] {
            assert_eq!(JwtSigningKey::from_pem(pem, &[]).unwrap_err(), expected);
        }
        let error = JwtSigningKey::from_pem(P384, &[PublicKeyAlgorithm::Es256, PublicKeyAlgorithm::Rs256]);
        assert_eq!(error.unwrap_err(), JwtKeyError::Algorithm("ES256, RS256".to_owned()));
    }

    #[test]
    fn a_token_is_of_the_issuer_and_for_the_audience_that_are_accepted() {
        let jwt = JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of the tests, long enough").unwrap();
        let jwt = jwt.issuer("us").audience("push");
        let token = jwt.sign(&Claims::new(7, now() + 60)).unwrap();
        assert_eq!(jwt.verify(&token).unwrap().user, 7.into());
    }
}

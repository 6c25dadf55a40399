//! [`JwtKey`]: a key, and the algorithms that it may be used with.

use std::fmt;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, crypto,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};

use super::{JwtAlgorithm, PublicKeyAlgorithm};

/// A key that verifies tokens.
///
/// It knows the algorithms that it may be used with, and a token that claims another one is never compared with it. A
/// public key has [public-key algorithms](PublicKeyAlgorithm) only, and a secret has [its own](JwtAlgorithm): a public key
/// can therefore not be taken for the secret of an HMAC (RFC 8725, section 2.1).
#[derive(Clone)]
pub struct JwtKey {
    id: Option<Box<str>>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
    /// Of a public key; identifies it.
    public: Option<AlgorithmParameters>,
}

/// Error of a key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtKeyError {
    /// The secret is empty: anyone could sign tokens.
    #[error("the JWT secret must not be empty")]
    EmptySecret,
    /// The text is no public key.
    #[error("no public key in PEM form (`BEGIN PUBLIC KEY` or `BEGIN RSA PUBLIC KEY`)")]
    NotPem,
    /// The text holds a private key, which this server must not have.
    #[error("a private key, where the public one belongs")]
    Private,
    /// The text is no private key.
    #[error("no private key in PEM form (`BEGIN PRIVATE KEY` or `BEGIN RSA PRIVATE KEY`)")]
    NotPrivate,
    /// The key is of a kind, or on a curve, that is not supported.
    #[error("neither an RSA key nor one on P-256, P-384 or Ed25519")]
    Unsupported,
    /// The key's numbers are no key.
    #[error("the key is broken")]
    Broken,
    /// An RSA key of another length than 2048 to 4096 bits (RFC 7518, section 3.3).
    #[error("an RSA key of {0} bits; supported are 2048 to 4096")]
    Length(usize),
    /// The key cannot be used with that algorithm.
    #[error("the key cannot be used with {0}")]
    Algorithm(String),
    /// The key is not meant for signatures.
    #[error("the key is not for signatures")]
    Use,
}

/// Has jsonwebtoken use the cryptography that it is built with here, unless the application has chosen one. Where a build has
/// two, since the application asks for the other, jsonwebtoken chooses none, and panics at the first token.
pub(super) fn choose_cryptography() {
    crypto::rust_crypto::DEFAULT_PROVIDER.install_default().ok();
}

impl JwtKey {
    /// Creates the key of an HMAC from a secret (its UTF-8 bytes).
    ///
    /// # Errors
    /// [`JwtKeyError::EmptySecret`].
    pub fn secret(algorithm: JwtAlgorithm, secret: &str) -> Result<Self, JwtKeyError> {
        if secret.is_empty() {
            return Err(JwtKeyError::EmptySecret);
        }
        choose_cryptography();
        let decoding = DecodingKey::from_secret(secret.as_bytes());
        Ok(Self { id: None, algorithms: vec![algorithm.into()], decoding, public: None })
    }

    /// Reads a public key in PEM form: RSA of 2048 to 4096 bits, P-256, P-384 or Ed25519. It may be used with all
    /// algorithms of its kind: see [`Self::only`].
    ///
    /// # Errors
    /// [`JwtKeyError`] if it is none of these.
    pub fn from_pem(pem: &str) -> Result<Self, JwtKeyError> {
        if pem.contains("PRIVATE KEY-----") {
            return Err(JwtKeyError::Private);
        }
        if !["-----BEGIN PUBLIC KEY-----", "-----BEGIN RSA PUBLIC KEY-----"]
            .iter()
            .any(|label| pem.contains(label))
        {
            return Err(JwtKeyError::NotPem);
        }
        choose_cryptography();
        let pem = pem.as_bytes();
        let read = [DecodingKey::from_rsa_pem, DecodingKey::from_ec_pem, DecodingKey::from_ed_pem];
        let keys = read.iter().filter_map(|read| read(pem).ok());
        let mut jwks = keys.filter_map(|key| Jwk::from_decoding_key(&key, None).ok());
        Self::from_jwk(&jwks.next().ok_or(JwtKeyError::Unsupported)?)
    }

    /// A key of a set (RFC 7517). Secrets are not accepted: a set is public.
    pub(super) fn from_jwk(jwk: &Jwk) -> Result<Self, JwtKeyError> {
        if jwk.common.public_key_use.as_ref().is_some_and(|key_use| *key_use != PublicKeyUse::Signature)
            || jwk.common.key_operations.as_ref().is_some_and(|all| !all.contains(&KeyOperations::Verify))
        {
            return Err(JwtKeyError::Use);
        }
        let all: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => &RSA,
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => &[Algorithm::ES256],
                EllipticCurve::P384 => &[Algorithm::ES384],
                _ => return Err(JwtKeyError::Unsupported),
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                &[Algorithm::EdDSA]
            }
            _ => return Err(JwtKeyError::Unsupported),
        };
        choose_cryptography();
        let decoding = DecodingKey::from_jwk(jwk).map_err(|_| JwtKeyError::Broken)?;
        if let DecodingKeyKind::RsaModulusExponent { n, .. } = decoding.kind() {
            let bits = bits(n);
            if !(2048..=4096).contains(&bits) {
                return Err(JwtKeyError::Length(bits));
            }
        }
        // A point that is not on its curve is found now, and not at the first token.
        crypto::verify("AA", b"", &decoding, all[0]).map_err(|_| JwtKeyError::Broken)?;
        let algorithms = match jwk.common.key_algorithm {
            None => all.to_vec(),
            Some(named) => {
                let one = all.iter().find(|one| KeyAlgorithm::from(**one) == named);
                vec![*one.ok_or_else(|| JwtKeyError::Algorithm(named.to_string()))?]
            }
        };
        let id = jwk.common.key_id.as_deref().map(Into::into);
        Ok(Self { id, algorithms, decoding, public: Some(jwk.algorithm.clone()) })
    }

    /// Sets the id (`kid`). Tokens that name it are compared with keys of this id alone; a key without an id is one for
    /// tokens that name none, or none that is known.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into().into());
        self
    }

    /// Restricts the key to those of its algorithms that are among these.
    ///
    /// # Errors
    /// [`JwtKeyError::Algorithm`] if that leaves none.
    pub fn only(
        mut self,
        algorithms: impl IntoIterator<Item = PublicKeyAlgorithm>,
    ) -> Result<Self, JwtKeyError> {
        let only: Vec<_> = algorithms.into_iter().collect();
        self.algorithms.retain(|own| only.iter().any(|one| Algorithm::from(*one) == *own));
        if self.algorithms.is_empty() {
            let names: Vec<_> = only.iter().map(ToString::to_string).collect();
            return Err(JwtKeyError::Algorithm(names.join(", ")));
        }
        Ok(self)
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub(super) fn has(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    /// Returns whether a right signature is in the key's range (RFC 8017, section 8.1.2). The crate `rsa` accepts one of PSS
    /// with the modulus added, which would be a second spelling of the token.
    pub(super) fn may_have(&self, signature: &str) -> bool {
        let DecodingKeyKind::RsaModulusExponent { n, .. } = self.decoding.kind() else { return true };
        BASE64_URL_SAFE_NO_PAD.decode(signature).ok().is_some_and(|signature| {
            let [signature, n] = [&signature, n].map(|number| significant(number));
            (signature.len(), signature) < (n.len(), n)
        })
    }
}

/// Equality of public keys. A secret equals nothing.
impl PartialEq for JwtKey {
    fn eq(&self, other: &Self) -> bool {
        self.public.is_some()
            && (&self.id, &self.algorithms, &self.public) == (&other.id, &other.algorithms, &other.public)
    }
}

/// Shows id and algorithms, but not the key.
impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtKey")
            .field("id", &self.id)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

fn bits(number: &[u8]) -> usize {
    let number = significant(number);
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

/// A big-endian number without leading zeros.
fn significant(number: &[u8]) -> &[u8] {
    number.iter().position(|byte| *byte != 0).map_or(&[][..], |first| &number[first..])
}

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

#[cfg(test)]
mod tests {
    use super::{
        super::test_keys::{ED25519, ED25519_PUBLIC, P256_PUBLIC, P384_PUBLIC, RSA_PUBLIC},
        *,
    };

    #[test]
    fn a_public_key_has_the_algorithms_of_its_kind_and_no_secrets() {
        for (pem, algorithms) in [
            (RSA_PUBLIC, &RSA[..]),
            (include_str!("../../../tests/keys/rsa.pkcs1.pub.pem"), &RSA),
            (P256_PUBLIC, &[Algorithm::ES256]),
            (P384_PUBLIC, &[Algorithm::ES384]),
            (ED25519_PUBLIC, &[Algorithm::EdDSA]),
        ] {
            let key = JwtKey::from_pem(pem).unwrap();
            assert_eq!(key.algorithms, algorithms);
            assert!(!format!("{key:?}").contains("SecretOrDer"), "{key:?}");
        }
        let key = JwtKey::from_pem(RSA_PUBLIC).unwrap();
        let only = key.clone().only([PublicKeyAlgorithm::Ps256, PublicKeyAlgorithm::Es256]).unwrap();
        assert_eq!(only.algorithms, [Algorithm::PS256]);
        assert_eq!(
            key.only([PublicKeyAlgorithm::Es256]).unwrap_err(),
            JwtKeyError::Algorithm("ES256".to_owned())
        );
    }

    #[test]
    fn a_text_that_is_no_usable_public_key_is_refused() {
        let cut = P256_PUBLIC.replace("MFkw", "MFgw");
        for (pem, problem) in [
            ("", JwtKeyError::NotPem),
            ("a secret of at least 32 bytes ....", JwtKeyError::NotPem),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", JwtKeyError::NotPem),
            (super::super::test_keys::RSA, JwtKeyError::Private),
            (ED25519, JwtKeyError::Private),
            (include_str!("../../../tests/keys/p521.pub.pem"), JwtKeyError::Unsupported),
            (include_str!("../../../tests/keys/short-rsa.pub.pem"), JwtKeyError::Length(1024)),
            (&cut, JwtKeyError::Unsupported),
        ] {
            assert_eq!(JwtKey::from_pem(pem).unwrap_err(), problem, "{pem}");
        }
        assert_eq!(
            JwtKey::secret(JwtAlgorithm::Hs256, "").unwrap_err().to_string(),
            "the JWT secret must not be empty"
        );
    }
}

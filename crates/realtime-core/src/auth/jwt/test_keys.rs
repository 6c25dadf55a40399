//! Keys of issuers, for tests.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};

pub(crate) const RSA: &str = include_str!("../../../tests/keys/rsa.pem");
pub(crate) const OTHER_RSA: &str = include_str!("../../../tests/keys/other-rsa.pem");
pub(crate) const P256: &str = include_str!("../../../tests/keys/p256.pem");
pub(crate) const P384: &str = include_str!("../../../tests/keys/p384.pem");
pub(crate) const ED25519: &str = include_str!("../../../tests/keys/ed25519.pem");

pub(crate) const RSA_PUBLIC: &str = include_str!("../../../tests/keys/rsa.pub.pem");
pub(crate) const OTHER_RSA_PUBLIC: &str = include_str!("../../../tests/keys/other-rsa.pub.pem");
pub(crate) const P256_PUBLIC: &str = include_str!("../../../tests/keys/p256.pub.pem");
pub(crate) const P384_PUBLIC: &str = include_str!("../../../tests/keys/p384.pub.pem");
pub(crate) const ED25519_PUBLIC: &str = include_str!("../../../tests/keys/ed25519.pub.pem");

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn encoding(algorithm: Algorithm, pem: &str) -> EncodingKey {
    let pem = pem.as_bytes();
    match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => EncodingKey::from_secret(pem),
        Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem).unwrap(),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem).unwrap(),
        _ => EncodingKey::from_rsa_pem(pem).unwrap(),
    }
}

/// A token with these claims besides `exp`; the secret of an HMAC is the text of the key.
pub(crate) fn sign_claims(algorithm: Algorithm, pem: &str, kid: Option<&str>, mut claims: Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    claims["exp"] = (now() + 60).into();
    jsonwebtoken::encode(&header, &claims, &encoding(algorithm, pem)).unwrap()
}

/// A token of user 7.
pub(crate) fn sign(algorithm: Algorithm, pem: &str, kid: Option<&str>) -> String {
    sign_claims(algorithm, pem, kid, json!({ "sub": "7" }))
}

/// The public half of a key, with `extra` over it.
pub(crate) fn jwk(algorithm: Algorithm, pem: &str, extra: &Value) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&encoding(algorithm, pem), algorithm).unwrap());
    let jwk = jwk.as_mut().unwrap();
    for (name, value) in extra.as_object().unwrap() {
        match value {
            Value::Null => drop(jwk.as_object_mut().unwrap().remove(name)),
            value => jwk[name] = value.clone(),
        }
    }
    jwk.clone()
}

/// A JSON Web Key Set.
pub(crate) fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

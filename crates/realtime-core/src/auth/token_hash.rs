//! [`TokenHash`]: identifies a token without storing it.

use std::fmt;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The first 128 bits of a token's SHA-256: identifies a token without storing it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 16]);

impl TokenHash {
    /// The hash of a token.
    ///
    /// A JSON Web Token of ES256 or ES384 has two signatures that are right, and whoever knows one of them can tell the
    /// other. Both have the hash of the token with the smaller one.
    pub fn of(token: &str) -> Self {
        let digest = Sha256::digest(with_smaller_signature(token).as_deref().unwrap_or(token));
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        Self(hash)
    }

    /// Returns `true` for the hash of the empty string.
    pub(crate) fn is_of_nothing(self) -> bool {
        self == Self::OF_NOTHING
    }

    const OF_NOTHING: Self = Self([
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    ]);

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to distinguish two tokens in a log, too little to look one up.
        write!(f, "TokenHash({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// An ECDSA token with the smaller of its two signatures: if (r, s) is right, (r, n - s) is too. `None` for a token that has
/// it already, and for any other text.
fn with_smaller_signature(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Header {
        alg: String,
    }
    let (message, signature) = token.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    if claims.contains('.') {
        return None;
    }
    let (algorithm, order) = match signature.len() {
        86 => ("ES256", &P256_ORDER[..]),
        128 => ("ES384", &P384_ORDER[..]),
        _ => return None,
    };
    let mut signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
    let s = &mut signature[order.len()..];
    let other = difference(order, s);
    if other[..] >= s[..] {
        return None;
    }
    let header: Header = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    if header.alg != algorithm {
        return None;
    }
    s.copy_from_slice(&other);
    Some(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(&signature)))
}

/// The difference of two big-endian numbers of the same length, modulo the power of two above them.
pub(super) fn difference(of: &[u8], minus: &[u8]) -> Vec<u8> {
    let mut borrow = false;
    let bytes = of.iter().zip(minus).rev().map(|(of, minus)| {
        let (byte, first) = of.overflowing_sub(*minus);
        let (byte, second) = byte.overflowing_sub(borrow.into());
        borrow = first || second;
        byte
    });
    let mut bytes: Vec<_> = bytes.collect();
    bytes.reverse();
    bytes
}

/// Order of the curve P-256 (FIPS 186-4, section D.1.2.3).
pub(super) const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
    0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// Order of the curve P-384 (FIPS 186-4, section D.1.2.4).
pub(super) const P384_ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a,
    0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_token_is_known_by_its_hash() {
        assert!(TokenHash::of("").is_of_nothing());
        assert!(!TokenHash::of("t").is_of_nothing());
    }

    #[test]
    fn only_the_larger_signature_of_an_ecdsa_token_is_not_hashed_as_it_is() {
        let token = |header: &str, s: &[u8]| {
            let signature = [&vec![1; s.len()], s].concat();
            format!(
                "{}.e30.{}",
                BASE64_URL_SAFE_NO_PAD.encode(header.as_bytes()),
                BASE64_URL_SAFE_NO_PAD.encode(&signature)
            )
        };
        let plain = |token: &str| *Sha256::digest(token.as_bytes()).first_chunk().unwrap();
        for (algorithm, order) in [("ES256", &P256_ORDER[..]), ("ES384", &P384_ORDER)] {
            let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
            let mut one = vec![0; order.len()];
            one[order.len() - 1] = 1;
            let most = difference(order, &one);
            let small = token(&header, &one);
            assert_eq!(TokenHash::of(&small).to_bytes(), plain(&small));
            assert_eq!(TokenHash::of(&token(&header, &most)), TokenHash::of(&small));
            for header in [r#"{"alg":"HS512"}"#, r#"{"alg":"EdDSA"}"#, "{}", "", "none"] {
                let other = token(header, &most);
                assert_eq!(TokenHash::of(&other).to_bytes(), plain(&other), "{header}");
            }
            let more = token(&header, &[&most[..], &[0]].concat());
            let large = token(&header, &most);
            let [two, four] = [".", ".e30.e30."].map(|parts| large.replace(".e30.", parts));
            for other in [more, two, four, format!("{large}="), format!("Bearer {large}")] {
                assert_eq!(TokenHash::of(&other).to_bytes(), plain(&other), "{other}");
            }
        }
    }
}

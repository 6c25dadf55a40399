//! [`JwtAlgorithm`] and [`PublicKeyAlgorithm`]: two kinds of signatures that no value can confuse.

use std::{fmt, str::FromStr};

use jsonwebtoken::Algorithm;

/// Signature algorithm of tokens that are signed and verified with one shared secret.
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

/// Signature algorithm of tokens that are verified with a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublicKeyAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

/// Error of an unsupported algorithm name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is none of {}", .supported.join(", "))]
pub struct UnknownAlgorithm {
    name: String,
    supported: &'static [&'static str],
}

/// Names with their values.
type Named<T, const N: usize> = [(&'static str, T); N];

impl JwtAlgorithm {
    const ALL: Named<Self, 3> = [("HS256", Self::Hs256), ("HS384", Self::Hs384), ("HS512", Self::Hs512)];
    const NAMES: &[&str] = &names(&Self::ALL);
}

impl PublicKeyAlgorithm {
    const ALL: Named<Self, 9> = [
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
    ];
    const NAMES: &[&str] = &names(&Self::ALL);
}

const fn names<T, const N: usize>(all: &Named<T, N>) -> [&'static str; N] {
    let mut names = [""; N];
    let mut n = 0;
    while n < N {
        names[n] = all[n].0;
        n += 1;
    }
    names
}

fn find<T: Copy>(all: &[(&str, T)], supported: &'static [&str], name: &str) -> Result<T, UnknownAlgorithm> {
    let found = all.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    found.ok_or_else(|| UnknownAlgorithm { name: name.to_owned(), supported })
}

impl FromStr for JwtAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        find(&Self::ALL, Self::NAMES, name)
    }
}

impl FromStr for PublicKeyAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        find(&Self::ALL, Self::NAMES, name)
    }
}

impl fmt::Display for PublicKeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, value)| value == self).map_or("?", |(name, _)| name);
        f.write_str(name)
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

impl From<PublicKeyAlgorithm> for Algorithm {
    fn from(algorithm: PublicKeyAlgorithm) -> Self {
        match algorithm {
            PublicKeyAlgorithm::Rs256 => Self::RS256,
            PublicKeyAlgorithm::Rs384 => Self::RS384,
            PublicKeyAlgorithm::Rs512 => Self::RS512,
            PublicKeyAlgorithm::Ps256 => Self::PS256,
            PublicKeyAlgorithm::Ps384 => Self::PS384,
            PublicKeyAlgorithm::Ps512 => Self::PS512,
            PublicKeyAlgorithm::Es256 => Self::ES256,
            PublicKeyAlgorithm::Es384 => Self::ES384,
            PublicKeyAlgorithm::EdDsa => Self::EdDSA,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_one_kind_are_none_of_the_other() {
        for name in JwtAlgorithm::NAMES {
            assert_eq!(
                name.parse::<PublicKeyAlgorithm>().unwrap_err().to_string(),
                format!("{name:?} is none of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA")
            );
            name.parse::<JwtAlgorithm>().unwrap();
        }
        for name in PublicKeyAlgorithm::NAMES.iter().chain(&["none", "hs256", ""]) {
            let error = name.parse::<JwtAlgorithm>().unwrap_err().to_string();
            assert_eq!(error, format!("{name:?} is none of HS256, HS384, HS512"));
        }
        for name in PublicKeyAlgorithm::NAMES {
            assert_eq!(name.parse::<PublicKeyAlgorithm>().unwrap().to_string(), *name);
        }
    }
}

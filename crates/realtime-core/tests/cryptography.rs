//! A key chooses the cryptography of jsonwebtoken, in a process of its own: once it is chosen it stays.
#![cfg(feature = "jwt")]
#![allow(clippy::unwrap_used, reason = "a test")]

use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use realtime_core::auth::{JwtAlgorithm, JwtAuthenticator};

/// An application that uses jsonwebtoken with `aws_lc_rs` has both providers in its build, of which none is the default.
#[test]
fn a_build_with_two_providers_of_cryptography_verifies_tokens() {
    JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....").unwrap();
    DEFAULT_PROVIDER.install_default().expect_err("the secret has chosen it");
}

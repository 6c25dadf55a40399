//! [`Verifier`]: the claims of a token whose signature is valid.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, crypto, errors::ErrorKind};
use realtime_core::UserId;
use serde::Deserialize;

use super::login_rejection::LoginRejection;

/// A verifier of signatures: HS256 with one secret, regardless of the token's own `alg`.
pub(super) struct Verifier {
    key: DecodingKey,
    login_type: String,
}

/// The claims in use. Tokens have more, but no `exp`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Claims {
    login_type: String,
    /// `<userType>:<userId>`, such as `sys_user:1`.
    pub(super) login_id: String,
    pub(super) user_id: UserId,
    #[serde(default, rename = "clientid")]
    pub(super) client_id: Option<String>,
}

impl Verifier {
    pub(super) fn new(secret: &str, login_type: &str) -> Self {
        // As keys of JSON Web Tokens do: a build with two providers of cryptography has no default.
        crypto::rust_crypto::DEFAULT_PROVIDER.install_default().ok();
        Self { key: DecodingKey::from_secret(secret.as_bytes()), login_type: login_type.to_owned() }
    }

    pub(super) fn verify(&self, token: &str) -> Result<Claims, LoginRejection> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
            // For example an unknown `alg`, or `none`.
            ErrorKind::Json(_) => LoginRejection::Algorithm,
            _ => LoginRejection::Malformed,
        })?;
        if header.alg != Algorithm::HS256 {
            return Err(LoginRejection::Algorithm);
        }
        // RFC 7515, section 4.1.11: an unknown `crit` must be rejected. The others would change the signed content.
        let encoded = header.extras.inner().get("b64").is_some_and(|b64| *b64 != true);
        if header.crit.is_some() || header.zip.is_some() || header.enc.is_some() || encoded {
            return Err(LoginRejection::Header);
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        // Only Redis knows the end of a login.
        validation.validate_exp = false;
        validation.validate_aud = false;
        let data =
            jsonwebtoken::decode::<Claims>(token, &self.key, &validation).map_err(|error| {
                match error.kind() {
                    ErrorKind::InvalidSignature => LoginRejection::Signature,
                    ErrorKind::Json(_) => LoginRejection::Claims,
                    _ => LoginRejection::Malformed,
                }
            })?;
        if data.claims.login_type == self.login_type {
            Ok(data.claims)
        } else {
            Err(LoginRejection::LoginType)
        }
    }
}

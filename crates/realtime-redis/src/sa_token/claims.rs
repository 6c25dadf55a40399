//! [`Verifier`]: what a token says about itself, once its signature is checked.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind};
use realtime_core::UserId;
use serde::Deserialize;

use super::{SaTokenConfigError, invalid::Invalid};

/// Checks signatures: HS256 with one secret, whatever the token asks for.
pub(super) struct Verifier {
    key: DecodingKey,
    login_type: String,
}

/// The claims that matter here. There are more, and `exp` is not among them.
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
    pub(super) fn new(secret: &str, login_type: &str) -> Result<Self, SaTokenConfigError> {
        if secret.is_empty() {
            return Err(SaTokenConfigError::EmptySecret);
        }
        Ok(Self { key: DecodingKey::from_secret(secret.as_bytes()), login_type: login_type.to_owned() })
    }

    pub(super) fn verify(&self, token: &str) -> Result<Claims, Invalid> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
            // Such as an `alg` that is no known one, or `none`.
            ErrorKind::Json(_) => Invalid::Algorithm,
            _ => Invalid::Malformed,
        })?;
        if header.alg != Algorithm::HS256 {
            return Err(Invalid::Algorithm);
        }
        // RFC 7515, section 4.1.11, has an unknown `crit` refused; the others would change what is signed.
        let encoded = header.extras.inner().get("b64").is_some_and(|b64| *b64 != true);
        if header.crit.is_some() || header.zip.is_some() || header.enc.is_some() || encoded {
            return Err(Invalid::Header);
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        // Redis alone knows the end of a login.
        validation.validate_exp = false;
        validation.validate_aud = false;
        let data =
            jsonwebtoken::decode::<Claims>(token, &self.key, &validation).map_err(|error| {
                match error.kind() {
                    ErrorKind::InvalidSignature => Invalid::Signature,
                    ErrorKind::Json(_) => Invalid::Claims,
                    _ => Invalid::Malformed,
                }
            })?;
        if data.claims.login_type == self.login_type { Ok(data.claims) } else { Err(Invalid::LoginType) }
    }
}

//! Tokens: made by the login and by `gen-token`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use realtime_core::{
    Topic, UserId,
    auth::{Claims, JwtAuthenticator},
};

use crate::config::Config;

/// The authenticator that the configuration describes. Without a secret it makes one up.
pub(crate) fn authenticator(config: &Config) -> anyhow::Result<JwtAuthenticator> {
    let secret = config.auth.jwt.secret.as_deref().map_or_else(random_secret, str::to_owned);
    Ok(JwtAuthenticator::new(config.auth.jwt.algorithm, &secret)?
        .client_id_policy(config.auth.client_id_policy()))
}

/// A token for a user, signed with the configured secret.
///
/// # Errors
/// Without a configured secret: the server generates one at each start and would refuse the token.
pub fn generate(config: &Config, user: UserId, client_id: &str, ttl: Duration) -> anyhow::Result<String> {
    if config.auth.jwt.secret.is_none() {
        bail!(
            "auth.jwt.secret is not configured, so each start of the server has another one; \
             set it in the file or as REALTIME__AUTH__JWT__SECRET"
        );
    }
    sign(&authenticator(config)?, user, client_id, ttl, Vec::new())
}

/// Signs a token that ends after `ttl`.
pub(crate) fn sign(
    jwt: &JwtAuthenticator,
    user: UserId,
    client_id: &str,
    ttl: Duration,
    topics: Vec<Topic>,
) -> anyhow::Result<String> {
    let now = SystemTime::now();
    let end = now.checked_add(ttl).context("the time to live is too long")?;
    let mut claims = Claims::new(user, end.duration_since(UNIX_EPOCH)?.as_secs());
    claims.client_id = Some(client_id.to_owned());
    claims.topics = topics;
    claims.iat = Some(now.duration_since(UNIX_EPOCH)?.as_secs());
    claims.jti = Some(format!("{:032x}", rand::random::<u128>()));
    Ok(jwt.sign(&claims)?)
}

/// 256 random bits as text.
pub(crate) fn random_secret() -> String {
    format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>())
}

//! Tokens: made by the login and by `gen-token`.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, anyhow, bail};
use realtime_core::{
    Topic, UserId,
    auth::{Claims, JwkFile, JwtAuthenticator, JwtSigningKey, RotatingKeys},
};

use crate::config::{Config, ConfigErrors, Jwt};

/// The authenticator that the configuration describes, without keys that change.
///
/// `random` is the secret where there is none.
pub(crate) fn authenticator(config: &Config, random: &str) -> anyhow::Result<JwtAuthenticator> {
    let jwt = &config.auth.jwt;
    let secret = match &jwt.secret {
        Some(secret) => Some(secret.to_string()),
        None if jwt.has_public_keys() => None,
        None => Some(random.to_owned()),
    };
    let authenticator = match secret {
        Some(secret) => JwtAuthenticator::new(jwt.algorithm, &secret)?,
        None => JwtAuthenticator::with_keys([]),
    };
    let keys = jwt.load_keys().map_err(ConfigErrors::from)?;
    let mut authenticator = authenticator.keys(keys).client_id_policy(config.auth.client_id_policy());
    if let Some(issuer) = &jwt.issuer {
        authenticator = authenticator.issuer(issuer);
    }
    if let Some(audience) = &jwt.audience {
        authenticator = authenticator.audience(audience);
    }
    Ok(authenticator)
}

/// The same with the keys that change, which are read from now on.
pub fn live_authenticator(config: &Config, random: &str) -> anyhow::Result<JwtAuthenticator> {
    let authenticator = authenticator(config, random)?;
    Ok(match rotating_keys(&config.auth.jwt)? {
        Some(keys) => authenticator.rotating(keys),
        None => authenticator,
    })
}

/// The keys that change, which are read from now on; `None` without such.
pub(crate) fn rotating_keys(jwt: &Jwt) -> anyhow::Result<Option<RotatingKeys>> {
    let keys = match (&jwt.jwks.file, &jwt.jwks.url) {
        (Some(file), _) => RotatingKeys::builder(JwkFile::new(file)),
        #[cfg(feature = "jwks")]
        (None, Some(url)) => RotatingKeys::builder(realtime_core::auth::JwkUrl::new(url)?),
        _ => return Ok(None),
    };
    let mut keys = keys.interval(jwt.jwks.refresh).cooldown(jwt.jwks.cooldown);
    if !jwt.algorithms.is_empty() {
        keys = keys.only(jwt.algorithms.iter().copied());
    }
    Ok(Some(keys.start()))
}

/// A token for a user, signed with the configured secret, or with the private key in a file.
///
/// # Errors
/// Without a configured secret: the server generates one at each start and would refuse the token. With a key of which no
/// public one is configured, or that the configured ones do not verify.
pub fn generate(
    config: &Config,
    user: UserId,
    client_id: &str,
    ttl: Duration,
    key: Option<SigningFile<'_>>,
) -> anyhow::Result<String> {
    check_client_id(client_id).map_err(|problem| anyhow!("--client-id: {problem}"))?;
    let jwt = &config.auth.jwt;
    let Some(SigningFile { file, id }) = key else {
        if jwt.secret.is_none() {
            bail!(
                "auth.jwt.secret is not configured, so each start of the server has another one; \
                 set it in the file or as REALTIME__AUTH__JWT__SECRET, or sign with a private key (--key)"
            );
        }
        return sign(&authenticator(config, &random_secret())?, user, client_id, ttl, Vec::new());
    };
    if !jwt.has_public_keys() {
        bail!(
            "--key: neither auth.jwt.publicKeys nor auth.jwt.jwks is configured, so the server would refuse the token"
        );
    }
    let name = file.display();
    let pem = fs::read_to_string(file).map_err(|error| anyhow!("--key: `{name}`: {error}"))?;
    let key = JwtSigningKey::from_pem(&pem, &jwt.algorithms);
    let mut key = key.map_err(|problem| anyhow!("--key: `{name}`: {problem}"))?;
    if let Some(id) = id {
        key = key.id(id);
    }
    let authenticator = authenticator(config, &random_secret())?.signing_key(key);
    let token = sign(&authenticator, user, client_id, ttl, Vec::new())?;
    // The keys of a set may be others when the token is used.
    if jwt.jwks.file.is_none() && jwt.jwks.url.is_none() {
        let verified = authenticator.verify(&token);
        verified.map_err(|problem| {
            anyhow!("--key: `{name}`: auth.jwt.publicKeys do not accept the token: {problem}")
        })?;
    }
    Ok(token)
}

/// A file with a private key in PEM, and the id (`kid`) that tokens name.
#[derive(Debug, Clone, Copy)]
pub struct SigningFile<'a> {
    /// The file.
    pub file: &'a Path,
    /// The id.
    pub id: Option<&'a str>,
}

/// Checks a client id before it becomes part of a token, which every request carries in its head.
pub(crate) fn check_client_id(client_id: &str) -> Result<(), &'static str> {
    if client_id.is_empty() || client_id.len() > MAX_CLIENT_ID {
        Err("must have 1 to 64 bytes")
    } else if client_id
        .contains(|c: char| c.is_whitespace() || c.is_control() || c == char::REPLACEMENT_CHARACTER)
    {
        Err("must not hold white space, control characters or U+FFFD")
    } else {
        Ok(())
    }
}

/// Longest client id, in bytes.
const MAX_CLIENT_ID: usize = 64;

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
pub fn random_secret() -> String {
    format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_a_short_word() {
        for good in ["web", "e5cd7e4891bf95d1d19206ce24a7b32e", "小程序"] {
            assert_eq!(check_client_id(good), Ok(()), "{good}");
        }
        for bad in ["", "a b", "a\n", "a\u{fffd}", &"x".repeat(65), &"x".repeat(200 << 10)] {
            assert!(check_client_id(bad).is_err(), "{:?}", bad.get(..9));
        }
    }
}

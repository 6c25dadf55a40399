//! [`token`]: the logins of the audit's clients.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use realtime_core::{
    Topic,
    auth::{Claims, JwtAlgorithm, JwtAuthenticator},
};

/// Signs a token of a user, unlike any other.
pub(super) fn token(secret: &str, user: u32, topics: &[u32]) -> anyhow::Result<String> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let jwt = JwtAuthenticator::new(JwtAlgorithm::Hs256, secret)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let topics = topics.iter().map(|topic| Topic::new(&format!("audit:{topic}")));
    let mut claims = Claims::new(i64::from(user), (now + Duration::from_secs(24 * 3600)).as_secs());
    claims.topics = topics.collect::<Result<_, _>>()?;
    claims.iat = Some(now.as_secs());
    claims.jti = Some(format!("{}-{}", now.as_nanos(), NEXT.fetch_add(1, Ordering::Relaxed)));
    Ok(jwt.sign(&claims)?)
}

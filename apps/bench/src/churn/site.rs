//! [`Site`]: state shared by all tasks of a run.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use realtime_core::auth::{Claims, JwtAuthenticator};

use crate::audit::rng::Rng;

/// State shared by all tasks of a run.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) address: SocketAddr,
    pub(super) jwt: JwtAuthenticator,
    pub(super) users: u64,
    pub(super) over: AtomicBool,
    pub(super) connections: AtomicU64,
    /// Connections that were answered, but not let in.
    pub(super) refused: AtomicU64,
    pub(super) published: AtomicU64,
    pub(super) kicked: AtomicU64,
}

/// Validity of a token in seconds. The server remembers a kicked one for that long.
const TTL: u64 = 60;

impl Site {
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn user(&self, random: &mut Rng) -> u64 {
        random.range(1..self.users + 1)
    }

    /// A login of some user, unlike any other.
    pub(super) fn token(&self, random: &mut Rng) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut claims = Claims::new(i64::try_from(self.user(random))?, now + TTL);
        claims.client_id = Some("bench".into());
        claims.topics = vec![format!("t{}", random.range(0..20)).parse()?];
        claims.jti = Some(format!("{:x}", random.next()));
        Ok(self.jwt.sign(&claims)?)
    }
}

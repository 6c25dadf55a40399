//! [`Tokens`]: the logins of a load's users.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use realtime_core::{
    Topic,
    auth::{Claims, JwtAlgorithm, JwtAuthenticator},
};

use crate::audience::Audience;

/// One login for each user, made before the load so that signing is no part of it.
#[derive(Debug, Clone)]
pub(crate) struct Tokens(Vec<Login>);

#[derive(Debug, Clone)]
struct Login {
    token: String,
    user: String,
}

/// Validity of signed tokens, longer than any load.
const TTL: Duration = Duration::from_secs(24 * 3600);

impl Tokens {
    /// Signs a token for each of the users 1 to `users`, HS256, with the topic that the audience gives them.
    pub(crate) fn sign(secret: &str, users: u32, audience: Audience) -> anyhow::Result<Self> {
        let jwt = JwtAuthenticator::new(JwtAlgorithm::Hs256, secret)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let sign = |user: u32| {
            let topics = audience.topic(user).map(|topic| Topic::new(&topic)).transpose()?;
            let mut claims = Claims::new(i64::from(user + 1), (now + TTL).as_secs());
            claims.client_id = Some("bench".into());
            claims.topics = topics.into_iter().collect();
            claims.iat = Some(now.as_secs());
            Ok(Login { token: jwt.sign(&claims)?, user: (user + 1).to_string() })
        };
        (0..users).map(sign).collect::<anyhow::Result<_>>().map(Self)
    }

    /// Users 1 to `users` without tokens.
    pub(crate) fn none(users: u32) -> Self {
        Self((1..=users).map(|user| Login { token: String::new(), user: user.to_string() }).collect())
    }

    /// Reads a file with a token a line, and behind it, if messages go to single users, the user's id.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
        let logins: Vec<_> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .enumerate()
            .map(|(number, line)| {
                let mut words = line.split_whitespace();
                let token = words.next().unwrap_or_default().to_owned();
                Login { token, user: words.next().map_or_else(|| (number + 1).to_string(), str::to_owned) }
            })
            .collect();
        ensure!(!logins.is_empty(), "{}: no tokens", file.display());
        Ok(Self(logins))
    }

    /// Returns the number of users.
    pub(crate) fn users(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// The token of a user, counted from 0.
    pub(crate) fn token(&self, user: u32) -> &str {
        &self.login(user).token
    }

    /// The id of a user, counted from 0.
    pub(crate) fn id(&self, user: u32) -> &str {
        &self.login(user).user
    }

    fn login(&self, user: u32) -> &Login {
        &self.0[user as usize % self.0.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_token_names_user_and_topic() {
        let tokens = Tokens::sign("a secret", 3, Audience::Topic { topics: 2 }).unwrap();
        let jwt = JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret").unwrap();
        let principal = jwt.verify(tokens.token(2)).unwrap();
        assert_eq!(principal.user, 3.into());
        assert_eq!(principal.topics, [Topic::new("bench:0").unwrap()]);
        assert_eq!((tokens.id(2), tokens.users()), ("3", 3));
    }
}

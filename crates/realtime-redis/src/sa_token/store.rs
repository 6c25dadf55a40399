//! [`Store`]: Sa-Token's keys in Redis.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use deadpool_redis::PoolError;
use realtime_core::AuthError;
use redis::{Cmd, FromRedisValue, RedisError};
use tokio::time::timeout;

use super::{SaTokenConfig, pool::Pool, record::Record};
use crate::{RedisConfig, RedisConfigError};

/// Looks tokens up, each time within the time limit.
pub(super) struct Store {
    pool: Pool,
    /// What comes before `token:<jwt>` and `last-active:<jwt>`.
    stem: String,
    timeout: Duration,
    /// So that one outage is one line in the log.
    away: AtomicBool,
}

/// Redis gave no answer. Its words are left out: they may repeat a command, and with it a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store of logins is away: {0}")]
pub(super) struct Away(String);

impl Store {
    pub(super) fn new(config: &SaTokenConfig) -> Result<Self, RedisConfigError> {
        let SaTokenConfig { key_prefix, token_name, login_type, timeout, .. } = config;
        let pool = Pool::new(&config.topology, *timeout)?;
        let global = if config.global_prefix { "global:" } else { "" };
        let names =
            RedisConfig { key_prefix: key_prefix.clone(), ..RedisConfig::new(config.topology.clone()) };
        let stem = names.name(&format!("{global}{token_name}:{login_type}:"));
        Ok(Self { pool, stem, timeout: *timeout, away: AtomicBool::new(false) })
    }

    /// What Redis says about a token.
    pub(super) async fn look_up(&self, token: &str) -> Result<Record, Away> {
        Ok(self.look_up_all([token]).await?.pop().unwrap_or_default())
    }

    /// What Redis says about tokens, in their order: both keys of each as they are at one moment, in one round trip.
    /// In a cluster it is one for each of its nodes, and a token's keys may be on two of them.
    pub(super) async fn look_up_all(
        &self,
        tokens: impl IntoIterator<Item = &str>,
    ) -> Result<Vec<Record>, Away> {
        let mut command = redis::cmd("MGET");
        for token in tokens {
            command.arg(self.key("token", token)).arg(self.key("last-active", token));
        }
        let values: Vec<Option<Vec<u8>>> = self.query(&command).await?;
        let mut texts =
            values.into_iter().map(|value| value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
        let mut records = Vec::new();
        while let (Some(login), Some(last_active)) = (texts.next(), texts.next()) {
            records.push(Record { login, last_active });
        }
        Ok(records)
    }

    /// Notes activity. A key that has gone meanwhile stays gone, and its time to live is not touched.
    pub(super) async fn renew(&self, token: &str, last_active: &str) -> Result<(), Away> {
        let mut command = redis::cmd("SET");
        command.arg(self.key("last-active", token)).arg(last_active).arg("XX").arg("KEEPTTL");
        self.query(&command).await
    }

    fn key(&self, kind: &str, token: &str) -> String {
        format!("{}{kind}:{token}", self.stem)
    }

    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Away> {
        let answer = timeout(self.timeout, async {
            self.pool.query(command).await.map_err(|error| match error {
                PoolError::Backend(error) => problem(&error),
                error => error.to_string(),
            })
        });
        let result = answer.await.unwrap_or_else(|_| Err("timed out".to_owned())).map_err(Away);
        match &result {
            Ok(_) => {
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!("the store of logins is back");
                }
            }
            Err(Away(problem)) => {
                // Whatever the others wait for, they would fail as well.
                self.pool.empty();
                if !self.away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%problem, "the store of logins is away: nobody can log in, nobody is logged out");
                }
            }
        }
        result
    }
}

impl From<Away> for AuthError {
    fn from(away: Away) -> Self {
        Self::Unavailable(away.to_string())
    }
}

/// What went wrong, without what the server said.
fn problem(error: &RedisError) -> String {
    if error.is_connection_refusal() {
        "connection refused".to_owned()
    } else if error.is_timeout() {
        "timed out".to_owned()
    } else {
        error.code().unwrap_or_else(|| error.category()).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fmt::{Debug, Write},
        sync::{Arc, Mutex},
    };

    use tracing::{
        Event, Metadata, Subscriber,
        field::{Field, Visit},
        instrument::WithSubscriber,
        span,
    };

    use super::*;

    /// Keeps what is told to the log.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            write!(self.0, " {field}={value:?}").unwrap();
        }
    }

    impl Subscriber for Lines {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, event: &Event<'_>) {
            let mut line = Line(event.metadata().level().to_string());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    #[tokio::test]
    async fn an_outage_is_one_line_in_the_log_without_the_token() {
        // Nobody listens on the port once the listener is gone.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = SaTokenConfig::new(format!("redis://:password@127.0.0.1:{port}/"), "secret");
        let store = Store::new(&config).unwrap();
        let lines = Lines::default();
        for _ in 0..3 {
            let error = store.look_up("a-token").with_subscriber(lines.clone()).await.unwrap_err();
            assert_eq!(error.to_string(), "the store of logins is away: connection refused");
        }
        let lines = lines.0.lock().unwrap();
        assert!(lines.len() == 1 && lines[0].starts_with("WARN "), "{lines:?}");
        assert!(!lines[0].contains("a-token") && !lines[0].contains("password"), "{lines:?}");
    }

    #[test]
    fn keys_are_called_as_the_java_nodes_call_them() {
        for (key_prefix, global_prefix, key) in [
            ("", true, "global:Authorization:login:token:T"),
            ("", false, "Authorization:login:token:T"),
            ("ruoyi", true, "ruoyi:global:Authorization:login:token:T"),
            ("ruoyi", false, "ruoyi:Authorization:login:token:T"),
        ] {
            let config = SaTokenConfig {
                key_prefix: key_prefix.into(),
                global_prefix,
                ..SaTokenConfig::new("redis://127.0.0.1/", "secret")
            };
            assert_eq!(Store::new(&config).unwrap().key("token", "T"), key);
        }
    }
}

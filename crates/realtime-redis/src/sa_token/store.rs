//! [`Store`]: Sa-Token's keys in Redis.

use std::sync::atomic::{AtomicBool, Ordering};

use realtime_core::AuthError;
use redis::Cmd;

use super::{SaTokenConfig, connections::Connections, record::Record};
use crate::RedisConfigError;

/// Looks tokens up, each time within the time limit.
pub(super) struct Store {
    connections: Connections,
    /// What comes before `token:<token>` and `last-active:<token>`.
    stem: String,
    /// So that one outage is one line in the log.
    away: AtomicBool,
}

/// Redis gave no answer. Its words are left out: they may repeat a command, and with it a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store of logins is away: {0}")]
pub(super) struct Away(String);

impl Store {
    pub(super) fn new(config: &SaTokenConfig) -> Result<Self, RedisConfigError> {
        let SaTokenConfig { redis, token_name, login_type, .. } = config;
        let global = if config.global_prefix { "global:" } else { "" };
        let stem = redis.name(&format!("{global}{token_name}:{login_type}:"));
        let connections = Connections::new(redis, stem.clone())?;
        Ok(Self { connections, stem, away: AtomicBool::new(false) })
    }

    /// What Redis says about a token.
    pub(super) async fn look_up(&self, token: &str) -> Result<Record, Away> {
        let command = self.question([token]);
        let values = self.noted(self.connections.ask(&command).await)?;
        Ok(records(values).pop().unwrap_or_default())
    }

    /// What Redis says about tokens, in their order: both keys of each as they are at one moment, in one round trip.
    /// In a cluster it is one for each of its nodes, and a token's keys may be on two of them.
    pub(super) async fn look_up_all(
        &self,
        tokens: impl IntoIterator<Item = &str>,
    ) -> Result<Vec<Record>, Away> {
        let command = self.question(tokens);
        Ok(records(self.noted(self.connections.ask_at_length(&command).await)?))
    }

    /// Notes activity. A key that has gone meanwhile stays gone, and its time to live is not touched.
    pub(super) async fn renew(&self, token: &str, last_active: &str) -> Result<(), Away> {
        let mut command = redis::cmd("SET");
        command.arg(self.key("last-active", token)).arg(last_active).arg("XX").arg("KEEPTTL");
        self.noted(self.connections.ask(&command).await)
    }

    fn question<'a>(&self, tokens: impl IntoIterator<Item = &'a str>) -> Cmd {
        let mut command = redis::cmd("MGET");
        for token in tokens {
            command.arg(self.key("token", token)).arg(self.key("last-active", token));
        }
        command
    }

    fn key(&self, kind: &str, token: &str) -> String {
        format!("{}{kind}:{token}", self.stem)
    }

    /// Tells the log when the store goes away and when it is back.
    fn noted<T>(&self, answer: Result<T, String>) -> Result<T, Away> {
        let result = answer.map_err(Away);
        match &result {
            Ok(_) => {
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!("the store of logins is back");
                }
            }
            Err(Away(problem)) => {
                if !self.away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%problem, "the store of logins is away: nobody can log in, nobody is logged out");
                }
            }
        }
        result
    }
}

/// The values of the two keys of each token.
fn records(values: Vec<Option<Vec<u8>>>) -> Vec<Record> {
    let mut texts =
        values.into_iter().map(|value| value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
    let mut records = Vec::new();
    while let (Some(login), Some(last_active)) = (texts.next(), texts.next()) {
        records.push(Record { login, last_active });
    }
    records
}

impl From<Away> for AuthError {
    fn from(away: Away) -> Self {
        Self::Unavailable(away.to_string())
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
    use crate::RedisConfig;

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
            assert!(error.to_string().contains("onnection refused"), "{error}");
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
            let redis =
                RedisConfig { key_prefix: key_prefix.into(), ..RedisConfig::single("redis://127.0.0.1/") };
            let config =
                SaTokenConfig { redis, global_prefix, ..SaTokenConfig::new("redis://127.0.0.1/", "secret") };
            assert_eq!(Store::new(&config).unwrap().key("token", "T"), key);
        }
    }
}

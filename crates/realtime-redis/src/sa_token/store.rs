//! [`Store`]: Sa-Token's keys in Redis.

use std::sync::atomic::{AtomicBool, Ordering};

use realtime_core::auth::AuthError;
use redis::Cmd;

use super::{SaTokenConfig, connections::Connections, record::Record};
use crate::{RedisConfig, RedisConfigError};

/// Lookups of tokens, within the time limit of a command.
pub(super) struct Store {
    connections: Connections,
    /// Prefix of `token:<token>` and `last-active:<token>`.
    stem: String,
    /// Set during an outage, which is logged once.
    unavailable: AtomicBool,
}

/// Redis gave no answer. The server's text is left out: it may repeat a command, and with it a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("login store unavailable: {0}")]
pub(super) struct StoreUnavailable(String);

impl Store {
    pub(super) fn new(redis: &RedisConfig, config: &SaTokenConfig) -> Result<Self, RedisConfigError> {
        let SaTokenConfig { token_name, login_type, .. } = config;
        let global = if config.global_prefix { "global:" } else { "" };
        let stem = redis.name(&format!("{global}{token_name}:{login_type}:"));
        let connections = Connections::new(redis, stem.clone())?;
        Ok(Self { connections, stem, unavailable: AtomicBool::new(false) })
    }

    /// Looks up the entries of a token.
    pub(super) async fn look_up(&self, token: &str) -> Result<Record, StoreUnavailable> {
        let command = self.question([token]);
        let values = self.log_outage(self.connections.ask(&command).await)?;
        Ok(records(values).pop().unwrap_or_default())
    }

    /// Looks up the entries of tokens, in their order: atomically, in one round trip. In a cluster there is one for each of its
    /// nodes, and the keys of a token may be on two of them.
    pub(super) async fn look_up_all(
        &self,
        tokens: impl IntoIterator<Item = &str>,
    ) -> Result<Vec<Record>, StoreUnavailable> {
        let command = self.question(tokens);
        Ok(records(self.log_outage(self.connections.ask_at_length(&command).await)?))
    }

    /// Writes the time of activity. A key that was removed in between stays removed, and its time to live is kept.
    pub(super) async fn renew(&self, token: &str, last_active: &str) -> Result<(), StoreUnavailable> {
        let mut command = redis::cmd("SET");
        command.arg(self.key("last-active", token)).arg(last_active).arg("XX").arg("KEEPTTL");
        self.log_outage(self.connections.ask(&command).await)
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

    /// Logs the beginning and the end of an outage.
    fn log_outage<T>(&self, answer: Result<T, String>) -> Result<T, StoreUnavailable> {
        let result = answer.map_err(StoreUnavailable);
        match &result {
            Ok(_) => {
                if self.unavailable.swap(false, Ordering::Relaxed) {
                    tracing::info!("login store available again");
                }
            }
            Err(StoreUnavailable(problem)) => {
                if !self.unavailable.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%problem, "login store unavailable: logins are refused, live sessions are kept");
                }
            }
        }
        result
    }
}

/// Splits the answer into the two values of each token.
fn records(values: Vec<Option<Vec<u8>>>) -> Vec<Record> {
    let mut texts =
        values.into_iter().map(|value| value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
    let mut records = Vec::new();
    while let (Some(login), Some(last_active)) = (texts.next(), texts.next()) {
        records.push(Record { login, last_active });
    }
    records
}

impl From<StoreUnavailable> for AuthError {
    fn from(error: StoreUnavailable) -> Self {
        Self::Unavailable(error.to_string())
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

    /// A subscriber that keeps the events of the log.
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
        // Nothing listens on port 1.
        let config = SaTokenConfig::new("redis://:password@127.0.0.1:1/", "secret");
        let store = Store::new(config.redis.as_ref().unwrap(), &config).unwrap();
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
    fn keys_have_the_names_of_the_java_nodes() {
        for (key_prefix, global_prefix, key) in [
            ("", true, "global:Authorization:login:token:T"),
            ("", false, "Authorization:login:token:T"),
            ("ruoyi", true, "ruoyi:global:Authorization:login:token:T"),
            ("ruoyi", false, "ruoyi:Authorization:login:token:T"),
        ] {
            let redis = RedisConfig::single("redis://127.0.0.1/").key_prefix(key_prefix);
            let config = SaTokenConfig::default().global_prefix(global_prefix);
            assert_eq!(Store::new(&redis, &config).unwrap().key("token", "T"), key);
        }
    }
}

//! [`Config`]: the demo's configuration.
//!
//! The built-in `application.yml` is the reference of all keys and their defaults. A file is laid over it, then the
//! environment; see [`Config::load`].

#[cfg(not(all(feature = "websocket", feature = "sse", feature = "redis")))]
mod absent;
mod address;
mod auth;
mod checks;
mod documents;
mod error;
mod hosts;
mod keys;
mod kind;
mod layers;
mod presence;
mod print;
mod ranges;
mod ruoyi;
mod secret;
mod sections;
mod tls;
mod variable_file;

use std::{fs, path::Path};

use realtime_core::{
    Settings,
    settings::{BusOutage, Drain, Fanout, Heartbeat, History, Limits, OutboxLimits, RetainedLimits, Streams},
};
use serde::Deserialize;

use layers::{Layers, Values};
use ruoyi::Ruoyi;

pub use address::Address;
pub use auth::{Auth, AuthMode, Jwks, Jwt, PublicKeyFile, User};
pub use error::{ConfigError, ConfigErrors, Source};
pub use hosts::AllowedHosts;
pub use presence::{Presence, PresenceMode};
pub use secret::Secret;
pub use sections::{Api, HealthChecks, Log, LogFormat, Server, ServerKind, Topics};
pub use tls::Tls;

#[cfg(not(feature = "sse"))]
pub use absent::Transport as Sse;
#[cfg(not(feature = "websocket"))]
pub use absent::Transport as WebSocket;
#[cfg(not(feature = "redis"))]
pub use absent::{Redis, SaToken};
#[cfg(feature = "redis")]
pub use realtime_redis::{RedisConfig as Redis, SaTokenConfig as SaToken};
#[cfg(feature = "sse")]
pub use realtime_sse::SseConfig as Sse;
#[cfg(feature = "websocket")]
pub use realtime_websocket::WebSocketConfig as WebSocket;

/// The commented reference: every key with its default.
pub const REFERENCE: &str = include_str!("../../config/application.yml");

/// The whole configuration, checked. Its `Debug` output shows no secret, key or hash.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Addresses and limits of the server.
    pub server: Server,
    /// The WebSocket module.
    pub websocket: WebSocket,
    /// The Server-Sent Events module.
    pub sse: Sse,
    /// Logins.
    pub auth: Auth,
    /// The publish API.
    pub api: Api,
    /// Redis of the cluster; `None` for a single node.
    #[serde(deserialize_with = "Redis::optional")]
    pub redis: Option<Redis>,
    /// Topics that clients may subscribe to.
    pub topics: Topics,
    /// Log settings.
    pub log: Log,
    /// Settings of health checks.
    pub health: HealthChecks,
    /// Implementation and times of presence.
    pub presence: Presence,
    history: History,
    retained: RetainedLimits,
    fanout: Fanout,
    outbox: OutboxLimits,
    heartbeat: Heartbeat,
    limits: Limits,
    drain: Drain,
    bus: BusOutage,
    streams: Streams,
    /// Warnings about settings that are allowed.
    #[serde(skip)]
    pub warnings: Vec<String>,
    /// A word about each key of RuoYi's file.
    #[serde(skip)]
    pub notes: Vec<String>,
    #[serde(skip)]
    values: Values,
}

impl Config {
    /// Reads the configuration: the built-in reference, over it `file`, and over that those variables of
    /// `environment` that start with `REALTIME__`, or the files that they name (`REALTIME__…_FILE`).
    ///
    /// A module is enabled if the strongest layer enables it; a file without `enabled` disables it. A file without users has
    /// none.
    ///
    /// # Errors
    /// All problems: a file that cannot be read, unknown keys and variables, values of the wrong type or range, features
    /// that this build lacks. A value that cannot be used counts as left out for what concerns others.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        Self::load_over(None, file, environment)
    }

    /// Reads the configuration as [`Self::load`] does, with what an `application.yml` of RuoYi says between the reference
    /// and `file`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_over(
        ruoyi: Option<&Path>,
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let environment: Vec<_> = environment.collect();
        let ruoyi = ruoyi.map(|path| (path, Ruoyi::read(path, &environment)));
        let environment = environment.into_iter();
        let Some(path) = file else {
            return Self::assemble(ruoyi, None, environment);
        };
        match fs::read_to_string(path) {
            Ok(text) => Self::assemble(ruoyi, Some((path, &text)), environment),
            Err(error) => {
                let problem = format!("cannot be read: {error}");
                let error = ConfigError::unreadable(Source::File(path.to_owned()), problem);
                let mut layers = Layers::new(REFERENCE)?;
                layers.add_environment(environment);
                Err(ConfigErrors::from(error).warned(layers.take_warnings()))
            }
        }
    }

    fn assemble(
        ruoyi: Option<(&Path, Ruoyi)>,
        file: Option<(&Path, &str)>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let has_file = file.is_some() || ruoyi.is_some();
        let mut layers = Layers::new(REFERENCE)?;
        for (key, compiled) in
            [("websocket.enabled", cfg!(feature = "websocket")), ("sse.enabled", cfg!(feature = "sse"))]
        {
            if has_file || !compiled {
                layers.set_default(key, false);
            }
        }
        if has_file {
            // A configured server does not get the four demo logins, whose password is public.
            layers.set_default("auth.users", Vec::<config::Value>::new());
            layers.set_default("auth.passwordHint", config::ValueKind::Nil);
            // Nor a topic for everybody that its applications may use for something else.
            layers.set_default("topics.public", Vec::<config::Value>::new());
            layers.set_default("auth.showUsers", false);
        }
        let (mut notes, mut problems) = (Vec::new(), Vec::new());
        if let Some((path, ruoyi)) = ruoyi {
            layers.add_values(ruoyi.values, &Source::Ruoyi(path.to_owned()));
            (notes, problems) = (ruoyi.notes, ruoyi.problems);
        }
        if let Some((path, text)) = file {
            layers.add_file(path, text);
        }
        layers.add_environment(environment);
        layers.reject_masked();
        layers.reject_empty_files();
        problems.extend(layers.take_problems());
        // What is found wrong is taken back to its default, so that the next problem shows.
        let config = loop {
            let found = match layers.deserialize::<Self>() {
                Ok(config) => match config.check(&layers) {
                    found if found.is_empty() => break Some(config),
                    found => found,
                },
                Err(error) => vec![error],
            };
            let found: Vec<_> = found.into_iter().map(|error| layers.locate(error)).collect();
            let mut goes_on = false;
            for error in found {
                goes_on |= error.key.as_deref().is_some_and(|key| layers.reset(key));
                // A second problem of a key may be that its value was taken back.
                if !problems.iter().any(|known| known.key == error.key) {
                    problems.push(error);
                }
            }
            if !goes_on {
                break None;
            }
        };
        let warnings = layers.take_warnings();
        if !problems.is_empty() {
            return Err(ConfigErrors::from(problems).warned(warnings));
        }
        let mut config = config.expect("without a problem there is a configuration");
        config.notes = notes;
        config.warnings = warnings;
        config.warnings.extend(config.find_warnings(&layers));
        config.values = layers.values();
        Ok(config)
    }

    /// The hub's sizes, times and limits; they have passed [`Settings::check`].
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.history.clone_from(&self.history);
        settings.retained.clone_from(&self.retained);
        settings.fanout.clone_from(&self.fanout);
        settings.outbox.clone_from(&self.outbox);
        settings.heartbeat.clone_from(&self.heartbeat);
        settings.presence.grace = self.presence.grace;
        settings.auth.expiring_notice = self.auth.expiring_notice;
        settings.limits.clone_from(&self.limits);
        settings.drain.clone_from(&self.drain);
        settings.bus.clone_from(&self.bus);
        settings.streams.clone_from(&self.streams);
        settings
    }

    /// The configuration in force, commented as the [`REFERENCE`] is, with the source of each value that is not the
    /// reference's. Secrets are masked.
    pub fn print(&self) -> String {
        print::print(REFERENCE, &self.values)
    }

    /// Returns `true` if it comes from files besides the one of [`Self::load`], which may change while the server runs.
    pub fn has_files(&self) -> bool {
        self.server.tls.cert.is_some()
            || !self.auth.jwt.public_keys.is_empty()
            || self.values.has_variable_file()
    }

    /// The limits of the hub.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The keys whose values differ in another configuration.
    pub(crate) fn changed(&self, other: &Self) -> Vec<String> {
        self.values.changed(&other.values)
    }

    /// The implementation of presence that is in force.
    pub fn presence_mode(&self) -> PresenceMode {
        self.presence.mode(self.redis.is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The configuration from a file `app.yml` with this text, if any, and these variables.
    pub(super) fn assemble(file: Option<&str>, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Config::assemble(None, file.map(|text| (Path::new("app.yml"), text)), variables)
    }

    pub(super) fn load(file: Option<&str>, variables: &[(&str, &str)]) -> Config {
        assemble(file, variables).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(super) fn refused(file: Option<&str>, variables: &[(&str, &str)]) -> String {
        assemble(file, variables).expect_err("must be refused").to_string()
    }

    #[test]
    fn without_a_file_the_reference_is_in_force() {
        let config = load(None, &[]);
        assert_eq!((config.server.host.as_str(), config.server.port), ("127.0.0.1", 8080));
        assert_eq!((config.server.workers, config.server.node.as_deref()), (0, None));
        assert_eq!(config.websocket.path, "/resource/websocket");
        #[cfg(feature = "websocket")]
        assert!(!config.websocket.allowed_origins.allow(Some("http://a"), Some("b")));
        assert_eq!(config.sse.path, "/resource/sse");
        #[cfg(feature = "sse")]
        assert_eq!(config.sse.retry, Duration::from_secs(3));
        assert_eq!((config.auth.mode, config.auth.require_client_id), (AuthMode::Jwt, false));
        assert_eq!((config.log.level.as_str(), config.log.format), ("info", LogFormat::Text));
        assert_eq!(config.health.grace, Duration::from_secs(30));
        assert_eq!(config.settings(), Settings::default());
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn without_a_file_every_module_of_the_build_is_on() {
        let config = load(None, &[]);
        assert_eq!(config.websocket.enabled, cfg!(feature = "websocket"));
        assert_eq!(config.sse.enabled, cfg!(feature = "sse"));
    }

    #[test]
    fn a_file_turns_on_only_what_it_names() {
        for text in [
            "",
            "# nothing\n",
            "server: {port: 1}",
            "websocket:\nsse:\n",
            "websocket: {path: /ws}\nsse: {retry: 1s}",
        ] {
            let config = load(Some(text), &[]);
            assert!(!config.websocket.enabled && !config.sse.enabled, "{text}");
        }
        let config = load(Some("websocket: {enabled: false}"), &[]);
        assert!(!config.websocket.enabled);
    }

    #[test]
    fn a_file_has_the_users_that_it_names_and_no_others() {
        for text in ["", "server: {port: 1}", "auth: {requireClientId: true}", "auth:\n"] {
            let auth = load(Some(text), &[]).auth;
            assert!(auth.users.is_empty(), "{text}");
            assert_eq!(auth.password_hint, None, "{text}");
        }
        let hint = load(Some("auth: {passwordHint: ask Eve}"), &[]).auth.password_hint;
        assert_eq!(hint.as_deref(), Some("ask Eve"));
        assert_eq!(
            refused(Some("auth: {users: eve}"), &[]).split(": ").nth(1),
            Some("expected a list whose items have keys, found text")
        );
    }

    #[test]
    fn a_file_makes_only_those_topics_public_that_it_names() {
        let public = |file, variables: &[(&str, &str)]| {
            let patterns = load(file, variables).topics.public;
            patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(public(None, &[]), ["news"]);
        assert_eq!(public(Some("server: {port: 1}"), &[]), [""; 0]);
        assert_eq!(public(Some("topics: {public: ['a', 'b:*']}"), &[]), ["a", "b:*"]);
        assert_eq!(public(None, &[("REALTIME__TOPICS__PUBLIC", "a, b:*")]), ["a", "b:*"]);
        assert_eq!(
            refused(None, &[("REALTIME__TOPICS__PUBLIC", "a b")]),
            "topics.public[0] (environment variable REALTIME__TOPICS__PUBLIC): \
             topic \"a b\" holds white space or a control character"
        );
    }

    #[test]
    fn logins_that_everybody_knows_or_nobody_has_are_warned_about() {
        let secret = ("REALTIME__AUTH__JWT__SECRET", "s".repeat(32));
        let secret = (secret.0, &*secret.1);
        let open = ("REALTIME__SERVER__HOST", "0.0.0.0");
        let (known, nobody) =
            ("auth.users are the built-in ones", "auth.users and auth.jwt.secret are missing");
        for (file, variables, warning) in [
            (None, vec![], None),
            (None, vec![secret], Some(known)),
            (None, vec![open], Some(known)),
            (None, vec![("REALTIME__SERVER__HOST", "::1")], None),
            (None, vec![("REALTIME__SERVER__HOST", "localhost")], None),
            (Some("server: {port: 1}"), vec![], Some(nobody)),
            (Some("server: {host: 0.0.0.0}"), vec![secret], None),
        ] {
            let warnings = load(file, &variables).warnings;
            let expected = warning.map(|warning| vec![warning]).unwrap_or_default();
            assert_eq!(warnings.len(), expected.len(), "{file:?} {variables:?}: {warnings:?}");
            assert!(warnings.iter().zip(expected).all(|(is, start)| is.starts_with(start)), "{warnings:?}");
        }
    }

    #[cfg(all(feature = "websocket", feature = "sse"))]
    #[test]
    fn a_module_is_on_when_the_strongest_layer_says_so() {
        let config = load(Some("websocket: {enabled: true}"), &[]);
        assert!(config.websocket.enabled && !config.sse.enabled);
        let swapped = [("REALTIME__WEBSOCKET__ENABLED", "false"), ("REALTIME__SSE__ENABLED", "true")];
        let config = load(Some("websocket: {enabled: true}"), &swapped);
        assert!(!config.websocket.enabled && config.sse.enabled);
    }

    #[test]
    fn a_file_needs_to_hold_only_what_differs() {
        let config = load(Some("server:\n  port: 0\nhistory: {maxAge: 10m}\nauth.jwt.algorithm: HS512"), &[]);
        assert_eq!((config.server.host.as_str(), config.server.port), ("127.0.0.1", 0));
        assert_eq!(config.settings().history.max_age, Duration::from_secs(600));
        assert_eq!(config.settings().history.max_messages, 100_000);
        assert_eq!(config.auth.jwt.algorithm, realtime_core::auth::JwtAlgorithm::Hs512);
    }

    #[test]
    fn the_environment_beats_the_file_for_every_kind_of_value() {
        let file = "server: {port: 1, node: f}\nauth: {requireClientId: false}\nsse: {retry: 1s}\n\
                    websocket: {allowedOrigins: ['http://f']}";
        let config = load(
            Some(file),
            &[
                ("REALTIME__SERVER__PORT", "2"),
                ("REALTIME__SERVER__NODE", "42"),
                ("REALTIME__AUTH__REQUIRECLIENTID", "True"),
                ("REALTIME__SSE__RETRY", "1m 5s"),
                ("REALTIME__WEBSOCKET__ALLOWEDORIGINS", "http://a:1, http://b ,"),
                ("realtime__limits__maxInboundRate", " 7 "),
                ("REALTIME_SERVER_PORT", "not ours"),
                ("PATH", "/bin"),
            ],
        );
        assert_eq!((config.server.port, config.server.node.as_deref()), (2, Some("42")));
        assert!(config.auth.require_client_id);
        #[cfg(feature = "sse")]
        assert_eq!(config.sse.retry, Duration::from_secs(65));
        assert_eq!(config.settings().limits.max_inbound_rate, 7);
        #[cfg(feature = "websocket")]
        {
            let allows =
                |config: Config, origin| config.websocket.allowed_origins.allow(Some(origin), Some("x"));
            let none = load(Some(file), &[("REALTIME__WEBSOCKET__ALLOWEDORIGINS", "")]);
            assert!(!allows(none, "http://f"));
            assert!(allows(config.clone(), "http://b") && !allows(config, "http://f"));
        }
    }

    #[test]
    #[cfg(feature = "websocket")]
    fn origins_are_a_list_or_one_text_with_commas() {
        for yaml in ["['http://a:1', 'http://b']", "'http://a:1, http://b'"] {
            let origins =
                load(Some(&format!("websocket: {{allowedOrigins: {yaml}}}")), &[]).websocket.allowed_origins;
            for (origin, allowed) in [("http://a:1", true), ("http://b", true), ("http://c", false)] {
                assert_eq!(origins.allow(Some(origin), Some("d")), allowed, "{yaml}: {origin}");
            }
        }
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let secret = ("REALTIME__AUTH__JWT__SECRET", "tttttttttttttttttttttttttttttttt");
        let config = load(None, &[secret, ("REALTIME__API__KEY", "kkkkkkkkkkkkkkkk")]);
        let shown = format!("{config:?}");
        assert!(shown.contains("alice"), "{shown}");
        for hidden in ["tttt", "kkkk", "argon2", &config.auth.users[0].password.to_string()] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let path = Path::new("no/such/app.yml");
        let error = Config::load(Some(path), [].into_iter()).unwrap_err().to_string();
        assert!(error.starts_with("file no/such/app.yml: cannot be read: "), "{error}");
    }

    #[cfg(all(feature = "websocket", feature = "sse"))]
    #[test]
    fn the_reference_may_be_the_file() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/application.yml"));
        let config = Config::load(Some(path), [].into_iter()).unwrap();
        assert!(config.websocket.enabled && config.sse.enabled);
    }

    #[test]
    fn the_reference_comments_on_every_key() {
        let mut above = "";
        for line in REFERENCE.lines().filter(|line| !line.contains("- id:")) {
            let text = line.trim_start();
            let in_users = line.starts_with("      ");
            let is_value =
                text.starts_with(|c: char| c.is_ascii_lowercase()) && line.starts_with(' ') && text != "jwt:";
            if is_value && !in_users {
                assert!(above.starts_with('#'), "no comment above `{line}`");
            }
            above = text;
        }
        for key in Layers::new(REFERENCE).unwrap().keys() {
            let name = key.rsplit('.').next().unwrap();
            assert!(REFERENCE.contains(&format!("  {name}:")), "{key}");
        }
    }
}

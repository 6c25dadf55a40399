//! [`Document`]: all sections as they are written, and what has to hold among them.

use realtime_core::{
    Settings,
    settings::{BusOutage, Drain, Fanout, Heartbeat, History, Limits, OutboxLimits, PresenceTimes},
};
use serde::Deserialize;

use super::{
    Api, Auth, Config, ConfigError, Log, Presence, Redis, Server, Source, Sse, WebSocket, layers::Layers,
};

/// All sections, as they are written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Document {
    server: Server,
    websocket: WebSocket,
    sse: Sse,
    auth: Auth,
    api: Api,
    redis: Redis,
    log: Log,
    history: History,
    fanout: Fanout,
    outbox: OutboxLimits,
    heartbeat: Heartbeat,
    presence: Presence,
    limits: Limits,
    drain: Drain,
    bus: BusOutage,
}

impl Document {
    /// Checks that nothing is asked for that is not compiled in.
    pub(super) fn check_features(&self, layers: &Layers) -> Result<(), ConfigError> {
        for (key, wanted, compiled, name, feature) in [
            (
                "websocket.enabled",
                self.websocket.enabled,
                cfg!(feature = "websocket"),
                "WebSocket",
                "websocket",
            ),
            ("sse.enabled", self.sse.enabled, cfg!(feature = "sse"), "SSE", "sse"),
            ("redis.url", self.redis.url.is_some(), cfg!(feature = "redis"), "Redis", "redis"),
        ] {
            if wanted && !compiled {
                let source = layers.source(key).unwrap_or(&Source::Defaults);
                let problem = format!(
                    "this build has no {name} support (feature `{feature}`); it is asked for by {source}"
                );
                return Err(ConfigError::at(key, problem));
            }
        }
        Ok(())
    }

    /// Checks that no two endpoints share a path.
    pub(super) fn check_paths(&self, layers: &Layers) -> Result<(), ConfigError> {
        let path = self.websocket.path.as_str();
        let taken = if path == self.sse.path {
            "the stream"
        } else if path.strip_suffix("/close") == Some(&self.sse.path) {
            "the end of a stream"
        } else {
            return Ok(());
        };
        // The one that is not a default is the one to change.
        let mut keys = ["websocket.path", "sse.path"];
        keys.sort_by_key(|key| layers.source(key));
        let problem = format!("clashes with {}: the WebSocket and {taken} would both be `{path}`", keys[0]);
        Err(layers.locate(ConfigError::at(keys[1], problem)))
    }

    /// Checks what a single value cannot tell and drops what only serves that.
    pub(super) fn into_config(self, layers: &Layers) -> Result<Config, ConfigError> {
        self.server.check()?;
        self.auth.check(&self.redis)?;
        self.redis.check()?;
        let presence_mode = self.presence.mode(&self.redis)?;
        let settings = Settings {
            history: self.history,
            fanout: self.fanout,
            outbox: self.outbox,
            heartbeat: self.heartbeat,
            presence: PresenceTimes { grace: self.presence.grace },
            limits: self.limits,
            drain: self.drain,
            bus: self.bus,
        };
        settings.check().map_err(|error| ConfigError::at(error.key, error.problem))?;
        let mut warnings = Vec::new();
        #[cfg(feature = "websocket")]
        if self.websocket.allowed_origins.allows_any() {
            warnings.push("websocket.allowedOrigins contains `*`: every web page may connect".to_owned());
        }
        let built_in_users = layers.source("auth.users") == Some(&Source::Defaults);
        warnings.extend(self.auth.warning(built_in_users, &self.server.host));
        if self.redis.tls.insecure {
            warnings.push("redis.tls.insecure: whoever answers is taken for Redis".to_owned());
        }
        Ok(Config {
            server: self.server,
            websocket: self.websocket,
            sse: self.sse,
            auth: self.auth,
            api: self.api,
            redis: self.redis,
            presence: presence_mode,
            log: self.log,
            settings,
            warnings,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{
        REFERENCE,
        tests::{load, refused},
    };

    #[cfg(not(feature = "websocket"))]
    #[test]
    fn asking_for_a_module_that_is_not_compiled_in_names_the_feature() {
        assert_eq!(
            refused(Some("websocket: {enabled: true}"), &[]),
            "websocket.enabled: this build has no WebSocket support (feature `websocket`); \
             it is asked for by file app.yml"
        );
    }

    #[cfg(not(feature = "sse"))]
    #[test]
    fn asking_for_the_stream_where_it_is_not_compiled_in_names_the_feature() {
        assert_eq!(
            refused(None, &[("REALTIME__SSE__ENABLED", "true")]),
            "sse.enabled: this build has no SSE support (feature `sse`); \
             it is asked for by environment variable REALTIME__SSE__ENABLED"
        );
    }

    #[cfg(not(feature = "redis"))]
    #[test]
    fn asking_for_redis_names_the_feature_and_keeps_the_password() {
        assert_eq!(
            refused(Some("redis: {url: 'redis://:hunter2@cache/0'}"), &[]),
            "redis.url: this build has no Redis support (feature `redis`); it is asked for by file app.yml"
        );
    }

    #[test]
    #[cfg(feature = "websocket")]
    fn an_open_door_is_warned_about() {
        let config = load(None, &[("REALTIME__WEBSOCKET__ALLOWEDORIGINS", "http://a,*")]);
        assert_eq!(config.warnings, ["websocket.allowedOrigins contains `*`: every web page may connect"]);
    }

    #[test]
    fn bad_values_are_refused_with_key_and_source() {
        for (yaml, error) in [
            (
                "websocket: {allowedOrigins: ['http://a', 'http://b/']}",
                "websocket.allowedOrigins (file app.yml): `http://b/` is neither `*` nor scheme://host[:port], where the host may begin with `*.`",
            ),
            ("websocket: {path: ws}", "websocket.path (file app.yml): `ws` does not start with `/`"),
            ("websocket: {path: /ws/}", "websocket.path (file app.yml): `/ws/` ends with `/`"),
            ("sse: {path: /}", "sse.path (file app.yml): `/` is the page itself"),
            ("sse: {path: '/{id}'}", "sse.path (file app.yml): `/{id}` holds one of `?`, `#`, `{` and `}`"),
            ("sse: {path: /a b}", "sse.path (file app.yml): `/a b` holds white space or a control character"),
            ("sse: {retry: 0s}", "sse.retry (file app.yml): must be at least 100ms"),
            (
                "server: {port: 70000}",
                "server.port (file app.yml): expected an unsigned 16 bit integer, \
                 found 64-bit unsigned integer `70000`",
            ),
            (
                "server: {workers: -1}",
                "server.workers (file app.yml): expected an unsigned 64 bit or less integer, \
                 found 64-bit integer `-1`",
            ),
            ("heartbeat: {interval: 1ms}", "heartbeat.interval (file app.yml): must be at least 100ms"),
            (
                "history: {maxAge: 1m}",
                "heartbeat.interval (built-in defaults): 20s is not below a third of history.maxAge (60s)",
            ),
        ] {
            assert_eq!(refused(Some(yaml), &[]), error, "{yaml}");
        }
    }

    #[test]
    fn no_two_endpoints_share_a_path_and_the_one_that_was_set_is_named() {
        let (websocket, sse) = ("REALTIME__WEBSOCKET__PATH", "REALTIME__SSE__PATH");
        assert_eq!(
            refused(None, &[(websocket, "/resource/sse")]),
            "websocket.path (environment variable REALTIME__WEBSOCKET__PATH): \
             clashes with sse.path: the WebSocket and the stream would both be `/resource/sse`"
        );
        assert_eq!(
            refused(Some("websocket: {path: /a/close}"), &[(sse, "/a")]),
            "sse.path (environment variable REALTIME__SSE__PATH): \
             clashes with websocket.path: the WebSocket and the end of a stream would both be `/a/close`"
        );
        load(None, &[(websocket, "/b/close"), (sse, "/a")]);
    }

    #[test]
    fn the_reference_has_every_key_of_the_configuration_and_no_other() {
        let layers = Layers::new(REFERENCE).unwrap();
        let keys: BTreeSet<String> = layers.keys().map(str::to_owned).collect();
        let mut sections = BTreeSet::from([String::new()]);
        for key in &keys {
            sections.extend(key.match_indices('.').map(|(end, _)| key[..end].to_owned()));
        }
        for section in sections {
            let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
            let documented: BTreeSet<_> = keys
                .iter()
                .filter_map(|key| key.strip_prefix(&prefix)?.split('.').next())
                .map(str::to_owned)
                .collect();
            assert_eq!(fields(&prefix), documented, "section {section:?}");
        }
    }

    /// The fields of a section, as serde lists them when it meets one that is not there.
    fn fields(prefix: &str) -> BTreeSet<String> {
        let stranger = format!("{prefix}stranger");
        let result = ::config::Config::builder()
            .add_source(::config::File::from_str(REFERENCE, ::config::FileFormat::Yaml))
            .set_override(&stranger, 1)
            .and_then(|builder| builder.build())
            .and_then(|config| config.try_deserialize::<Document>());
        let Err(error) = result else { panic!("{stranger} is accepted") };
        let message = error.to_string();
        let (_, expected) = message.split_once("unknown field `stranger`, expected ").unwrap();
        let list = expected.split(" for key").next().unwrap();
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }
}

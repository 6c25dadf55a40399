//! Checks that concern several values of a [`Config`].

use super::{AuthMode, Config, ConfigError, Source, layers::Layers};

impl Config {
    /// Checks what cannot be checked for each value alone.
    pub(super) fn check(&self, layers: &Layers) -> Result<(), ConfigError> {
        self.check_features()?;
        self.check_paths(layers)?;
        self.server.check()?;
        #[cfg(feature = "redis")]
        self.auth.check_sa_token(self.redis.as_ref())?;
        self.auth.check_users()?;
        self.presence.check(self.redis.is_some())?;
        self.settings().check().map_err(|error| ConfigError::at(error.key, error.problem))
    }

    /// Checks that nothing is asked for that is not compiled in.
    fn check_features(&self) -> Result<(), ConfigError> {
        for (key, wanted, compiled, name, feature) in [
            (
                "websocket.enabled",
                self.websocket.enabled,
                cfg!(feature = "websocket"),
                "WebSocket",
                "websocket",
            ),
            ("sse.enabled", self.sse.enabled, cfg!(feature = "sse"), "SSE", "sse"),
            ("redis.url", self.redis.is_some(), cfg!(feature = "redis"), "Redis", "redis"),
            ("auth.mode", self.auth.mode == AuthMode::SaToken, cfg!(feature = "redis"), "Redis", "redis"),
        ] {
            if wanted && !compiled {
                let problem = format!("this build has no {name} support (feature `{feature}`)");
                return Err(ConfigError::at(key, problem));
            }
        }
        Ok(())
    }

    /// Checks that no two endpoints share a path.
    fn check_paths(&self, layers: &Layers) -> Result<(), ConfigError> {
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
        Err(ConfigError::at(keys[1], problem))
    }

    /// Warnings about settings that are allowed.
    pub(super) fn find_warnings(&self, layers: &Layers) -> Vec<String> {
        let mut warnings = Vec::new();
        #[cfg(feature = "websocket")]
        if self.websocket.allowed_origins.allows_any() {
            warnings.push("websocket.allowedOrigins contains `*`: every web page may connect".to_owned());
        }
        let built_in_users = layers.source("auth.users") == Some(&Source::Defaults);
        warnings.extend(self.auth.warning(built_in_users, &self.server.host));
        #[cfg(feature = "redis")]
        for (key, redis) in [("redis", &self.redis), ("auth.saToken.redis", &self.auth.sa_token.redis)] {
            if redis.as_ref().is_some_and(|redis| redis.tls.is_insecure()) {
                warnings.push(format!("{key}.tls.insecure: whoever answers is taken for Redis"));
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{load, refused};

    #[cfg(not(feature = "websocket"))]
    #[test]
    fn asking_for_a_module_that_is_not_compiled_in_names_the_feature() {
        load(Some("websocket: {enabled: false, path: /ws, allowedOrigins: ['http://a']}"), &[]);
        assert_eq!(
            refused(Some("websocket: {enabled: true}"), &[]),
            "websocket.enabled (file app.yml): this build has no WebSocket support (feature `websocket`)"
        );
    }

    #[cfg(not(feature = "sse"))]
    #[test]
    fn asking_for_the_stream_where_it_is_not_compiled_in_names_the_feature() {
        load(Some("sse: {enabled: false, path: /events, retry: 1s}"), &[]);
        assert_eq!(
            refused(None, &[("REALTIME__SSE__ENABLED", "true")]),
            "sse.enabled (environment variable REALTIME__SSE__ENABLED): this build has no SSE support (feature `sse`)"
        );
    }

    #[cfg(not(feature = "redis"))]
    #[test]
    fn asking_for_redis_names_the_feature_and_keeps_the_password() {
        load(Some("redis: {mode: pubsub, commandTimeout: 1s, tls: {insecure: true}}"), &[]);
        for (yaml, key) in [
            ("redis: {url: 'redis://:hunter2@cache/0'}", "redis.url"),
            ("auth: {mode: sa-token}", "auth.mode"),
        ] {
            assert_eq!(
                refused(Some(yaml), &[]),
                format!("{key} (file app.yml): this build has no Redis support (feature `redis`)")
            );
        }
    }

    #[test]
    #[cfg(feature = "websocket")]
    fn an_open_door_is_warned_about() {
        let config = load(None, &[("REALTIME__WEBSOCKET__ALLOWEDORIGINS", "http://a,*")]);
        assert_eq!(config.warnings, ["websocket.allowedOrigins contains `*`: every web page may connect"]);
    }

    #[cfg(feature = "redis")]
    #[test]
    fn a_redis_that_is_not_authenticated_is_warned_about() {
        let yaml = "redis: {url: 'rediss://a/', tls: {insecure: true}}";
        let warnings = load(Some(yaml), &[]).warnings;
        assert!(warnings.contains(&"redis.tls.insecure: whoever answers is taken for Redis".to_owned()));
    }

    #[cfg(all(feature = "websocket", feature = "sse"))]
    #[test]
    fn bad_values_of_transports_are_refused_with_key_and_source() {
        for (yaml, error) in [
            (
                "websocket: {allowedOrigins: ['http://a', 'http://b/']}",
                "websocket.allowedOrigins (file app.yml): `http://b/` is neither `*` nor scheme://host[:port], where the host may begin with `*.`",
            ),
            ("websocket: {path: ws}", "websocket.path (file app.yml): `ws` does not start with `/`"),
            ("websocket: {path: /ws/}", "websocket.path (file app.yml): `/ws/` ends with `/`"),
            ("sse: {path: /}", "sse.path (file app.yml): `/` ends with `/`"),
            ("sse: {path: '/{id}'}", "sse.path (file app.yml): `/{id}` holds one of `?`, `#`, `{` and `}`"),
            ("sse: {path: /a b}", "sse.path (file app.yml): `/a b` holds white space or a control character"),
            ("sse: {retry: 0s}", "sse.retry (file app.yml): must be at least 100ms"),
        ] {
            assert_eq!(refused(Some(yaml), &[]), error, "{yaml}");
        }
    }

    #[cfg(feature = "redis")]
    #[test]
    fn bad_values_of_redis_are_refused_with_key_and_source() {
        for (yaml, error) in [
            (
                "redis: {url: 'redis://a/', topology: cluster}",
                "redis.nodes (built-in defaults): must name at least one URL for this topology",
            ),
            (
                "redis: {url: 'redis://a/', nodes: ['redis://:hunter2@b/']}",
                "redis.nodes (file app.yml): goes with `topology: sentinel` or `cluster`; a single server is url",
            ),
            (
                "redis: {url: 'rediss://a/', tls: {certFile: c.pem}}",
                "redis.tls.certFile (file app.yml): goes with tls.keyFile, which is missing",
            ),
            (
                "redis: {url: 'redis://a/', tls: {caFile: ca.pem}}",
                "redis.tls.caFile (file app.yml): goes with a URL that begins with `rediss:`, and there is none",
            ),
            ("redis: {mode: queue}", "redis.mode (file app.yml): `queue` is none of: streams, pubsub"),
            (
                "redis: {topology: star}",
                "redis.topology (file app.yml): `star` is none of: single, sentinel, cluster",
            ),
            ("redis: {url: nonsense}", "redis: the server is no Redis URL: invalid client config"),
            (
                "auth: {saToken: {redis: {topology: sentinel}}}",
                "auth.saToken.redis.url (built-in defaults): is missing: topology and nodes alone name no server",
            ),
            (
                "auth: {saToken: {redis: {mode: pubsub}}}",
                "auth.saToken.redis.mode (file app.yml): unknown key; did you mean `auth.saToken.redis.nodes`?",
            ),
        ] {
            assert_eq!(refused(Some(yaml), &[]), error, "{yaml}");
        }
    }

    #[test]
    fn bad_values_are_refused_with_key_and_source() {
        for (yaml, error) in [
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
}

#[cfg(test)]
#[cfg(all(feature = "websocket", feature = "sse", feature = "redis"))]
mod reference {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::REFERENCE;

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
            let mut fields = fields(&prefix);
            if section == "auth.saToken.redis" {
                // No messages are exchanged there, so the reference leaves it out, and with it the configuration.
                fields.remove("mode");
            }
            assert_eq!(fields, documented, "section {section:?}");
        }
    }

    /// The fields of a section, as serde lists them when it meets one that is not there.
    fn fields(prefix: &str) -> BTreeSet<String> {
        let stranger = format!("{prefix}stranger");
        let result = ::config::Config::builder()
            .add_source(::config::File::from_str(REFERENCE, ::config::FileFormat::Yaml))
            .set_override(&stranger, 1)
            .and_then(|builder| builder.build())
            .and_then(|config| config.try_deserialize::<Config>());
        let Err(error) = result else { panic!("{stranger} is accepted") };
        let message = error.to_string();
        let (_, expected) = message.split_once("unknown field `stranger`, expected ").unwrap();
        let list = expected.split(" for key").next().unwrap();
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }
}

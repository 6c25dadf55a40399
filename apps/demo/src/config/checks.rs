//! Checks that concern several values of a [`Config`].

use realtime_core::{Settings, settings::SettingsError};
#[cfg(feature = "redis")]
use realtime_redis::RedisConfigError;

use super::{AuthMode, Config, ConfigError, PresenceMode, Source, layers::Layers};

/// First segments of the demo's own paths.
const RESERVED: [&str; 6] = ["api", "assets", "auth", "demo", "health", "realtime.js"];

impl Config {
    /// Finds what cannot be found in each value alone.
    pub(super) fn check(&self, layers: &Layers) -> Vec<ConfigError> {
        let mut problems = self.check_features();
        problems.extend(self.check_paths(layers));
        let checks = [
            self.server.check(),
            #[cfg(feature = "redis")]
            self.auth.check_sa_token(self.redis.as_ref()),
            self.auth.check_users(),
            self.auth.check_jwks(),
            self.presence.check(self.redis.is_some()),
            self.check_cluster_limit(),
        ];
        problems.extend(checks.into_iter().filter_map(Result::err));
        problems.extend(self.server.tls.load().err().into_iter().flatten());
        problems.extend(self.auth.jwt.load_keys().err().into_iter().flatten());
        #[cfg(feature = "redis")]
        problems.extend(self.check_redis_files());
        problems.extend(self.check_settings());
        problems
    }

    /// Checks that nothing is asked for that is not compiled in.
    fn check_features(&self) -> Vec<ConfigError> {
        let features = [
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
        ];
        let lacking = features.into_iter().filter(|(_, wanted, compiled, _, _)| *wanted && !compiled);
        lacking
            .map(|(key, _, _, name, feature)| {
                ConfigError::at(key, format!("this build has no {name} support (feature `{feature}`)"))
            })
            .collect()
    }

    /// Checks the hub's settings beside each other. What contradicts something is left out, and the rest checked again.
    fn check_settings(&self) -> Vec<ConfigError> {
        let (mut settings, defaults) = (self.settings(), Settings::default());
        let mut problems = Vec::new();
        while let Err(SettingsError { key, problem, .. }) = settings.check() {
            match key {
                "heartbeat.interval" => {
                    settings.heartbeat.interval = defaults.heartbeat.interval;
                    settings.history.max_age = defaults.history.max_age;
                }
                "heartbeat.timeout" => settings.heartbeat.timeout = defaults.heartbeat.timeout,
                "history.maxMessages" => settings.history.max_messages = defaults.history.max_messages,
                "history.maxBytes" => {
                    settings.history.max_bytes = defaults.history.max_bytes;
                    settings.limits.max_message_bytes = defaults.limits.max_message_bytes;
                }
                "outbox.maxMessages" => settings.outbox.max_messages = defaults.outbox.max_messages,
                "outbox.maxBytes" => settings.outbox.max_bytes = defaults.outbox.max_bytes,
                "outbox.maxStall" => settings.outbox.max_stall = defaults.outbox.max_stall,
                _ => settings = defaults.clone(),
            }
            problems.push(ConfigError::at(key, problem));
        }
        problems
    }

    /// Checks the files of certificates that belong to Redis.
    #[cfg(feature = "redis")]
    fn check_redis_files(&self) -> Vec<ConfigError> {
        let sections = [("redis", &self.redis), ("auth.saToken.redis", &self.auth.sa_token.redis)];
        let problem = |section: &str, error: RedisConfigError| match error {
            RedisConfigError::File { key, file, problem } => {
                ConfigError::at(format!("{section}.{key}"), format!("`{}`: {problem}", file.display()))
            }
            error => ConfigError::at(section, error.to_string()),
        };
        let all = sections.into_iter().filter_map(|(section, redis)| Some((section, redis.as_ref()?)));
        all.flat_map(|(section, redis)| {
            redis.check_files().into_iter().map(move |error| problem(section, error))
        })
        .collect()
    }

    /// Checks that sessions over the cluster can be counted where they are limited.
    fn check_cluster_limit(&self) -> Result<(), ConfigError> {
        let key = "limits.maxConnectionsPerUserInCluster";
        if self.limits.max_connections_per_user_in_cluster > 0 && self.presence_mode() == PresenceMode::Off {
            return Err(ConfigError::at(key, "needs presence, and presence.mode is off"));
        }
        Ok(())
    }

    /// Checks that no two endpoints share a path.
    fn check_paths(&self, layers: &Layers) -> Vec<ConfigError> {
        let paths = [("websocket.path", &self.websocket.path), ("sse.path", &self.sse.path)];
        let first = |path: &str| path.split('/').nth(1).unwrap_or_default().to_owned();
        let taken = paths.iter().filter(|(_, path)| RESERVED.contains(&&*first(path)));
        let mut problems: Vec<_> = taken
            .map(|(key, path)| {
                let problem = format!("clashes with the demo's own paths at `/{}`: `{path}`", first(path));
                ConfigError::at(*key, problem)
            })
            .collect();
        problems.extend(paths.iter().filter(|(_, path)| *path == crate::ticket::PATH).map(|(key, path)| {
            ConfigError::at(*key, format!("clashes with the demo's own path of tickets: `{path}`"))
        }));
        let (websocket, sse) = (self.websocket.path.as_str(), self.sse.path.as_str());
        let (taken, path) = match (websocket.strip_prefix(sse), sse.strip_prefix(websocket)) {
            (Some(""), _) => ("the WebSocket and the stream", websocket),
            (Some("/close"), _) => ("the WebSocket and the end of a stream", websocket),
            (Some("/refresh"), _) => ("the WebSocket and the refresh of a stream", websocket),
            (Some("/ticket"), _) => ("the WebSocket and the tickets of streams", websocket),
            (_, Some("/ticket")) => ("the stream and the tickets of WebSockets", sse),
            _ => return problems,
        };
        // The one that is not a default is the one to change.
        let mut keys = ["websocket.path", "sse.path"];
        keys.sort_by_key(|key| layers.source(key));
        let problem = format!("clashes with {}: {taken} would both be `{path}`", keys[0]);
        problems.push(ConfigError::at(keys[1], problem));
        problems
    }

    /// Warnings about settings that are allowed.
    pub(super) fn find_warnings(&self, layers: &Layers) -> Vec<String> {
        let mut warnings = Vec::new();
        #[cfg(feature = "websocket")]
        if self.websocket.allowed_origins.allows_any() {
            warnings.push("websocket.allowedOrigins contains `*`: every web page may connect".to_owned());
        }
        #[cfg(feature = "sse")]
        if self.sse.allowed_origins.allows_any() {
            warnings.push(
                "sse.allowedOrigins contains `*`: every web page may read streams for which it has a token"
                    .to_owned(),
            );
        }
        let (kept, message) = (self.retained.max_bytes, self.limits.max_message_bytes);
        if kept < message {
            warnings.push(format!(
                "retained.maxBytes ({kept}) is below limits.maxMessageBytes ({message}): longer messages are not kept for newcomers"
            ));
        }
        let built_in_users = layers.source("auth.users") == Some(&Source::Defaults);
        warnings.extend(self.auth.warning(built_in_users, &self.server.host));
        warnings.extend(self.auth.jwks_warning());
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
    fn sessions_in_the_cluster_cannot_be_limited_without_presence() {
        let limit = ("REALTIME__LIMITS__MAXCONNECTIONSPERUSERINCLUSTER", "5");
        assert_eq!(load(None, &[limit]).settings().limits.max_connections_per_user_in_cluster, 5);
        assert_eq!(
            refused(None, &[limit, ("REALTIME__PRESENCE__MODE", "off")]),
            "limits.maxConnectionsPerUserInCluster (environment variable \
             REALTIME__LIMITS__MAXCONNECTIONSPERUSERINCLUSTER): needs presence, and presence.mode is off"
        );
    }

    #[test]
    #[cfg(feature = "websocket")]
    fn an_open_door_is_warned_about() {
        let config = load(None, &[("REALTIME__WEBSOCKET__ALLOWEDORIGINS", "http://a,*")]);
        assert_eq!(config.warnings, ["websocket.allowedOrigins contains `*`: every web page may connect"]);
        let config = load(None, &[("REALTIME__SSE__ALLOWEDORIGINS", "*")]);
        let warning =
            "sse.allowedOrigins contains `*`: every web page may read streams for which it has a token";
        assert_eq!(config.warnings, [warning]);
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
            (
                "redis: {url: 'nonsense:hunter2'}",
                "redis.url (file app.yml): is no Redis URL: it does not begin with `redis://` or `rediss://`",
            ),
            (
                "redis: {url: 'redis://:hunter2@a:port/'}",
                "redis.url (file app.yml): is no Redis URL: user, host, port or database cannot be read",
            ),
            (
                "redis: {url: 'redis://a/', topology: sentinel, nodes: ['redis://b/', 'hunter2']}",
                "redis.nodes (file app.yml): sentinel 2 is no Redis URL: it does not begin with `redis://` or `rediss://`",
            ),
            (
                "auth: {saToken: {redis: {url: 'http://a/'}}}",
                "auth.saToken.redis.url (file app.yml): is no Redis URL: it does not begin with `redis://` or `rediss://`",
            ),
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
    fn all_mistakes_are_named_at_once() {
        let file = "server: {prot: 1, workers: -1}\nsse: {retry: soon}\nhistory: {maxAge: 1m, maxBytes: 1}\n\
                    auth: {mode: sso, jwt: {secret: short}}\nwebsocket: {path: /health/live}\n";
        let error = refused(Some(file), &[("REALTIME__SERVER__PORT", "many"), ("REALTIME__NOTHING", "1")]);
        let expected = [
            "server.prot (file app.yml): unknown key",
            "server.workers (file app.yml): ",
            "sse.retry (file app.yml): expected a duration",
            "history.maxBytes (file app.yml): must be at least",
            "heartbeat.interval (built-in defaults): 20s is not below a third of history.maxAge",
            "auth.mode (file app.yml): `sso`",
            "auth.jwt.secret (file app.yml): must have at least 32 bytes",
            "websocket.path (file app.yml): clashes with the demo's own paths at `/health`",
            "server.port (environment variable REALTIME__SERVER__PORT): expected a whole number",
            "nothing (environment variable REALTIME__NOTHING): unknown key",
        ];
        for expected in expected {
            assert!(error.lines().any(|line| line.starts_with(expected)), "no `{expected}` in:\n{error}");
        }
        assert_eq!(error.lines().count(), expected.len(), "{error}");
    }

    #[test]
    fn all_files_that_cannot_be_used_are_named_at_once() {
        let file = "auth: {jwt: {publicKeys: [/no/a.pem, kid=/no/b.pem], jwks: {file: /no/c.json}}}\n\
                    server: {tls: {cert: /no/cert.pem, key: /no/key.pem}}\n";
        let mut expected = vec![
            "auth.jwt.publicKeys[0] (file app.yml): `/no/a.pem`: No such file",
            "auth.jwt.publicKeys[1] (file app.yml): `/no/b.pem`: No such file",
            "auth.jwt.jwks.file (file app.yml): `/no/c.json`: No such file",
            "server.tls.cert (file app.yml): `/no/cert.pem`: No such file",
            "server.tls.key (file app.yml): `/no/key.pem`: No such file",
        ];
        let mut file = file.to_owned();
        if cfg!(feature = "redis") {
            file.push_str(
                "redis: {url: 'rediss://a/', tls: {caFile: /no/ca.pem, certFile: /no/client.pem, keyFile: k}}\n",
            );
            expected.push("redis.tls.caFile (file app.yml): `/no/ca.pem`: No such file");
            expected.push("redis.tls.certFile (file app.yml): `/no/client.pem`: No such file");
        }
        let error = refused(Some(&file), &[]);
        for expected in &expected {
            assert!(error.lines().any(|line| line.starts_with(expected)), "no `{expected}` in:\n{error}");
        }
        assert_eq!(error.lines().count(), expected.len(), "{error}");
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(load(Some("\u{feff}server: {port: 7}"), &[]).server.port, 7);
    }

    #[cfg(feature = "redis")]
    #[test]
    fn an_empty_variable_is_named() {
        for (variable, key) in
            [("REALTIME__REDIS__URL", "redis.url"), ("REALTIME__REDIS__TLS__CAFILE", "redis.tls.caFile")]
        {
            let error = refused(None, &[(variable, "")]);
            let expected = format!("{key} (environment variable {variable}): must not be empty");
            assert!(error.starts_with(&expected) && error.lines().count() == 1, "{error}");
        }
    }

    #[test]
    fn a_variable_that_is_not_text_is_named() {
        let variable = "REALTIME__AUTH__PASSWORDHINT";
        let expected = format!("auth.passwordHint (environment variable {variable}): is not UTF-8");
        assert_eq!(refused(None, &[(variable, "d\u{fffd}mo")]), expected);
    }

    #[test]
    fn what_is_kept_for_newcomers_and_has_room_for_no_message_is_warned_about() {
        let warnings = load(Some("retained: {maxBytes: 1000}"), &[]).warnings;
        let expected = "retained.maxBytes (1000) is below limits.maxMessageBytes (65536)";
        assert!(warnings.iter().any(|warning| warning.starts_with(expected)), "{warnings:?}");
    }

    #[test]
    fn endpoints_are_not_among_the_demos_own_paths() {
        for path in
            ["/health/live", "/auth", "/demo/config", "/api/online/1", "/assets/app.js", "/realtime.js"]
        {
            for key in ["REALTIME__WEBSOCKET__PATH", "REALTIME__SSE__PATH"] {
                let error = refused(None, &[(key, path)]);
                assert!(error.contains("clashes with the demo's own paths at `/"), "{path}: {error}");
            }
        }
        load(None, &[("REALTIME__WEBSOCKET__PATH", "/healthy"), ("REALTIME__SSE__PATH", "/prod/api")]);
    }

    #[test]
    fn bad_values_are_refused_with_key_and_source() {
        for (yaml, error) in [
            ("server: {port: 70000}", "server.port (file app.yml): must be from 0 to 65535, is 70000"),
            ("server: {workers: -1}", "server.workers (file app.yml): must be from 0 to 1024, is -1"),
            ("server: {workers: 100000}", "server.workers (file app.yml): must be from 0 to 1024, is 100000"),
            (
                "limits: {maxInboundRate: 5000000000}",
                "limits.maxInboundRate (file app.yml): must be from 0 to 4294967295, is 5000000000",
            ),
            ("limits: {maxTargets: -7}", "limits.maxTargets (file app.yml): must be at least 0, is -7"),
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
        assert_eq!(
            refused(Some("websocket: {path: /a/refresh}"), &[(sse, "/a")]),
            "sse.path (environment variable REALTIME__SSE__PATH): \
             clashes with websocket.path: the WebSocket and the refresh of a stream would both be `/a/refresh`"
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

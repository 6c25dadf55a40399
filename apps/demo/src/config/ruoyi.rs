//! [`Ruoyi`]: what a whole `application.yml` of RuoYi-Vue-Plus says about this server.
//!
//! Its sections `websocket` and `sse` are read, and where they can be taken over `spring.data.redis`, `redisson.keyPrefix`,
//! `sa-token` and `tenant.enable`. Each key of these sections is taken or ignored by name.

mod properties;
mod redis_url;

use std::path::Path;

use config::ValueKind;

use self::properties::Properties;
use super::{ConfigError, Source};

/// What was found for the demo's keys.
#[derive(Default)]
pub(super) struct Ruoyi {
    /// Values, each of a key of the demo.
    pub(super) values: Vec<(&'static str, ValueKind)>,
    /// A word about each key that was taken or ignored.
    pub(super) notes: Vec<String>,
    /// What makes it unusable.
    pub(super) problems: Vec<ConfigError>,
}

/// Keys that mean the same here: Spring's name, and the demo's.
const SAME: [(&str, &str); 14] = [
    ("websocket.enabled", "websocket.enabled"),
    ("websocket.path", "websocket.path"),
    ("websocket.allowedOrigins", "websocket.allowedOrigins"),
    ("sse.enabled", "sse.enabled"),
    ("sse.path", "sse.path"),
    ("redisson.keyPrefix", "redis.keyPrefix"),
    ("sa-token.jwt-secret-key", "auth.saToken.secret"),
    ("sa-token.token-name", "auth.saToken.tokenName"),
    ("sa-token.token-prefix", "auth.saToken.tokenPrefix"),
    ("sa-token.token-style", "auth.saToken.tokenStyle"),
    ("sa-token.active-timeout", "auth.saToken.activeTimeout"),
    ("sa-token.dynamic-active-timeout", "auth.saToken.dynamicActiveTimeout"),
    ("sa-token.auto-renew", "auth.saToken.renew"),
    ("tenant.enable", "auth.saToken.globalPrefix"),
];

/// Sections of which each key gets a word.
const SECTIONS: [&str; 7] =
    ["websocket", "sse", "redisson", "sa-token", "tenant", "spring.data.redis", "spring.redis"];

impl Ruoyi {
    /// Reads a file and those of its profiles, with the placeholders that `environment` fills.
    pub(super) fn read(path: &Path, environment: &[(String, String)]) -> Self {
        let mut ruoyi = Self::default();
        match Properties::read(path, environment, &mut ruoyi.notes) {
            Ok(properties) => ruoyi.translate(path, &properties),
            Err(error) => ruoyi.problems.push(error),
        }
        ruoyi
    }

    fn translate(&mut self, path: &Path, properties: &Properties) {
        let mut used = Vec::new();
        for (theirs, ours) in SAME {
            let value = match properties.get(theirs) {
                None => continue,
                Some(Ok(value)) => value,
                Some(Err(problem)) => {
                    let error = ConfigError::at(ours, format!("{theirs}: {problem}"));
                    self.problems.push(error.found_in(Source::Ruoyi(path.to_owned())));
                    continue;
                }
            };
            used.push(properties::fold(theirs));
            let is_blank = matches!(&value, ValueKind::String(text) if text.trim().is_empty());
            let is_signed = properties.get("sa-token.jwt-secret-key").is_some();
            match theirs {
                _ if is_blank || value == ValueKind::Nil => {
                    self.note(theirs, "is empty, so the default holds")
                }
                "sa-token.token-style" if is_signed => {
                    self.note(theirs, "ignored, since tokens are signed (jwt-secret-key)");
                }
                _ => {
                    self.take(theirs, ours);
                    self.values.push((ours, value));
                }
            }
        }
        match redis_url::redis(properties) {
            Ok(Some(found)) => {
                for (ours, value) in found.values {
                    self.values.push((ours, value));
                }
                for theirs in &found.used {
                    self.take(theirs, "redis.url");
                }
                used.extend(found.used.iter().map(|key| properties::fold(key)));
                self.notes.push(
                    "redis.mode stays as it is: `streams` unless set; with Java nodes beside it, set `pubsub`"
                        .to_owned(),
                );
            }
            Ok(None) => {
                self.notes.push("spring.data.redis is missing: redis.url is not set by this".to_owned())
            }
            Err(problem) => {
                let error = ConfigError::at("redis.url", problem);
                self.problems.push(error.found_in(Source::Ruoyi(path.to_owned())));
            }
        }
        if properties.get("sa-token.jwt-secret-key").is_some() {
            self.values.push(("auth.mode", "sa-token".into()));
            self.notes.push("auth.mode is `sa-token`: logins are those that Java keeps in Redis".to_owned());
        }
        for key in properties.keys() {
            let is_ours = SECTIONS.iter().any(|section| {
                let (key, section) = (properties::fold(key), properties::fold(section));
                key.strip_prefix(&*section).is_some_and(|rest| rest.starts_with('.'))
            });
            if is_ours && !used.contains(&properties::fold(key)) {
                self.note(key, "ignored: there is nothing like it here");
            }
        }
        let others = properties.other_sections(&SECTIONS);
        if !others.is_empty() {
            self.notes.push(format!("not for this server: {}", others.join(", ")));
        }
    }

    fn take(&mut self, theirs: &str, ours: &str) {
        self.notes.push(if theirs == ours {
            format!("{theirs}: taken")
        } else {
            format!("{theirs}: taken as {ours}")
        });
    }

    fn note(&mut self, theirs: &str, word: &str) {
        self.notes.push(format!("{theirs}: {word}"));
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use crate::config::{Config, ConfigErrors};

    /// A folder with these files of RuoYi, which is removed with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let folder = std::env::temp_dir().join(format!("realtime-ruoyi-{}-{name}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            for (file, text) in files {
                fs::write(folder.join(file), text).unwrap();
            }
            Self(folder)
        }

        fn load(&self, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
            let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
            Config::load_over(Some(&self.0.join("application.yml")), None, variables)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    /// As RuoYi-Vue-Plus 5.x has it, shortened.
    #[cfg(all(feature = "websocket", feature = "sse", feature = "redis"))]
    const APPLICATION: &str = "\
--- # 项目相关配置
ruoyi:
  name: RuoYi-Vue-Plus
spring:
  profiles:
    active: @profiles.active@
server:
  port: 8080
--- # Sa-Token 配置
sa-token:
  token-name: Authorization
  is-concurrent: true
  jwt-secret-key: abcdefghijklmnopqrstuvwxyz
tenant:
  enable: true
--- # websocket
websocket:
  enabled: false
  path: /resource/websocket
  allowedOrigins: '*'
--- # sse
sse:
  enabled: true
  path: ${SSE_PATH:/resource/sse}
";

    #[cfg(all(feature = "websocket", feature = "sse", feature = "redis"))]
    const DEV: &str = "\
--- # redis 单机配置
spring.data:
  redis:
    host: ${REDIS_HOST:localhost}
    port: 6379
    database: 2
    password: 'ruoyi@123'
    timeout: 10s
    ssl.enabled: false
redisson:
  keyPrefix: shop
  threads: 4
";

    #[cfg(all(feature = "websocket", feature = "sse", feature = "redis"))]
    #[test]
    fn the_sections_of_a_whole_file_are_taken_with_those_of_its_profile() {
        use crate::config::AuthMode;
        let folder = Folder::new("whole", &[("application.yml", APPLICATION), ("application-dev.yml", DEV)]);
        let config = folder
            .load(&[("SPRING_PROFILES_ACTIVE", "dev"), ("REDIS_HOST", "cache"), ("SSE_PATH", "/prod/sse")])
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(!config.websocket.enabled && config.sse.enabled);
        assert_eq!((config.sse.path.as_str(), config.server.port), ("/prod/sse", 8080));
        assert!(config.websocket.allowed_origins.allows_any());
        assert_eq!(config.auth.mode, AuthMode::SaToken);
        let redis = config.redis.as_ref().unwrap();
        assert_eq!((redis.addresses().as_str(), redis.key_prefix.as_str()), ("redis://cache:6379/2", "shop"));
        let shown = config.print();
        assert!(shown.contains("  url: \"redis://:***@cache:6379/2\"  # file "), "{shown}");
        for note in [
            "sse.path: taken",
            "sa-token.jwt-secret-key: taken as auth.saToken.secret",
            "tenant.enable: taken as auth.saToken.globalPrefix",
            "sa-token.is-concurrent: ignored: there is nothing like it here",
            "spring.data.redis.password: taken as redis.url",
            "spring.data.redis.timeout: ignored: there is nothing like it here",
            "redisson.threads: ignored: there is nothing like it here",
            "not for this server: ruoyi, server, spring.profiles",
        ] {
            assert!(config.notes.iter().any(|other| other == note), "no `{note}` in {:#?}", config.notes);
        }
    }

    #[test]
    fn a_profile_that_is_not_known_is_said() {
        let folder =
            Folder::new("profile", &[("application.yml", "spring.profiles.active: @profiles.active@\n")]);
        let notes = folder.load(&[]).unwrap().notes;
        assert!(notes[0].contains("set SPRING_PROFILES_ACTIVE"), "{notes:?}");
        let notes = folder.load(&[("SPRING_PROFILES_ACTIVE", "prod")]).unwrap().notes;
        assert!(notes[0].contains("application-prod.yml") && notes[0].contains("is not there"), "{notes:?}");
    }

    #[test]
    fn documents_of_other_profiles_do_not_count_and_later_ones_are_stronger() {
        let text = "sse: {path: /a}\n---\nspring.config.activate.on-profile: prod\nsse: {path: /b}\n---\n\
                    spring: {config: {activate: {on-profile: dev}}}\nsse: {path: /c}\n";
        let folder = Folder::new("documents", &[("application.yml", text)]);
        let path = |variables: &[(&str, &str)]| folder.load(variables).unwrap().sse.path;
        assert_eq!(path(&[]), "/a");
        assert_eq!(path(&[("SPRING_PROFILES_ACTIVE", "prod")]), "/b");
        // The demo's own variables are stronger than all of it.
        assert_eq!(path(&[("SPRING_PROFILES_ACTIVE", "dev"), ("REALTIME__SSE__PATH", "/d")]), "/d");
    }

    #[test]
    fn a_placeholder_without_a_value_is_named() {
        let folder = Folder::new("placeholder", &[("application.yml", "sse: {path: '${NOT_SET}'}\n")]);
        let error = folder.load(&[]).unwrap_err().to_string();
        assert!(error.contains("sse.path") && error.contains("`${NOT_SET}` has no value"), "{error}");
    }

    #[test]
    fn values_that_cannot_be_used_are_named_with_the_file() {
        let folder = Folder::new("wrong", &[("application.yml", "sse: {enabled: 'maybe', path: sse}\n")]);
        let error = folder.load(&[]).unwrap_err().to_string();
        assert!(error.contains("sse.enabled (file ") && error.contains("application.yml"), "{error}");
    }

    #[cfg(feature = "redis")]
    #[test]
    fn sentinels_and_clusters_are_taken() {
        let text = "spring.data.redis:\n  password: p\n  sentinel: {master: m, nodes: 'a:1,b:2'}\n";
        let folder = Folder::new("sentinels", &[("application.yml", text)]);
        let redis = folder.load(&[]).unwrap().redis.unwrap();
        assert_eq!(redis.addresses(), "m of the sentinels redis://a:1/0, redis://b:2/0");
        let text = "spring: {redis: {ssl: true, cluster: {nodes: ['a:1', 'b:2']}}}\n";
        let folder = Folder::new("clusters", &[("application.yml", text)]);
        let redis = folder.load(&[]).unwrap().redis.unwrap();
        assert_eq!(redis.addresses(), "the cluster of rediss://a:1/0, rediss://b:2/0");
    }
}

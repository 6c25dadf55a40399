//! [`Config`]: Redis and limits, by the keys of the nodes' own configuration.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use config::{File, FileFormat};
use realtime_core::settings::{History, Limits, RetainedLimits};
use realtime_redis::RedisConfig;
use serde::Deserialize;

use crate::source::{Mode, Source};

/// The sections of a node's configuration that concern publishing.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) redis: RedisConfig,
    /// What the nodes keep, where it is known.
    pub(crate) history: Option<History>,
    pub(crate) retained: Option<RetainedLimits>,
    pub(crate) limits: Limits,
}

/// The same as a file has it, which may leave any section empty.
#[derive(Deserialize)]
struct Sections {
    #[serde(default, deserialize_with = "RedisConfig::optional")]
    redis: Option<RedisConfig>,
    history: Option<History>,
    retained: Option<RetainedLimits>,
    limits: Option<Limits>,
}

/// The keys that variables may set, of which the names of variables do not keep the case.
const KEYS: [&str; 19] = [
    "redis.url",
    "redis.mode",
    "redis.topology",
    "redis.nodes",
    "redis.service",
    "redis.keyPrefix",
    "redis.commandTimeout",
    "redis.tls.caFile",
    "redis.tls.certFile",
    "redis.tls.keyFile",
    "redis.tls.insecure",
    "history.maxMessages",
    "history.maxAge",
    "history.maxBytes",
    "retained.maxMessages",
    "retained.maxBytes",
    "retained.maxPerTopic",
    "limits.maxMessageBytes",
    "limits.maxTargets",
];

/// Beginnings of the variables of sections of which every key is known here.
const SECTIONS: [&str; 3] = ["REALTIME__REDIS__", "REALTIME__HISTORY__", "REALTIME__RETAINED__"];

impl Config {
    /// Lays the arguments over the variables, and those over the file.
    pub(crate) fn load(
        source: &Source,
        variables: impl Iterator<Item = (String, String)>,
    ) -> anyhow::Result<Self> {
        let mut builder = config::Config::builder();
        if let Some(path) = &source.config {
            for document in documents(&read(path)?) {
                builder = builder.add_source(File::from_str(&document, FileFormat::Yaml));
            }
        }
        let mut set: Vec<&str> = Vec::new();
        for (name, value) in variables {
            let upper = name.to_ascii_uppercase();
            let (key, is_file) = match upper.strip_suffix("_FILE") {
                Some(name) => (key_of(name), true),
                None => (key_of(&name), false),
            };
            let Some(key) = key else {
                // A mistyped name would have it publish to another place, or trim what nodes keep.
                if SECTIONS.iter().any(|section| upper.starts_with(section)) {
                    bail!("environment variable {name}: sets no key; expected one of {}", KEYS.join(", "));
                }
                continue;
            };
            if set.contains(&key) {
                bail!("{key}: {name} is the second variable that sets it");
            }
            set.push(key);
            let value = if is_file { secret(&value).with_context(|| name)? } else { value };
            builder = builder.set_override(key, value)?;
        }
        let mode = source.mode.map(|mode| match mode {
            Mode::Streams => "streams",
            Mode::Pubsub => "pubsub",
        });
        let sections: Sections = builder
            .set_override_option("redis.url", source.redis.clone())?
            .set_override_option("redis.keyPrefix", source.prefix.clone())?
            .set_override_option("redis.mode", mode)?
            .build()
            .and_then(config::Config::try_deserialize)
            .context("configuration")?;
        let Some(redis) = sections.redis else {
            bail!("no Redis is given: --redis URL, redis.url in --config FILE, or REALTIME__REDIS__URL");
        };
        Ok(Self {
            redis,
            history: sections.history,
            retained: sections.retained,
            limits: sections.limits.unwrap_or_default(),
        })
    }
}

/// The key that a variable sets.
fn key_of(name: &str) -> Option<&'static str> {
    let key = name.strip_prefix("REALTIME__")?.replace("__", ".");
    KEYS.into_iter().find(|known| key.eq_ignore_ascii_case(known))
}

/// The value in a file that a variable names, without the line break at its end.
fn secret(path: &str) -> anyhow::Result<String> {
    let text = read(Path::new(path))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// The YAML documents of a file, as a node reads them: lines that begin with `---` are between them.
fn documents(text: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    // Editors on Windows begin a file with a byte order mark.
    for line in text.trim_start_matches('\u{feff}').split_inclusive('\n') {
        match line.strip_prefix("---") {
            Some(rest) if rest.is_empty() || rest.starts_with(char::is_whitespace) => {
                all.push(format!("   {rest}"))
            }
            // A directive of YAML belongs to the document behind it, which needs none.
            _ if line.starts_with('%') => {}
            _ => all.last_mut().expect("there is one from the begin").push_str(line),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use realtime_redis::{RedisMode, Topology};

    use super::*;

    fn load(source: &Source, variables: &[(&str, &str)]) -> anyhow::Result<Config> {
        let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(source, owned)
    }

    fn none() -> Source {
        Source { config: None, redis: None, prefix: None, mode: None }
    }

    #[test]
    fn arguments_beat_variables_and_variables_beat_the_reference() {
        let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo/config/application.yml");
        let variables = [
            ("REALTIME__REDIS__URL", "redis://variable/"),
            ("REALTIME__REDIS__KEYPREFIX", "variable"),
            ("REALTIME__HISTORY__MAXMESSAGES", "7"),
            ("REALTIME__SERVER__PORT", "1"),
        ];
        let source = || Source { config: Some(reference.into()), ..none() };
        assert!(load(&source(), &[]).unwrap_err().to_string().starts_with("no Redis is given"));
        let config = load(&source(), &variables).unwrap();
        assert_eq!((config.redis.key_prefix.as_str(), config.history.unwrap().max_messages), ("variable", 7));
        let arguments = Source { prefix: Some("shop".to_owned()), mode: Some(Mode::Pubsub), ..source() };
        let config = load(&arguments, &variables).unwrap();
        assert_eq!((config.redis.key_prefix.as_str(), config.redis.mode), ("shop", RedisMode::PubSub));
    }

    #[test]
    fn a_variable_may_name_the_file_of_its_value() {
        let path = std::env::temp_dir().join(format!("realtime-publish-{}.url", std::process::id()));
        fs::write(&path, "redis://secret/\n").unwrap();
        let (name, file) = ("REALTIME__REDIS__URL_FILE", path.to_str().unwrap());
        let config = load(&none(), &[(name, file)]);
        let both = load(&none(), &[(name, file), ("REALTIME__REDIS__URL", "redis://a/")]);
        fs::remove_file(&path).ok();
        assert_eq!(config.unwrap().redis.topology, Topology::Single("redis://secret/".to_owned()));
        assert!(both.unwrap_err().to_string().ends_with("is the second variable that sets it"));
        let error = format!("{:#}", load(&none(), &[(name, file)]).unwrap_err());
        assert!(error.starts_with(&format!("{name}: {file}: ")), "{error}");
    }

    #[test]
    fn the_documents_of_a_file_are_one_configuration() {
        let text = "\u{feff}%YAML 1.2\n--- # the cluster\nredis: {url: 'redis://a/'}\n---\nhistory: {maxMessages: 7}\n--- {}\n";
        let path = std::env::temp_dir().join(format!("realtime-publish-{}.yml", std::process::id()));
        fs::write(&path, text).unwrap();
        let config = load(&Source { config: Some(path.clone()), ..none() }, &[]);
        fs::remove_file(path).ok();
        assert_eq!(config.unwrap().history.unwrap().max_messages, 7);
    }

    #[test]
    fn a_variable_that_sets_nothing_is_named() {
        for name in ["REALTIME__REDIS__KEYPREFX", "realtime__history__maxLength", "REALTIME__REDIS__URI_FILE"]
        {
            let error = load(&none(), &[("REALTIME__REDIS__URL", "redis://a/"), (name, "x")]).unwrap_err();
            assert!(
                error.to_string().starts_with(&format!("environment variable {name}: sets no key; ")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_value_that_cannot_work_is_named() {
        let variables = [("REALTIME__REDIS__URL", "redis://a/"), ("REALTIME__REDIS__TOPOLOGY", "ring")];
        let error = format!("{:#}", load(&none(), &variables).unwrap_err());
        assert!(error.contains("`ring` is none of: single, sentinel, cluster"), "{error}");
    }
}

//! [`print`]: the configuration in force, commented as the reference is.

use std::fmt::Write;

use config::ValueKind;

use super::{
    Source,
    layers::Values,
    secret::{MASK, is_secret, without_password},
};

/// The reference with the values in force: where a value is another one, and behind it where it was set. Secrets are
/// masked.
pub(super) fn print(reference: &str, values: &Values) -> String {
    let mut text = String::new();
    // The sections that a line is in, with their indents.
    let mut sections: Vec<(usize, &str)> = Vec::new();
    // The indent of a list whose lines are replaced.
    let mut skipped: Option<usize> = None;
    for line in reference.lines() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if skipped.is_some_and(|list| indent > list && !content.is_empty()) {
            continue;
        }
        skipped = None;
        let name = content.split_once(':').map(|(name, _)| name);
        let Some(name) = name.filter(|_| !content.starts_with(['#', '-'])) else {
            writeln!(text, "{line}").ok();
            continue;
        };
        while sections.last().is_some_and(|(outer, _)| *outer >= indent) {
            sections.pop();
        }
        sections.push((indent, name));
        let key = sections.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(".");
        match values.get(&key) {
            Some(setting) if setting.differs || setting.source != Source::Defaults => {
                let value = yaml(&key, &setting.value);
                let space = if value.is_empty() || value.starts_with('\n') { "" } else { " " };
                let source = match &setting.source {
                    Source::Defaults => "left out, so not the built-in example".to_owned(),
                    source => source.to_string(),
                };
                // A list in several lines has the comment above it.
                if value.starts_with('\n') {
                    writeln!(text, "{0:indent$}# {source}\n{0:indent$}{name}:{value}", "").ok();
                } else {
                    writeln!(text, "{0:indent$}{name}:{space}{value}  # {source}", "").ok();
                }
                skipped = Some(indent);
            }
            _ => {
                writeln!(text, "{line}").ok();
            }
        }
    }
    text
}

/// A value as YAML, behind `key:`.
fn yaml(key: &str, value: &ValueKind) -> String {
    match value {
        ValueKind::Nil => String::new(),
        ValueKind::Array(items) if items.iter().any(|item| matches!(item.kind, ValueKind::Table(_))) => {
            items.iter().fold(String::new(), |mut all, item| {
                write!(all, "\n    - {}", inline(key, &item.kind)).ok();
                all
            })
        }
        value => inline(key, value),
    }
}

fn inline(key: &str, value: &ValueKind) -> String {
    match value {
        ValueKind::String(_) if is_secret(key) => quoted(MASK),
        ValueKind::String(text) => plain(&without_password(text)),
        ValueKind::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| inline(key, &item.kind)).collect();
            format!("[{}]", items.join(", "))
        }
        ValueKind::Table(table) => {
            let mut fields: Vec<_> = table.iter().collect();
            // The order in which the reference has them.
            let order = ["id", "username", "name", "role", "password"];
            fields.sort_by_key(|(name, _)| {
                (order.iter().position(|known| known == name).unwrap_or(order.len()), (*name).clone())
            });
            let fields: Vec<_> = fields
                .into_iter()
                .map(|(name, value)| format!("{name}: {}", inline(&format!("{key}.{name}"), &value.kind)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        ValueKind::Nil => "null".to_owned(),
        other => other.to_string(),
    }
}

/// Text without quotes where YAML takes it for nothing but text.
fn plain(text: &str) -> String {
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/_.-:".contains(c))
        && !text.ends_with(':');
    let is_other = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
        .contains(&text.to_ascii_lowercase().as_str());
    // Durations begin with a digit and end with a unit.
    let is_duration = humantime::parse_duration(text).is_ok() && text.parse::<f64>().is_err();
    if (is_word && !is_other) || is_duration { text.to_owned() } else { quoted(text) }
}

/// JSON strings are YAML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{load, refused};

    #[cfg(all(feature = "websocket", feature = "sse"))]
    #[test]
    fn without_anything_set_it_is_the_reference() {
        assert_eq!(load(None, &[]).print(), crate::config::REFERENCE);
    }

    #[cfg(feature = "websocket")]
    #[test]
    fn what_is_set_is_in_its_place_with_its_source_and_without_secrets() {
        let secret = "s".repeat(32);
        let file = "server: {port: 81, node: '007'}\nwebsocket: {enabled: true, allowedOrigins: ['https://a', '*']}\n\
                    history: {maxAge: 10m}\nauth: {users: [{id: 7, username: eve, name: 'E: v', role: x, password: \
                    '$argon2id$v=19$m=8192,t=2,p=1$KOepo+H+GDh0flcOAW7y4A$89E53bDvRgg+u9ttc8nEq3X6IMzs8w+A9rY6f1HA54Q'}]}\n";
        let variables = [
            ("REALTIME__AUTH__JWT__SECRET", &*secret),
            ("REALTIME__API__KEY", "kkkkkkkkkkkkkkkk"),
            #[cfg(feature = "redis")]
            ("REALTIME__REDIS__URL", "redis://me:hunter2@cache/3"),
        ];
        let text = load(Some(file), &variables).print();
        for line in [
            "  port: 81  # file app.yml",
            "  node: \"007\"  # file app.yml",
            "  allowedOrigins: [https://a, \"*\"]  # file app.yml",
            "  maxAge: 10m  # file app.yml",
            "    secret: \"***\"  # environment variable REALTIME__AUTH__JWT__SECRET",
            "  key: \"***\"  # environment variable REALTIME__API__KEY",
            "    - {id: 7, username: eve, name: \"E: v\", role: x, password: \"***\"}",
            "  public: []  # left out, so not the built-in example",
            #[cfg(feature = "redis")]
            "  url: \"redis://me:***@cache/3\"  # environment variable REALTIME__REDIS__URL",
        ] {
            assert!(text.lines().any(|other| other == line), "no `{line}` in\n{text}");
        }
        for secret in ["hunter2", "ssss", "kkkk", "argon2id$", "alice"] {
            assert!(!text.contains(secret), "{secret}");
        }
        assert!(
            text.contains("# The TCP port") || text.lines().filter(|line| line.contains('#')).count() > 100
        );
    }

    #[test]
    fn what_it_prints_is_read_again_but_for_the_secrets() {
        let text =
            load(Some("server: {port: 81}\nsse: {retry: 1m 5s}\ntopics: {public: ['a:*']}\n"), &[]).print();
        let again = load(Some(&text), &[]);
        assert_eq!(again.server.port, 81);
        assert_eq!(again.topics.public[0].as_str(), "a:*");
        let text = load(None, &[("REALTIME__API__KEY", "kkkkkkkkkkkkkkkk")]).print();
        assert_eq!(
            refused(Some(&text), &[]),
            "api.key (file app.yml): `***` is what print-config shows in the place of a secret"
        );
        #[cfg(feature = "redis")]
        {
            let error = refused(Some("redis: {url: 'redis://me:***@cache/3'}"), &[]);
            assert!(error.contains("in the place of a secret"), "{error}");
        }
    }
}

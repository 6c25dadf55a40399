//! [`Layers`]: every key with its strongest value, and where that value was set.

use std::{collections::BTreeMap, fmt, mem::discriminant, path::Path};

use config::{File, FileFormat, Map, Source as _, Value, ValueKind};
use serde::de::DeserializeOwned;

use super::{
    ConfigError, Source,
    kind::{self, Kind},
};

/// The keys of the reference, with the values of all layers laid over each other.
///
/// The reference is also the schema: a key exists when it is there, and takes the type of its value there. So the
/// loose conversions of the `config` crate (`true` to 1, 80.6 to 81, a number to text) never get to see a value.
pub(super) struct Layers {
    leaves: BTreeMap<String, Leaf>,
    /// Problems of single keys; their values are left out.
    problems: Vec<ConfigError>,
}

/// The values of all keys, to be compared with others. `Debug` shows none, since some are secrets.
#[derive(Clone, Default)]
pub(super) struct Values(BTreeMap<String, ValueKind>);

struct Leaf {
    kind: Kind,
    default: ValueKind,
    value: ValueKind,
    source: Source,
}

impl Layers {
    /// The reference alone.
    pub(super) fn new(reference: &str) -> Result<Self, ConfigError> {
        let mut layers = Self { leaves: BTreeMap::new(), problems: Vec::new() };
        layers.learn("", parse(reference, &Source::Defaults)?);
        Ok(layers)
    }

    /// Replaces a default of the reference.
    pub(super) fn set_default(&mut self, key: &str, value: impl Into<ValueKind>) {
        if let Some(leaf) = self.leaves.get_mut(key) {
            leaf.default = value.into();
            leaf.value = leaf.default.clone();
        }
    }

    /// The problems of single keys, which are forgotten.
    pub(super) fn take_problems(&mut self) -> Vec<ConfigError> {
        std::mem::take(&mut self.problems)
    }

    /// Takes a key, or all keys of a section, back to the defaults. Returns whether that changed any.
    pub(super) fn reset(&mut self, key: &str) -> bool {
        let name = key.split('[').next().unwrap_or(key);
        let mut changed = false;
        for (key, leaf) in &mut self.leaves {
            if (key == name || is_below(key, name)) && leaf.source != Source::Defaults {
                (leaf.value, leaf.source) = (leaf.default.clone(), Source::Defaults);
                changed = true;
            }
        }
        changed
    }

    /// Refuses empty names of files, as of variables without a value.
    pub(super) fn reject_empty_files(&mut self) {
        let is_empty = |value: &ValueKind| matches!(value, ValueKind::String(text) if text.trim().is_empty());
        let empty = self.leaves.iter().filter(|(key, leaf)| key.ends_with("File") && is_empty(&leaf.value));
        for key in empty.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            let error = ConfigError::at(&*key, "must not be empty; leave the key out for none");
            self.problems.push(self.locate(error));
            self.reset(&key);
        }
    }

    /// Lays the text of a file over what is there.
    pub(super) fn add_file(&mut self, path: &Path, text: &str) {
        let source = Source::File(path.to_owned());
        // Editors on Windows begin a file with a byte order mark.
        match parse(text.strip_prefix('\u{feff}').unwrap_or(text), &source) {
            Ok(root) => self.add_table("", root, &source),
            Err(error) => self.problems.push(error),
        }
    }

    /// Lays the variables that start with `REALTIME__` over what is there.
    pub(super) fn add_environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        // Sorted, so that the same environment always gives the same errors.
        for (name, text) in variables.collect::<BTreeMap<_, _>>() {
            let Some(rest) = strip_prefix(&name) else {
                continue;
            };
            let dotted = rest.replace("__", ".");
            let source = Source::Environment(name);
            let known = self.leaves.iter().find(|(key, _)| key.eq_ignore_ascii_case(&dotted));
            if let Some((key, leaf)) = known {
                // What the process was given as other bytes has become U+FFFD.
                let is_text = !text.contains(char::REPLACEMENT_CHARACTER);
                let value = if is_text { leaf.kind.parse(&text) } else { Err("is not UTF-8".to_owned()) };
                let key = key.clone();
                self.set(&key, value, &source);
            } else {
                let error = self.unknown(dotted.to_lowercase()).found_in(source);
                self.problems.push(error);
            }
        }
    }

    /// The values as a whole.
    pub(super) fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let mut builder = config::Config::builder();
        for (key, leaf) in &self.leaves {
            builder = builder.set_override(key, leaf.value.clone()).map_err(|error| self.explain(error))?;
        }
        builder.build().and_then(config::Config::try_deserialize).map_err(|error| self.explain(error))
    }

    /// The values in force.
    pub(super) fn values(&self) -> Values {
        Values(self.leaves.iter().map(|(key, leaf)| (key.clone(), leaf.value.clone())).collect())
    }

    /// All keys there are.
    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.leaves.keys().map(String::as_str)
    }

    /// Source of a key's value.
    pub(super) fn source(&self, key: &str) -> Option<&Source> {
        let list = key.split('[').next().unwrap_or(key);
        self.leaves.get(list).map(|leaf| &leaf.source)
    }

    /// The error with the source of its key.
    pub(super) fn locate(&self, error: ConfigError) -> ConfigError {
        match error.key.as_deref().and_then(|key| self.source(key)) {
            Some(source) => error.found_in(source.clone()),
            None => error,
        }
    }

    /// Records the keys of the reference.
    fn learn(&mut self, prefix: &str, table: Map<String, Value>) {
        for (name, value) in table {
            let key = join(prefix, &name);
            if let ValueKind::Table(table) = value.kind {
                self.learn(&key, table);
            } else {
                let leaf = Leaf {
                    kind: Kind::of(&value.kind),
                    default: value.kind.clone(),
                    value: value.kind,
                    source: Source::Defaults,
                };
                self.leaves.insert(key, leaf);
            }
        }
    }

    fn add_table(&mut self, prefix: &str, table: Map<String, Value>, source: &Source) {
        // Sorted, so that a file always shows its errors in the same order.
        for (name, value) in table.into_iter().collect::<BTreeMap<_, _>>() {
            let key = join(prefix, &name);
            if let Some(leaf) = self.leaves.get(&key) {
                let value = leaf.kind.check(value.kind);
                self.set(&key, value, source);
            } else if !self.leaves.keys().any(|known| is_below(known, &key)) {
                let error = self.unknown(key).found_in(source.clone());
                self.problems.push(error);
            } else {
                match value.kind {
                    ValueKind::Table(table) => self.add_table(&key, table, source),
                    // A section of which every line is commented out.
                    ValueKind::Nil => {}
                    other => {
                        let problem = format!("expected keys below it, found {}", kind::name_of(&other));
                        self.problems.push(ConfigError::at(key, problem).found_in(source.clone()));
                    }
                }
            }
        }
    }

    fn set(&mut self, key: &str, value: Result<ValueKind, String>, source: &Source) {
        let Some(leaf) = self.leaves.get_mut(key) else { return };
        // `server: {port: 1}` beside `server.port: 2`, or two variables that differ in case only.
        let twice = discriminant(&leaf.source) == discriminant(source);
        match value {
            Ok(_) if twice => {
                self.problems.push(ConfigError::at(key, "set twice").found_in(source.clone()));
            }
            Ok(value) => (leaf.value, leaf.source) = (value, source.clone()),
            Err(problem) => self.problems.push(ConfigError::at(key, problem).found_in(source.clone())),
        }
    }

    /// The error of a key that is not in the reference, with the one that may have been meant.
    fn unknown(&self, key: String) -> ConfigError {
        let folded = fold(&key);
        if let Some((_, new)) = RENAMED.iter().find(|(old, _)| fold(old) == folded) {
            return ConfigError::at(key, format!("unknown key; `{new}` has taken its place"));
        }
        let nearest = self
            .leaves
            .keys()
            .flat_map(|leaf| leaf.match_indices('.').map(|(end, _)| &leaf[..end]).chain([leaf.as_str()]))
            .map(|known| (strsim::levenshtein(&fold(known), &folded), known))
            .min();
        let problem = match nearest {
            // Further away, or with most of a short name replaced, it is a guess.
            Some((typos, known)) if typos <= 2 && typos * 4 <= known.len() => {
                format!("unknown key; did you mean `{known}`?")
            }
            _ => "unknown key".to_owned(),
        };
        ConfigError::at(key, problem)
    }

    /// The key and the problem of a URL that a section `redis` has refused.
    fn redis_url(&self, section: &str, problem: &str) -> Option<(&'static str, String)> {
        let (what, _) = problem.split_once(" is no Redis URL: ")?;
        if what == "the server" {
            let url = self.leaves.get(&format!("{section}.url")).map(|leaf| leaf.value.to_string());
            return Some(("url", url_problem(&url.unwrap_or_default()).to_owned()));
        }
        let node = what.rsplit(' ').next()?.parse::<usize>().ok()?.checked_sub(1)?;
        let ValueKind::Array(nodes) = &self.leaves.get(&format!("{section}.nodes"))?.value else {
            return None;
        };
        Some(("nodes", format!("{what} {}", url_problem(&nodes.get(node)?.to_string()))))
    }

    /// Converts an error of the `config` crate.
    fn explain(&self, error: config::ConfigError) -> ConfigError {
        use config::ConfigError as Foreign;
        let (key, problem) = match error {
            Foreign::Type { unexpected, expected, key: Some(key), .. } => {
                let found = unexpected.to_string().replace("unit value", "nothing");
                (key, format!("expected {expected}, found {found}"))
            }
            Foreign::At { error, key: Some(key), .. } => (key, error.to_string()),
            Foreign::NotFound(key) => (key, "missing".to_owned()),
            other => {
                return ConfigError { key: None, source: None, problem: other.to_string() };
            }
        };
        // The crate writes `auth.users[0]role`.
        let key = key.replace(']', "].").replace("..", ".");
        let key = key.trim_end_matches('.');
        // Keys inside of a list are known to serde only.
        if let Some((name, rest)) =
            problem.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, "))
        {
            return self.locate(ConfigError::at(format!("{key}.{name}"), format!("unknown key, {rest}")));
        }
        if let Some((name, problem)) = self.redis_url(key, &problem) {
            return self.locate(ConfigError::at(format!("{key}.{name}"), problem));
        }
        // A section that checks its values beside each other names the one that cannot work.
        if let Some((name, rest)) = problem.split_once(": ")
            && let below = format!("{key}.{name}")
            && self.leaves.contains_key(&below)
        {
            return self.locate(ConfigError::at(below, rest));
        }
        self.locate(ConfigError::at(key, problem))
    }
}

impl Values {
    /// The keys whose values differ.
    pub(super) fn changed(&self, other: &Self) -> Vec<String> {
        let differs = |key: &&String| self.0.get(*key) != other.0.get(*key);
        self.0.keys().filter(differs).cloned().collect()
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").finish_non_exhaustive()
    }
}

/// Keys of earlier versions, with those that took their places.
const RENAMED: [(&str, &str); 2] = [("drain.timeout", "drain.window"), ("drain.spread", "drain.window")];

/// Reason for which a text is no URL of a Redis server. The text is not shown, since it may hold a password.
fn url_problem(url: &str) -> &'static str {
    match url.split_once("://") {
        _ if url.trim().is_empty() => "must not be empty; leave the key out for none",
        Some(("redis" | "rediss" | "valkey" | "valkeys", _)) => {
            "is no Redis URL: user, host, port or database cannot be read"
        }
        _ => "is no Redis URL: it does not begin with `redis://` or `rediss://`",
    }
}

fn parse(text: &str, source: &Source) -> Result<Map<String, Value>, ConfigError> {
    File::from_str(text, FileFormat::Yaml)
        .collect()
        .map_err(|error| ConfigError::unreadable(source.clone(), error.to_string()))
}

/// The rest of a variable's name that is meant for us.
fn strip_prefix(name: &str) -> Option<&str> {
    let (prefix, rest) = name.split_at_checked(PREFIX.len())?;
    prefix.eq_ignore_ascii_case(PREFIX).then_some(rest)
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn is_below(key: &str, section: &str) -> bool {
    key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
}

/// `allowed-origins`, `allowed_origins` and `allowedOrigins` are one name, differently spelled.
fn fold(key: &str) -> String {
    key.to_lowercase().replace(['-', '_'], "")
}

const PREFIX: &str = "REALTIME__";

#[cfg(test)]
mod tests {
    use crate::config::tests::refused;

    #[test]
    fn unknown_keys_are_named_with_what_may_have_been_meant() {
        for (yaml, error) in [
            (
                "websocket: {alowedOrigins: []}",
                "websocket.alowedOrigins (file app.yml): unknown key; did you mean `websocket.allowedOrigins`?",
            ),
            (
                "websocket: {allowed-origins: []}",
                "websocket.allowed-origins (file app.yml): unknown key; did you mean `websocket.allowedOrigins`?",
            ),
            (
                "web-socket: {enabled: true}",
                "web-socket (file app.yml): unknown key; did you mean `websocket`?",
            ),
            (
                "drain: {timeout: 10s}",
                "drain.timeout (file app.yml): unknown key; `drain.window` has taken its place",
            ),
            ("auth: {jwt: {realm: me}}", "auth.jwt.realm (file app.yml): unknown key"),
            ("job: {}", "job (file app.yml): unknown key"),
            ("spring: {redis: {}}", "spring (file app.yml): unknown key"),
        ] {
            assert_eq!(refused(Some(yaml), &[]), error);
        }
    }

    #[test]
    fn variables_that_match_no_key_are_named() {
        for (variable, error) in [
            ("REALTIME__SERVER__PROT", "server.prot ({}): unknown key; did you mean `server.port`?"),
            ("REALTIME__AUTH__USERS__0__ID", "auth.users.0.id ({}): unknown key"),
            ("REALTIME__NOTHING", "nothing ({}): unknown key"),
            ("REALTIME__", " ({}): unknown key"),
        ] {
            let source = format!("environment variable {variable}");
            assert_eq!(refused(None, &[(variable, "1")]), error.replace("{}", &source));
        }
    }

    #[test]
    fn a_key_is_set_once_in_each_layer() {
        assert_eq!(
            refused(Some("server: {port: 1}\nserver.port: 2"), &[]),
            "server.port (file app.yml): set twice"
        );
        let twice = [("REALTIME__SERVER__PORT", "1"), ("REALTIME__Server__Port", "2")];
        assert_eq!(
            refused(None, &twice),
            "server.port (environment variable REALTIME__Server__Port): set twice"
        );
    }

    #[test]
    fn a_file_that_is_no_yaml_is_named_with_the_line() {
        let error = refused(Some("server:\n  port: 1\n  host: [\n"), &[]);
        assert!(error.starts_with("file app.yml: ") && error.contains(" line "), "{error}");
        let error = refused(Some("server:\n  port: 1\n  port: 2\n"), &[]);
        assert!(error.contains("duplicated key") && error.contains("line 3"), "{error}");
        let error = refused(Some("- server\n"), &[]);
        assert!(error.starts_with("file app.yml: "), "{error}");
    }
}

//! [`Layers`]: every key with its strongest value, and where that value was set.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use config::{Map, Value, ValueKind};
use serde::de::DeserializeOwned;

use super::{
    ConfigError, Source,
    documents::{documents, parse},
    kind::{self, Kind},
    ranges,
    secret::is_masked,
    variable_file,
};

/// The keys of the reference, with the values of all layers laid over each other.
///
/// The reference is also the schema: a key exists when it is there, and takes the type of its value there. So the
/// loose conversions of the `config` crate (`true` to 1, 80.6 to 81, a number to text) never get to see a value.
pub(super) struct Layers {
    leaves: BTreeMap<String, Leaf>,
    /// Problems of single keys; their values are left out.
    problems: Vec<ConfigError>,
    /// What is ignored, and was probably meant.
    warnings: Vec<String>,
}

/// The values of all keys, to be compared with others. `Debug` shows none, since some are secrets.
#[derive(Clone, Default)]
pub(super) struct Values(BTreeMap<String, Setting>);

/// A value that is in force.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) value: ValueKind,
    pub(super) source: Source,
    /// It is another one than the reference's.
    pub(super) differs: bool,
}

struct Leaf {
    kind: Kind,
    /// The reference's value.
    reference: ValueKind,
    default: ValueKind,
    value: ValueKind,
    source: Source,
}

impl Layers {
    /// The reference alone.
    pub(super) fn new(reference: &str) -> Result<Self, ConfigError> {
        let mut layers = Self { leaves: BTreeMap::new(), problems: Vec::new(), warnings: Vec::new() };
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

    /// The warnings about what is ignored, which are forgotten.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Takes a key, or all keys of a section, back to the defaults. Returns whether that changed any.
    pub(super) fn reset(&mut self, key: &str) -> bool {
        let name = key.split('[').next().unwrap_or(key);
        // Certificate and key go together: one alone would be another mistake.
        let name = match name.rsplit_once('.') {
            Some((section, _)) if section.ends_with(".tls") => section,
            _ => name,
        };
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

    /// Refuses what is shown in the place of a secret.
    pub(super) fn reject_masked(&mut self) {
        let mut masked = Vec::new();
        for (key, leaf) in &self.leaves {
            let texts: Vec<&ValueKind> = match &leaf.value {
                ValueKind::Array(items) => items.iter().map(|item| &item.kind).collect(),
                value => vec![value],
            };
            let is = |value: &&ValueKind| matches!(value, ValueKind::String(text) if is_masked(key, text));
            if texts.iter().any(is) {
                masked.push(key.clone());
            }
        }
        for key in masked {
            let error = ConfigError::at(&*key, "`***` is what print-config shows in the place of a secret");
            self.problems.push(self.locate(error));
            self.reset(&key);
        }
    }

    /// Lays the text of a file over what is there.
    pub(super) fn add_file(&mut self, path: &Path, text: &str) {
        let source = Source::File(path.to_owned());
        match documents(text, &source) {
            Ok(roots) => roots.into_iter().for_each(|root| self.add_table("", root, &source)),
            Err(error) => self.problems.push(error),
        }
    }

    /// Lays values that were found for keys over what is there.
    pub(super) fn add_values(&mut self, values: Vec<(&'static str, ValueKind)>, source: &Source) {
        for (key, value) in values {
            let value = self.leaves.get(key).map(|leaf| match value {
                // As from a variable, since placeholders are text.
                ValueKind::String(text) => leaf.kind.parse(&text),
                value => leaf.kind.check(value),
            });
            if let Some(value) = value {
                self.set(key, value, source);
            }
        }
    }

    /// Lays the variables that start with `REALTIME__` over what is there.
    pub(super) fn add_environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        // Sorted, so that the same environment always gives the same errors.
        for (name, text) in variables.collect::<BTreeMap<_, _>>() {
            let Some(rest) = strip_prefix(&name) else {
                self.note_single_underscores(&name, &text);
                continue;
            };
            let dotted = rest.replace("__", ".");
            // What the process was given as other bytes has become U+FFFD.
            let is_text = !text.contains(char::REPLACEMENT_CHARACTER);
            if let Some(key) = self.find(&dotted) {
                let value = self.leaves[&key].kind.parse(&text);
                let value = if is_text { value } else { Err("is not UTF-8".to_owned()) };
                self.set(&key, value, &Source::Environment(name));
            } else if let Some(key) = variable_file::key_of(&dotted).and_then(|key| self.find(key)) {
                self.add_variable_file(&key, name, &text);
            } else {
                let key = variable_file::key_of(&dotted).unwrap_or(&dotted).to_lowercase();
                let error = self.unknown(key).found_in(Source::Environment(name));
                self.problems.push(error);
            }
        }
    }

    fn add_variable_file(&mut self, key: &str, variable: String, path: &str) {
        match variable_file::read(path) {
            Ok(text) => {
                // It may be a secret in the wrong place, so it is not shown.
                let kind = self.leaves[key].kind;
                let value = kind.parse(&text).map_err(|_| format!("expected {}", kind.expected()));
                self.set(key, value, &Source::VariableFile(variable, PathBuf::from(path)));
            }
            Err(problem) => self.set(key, Err(problem), &Source::Environment(variable)),
        }
    }

    /// The key that a name is, whatever its case.
    fn find(&self, dotted: &str) -> Option<String> {
        self.leaves.keys().find(|key| key.eq_ignore_ascii_case(dotted)).cloned()
    }

    /// Warns of a variable that would set a key if it had two underscores.
    fn note_single_underscores(&mut self, name: &str, text: &str) {
        // Kubernetes has such variables for each Service: `REALTIME_SERVER_PORT=tcp://10.0.0.1:80`.
        let is_kubernetes = text.starts_with("tcp://") || text.starts_with("udp://");
        let Some((prefix, rest)) = name.split_at_checked(SINGLE.len()).filter(|_| !is_kubernetes) else {
            return;
        };
        if !prefix.eq_ignore_ascii_case(SINGLE) {
            return;
        }
        let fold = |name: &str| name.to_lowercase().replace(['_', '.'], "");
        let meant = self.leaves.keys().find(|key| fold(key) == fold(rest));
        if let Some(key) = meant {
            let variable = format!("{PREFIX}{}", key.replace('.', "__").to_uppercase());
            let warning = format!("environment variable {name} is ignored: `{key}` is set by {variable}");
            self.warnings.push(warning);
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
        let setting = |leaf: &Leaf| Setting {
            value: leaf.value.clone(),
            source: leaf.source.clone(),
            differs: leaf.value != leaf.reference,
        };
        Values(self.leaves.iter().map(|(key, leaf)| (key.clone(), setting(leaf))).collect())
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
                    reference: value.kind.clone(),
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
        let twice = leaf.source.layer() == source.layer();
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
                let range = ranges::problem(&key, expected, &found);
                (key, range.unwrap_or_else(|| format!("expected {expected}, found {found}")))
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
        let value = |values: &Self, key: &str| values.0.get(key).map(|setting| setting.value.clone());
        let differs = |key: &&String| value(self, key) != value(other, key);
        self.0.keys().filter(differs).cloned().collect()
    }

    /// Returns `true` if a variable names the file of a value.
    pub(super) fn has_variable_file(&self) -> bool {
        self.0.values().any(|setting| matches!(setting.source, Source::VariableFile(..)))
    }

    /// The setting of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Setting> {
        self.0.get(key)
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

/// What variables of other programs begin with, and of ours by mistake.
const SINGLE: &str = "REALTIME_";

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
    fn variables_with_single_underscores_are_warned_about() {
        let warnings = |name, text| crate::config::tests::load(None, &[(name, text)]).warnings;
        for name in ["REALTIME_SERVER_PORT", "REALTIME_SERVER__PORT", "realtime_server_port"] {
            assert_eq!(
                warnings(name, "1"),
                [format!(
                    "environment variable {name} is ignored: `server.port` is set by REALTIME__SERVER__PORT"
                )]
            );
        }
        assert_eq!(warnings("REALTIME_WEBSOCKET_ALLOWED_ORIGINS", "*").len(), 1);
        for (name, text) in [
            ("REALTIME_SERVER_PORT", "tcp://10.0.0.1:80"),
            ("REALTIME_DEMO_SERVICE_HOST", "10.0.0.1"),
            ("REALTIME_", ""),
            ("REALTIMÉ", ""),
        ] {
            assert_eq!(warnings(name, text), [""; 0], "{name}");
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

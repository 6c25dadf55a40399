//! [`Layers`]: every key with its strongest value, and where that value was set.

use std::{collections::BTreeMap, mem::discriminant, path::Path};

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
pub(super) struct Layers(BTreeMap<String, Leaf>);

struct Leaf {
    kind: Kind,
    value: ValueKind,
    source: Source,
}

impl Layers {
    /// The reference alone.
    pub(super) fn new(reference: &str) -> Result<Self, ConfigError> {
        let mut layers = Self(BTreeMap::new());
        layers.learn("", parse(reference, &Source::Defaults)?);
        Ok(layers)
    }

    /// Replaces a default of the reference.
    pub(super) fn set_default(&mut self, key: &str, value: impl Into<ValueKind>) {
        if let Some(leaf) = self.0.get_mut(key) {
            leaf.value = value.into();
        }
    }

    /// Lays the text of a file over what is there.
    pub(super) fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let source = Source::File(path.to_owned());
        let root = parse(text, &source)?;
        self.add_table("", root, &source)
    }

    /// Lays the variables that start with `REALTIME__` over what is there.
    pub(super) fn add_environment(
        &mut self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        // Sorted, so that the same environment always gives the same error.
        for (name, text) in variables.collect::<BTreeMap<_, _>>() {
            let Some(rest) = strip_prefix(&name) else {
                continue;
            };
            let dotted = rest.replace("__", ".");
            let source = Source::Environment(name);
            let known = self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(&dotted));
            let Some((key, leaf)) = known else {
                return Err(self.unknown(dotted.to_lowercase()).found_in(source));
            };
            let (key, value) = (key.clone(), leaf.kind.parse(&text));
            self.set(&key, value, &source)?;
        }
        Ok(())
    }

    /// The values as a whole.
    pub(super) fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let mut builder = config::Config::builder();
        for (key, leaf) in &self.0 {
            builder = builder.set_override(key, leaf.value.clone()).map_err(|error| self.explain(error))?;
        }
        builder.build().and_then(config::Config::try_deserialize).map_err(|error| self.explain(error))
    }

    /// All keys there are.
    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Source of a key's value.
    pub(super) fn source(&self, key: &str) -> Option<&Source> {
        let list = key.split('[').next().unwrap_or(key);
        self.0.get(list).map(|leaf| &leaf.source)
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
                let leaf = Leaf { kind: Kind::of(&value.kind), value: value.kind, source: Source::Defaults };
                self.0.insert(key, leaf);
            }
        }
    }

    fn add_table(
        &mut self,
        prefix: &str,
        table: Map<String, Value>,
        source: &Source,
    ) -> Result<(), ConfigError> {
        // Sorted, so that a file with two errors always shows the same one first.
        for (name, value) in table.into_iter().collect::<BTreeMap<_, _>>() {
            let key = join(prefix, &name);
            if let Some(leaf) = self.0.get(&key) {
                let value = leaf.kind.check(value.kind);
                self.set(&key, value, source)?;
            } else if !self.0.keys().any(|known| is_below(known, &key)) {
                return Err(self.unknown(key).found_in(source.clone()));
            } else {
                match value.kind {
                    ValueKind::Table(table) => self.add_table(&key, table, source)?,
                    // A section of which every line is commented out.
                    ValueKind::Nil => {}
                    other => {
                        let problem = format!("expected keys below it, found {}", kind::name_of(&other));
                        return Err(ConfigError::at(key, problem).found_in(source.clone()));
                    }
                }
            }
        }
        Ok(())
    }

    fn set(
        &mut self,
        key: &str,
        value: Result<ValueKind, String>,
        source: &Source,
    ) -> Result<(), ConfigError> {
        let fail = |problem: String| Err(ConfigError::at(key, problem).found_in(source.clone()));
        let value = match value {
            Ok(value) => value,
            Err(problem) => return fail(problem),
        };
        if let Some(leaf) = self.0.get_mut(key) {
            // `server: {port: 1}` beside `server.port: 2`, or two variables that differ in case only.
            if discriminant(&leaf.source) == discriminant(source) {
                return fail("set twice".to_owned());
            }
            leaf.value = value;
            leaf.source = source.clone();
        }
        Ok(())
    }

    /// The error of a key that is not in the reference, with the one that may have been meant.
    fn unknown(&self, key: String) -> ConfigError {
        let folded = fold(&key);
        let nearest = self
            .0
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
        // A section that checks its values beside each other names the one that cannot work.
        if let Some((name, rest)) = problem.split_once(": ")
            && let below = format!("{key}.{name}")
            && self.0.contains_key(&below)
        {
            return self.locate(ConfigError::at(below, rest));
        }
        self.locate(ConfigError::at(key, problem))
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
            ("auth: {jwt: {issuer: me}}", "auth.jwt.issuer (file app.yml): unknown key"),
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

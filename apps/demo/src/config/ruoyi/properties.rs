//! [`Properties`]: the keys of Spring's files by their dotted names, with profiles and placeholders.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use config::{Map, Value, ValueKind};

use crate::config::{ConfigError, Source, documents::documents};

/// The values of all files, the later the stronger.
pub(super) struct Properties<'a> {
    /// By folded name: the name as it is written, and the value.
    values: BTreeMap<String, (String, ValueKind)>,
    environment: &'a [(String, String)],
}

/// Depth of placeholders within placeholders.
const DEPTH: u8 = 8;

impl<'a> Properties<'a> {
    /// Reads a file and those of the profiles that are active.
    pub(super) fn read(
        path: &Path,
        environment: &'a [(String, String)],
        notes: &mut Vec<String>,
    ) -> Result<Self, ConfigError> {
        let mut all = Self { values: BTreeMap::new(), environment };
        let main = tables(path)?;
        let mut profiles = variable(environment, "SPRING_PROFILES_ACTIVE").map(str::to_owned);
        if profiles.is_none() {
            // The document that names the profiles belongs to none of them.
            main.iter()
                .filter(|document| document.profile().is_none())
                .for_each(|document| all.add(document));
            profiles = match all.get("spring.profiles.active") {
                Some(Ok(ValueKind::String(names))) if !names.contains('@') => Some(names),
                Some(_) => {
                    let note = "spring.profiles.active is not known before the build: set SPRING_PROFILES_ACTIVE, \
                                or the files of profiles are not read";
                    notes.push(note.to_owned());
                    None
                }
                None => None,
            };
            all.values.clear();
        }
        let profiles = profiles.unwrap_or_default();
        let active: Vec<&str> = profiles.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let mut documents = main;
        for profile in &active {
            let file = sibling(path, profile);
            if file.exists() {
                documents.extend(tables(&file)?);
            } else {
                notes.push(format!("the file of the profile {profile}, {}, is not there", file.display()));
            }
        }
        let is_active = |document: &&Document| {
            document.profile().is_none_or(|names| names.split(',').any(|name| active.contains(&name.trim())))
        };
        documents.iter().filter(is_active).for_each(|document| all.add(document));
        Ok(all)
    }

    /// The value of a key, however it is spelled, without placeholders.
    pub(super) fn get(&self, key: &str) -> Option<Result<ValueKind, String>> {
        let (_, value) = self.values.get(&fold(key))?;
        Some(match value {
            ValueKind::String(text) => self.fill(text, DEPTH).map(ValueKind::String),
            ValueKind::Array(items) => items
                .iter()
                .map(|item| match &item.kind {
                    ValueKind::String(text) => self.fill(text, DEPTH).map(Value::from),
                    _ => Ok(item.clone()),
                })
                .collect::<Result<Vec<_>, _>>()
                .map(ValueKind::Array),
            other => Ok(other.clone()),
        })
    }

    /// The value of a key as text.
    pub(super) fn text(&self, key: &str) -> Option<Result<String, String>> {
        let text = self.get(key)?.map(|value| match value {
            ValueKind::Array(items) => {
                items.iter().map(|item| item.kind.to_string()).collect::<Vec<_>>().join(",")
            }
            ValueKind::Nil => String::new(),
            value => value.to_string(),
        });
        Some(text.map(|text| text.trim().to_owned())).filter(|text| text.as_ref() != Ok(&String::new()))
    }

    /// The keys as they are written.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.values().map(|(key, _)| key.as_str())
    }

    /// The sections that are none of these, by their first name; those of Spring by two.
    pub(super) fn other_sections(&self, sections: &[&str]) -> Vec<String> {
        let is_among = |key: &str| sections.iter().any(|section| fold(key).starts_with(&fold(section)));
        let mut others: Vec<String> = self
            .keys()
            .filter(|key| !is_among(key))
            .map(|key| {
                let names = if key.starts_with("spring.") { 2 } else { 1 };
                key.split('.').take(names).collect::<Vec<_>>().join(".")
            })
            .collect();
        others.sort();
        others.dedup();
        others
    }

    fn add(&mut self, document: &Document) {
        for (key, value) in &document.0 {
            self.values.insert(fold(key), (key.clone(), value.clone()));
        }
    }

    /// A text whose placeholders `${name:default}` are filled. Errors name placeholders only: the text may be a secret.
    fn fill(&self, text: &str, depth: u8) -> Result<String, String> {
        let Some(begin) = text.find("${") else { return Ok(text.to_owned()) };
        // Without an end it is none, as for Spring.
        let Some(end) = closing(&text[begin + 2..]).map(|end| begin + 2 + end) else {
            return Ok(text.to_owned());
        };
        let placeholder = &text[begin + 2..end];
        let (name, default) = match placeholder.split_once(':') {
            Some((name, default)) => (name.trim(), Some(default)),
            None => (placeholder.trim(), None),
        };
        if depth == 0 {
            return Err(format!("`${{{name}}}` is within too many placeholders"));
        }
        let value = match (self.lookup(name), default) {
            (Some(value), _) => self.fill(&value, depth - 1)?,
            (None, Some(default)) => self.fill(default, depth - 1)?,
            (None, None) => return Err(format!("`${{{placeholder}}}` has no value")),
        };
        Ok(format!("{}{value}{}", &text[..begin], self.fill(&text[end + 1..], depth)?))
    }

    fn lookup(&self, name: &str) -> Option<String> {
        let shell = name.replace(['.', '-'], "_").to_uppercase();
        let variable = variable(self.environment, name).or_else(|| variable(self.environment, &shell));
        variable.map(str::to_owned).or_else(|| match &self.values.get(&fold(name))?.1 {
            ValueKind::Nil => Some(String::new()),
            ValueKind::Array(_) | ValueKind::Table(_) => None,
            value => Some(value.to_string()),
        })
    }
}

/// A YAML document: dotted keys and values.
struct Document(Vec<(String, ValueKind)>);

impl Document {
    /// The profiles that it is for.
    fn profile(&self) -> Option<String> {
        let names = ["spring.config.activate.on-profile", "spring.profiles"].map(fold);
        let (_, value) = self.0.iter().find(|(key, _)| names.contains(&fold(key)))?;
        Some(value.to_string())
    }
}

fn tables(path: &Path) -> Result<Vec<Document>, ConfigError> {
    let source = Source::Ruoyi(path.to_owned());
    let text = fs::read_to_string(path)
        .map_err(|error| ConfigError::unreadable(source.clone(), format!("cannot be read: {error}")))?;
    let documents = documents(&quote_maven(&text), &source)?;
    Ok(documents
        .into_iter()
        .map(|table| {
            let mut values = Vec::new();
            flatten("", table, &mut values);
            Document(values)
        })
        .collect())
}

fn flatten(prefix: &str, table: Map<String, Value>, values: &mut Vec<(String, ValueKind)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value.kind {
            ValueKind::Table(table) => flatten(&key, table, values),
            value => values.push((key, value)),
        }
    }
}

/// Puts values of Maven (`@profiles.active@`) in quotes, without which they are no YAML.
fn quote_maven(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match line.split_once(": @") {
            Some((key, rest)) if !key.trim_start().starts_with('#') => {
                let value = rest.trim_end();
                let end = &rest[value.len()..];
                quoted.push_str(&format!("{key}: '@{}'{end}", value.replace('\'', "''")));
            }
            _ => quoted.push_str(line),
        }
    }
    quoted
}

/// `application-dev.yml` beside `application.yml`.
fn sibling(path: &Path, profile: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let end = path.extension().map(|end| format!(".{}", end.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{profile}{end}"))
}

/// Place of the brace that closes a placeholder, behind its `${`.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1;
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(place);
        }
    }
    None
}

fn variable<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Spring takes `allowed-origins`, `allowed_origins` and `allowedOrigins` for one.
pub(super) fn fold(key: &str) -> String {
    key.to_lowercase().replace(['-', '_'], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brace_that_is_not_closed_is_text_and_errors_show_no_text() {
        let environment = [("PASSWORD", "p${w"), ("A", "hunter2${A}"), ("B", "hunter2${NOT_SET}")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let properties = Properties { values: BTreeMap::new(), environment: &environment };
        let fill = |text: &str| properties.fill(text, DEPTH);
        assert_eq!(fill("${w").as_deref(), Ok("${w"));
        assert_eq!(fill("a ${PASSWORD} b ${X:${PASSWORD}} ${").as_deref(), Ok("a p${w b p${w ${"));
        assert_eq!(fill("${A}").unwrap_err(), "`${A}` is within too many placeholders");
        assert_eq!(fill("${X:hunter2${A}}").unwrap_err(), "`${A}` is within too many placeholders");
        assert_eq!(fill("${B}").unwrap_err(), "`${NOT_SET}` has no value");
    }
}

//! [`Kind`]: what values a key takes.

use std::time::Duration;

use config::{Value, ValueKind};

/// Kind of a key's values, derived from the reference's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Flag,
    Number,
    Text,
    Duration,
    List,
    Tables,
}

impl Kind {
    /// The kind of which the reference's value is an example.
    pub(super) fn of(example: &ValueKind) -> Self {
        match example {
            ValueKind::Boolean(_) => Self::Flag,
            ValueKind::I64(_) => Self::Number,
            ValueKind::Array(list) => match list.first().map(|first| &first.kind) {
                Some(ValueKind::Table(_)) => Self::Tables,
                _ => Self::List,
            },
            ValueKind::String(text) if humantime::parse_duration(text).is_ok() => Self::Duration,
            // A key without a default is text.
            _ => Self::Text,
        }
    }

    /// A file's value, if the key takes it; or else what is wrong with it.
    pub(super) fn check(self, value: ValueKind) -> Result<ValueKind, String> {
        match (self, value) {
            (Self::Flag, value @ ValueKind::Boolean(_))
            | (Self::Number, value @ ValueKind::I64(_))
            | (Self::Text, value @ (ValueKind::String(_) | ValueKind::Nil)) => Ok(value),
            (Self::Duration, ValueKind::String(text)) => duration(text),
            (Self::List, ValueKind::String(text)) => Ok(list(&text)),
            (Self::List, ValueKind::Array(items))
                if all(&items, |item| matches!(item, ValueKind::String(_))) =>
            {
                Ok(items.into())
            }
            (Self::Tables, ValueKind::Array(items))
                if all(&items, |item| matches!(item, ValueKind::Table(_))) =>
            {
                Ok(items.into())
            }
            (_, value) => {
                let found = match (self, &value) {
                    (Self::List | Self::Tables, ValueKind::Array(_)) => "a list with other items",
                    (_, value) => name_of(value),
                };
                let hint = match (self, value) {
                    (Self::Text, ValueKind::I64(_) | ValueKind::Float(_) | ValueKind::Boolean(_)) => {
                        "; put it in quotes"
                    }
                    _ => "",
                };
                Err(format!("expected {}, found {found}{hint}", self.expected()))
            }
        }
    }

    /// The value that a variable's text stands for; or else what is wrong with it.
    pub(super) fn parse(self, text: &str) -> Result<ValueKind, String> {
        let trimmed = text.trim();
        let unexpected = || format!("expected {}, found `{text}`", self.expected());
        match self {
            Self::Flag => trimmed.to_lowercase().parse().map(ValueKind::Boolean).map_err(|_| unexpected()),
            Self::Number => trimmed.parse().map(ValueKind::I64).map_err(|_| unexpected()),
            Self::Text => Ok(text.into()),
            Self::Duration => duration(trimmed.to_owned()),
            Self::List => Ok(list(text)),
            Self::Tables => Err("can be set in a file only".to_owned()),
        }
    }

    /// Description of the values that a key takes.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Flag => "true or false",
            Self::Number => "a whole number",
            Self::Text => "text",
            Self::Duration => "a duration such as `10s`",
            Self::List => "a list of texts, or one text with commas",
            Self::Tables => "a list whose items have keys",
        }
    }
}

fn duration(text: String) -> Result<ValueKind, String> {
    match humantime::parse_duration(&text) {
        Ok(duration) if duration <= Duration::from_secs(MAX_DAYS * 24 * 60 * 60) => Ok(text.into()),
        Ok(_) => Err(format!("`{text}` is above {MAX_DAYS} days")),
        Err(error) => Err(format!("expected a duration such as `10s`, found `{text}`: {error}")),
    }
}

fn list(text: &str) -> ValueKind {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(Value::from).collect::<Vec<_>>().into()
}

fn all(items: &[Value], test: impl Fn(&ValueKind) -> bool) -> bool {
    items.iter().all(|item| test(&item.kind))
}

/// Description of a value's type. The value itself is not shown, since it may be a secret in the wrong place.
pub(super) fn name_of(value: &ValueKind) -> &'static str {
    match value {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "a whole number",
        ValueKind::Float(_) => "a fraction or too large a number",
        ValueKind::String(_) => "text",
        ValueKind::Array(_) => "a list",
        ValueKind::Table(_) => "keys below it",
    }
}

/// Far above any use, and far below what a clock can be moved by.
const MAX_DAYS: u64 = 365;

#[cfg(test)]
mod tests {
    use crate::config::tests::{load, refused};

    #[test]
    fn every_kind_of_value_is_checked_in_a_file() {
        for (yaml, problem) in [
            ("server.port: '80'", "expected a whole number, found text"),
            ("server.port: 80.6", "expected a whole number, found a fraction or too large a number"),
            ("server.port: true", "expected a whole number, found true or false"),
            ("server.port:", "expected a whole number, found nothing"),
            ("server.port: [80]", "expected a whole number, found a list"),
            ("server.port: {a: 1}", "expected a whole number, found keys below it"),
            ("sse.enabled: 'yes'", "expected true or false, found text"),
            ("server.host: 1.5", "expected text, found a fraction or too large a number; put it in quotes"),
            ("server.host: {a: 1}", "expected text, found keys below it"),
            ("server.host:", "expected a string, found nothing"),
            ("sse.retry: 3", "expected a duration such as `10s`, found a whole number"),
            ("drain.window: 400days", "`400days` is above 365 days"),
            (
                "websocket.allowedOrigins: [1]",
                "expected a list of texts, or one text with commas, found a list with other items",
            ),
            ("server: 1", "expected keys below it, found a whole number"),
        ] {
            let key = yaml.split(':').next().unwrap();
            assert_eq!(refused(Some(yaml), &[]), format!("{key} (file app.yml): {problem}"));
        }
        let error = refused(Some("sse.retry: '3'"), &[]);
        let start = "sse.retry (file app.yml): expected a duration such as `10s`, found `3`: ";
        assert!(error.starts_with(start), "{error}");
    }

    #[test]
    fn every_kind_of_value_is_checked_in_the_environment() {
        for (variable, text, problem) in [
            ("REALTIME__SERVER__PORT", "http", "server.port ({}): expected a whole number, found `http`"),
            ("REALTIME__SERVER__PORT", "", "server.port ({}): expected a whole number, found ``"),
            (
                "REALTIME__AUTH__REQUIRECLIENTID",
                "1",
                "auth.requireClientId ({}): expected true or false, found `1`",
            ),
            ("REALTIME__AUTH__USERS", "eve", "auth.users ({}): can be set in a file only"),
        ] {
            let source = format!("environment variable {variable}");
            assert_eq!(refused(None, &[(variable, text)]), problem.replace("{}", &source));
        }
    }

    #[test]
    fn a_number_may_be_text_where_text_is_asked_for_in_quotes() {
        assert_eq!(load(Some("server: {node: '007'}"), &[]).server.node.as_deref(), Some("007"));
    }
}

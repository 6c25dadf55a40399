//! What Redis holds, read piece by piece: content that is none of ours costs nobody the rest.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use redis::{FromRedisValue, ParsingError, Value};

/// A text, or nothing for what is no text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) Option<String>);

/// A number, or nothing for what is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Number(pub(crate) Option<f64>);

/// An entry of a stream: its id and those of its fields that are texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamEntry {
    pub(crate) id: String,
    pub(crate) fields: HashMap<String, String>,
}

impl FromRedisValue for Text {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        Ok(Self(match value {
            Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
            Value::SimpleString(text) => Some(text),
            Value::Int(number) => Some(number.to_string()),
            _ => None,
        }))
    }
}

impl FromRedisValue for Number {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        Ok(Self(match value {
            Value::Double(number) => Some(number),
            value => Text::from_redis_value(value)?.0.and_then(|text| text.parse().ok()),
        }))
    }
}

impl FromRedisValue for StreamEntry {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let (Text(id), fields): (Text, Option<Vec<(Text, Text)>>) = FromRedisValue::from_redis_value(value)?;
        let fields = fields.unwrap_or_default().into_iter();
        let fields = fields.filter_map(|(Text(name), Text(value))| Some((name?, value?))).collect();
        Ok(Self { id: id.ok_or_else(|| ParsingError::from("an entry without an id"))?, fields })
    }
}

/// Returns the texts among values, and passes the number of the others to `skip`.
pub(crate) fn texts<T: FromIterator<String>>(values: Vec<Text>, skip: impl FnOnce(usize)) -> T {
    let all = values.len();
    let mut found = 0;
    let texts = values.into_iter().filter_map(|Text(text)| text).inspect(|_| found += 1).collect();
    if found < all {
        skip(all - found);
    }
    texts
}

/// The kinds of broken content that were logged: only the first of each is. There are few of them.
#[derive(Debug, Default)]
pub(crate) struct LoggedKinds(Mutex<Vec<(String, String)>>);

impl LoggedKinds {
    /// Records content and its problem. Returns whether it is the first of its kind.
    pub(crate) fn is_first(&self, what: &str, problem: &str) -> bool {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = !kinds.iter().any(|known| known.0 == what && known.1 == problem);
        if is_first {
            kinds.push((what.to_owned(), problem.to_owned()));
        }
        is_first
    }
}

/// Content that was skipped or begun anew: it is counted, and each kind is logged once.
pub(crate) struct Skipped {
    count: Box<dyn Fn() + Send + Sync>,
    logged: LoggedKinds,
}

impl Skipped {
    /// Creates a record that calls `count` each time.
    pub(crate) fn new(count: impl Fn() + Send + Sync + 'static) -> Self {
        Self { count: Box::new(count), logged: LoggedKinds::default() }
    }

    /// Records content that was skipped; `what` names it and has few different values.
    pub(crate) fn record(&self, what: &str) {
        (self.count)();
        if self.logged.is_first(what, "") {
            tracing::warn!(what, "skipped broken content of Redis; logged once for each kind");
        }
    }

    /// Records a key that was removed.
    pub(crate) fn record_removed(&self, key: &str) {
        (self.count)();
        tracing::warn!(
            key,
            "removed a key of Redis that held something else than it should; it is begun anew"
        );
    }
}

impl fmt::Debug for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Skipped").field("logged", &self.logged).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use redis::from_redis_value;

    use super::*;

    fn bytes(bytes: &[u8]) -> Value {
        Value::BulkString(bytes.to_vec())
    }

    #[test]
    fn what_is_no_text_costs_only_itself() {
        let values = Value::Array(vec![bytes(b"a"), bytes(b"\xff"), Value::Nil, bytes(b"b")]);
        let mut skipped = 0;
        let found: Vec<String> = texts(from_redis_value(values).unwrap(), |count| skipped = count);
        assert_eq!((found, skipped), (vec!["a".to_owned(), "b".to_owned()], 2));
        let values = Value::Array(vec![bytes(b"7"), bytes(b"inf"), bytes(b"x"), bytes(b"\xff")]);
        let numbers: Vec<Number> = from_redis_value(values).unwrap();
        let numbers: Vec<_> = numbers.into_iter().map(|Number(number)| number).collect();
        assert_eq!(numbers, [Some(7.0), Some(f64::INFINITY), None, None]);
    }

    #[test]
    fn an_entry_has_the_fields_that_are_texts() {
        let fields = Value::Array(vec![bytes(b"\xff"), bytes(b"x"), bytes(b"c"), bytes(b"{}")]);
        let entries = Value::Array(vec![
            Value::Array(vec![bytes(b"1-0"), fields]),
            Value::Array(vec![bytes(b"1-1"), Value::Nil]),
        ]);
        let entries: Vec<StreamEntry> = from_redis_value(entries).unwrap();
        let fields = |n: usize| entries[n].fields.iter().collect::<Vec<_>>();
        assert_eq!(fields(0), [(&"c".to_owned(), &"{}".to_owned())]);
        assert_eq!((entries[1].id.as_str(), fields(1)), ("1-1", vec![]));
    }
}

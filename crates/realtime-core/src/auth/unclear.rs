//! [`only`]: the one value that a request gives under a name.

use std::fmt;

/// The value among those that a request gives under one name in one place, the query or the headers. An empty value is
/// none, and the same value twice is one.
///
/// ```
/// use realtime_core::auth::only;
///
/// assert_eq!(only("key", ["", "a", "a"]), Ok(Some("a")));
/// assert_eq!(only("key", [""]), Ok(None));
/// let error = only("key", ["a", "b"]).unwrap_err();
/// assert_eq!(error.to_string(), "key: given more than once, with different values");
/// ```
///
/// # Errors
/// [`Unclear`] if two values differ, or if one contains U+FFFD, which stands for bytes that are not text.
pub fn only<'a>(name: &str, values: impl IntoIterator<Item = &'a str>) -> Result<Option<&'a str>, Unclear> {
    let mut only = None;
    for value in values.into_iter().filter(|value| !value.is_empty()) {
        if value.contains(char::REPLACEMENT_CHARACTER) {
            return Err(Unclear::new(name, Problem::NotText));
        }
        if only.is_some_and(|only| only != value) {
            return Err(Unclear::new(name, Problem::Differing));
        }
        only = Some(value);
    }
    Ok(only)
}

/// Error of a parameter or header that has no single value. It does not contain the values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct Unclear {
    name: Box<str>,
    problem: Problem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Problem {
    Differing,
    NotText,
}

impl Unclear {
    fn new(name: &str, problem: Problem) -> Self {
        Self { name: name.into(), problem }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Differing => "given more than once, with different values",
            Self::NotText => "not UTF-8",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_counts_and_none_is_chosen_among_several() {
        let differing = "x: given more than once, with different values";
        for (values, expected) in [
            (&[][..], Ok(None)),
            (&["", ""], Ok(None)),
            (&["a"], Ok(Some("a"))),
            (&["", "a", "a", ""], Ok(Some("a"))),
            (&["a", "b"], Err(differing)),
            (&["a", "A"], Err(differing)),
            (&["a", "b\u{fffd}"], Err("x: not UTF-8")),
            (&["\u{fffd}", "\u{fffd}"], Err("x: not UTF-8")),
        ] {
            let found = only("x", values.iter().copied());
            assert_eq!(
                found.map_err(|error| error.to_string()),
                expected.map_err(str::to_owned),
                "{values:?}"
            );
        }
    }
}

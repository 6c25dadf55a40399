//! [`Secret`]: text that no debug output shows.

use std::{fmt, ops::Deref};

use serde::Deserialize;

/// A password, key or the like. It derefs to `str`, and is printed as `***`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What is shown in the place of a secret.
pub(super) const MASK: &str = "***";

/// Keys whose values are secrets.
const SECRETS: [&str; 4] = ["api.key", "auth.jwt.secret", "auth.saToken.secret", "auth.users.password"];

/// Returns `true` for a key whose whole value is a secret.
pub(super) fn is_secret(key: &str) -> bool {
    SECRETS.contains(&key)
}

/// Returns `true` for a value that stands where a secret was masked.
pub(super) fn is_masked(key: &str, text: &str) -> bool {
    (is_secret(key) && text == MASK) || password(text).is_some_and(|(_, password, _)| password == MASK)
}

/// A text whose password, if it is a URL with one, is masked.
pub(super) fn without_password(text: &str) -> String {
    match password(text) {
        Some((before, _, after)) => format!("{before}{MASK}{after}"),
        None => text.to_owned(),
    }
}

/// The password in a URL, with what is before and behind it.
fn password(url: &str) -> Option<(&str, &str, &str)> {
    let login = url.find("://")? + 3;
    // A password may hold `/` and `@` by mistake; more is masked then, and not less.
    let end = login + url[login..].rfind('@')?;
    let begin = login + url[login..end].find(':')? + 1;
    Some((&url[..begin], &url[begin..end], &url[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_url_is_masked() {
        for (url, shown) in [
            ("redis://a:6379/0", "redis://a:6379/0"),
            ("redis://:p@a", "redis://:***@a"),
            ("rediss://u:p:q@a/", "rediss://u:***@a/"),
            ("redis://u:p/@x@a/", "redis://u:***@a/"),
            ("redis://u@a/", "redis://u@a/"),
            ("a text: x@y", "a text: x@y"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}

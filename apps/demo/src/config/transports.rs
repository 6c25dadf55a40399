//! [`WebSocket`] and [`Sse`]: the two modules, where they are and who may use them.

use std::time::Duration;

use actix_web::http::Uri;
use serde::{Deserialize, Deserializer, de::Error};

/// The section `websocket`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebSocket {
    /// Whether the module is on; never without the feature `websocket`.
    pub enabled: bool,
    /// The path of the endpoint: starts with `/`, does not end with it.
    #[serde(deserialize_with = "path")]
    pub path: String,
    /// Origins that may connect besides the server's own: `*`, or in the form in which browsers send them, so in
    /// small letters and without a default port.
    #[serde(deserialize_with = "origins")]
    pub allowed_origins: Vec<String>,
}

/// The section `sse`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sse {
    /// Whether the module is on; never without the feature `sse`.
    pub enabled: bool,
    /// The path of the stream: starts with `/`, does not end with it.
    #[serde(deserialize_with = "path")]
    pub path: String,
    /// Time after which a browser reconnects.
    #[serde(deserialize_with = "retry")]
    pub retry: Duration,
}

impl WebSocket {
    /// Whether pages of any origin may connect.
    pub fn allows_any_origin(&self) -> bool {
        self.allowed_origins.iter().any(|origin| origin == ANY)
    }
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let path = String::deserialize(deserializer)?;
    let problem = if !path.starts_with('/') {
        "does not start with `/`"
    } else if path == "/" {
        "is the page itself"
    } else if path.ends_with('/') {
        "ends with `/`"
    } else if path.contains(['?', '#', '{', '}']) {
        "holds one of `?`, `#`, `{` and `}`"
    } else if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        "holds white space or a control character"
    } else {
        return Ok(path);
    };
    Err(D::Error::custom(format_args!("`{path}` {problem}")))
}

fn origins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|entry| {
            origin(entry).ok_or_else(|| {
                D::Error::custom(format_args!("`{entry}` is neither `*` nor scheme://host[:port]"))
            })
        })
        .collect()
}

/// An entry as browsers send it (the WHATWG's serialization of an origin), if it is one.
fn origin(entry: &str) -> Option<String> {
    if entry == ANY {
        return Some(entry.to_owned());
    }
    let entry = entry.to_lowercase();
    let uri: Uri = entry.parse().ok()?;
    let (scheme, host) = (uri.scheme_str()?, uri.host()?);
    // A pattern such as `https://*.example.com` would match no page.
    if host.is_empty() || host.contains('*') {
        return None;
    }
    let bare = format!("{scheme}://{host}");
    match uri.port_u16() {
        // A path or a user name makes it something else than an origin.
        None => (bare == entry).then_some(bare),
        Some(port) if format!("{bare}:{port}") != entry => None,
        Some(80) if scheme == "http" => Some(bare),
        Some(443) if scheme == "https" => Some(bare),
        Some(_) => Some(entry),
    }
}

fn retry<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let retry = humantime::parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)?;
    // With 0 browsers would reconnect without a pause while the server is down.
    if retry < Duration::from_millis(100) {
        return Err(D::Error::custom("must be at least 100ms"));
    }
    Ok(retry)
}

const ANY: &str = "*";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_kept_as_browsers_send_it() {
        for (entry, sent) in [
            ("*", "*"),
            ("https://app.example.com", "https://app.example.com"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("HTTPS://App.Example.com:443", "https://app.example.com"),
            ("http://app.example.com:80", "http://app.example.com"),
            ("http://app.example.com:443", "http://app.example.com:443"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("tauri://localhost", "tauri://localhost"),
        ] {
            assert_eq!(origin(entry).as_deref(), Some(sent), "{entry}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_no_origin() {
        for entry in [
            "",
            "null",
            "app.example.com",
            "app.example.com:443",
            "//app.example.com",
            "https://",
            "https://:443",
            "https://app.example.com/",
            "https://app.example.com/path",
            "https://app.example.com?x",
            "https://app.example.com#x",
            "https://app.example.com:",
            "https://app.example.com:0443",
            "https://app.example.com:99999",
            "https://user@app.example.com",
            "https://*.example.com",
            "https://app example.com",
            "**",
        ] {
            assert_eq!(origin(entry), None, "{entry}");
        }
    }
}

//! [`AllowedOrigins`]: check of the `Origin` header.
//!
//! Browsers let every page connect to every server, and send the user's cookies along; the `Origin` header names the page
//! (RFC 6455, section 10.2).

use std::{fmt, str::FromStr, sync::Arc};

use actix_web::http::Uri;
use serde::{Deserialize, Deserializer, de};

/// Origins that may connect besides the server's own.
///
/// A request without `Origin` does not come from a browser and is allowed. An origin whose host and port equal those of the
/// `Host` header is the server's own, with any scheme, since a proxy may terminate TLS; `localhost`, `127.0.0.1` and `[::1]`
/// are one host.
///
/// It is deserialized from a list of texts, or one text with commas.
#[derive(Clone, Default)]
pub struct AllowedOrigins {
    any: bool,
    /// As browsers send them.
    exact: Vec<String>,
    subdomains: Vec<Subdomains>,
    predicate: Option<Arc<Predicate>>,
}

type Predicate = dyn Fn(&str) -> bool + Send + Sync;

/// All subdomains of a host, at any depth: `https://*.example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Subdomains {
    /// `https://`
    scheme: String,
    /// `.example.com`, with the port if it has one.
    parent: String,
}

/// Text that is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither `*` nor scheme://host[:port], where the host may begin with `*.`")]
pub struct OriginError(pub String);

impl AllowedOrigins {
    /// Only the server's own origin.
    pub fn same_origin() -> Self {
        Self::default()
    }

    /// Parses a list of origins (`scheme://host[:port]`). `*` means any origin, and a host such as `*.example.com` all
    /// subdomains of `example.com`, but not `example.com` itself.
    ///
    /// # Errors
    /// [`OriginError`] with the text that is not an origin.
    pub fn new<S: AsRef<str>>(origins: impl IntoIterator<Item = S>) -> Result<Self, OriginError> {
        let mut allowed = Self::default();
        for text in origins {
            let text = text.as_ref().trim();
            let error = || OriginError(text.to_owned());
            if text == "*" {
                allowed.any = true;
            } else if let Some((scheme, parent)) = text.split_once("://*.") {
                let parent = origin(&format!("{scheme}://{parent}")).ok_or_else(error)?;
                let (scheme, parent) = parent.split_once("://").expect("an origin has a scheme");
                allowed
                    .subdomains
                    .push(Subdomains { scheme: format!("{scheme}://"), parent: format!(".{parent}") });
            } else {
                allowed.exact.push(origin(text).ok_or_else(error)?);
            }
        }
        Ok(allowed)
    }

    /// Allows further origins, as browsers send them, for which `predicate` is true. It must not block.
    #[must_use]
    pub fn or(mut self, predicate: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.predicate = Some(Arc::new(predicate));
        self
    }

    /// Returns whether every page may connect.
    pub fn allows_any(&self) -> bool {
        self.any
    }

    /// Returns whether a page of `origin` may connect to the server at `host` (the request's headers).
    pub fn allow(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        self.any
            || self.exact.iter().any(|exact| exact.eq_ignore_ascii_case(origin))
            || self.subdomains.iter().any(|subdomains| subdomains.contain(origin))
            || self.predicate.as_ref().is_some_and(|predicate| predicate(origin))
            || host.is_some_and(|host| is_own(origin, host))
    }
}

impl Subdomains {
    fn contain(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        let labels = origin.strip_prefix(&self.scheme).and_then(|rest| rest.strip_suffix(&self.parent));
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        labels.is_some_and(|labels| labels.split('.').all(is_label))
    }
}

impl FromStr for AllowedOrigins {
    type Err = OriginError;

    /// Parses a comma-separated list.
    fn from_str(list: &str) -> Result<Self, Self::Err> {
        Self::new(list.split(',').map(str::trim).filter(|origin| !origin.is_empty()))
    }
}

impl<'de> Deserialize<'de> for AllowedOrigins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a list of origins, or one text with commas")]
        enum Origins {
            Text(String),
            List(Vec<String>),
        }
        let origins = match Origins::deserialize(deserializer)? {
            Origins::Text(text) => text.parse(),
            Origins::List(list) => Self::new(list),
        };
        origins.map_err(de::Error::custom)
    }
}

impl fmt::Debug for AllowedOrigins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllowedOrigins")
            .field("any", &self.any)
            .field("exact", &self.exact)
            .field("subdomains", &self.subdomains)
            .finish_non_exhaustive()
    }
}

/// An origin as browsers send it (the WHATWG's serialization), from a text that may have capitals and a default port.
fn origin(text: &str) -> Option<String> {
    let text = text.to_lowercase();
    let uri: Uri = text.parse().ok()?;
    let (scheme, host) = (uri.scheme_str()?, uri.host()?);
    if host.is_empty() || host.contains('*') {
        return None;
    }
    let bare = format!("{scheme}://{host}");
    match uri.port_u16() {
        // A path or a user name makes it something else than an origin.
        None => (bare == text).then_some(bare),
        Some(port) if format!("{bare}:{port}") != text => None,
        Some(port) if Some(port) == default_port(scheme) => Some(bare),
        Some(_) => Some(text),
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Returns whether an `Origin` header names the server at `host`.
fn is_own(text: &str, host: &str) -> bool {
    let Some(origin) = origin(text) else { return false };
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let (own, own_port) = split_port(host);
    let (host, port) = split_port(authority);
    let default = default_port(scheme);
    canonical(host) == canonical(own) && port.or(default) == own_port.or(default)
}

/// Splits `host:port`; an IPv6 address in brackets has colons of its own.
fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (authority, None),
        },
        _ => (authority, None),
    }
}

fn canonical(host: &str) -> String {
    match host.to_ascii_lowercase().as_str() {
        "127.0.0.1" | "[::1]" => "localhost".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_servers_own_pages_and_the_listed_ones_connect() {
        let own = AllowedOrigins::same_origin();
        let listed: AllowedOrigins = "https://app.example.com, http://localhost:5173".parse().unwrap();
        for (allowed, origin, host, ok) in [
            (&own, None, Some("a.com"), true),
            (&own, Some("http://a.com"), Some("a.com"), true),
            (&own, Some("https://a.com"), Some("a.com"), true),
            (&own, Some("https://a.com"), Some("a.com:443"), true),
            (&own, Some("http://A.com:8080"), Some("a.COM:8080"), true),
            (&own, Some("http://127.0.0.1:8080"), Some("localhost:8080"), true),
            (&own, Some("http://[::1]:8080"), Some("127.0.0.1:8080"), true),
            (&own, Some("http://localhost:5173"), Some("localhost:8080"), false),
            (&own, Some("http://a.com"), Some("a.com:8080"), false),
            (&own, Some("http://evil.com"), Some("a.com"), false),
            (&own, Some("http://a.com.evil.com"), Some("a.com"), false),
            (&own, Some("http://evil.com/a.com"), Some("a.com"), false),
            (&own, Some("http://x@a.com"), Some("a.com"), false),
            (&own, Some("null"), Some("a.com"), false),
            (&own, Some(""), Some(""), false),
            (&own, Some("http://a.com"), None, false),
            (&listed, Some("https://APP.example.com"), Some("api.example.com"), true),
            (&listed, Some("http://localhost:5173"), Some("localhost:8080"), true),
            (&listed, Some("http://app.example.com"), Some("api.example.com"), false),
            (&AllowedOrigins::new(["*"]).unwrap(), Some("null"), Some("a.com"), true),
            (
                &AllowedOrigins::new(["https://b.com:443"]).unwrap(),
                Some("https://b.com"),
                Some("a.com"),
                true,
            ),
            (
                &AllowedOrigins::new(["https://b.com:80"]).unwrap(),
                Some("https://b.com"),
                Some("a.com"),
                false,
            ),
        ] {
            assert_eq!(allowed.allow(origin, host), ok, "{origin:?} on {host:?}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_whole_labels() {
        let allowed = AllowedOrigins::new(["https://*.Example.com", "http://*.a.test:8080"]).unwrap();
        for (origin, ok) in [
            ("https://app.example.com", true),
            ("https://a.b.EXAMPLE.com", true),
            ("https://example.com", false),
            ("https://.example.com", false),
            ("https://evilexample.com", false),
            ("https://a..example.com", false),
            ("https://evil.test/.example.com", false),
            ("https://evil.test:1.example.com", false),
            ("https://x@app.example.com", false),
            ("http://app.example.com", false),
            ("https://app.example.com:8443", false),
            ("https://app.example.com.evil.test", false),
            ("http://x.a.test:8080", true),
            ("http://x.a.test", false),
        ] {
            assert_eq!(allowed.allow(Some(origin), Some("api.test")), ok, "{origin}");
        }
        let allowed = allowed.or(|origin| origin == "app://tenant-7");
        assert!(allowed.allow(Some("app://tenant-7"), None) && !allowed.allow(Some("app://tenant-8"), None));
    }

    #[test]
    fn an_origin_is_kept_as_browsers_send_it() {
        for (text, sent) in [
            ("https://app.example.com", "https://app.example.com"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("HTTPS://App.Example.com:443", "https://app.example.com"),
            ("http://app.example.com:80", "http://app.example.com"),
            ("http://app.example.com:443", "http://app.example.com:443"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("tauri://localhost", "tauri://localhost"),
        ] {
            assert_eq!(AllowedOrigins::new([text]).unwrap().exact, [sent]);
        }
    }

    #[test]
    fn text_that_no_browser_sends_is_refused_by_name() {
        for bad in [
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
            "https://app example.com",
            "https://*",
            "https://*.",
            "https://*.*.example.com",
            "https://a*.example.com",
            "https://app.*.com",
            "*.example.com",
            "**",
        ] {
            assert_eq!(AllowedOrigins::new([bad]).unwrap_err(), OriginError(bad.to_owned()));
        }
    }

    #[test]
    fn a_list_or_a_text_of_a_configuration_is_read() {
        let read = |json: &str| serde_json::from_str::<AllowedOrigins>(json);
        for json in [r#"["http://A:1", "https://b"]"#, r#""http://a:1, https://b""#] {
            assert_eq!(read(json).unwrap().exact, ["http://a:1", "https://b"]);
        }
        assert!(read("[]").unwrap().exact.is_empty());
        assert!(read(r#"["http://a/"]"#).unwrap_err().to_string().starts_with("`http://a/` is neither"));
        assert!(read("7").is_err());
    }
}

//! [`AllowedOrigins`]: check of the `Origin` header.
//!
//! Browsers let every page connect to every server, and send the user's cookies along; the `Origin` header names the page
//! (RFC 6455, section 10.2).

use std::str::FromStr;

/// Origins that may connect besides the server's own.
///
/// A request without `Origin` does not come from a browser and is allowed. An origin whose host and port equal those of the
/// `Host` header is the server's own, with any scheme, since a proxy may terminate TLS; `localhost`, `127.0.0.1` and `[::1]`
/// are one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedOrigins {
    any: bool,
    listed: Vec<String>,
}

/// Text that is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither `*` nor an origin such as `https://app.example.com`")]
pub struct OriginError(pub String);

impl AllowedOrigins {
    /// Only the server's own origin.
    pub fn same_origin() -> Self {
        Self::default()
    }

    /// Parses a list of origins (`scheme://host[:port]`); `*` means any.
    ///
    /// # Errors
    /// [`OriginError`] with the text that is not an origin.
    pub fn new<S: AsRef<str>>(origins: impl IntoIterator<Item = S>) -> Result<Self, OriginError> {
        let mut allowed = Self::default();
        for origin in origins {
            let origin = origin.as_ref().trim();
            if origin == "*" {
                allowed.any = true;
            } else {
                let parsed = Origin::parse(origin).filter(|_| !origin.ends_with('/'));
                let parsed = parsed.ok_or_else(|| OriginError(origin.to_owned()))?;
                // Browsers omit a scheme's default port (RFC 6454, section 6.2).
                let origin = match parsed.port {
                    Some(port) if Some(port) == parsed.default_port() => {
                        origin.rsplit_once(':').map_or(origin, |(origin, _)| origin)
                    }
                    _ => origin,
                };
                allowed.listed.push(origin.to_ascii_lowercase());
            }
        }
        Ok(allowed)
    }

    /// Whether every page may connect.
    pub fn allows_any(&self) -> bool {
        self.any
    }

    /// Whether a page of `origin` may connect to the server at `host` (the request's headers).
    pub fn allow(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if self.any || self.listed.iter().any(|listed| listed.eq_ignore_ascii_case(origin)) {
            return true;
        }
        let (Some(origin), Some(host)) = (Origin::parse(origin), host) else {
            return false;
        };
        let (host, port) = split_port(host);
        let default = origin.default_port();
        canonical(origin.host) == canonical(host) && origin.port.or(default) == port.or(default)
    }
}

impl FromStr for AllowedOrigins {
    type Err = OriginError;

    /// Parses a comma-separated list.
    fn from_str(list: &str) -> Result<Self, Self::Err> {
        Self::new(list.split(',').map(str::trim).filter(|origin| !origin.is_empty()))
    }
}

/// The parts of an `Origin` header (RFC 6454, section 6.2).
struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    fn parse(origin: &'a str) -> Option<Self> {
        let (scheme, authority) = origin.split_once("://")?;
        let (host, port) = split_port(authority.trim_end_matches('/'));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        let scheme_ok =
            !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        (scheme_ok && !host.is_empty() && host.chars().all(plain)).then_some(Self { scheme, host, port })
    }

    fn default_port(&self) -> Option<u16> {
        match self.scheme.to_ascii_lowercase().as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        }
    }
}

/// Splits `host:port`; the colons of an IPv6 address in brackets are none of the port's.
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
    fn a_list_that_is_no_list_of_origins_is_refused_by_name() {
        for bad in ["app.example.com", "https://app.example.com/path", "https://app.example.com/", "https://"]
        {
            assert_eq!(AllowedOrigins::new([bad]), Err(OriginError(bad.to_owned())), "{bad}");
        }
    }
}

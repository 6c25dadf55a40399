//! [`AllowedOrigins`]: the pages that may use a transport.
//!
//! Browsers let every page connect to every server, and send the user's cookies along; the `Origin` header names the page
//! (RFC 6455, section 10.2; Fetch standard, section 3.2).

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, PoisonError, RwLock},
};

use serde::{Deserialize, Deserializer, de};

use super::{authenticator::Handshake, origin::Origin};

/// Origins that may connect besides the server's own.
///
/// A request without `Origin` does not come from a page of another origin and is allowed. An origin whose host and port equal
/// those of the `Host` header is the server's own, with any scheme, since a proxy may terminate TLS, unless this server
/// terminates it; `localhost`, `127.0.0.1` and `[::1]` are one host.
///
/// It is deserialized from a list of texts, or one text with commas. Clones share one list, which [`Self::replace`] changes
/// for all of them while the server runs.
#[derive(Clone, Default)]
pub struct AllowedOrigins(Arc<RwLock<Arc<Rules>>>);

#[derive(Clone, Default)]
struct Rules {
    any: bool,
    exact: Vec<Origin>,
    /// Parents of all their subdomains, at any depth: `https://*.example.com`.
    parents: Vec<Origin>,
    predicate: Option<Arc<Predicate>>,
}

type Predicate = dyn Fn(&str) -> bool + Send + Sync;

/// Text that is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither `*` nor scheme://host[:port], where the host may begin with `*.`")]
pub struct OriginError(pub String);

/// The page that has made a request, as its browser says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page<'a> {
    /// None of another origin: the request is not a browser's, or a page of this server has made it.
    Own,
    /// A page of this origin: it is named, or the server's own.
    Trusted(&'a str),
    /// A page of this origin, which is allowed by `*` alone. Such a page may use logins that it has, not the cookies of its
    /// visitor.
    Any(&'a str),
    /// A page of another origin; `None`: its browser does not tell which.
    Foreign(Option<&'a str>),
}

impl AllowedOrigins {
    /// Only the server's own origin.
    pub fn same_origin() -> Self {
        Self::default()
    }

    /// Parses a list of origins (`scheme://host[:port]`). `*` means any origin, and a host such as `*.example.com` all
    /// subdomains of `example.com` (`a.example.com`, `a.b.example.com`), but not `example.com` itself.
    ///
    /// # Errors
    /// [`OriginError`] with the text that is not an origin.
    pub fn new<S: AsRef<str>>(origins: impl IntoIterator<Item = S>) -> Result<Self, OriginError> {
        let mut rules = Rules::default();
        for text in origins {
            let text = text.as_ref().trim();
            let error = || OriginError(text.to_owned());
            if text == "*" {
                rules.any = true;
            } else if let Some((scheme, parent)) = text.split_once("://*.") {
                let parent = Origin::parse(&format!("{scheme}://{parent}"));
                rules.parents.push(parent.filter(Origin::is_named).ok_or_else(error)?);
            } else {
                rules.exact.push(Origin::parse(text).ok_or_else(error)?);
            }
        }
        Ok(rules.into())
    }

    /// Allows further origins, as browsers send them, for which `predicate` is true. It must not block.
    #[must_use]
    pub fn or(self, predicate: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let rules = Rules::clone(&self.rules());
        let before = rules.predicate;
        let either =
            move |origin: &str| before.as_ref().is_some_and(|before| before(origin)) || predicate(origin);
        Rules { predicate: Some(Arc::new(either)), ..rules }.into()
    }

    /// Allows what `other` allows from now on, in all clones. Open connections stay.
    pub fn replace(&self, other: &Self) {
        let rules = other.rules();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// Returns whether every page may connect.
    pub fn allows_any(&self) -> bool {
        self.rules().any
    }

    /// Returns whether a page of `origin` may connect to the server at `host` (the request's headers).
    pub fn allow(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        let rules = self.rules();
        rules.trust(origin, host, false) || rules.allow_any(origin)
    }

    /// The page that has made a request. Several `Origin` headers that differ are those of no browser, and foreign.
    pub fn page<'a>(&self, request: &'a Handshake) -> Page<'a> {
        let mut origins = request.header_all("Origin").filter(|origin| !origin.is_empty());
        let Some(origin) = origins.next() else {
            // Images and scripts of other sites are asked for without `Origin`, but with this (W3C Fetch Metadata).
            let site = request.header("Sec-Fetch-Site");
            let foreign = matches!(site, Some("cross-site" | "same-site"));
            return if foreign { Page::Foreign(None) } else { Page::Own };
        };
        if let Some(other) = origins.find(|other| *other != origin) {
            return Page::Foreign(Some(other));
        }
        let mut hosts = request.header_all("Host");
        let host = hosts.next().filter(|host| hosts.all(|other| other == *host));
        let rules = self.rules();
        if rules.trust(origin, host, request.is_over_tls()) {
            Page::Trusted(origin)
        } else if rules.allow_any(origin) {
            Page::Any(origin)
        } else {
            Page::Foreign(Some(origin))
        }
    }

    /// Returns whether a request may be logged in by a cookie, which its browser sends whatever page asks: no page of another
    /// origin has made it, or one that is named. [`Self::allows_any`] names nobody.
    pub fn trusts_cookies(&self, request: &Handshake) -> bool {
        // The browser's word, which no page can change: true behind proxies that change `Host`, too.
        request.header("Sec-Fetch-Site") == Some("same-origin")
            || matches!(self.page(request), Page::Own | Page::Trusted(_))
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Rules {
    fn trust(&self, text: &str, host: Option<&str>, over_tls: bool) -> bool {
        // Browsers send ASCII.
        let origin = Some(text).filter(|text| text.is_ascii()).and_then(Origin::parse);
        let known = origin.is_some_and(|origin| {
            self.exact.contains(&origin)
                || self.parents.iter().any(|parent| is_subdomain(&origin, parent))
                || host.is_some_and(|host| origin.is_of_host(host, over_tls))
        });
        known || self.predicate.as_ref().is_some_and(|predicate| predicate(text))
    }

    fn allow_any(&self, text: &str) -> bool {
        self.any && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

/// Returns whether an origin's host has whole labels in front of the parent's.
fn is_subdomain(origin: &Origin, parent: &Origin) -> bool {
    let labels = origin.host.strip_suffix(&parent.host).and_then(|labels| labels.strip_suffix('.'));
    (&origin.scheme, origin.port) == (&parent.scheme, parent.port)
        && labels.is_some_and(|labels| labels.split('.').all(|label| !label.is_empty()))
}

impl From<Rules> for AllowedOrigins {
    fn from(rules: Rules) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(rules))))
    }
}

impl PartialEq for AllowedOrigins {
    /// Compares the lists; predicates are equal to themselves only.
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.rules(), other.rules());
        let predicates = match (&a.predicate, &b.predicate) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        predicates && (a.any, &a.exact, &a.parents) == (b.any, &b.exact, &b.parents)
    }
}

impl Eq for AllowedOrigins {}

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
        let rules = self.rules();
        f.debug_struct("AllowedOrigins")
            .field("any", &rules.any)
            .field("exact", &rules.exact)
            .field("parents", &rules.parents)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Transport;

    #[test]
    fn only_the_servers_own_pages_and_the_listed_ones_connect() {
        let own = AllowedOrigins::same_origin();
        let listed: AllowedOrigins = "https://app.example.com, http://localhost:5173".parse().unwrap();
        let any = AllowedOrigins::new(["*"]).unwrap();
        for (allowed, origin, host, ok) in [
            (&own, None, Some("a.com"), true),
            (&own, Some("http://a.com"), Some("a.com"), true),
            (&own, Some("https://a.com"), Some("a.com"), true),
            (&own, Some("https://a.com"), Some("a.com:443"), true),
            (&own, Some("https://a.com:443"), Some("a.com"), true),
            (&own, Some("http://A.com:8080"), Some("a.COM:8080"), true),
            (&own, Some("http://127.0.0.1:8080"), Some("localhost:8080"), true),
            (&own, Some("http://[::1]:8080"), Some("127.0.0.1:8080"), true),
            (&own, Some("http://[::1]:8080"), Some("[0:0::1]:8080"), true),
            (&own, Some("https://xn--bcher-kva.example"), Some("xn--bcher-kva.example"), true),
            (&own, Some("http://127.0.0.2:8080"), Some("127.0.0.1:8080"), false),
            (&own, Some("http://localhost:5173"), Some("localhost:8080"), false),
            (&own, Some("http://a.com"), Some("a.com:8080"), false),
            (&own, Some("http://a.com:443"), Some("a.com"), false),
            (&own, Some("http://a.com."), Some("a.com"), false),
            (&own, Some("http://evil.com"), Some("a.com"), false),
            (&own, Some("http://a.com.evil.com"), Some("a.com"), false),
            (&own, Some("http://evil.com/a.com"), Some("a.com"), false),
            (&own, Some("http://x@a.com"), Some("a.com"), false),
            (&own, Some("http://a.com"), Some("x@a.com"), false),
            (&own, Some("null"), Some("a.com"), false),
            (&own, Some("null"), Some("null"), false),
            (&own, Some(""), Some(""), false),
            (&own, Some("http://a.com"), None, false),
            (&own, Some("https://bücher.example"), Some("xn--bcher-kva.example"), false),
            (&listed, Some("https://APP.example.com"), Some("api.example.com"), true),
            (&listed, Some("http://localhost:5173"), Some("localhost:8080"), true),
            (&listed, Some("http://app.example.com"), Some("api.example.com"), false),
            (&listed, Some("https://app.example.com:8443"), Some("api.example.com"), false),
            (&any, Some("null"), Some("a.com"), true),
            (&any, Some("https://\u{fffd}.com"), Some("a.com"), false),
            (&any, Some(""), Some("a.com"), false),
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
        let allowed = AllowedOrigins::new(["https://*.Example.com:443", "http://*.a.test:8080"]).unwrap();
        for (origin, ok) in [
            ("https://app.example.com", true),
            ("https://app.example.com:443", true),
            ("https://a.b.EXAMPLE.com", true),
            ("https://example.com", false),
            ("https://.example.com", false),
            ("https://evilexample.com", false),
            ("https://a..example.com", false),
            ("https://app.example.com.", false),
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
        let allowed = allowed.or(|origin| origin == "app://tenant-8");
        assert!(allowed.allow(Some("app://tenant-7"), None) && allowed.allow(Some("app://tenant-8"), None));
        assert!(!allowed.allow(Some("app://tenant-9"), None));
    }

    #[test]
    fn text_that_no_browser_sends_is_refused_by_name() {
        for bad in [
            "",
            "null",
            "app.example.com",
            "https://",
            "https://app.example.com/",
            "https://user@app.example.com",
            "https://*",
            "https://*.",
            "https://*.*.example.com",
            "https://a*.example.com",
            "https://app.*.com",
            "https://*.127.0.0.1",
            "https://*.[::1]",
            "*.example.com",
            "**",
        ] {
            assert_eq!(AllowedOrigins::new([bad]).unwrap_err(), OriginError(bad.to_owned()));
        }
    }

    #[test]
    fn the_page_behind_a_request_is_told_by_all_of_its_headers() {
        let page = |allowed: &AllowedOrigins, headers: &[(&str, &str)], over_tls: bool| {
            let headers =
                [("host", "a.com")].iter().chain(headers).map(|(name, value)| (*name, value.as_bytes()));
            let request = Handshake::new(Transport::new("sse"), "", headers, None);
            let request = if over_tls { request.over_tls() } else { request };
            format!("{:?}", allowed.page(&request))
        };
        let (own, any) = (AllowedOrigins::same_origin(), AllowedOrigins::new(["*"]).unwrap());
        for (headers, over_tls, expected) in [
            (vec![], false, "Own"),
            (vec![("origin", "")], false, "Own"),
            (vec![("sec-fetch-site", "same-origin")], false, "Own"),
            (vec![("sec-fetch-site", "none")], false, "Own"),
            (vec![("sec-fetch-site", "cross-site")], false, "Foreign(None)"),
            (vec![("sec-fetch-site", "same-site")], false, "Foreign(None)"),
            (vec![("origin", "http://a.com")], false, r#"Trusted("http://a.com")"#),
            (vec![("origin", "http://a.com")], true, r#"Foreign(Some("http://a.com"))"#),
            (vec![("origin", "https://a.com")], true, r#"Trusted("https://a.com")"#),
            (vec![("origin", "http://a.com"); 2], false, r#"Trusted("http://a.com")"#),
            (vec![("origin", "http://a.com"), ("origin", "http://b")], false, r#"Foreign(Some("http://b"))"#),
            (
                vec![("origin", "http://b"), ("origin", "http://a.com")],
                false,
                r#"Foreign(Some("http://a.com"))"#,
            ),
            (vec![("origin", "http://a.com"), ("host", "b")], false, r#"Foreign(Some("http://a.com"))"#),
            (vec![("origin", "null")], false, r#"Foreign(Some("null"))"#),
        ] {
            assert_eq!(page(&own, &headers, over_tls), expected, "{headers:?}");
        }
        assert_eq!(page(&any, &[("origin", "http://b")], false), r#"Any("http://b")"#);
        assert_eq!(page(&any, &[("origin", "http://a.com")], false), r#"Trusted("http://a.com")"#);
    }

    #[test]
    fn a_list_is_replaced_in_all_clones() {
        let allowed = AllowedOrigins::new(["https://a"]).unwrap();
        let clone = allowed.clone();
        allowed.replace(&AllowedOrigins::new(["https://b"]).unwrap());
        assert!(clone.allow(Some("https://b"), None) && !clone.allow(Some("https://a"), None));
        assert_eq!(clone, AllowedOrigins::new(["https://b"]).unwrap());
    }

    #[test]
    fn a_list_or_a_text_of_a_configuration_is_read() {
        let read = |json: &str| serde_json::from_str::<AllowedOrigins>(json);
        for json in [r#"["http://A:1", "https://b"]"#, r#""http://a:1, https://b""#] {
            assert_eq!(read(json).unwrap(), AllowedOrigins::new(["http://a:1", "https://b"]).unwrap());
        }
        assert_eq!(read("[]").unwrap(), AllowedOrigins::same_origin());
        assert!(read(r#"["http://a/"]"#).unwrap_err().to_string().starts_with("`http://a/` is neither"));
        assert!(read("7").is_err());
    }
}

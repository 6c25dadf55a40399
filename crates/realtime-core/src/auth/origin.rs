//! [`Origin`]: scheme, host and port of a web page.

use std::net::Ipv4Addr;

use url::Url;

/// Scheme, host and port, in the form that browsers send: lower case, a domain in Punycode, no default port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) scheme: String,
    pub(super) host: String,
    /// `None` is the scheme's default.
    pub(super) port: Option<u16>,
}

impl Origin {
    /// Parses `scheme://host[:port]` as browsers do (WHATWG URL). With a user, a path or anything else it is no origin.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        // A URL may have more, and its parser skips or decodes some characters.
        let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        let in_authority =
            |char: char| !char.is_whitespace() && !char.is_control() && !r"/\?#@%*".contains(char);
        if !scheme.bytes().all(in_scheme)
            || !authority.chars().all(in_authority)
            || !has_plain_port(authority)
        {
            return None;
        }
        let url = Url::parse(text).ok()?;
        let host = url.host_str().filter(|host| !host.is_empty())?;
        Some(Self { scheme: url.scheme().to_owned(), host: host.to_ascii_lowercase(), port: url.port() })
    }

    /// Returns whether the host is a name, not an address.
    pub(super) fn is_named(&self) -> bool {
        !self.host.starts_with('[') && self.host.parse::<Ipv4Addr>().is_err()
    }

    /// Returns whether a page of this origin came from the server that a request names in `Host`. The scheme is that of the
    /// page, since a proxy may terminate TLS; a server that terminates it itself has pages of `https` only.
    pub(super) fn is_of_host(&self, host: &str, over_tls: bool) -> bool {
        let scheme = if over_tls { "https" } else { &self.scheme };
        let Some(own) = Self::parse(&format!("{scheme}://{host}")) else { return false };
        self.scheme == scheme && self.machine() == own.machine() && self.port == own.port
    }

    /// The host, with one name for this machine.
    fn machine(&self) -> &str {
        match self.host.as_str() {
            "127.0.0.1" | "[::1]" => "localhost",
            host => host,
        }
    }
}

/// Returns whether a port, if there is one, is a number without further zeros.
fn has_plain_port(authority: &str) -> bool {
    let behind_address = authority.rfind(']').unwrap_or(0);
    match authority[behind_address..].split_once(':') {
        Some((_, port)) => port.parse::<u16>().is_ok_and(|number| number.to_string() == port),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_one_form_however_it_is_written() {
        for (text, sent) in [
            ("https://app.example.com", "https://app.example.com"),
            ("HTTPS://App.Example.com:443", "https://app.example.com"),
            ("http://app.example.com:80", "http://app.example.com"),
            ("http://app.example.com:443", "http://app.example.com:443"),
            ("https://Bücher.example", "https://xn--bcher-kva.example"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
            ("http://[::ffff:127.0.0.1]", "http://[::ffff:7f00:1]"),
            ("http://127.1", "http://127.0.0.1"),
            ("https://app.example.com.", "https://app.example.com."),
            ("tauri://LocalHost", "tauri://localhost"),
            ("weapp://wechat-game-runtime", "weapp://wechat-game-runtime"),
        ] {
            let Origin { scheme, host, port } = Origin::parse(text).unwrap();
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            assert_eq!(format!("{scheme}://{host}{port}"), sent);
        }
    }

    #[test]
    fn what_is_more_or_less_than_an_origin_is_none() {
        for text in [
            "",
            "null",
            "a.com",
            "a.com:443",
            "//a.com",
            "https:a.com",
            "https:/a.com",
            "https://",
            "https://:443",
            "https://a.com/",
            "https://a.com/path",
            "https://a.com?x",
            "https://a.com#x",
            "https://a.com\\x",
            "https://a.com:",
            "https://a.com:0443",
            "https://a.com:+443",
            "https://a.com:99999",
            "https://user@a.com",
            "https://user:secret@a.com",
            "https://@a.com",
            "https://a.com:80@b.com",
            "https://a b.com",
            "https://a.com ",
            " https://a.com",
            "https://a\t.com",
            "ht\ttps://a.com",
            "https://%61.com",
            "https://a.com%00",
            "https://a..com.:x",
            "https://[::1",
            "https://::1",
            "https://[::1]x",
            "https://1.2.3.256",
            "https://*",
            "https://*.a.com",
            "https://a\u{fffd}.com",
            "https://a.com,https://b.com",
            "https://a<b.com",
            "file://",
            "file:///etc/passwd",
        ] {
            assert_eq!(Origin::parse(text), None, "{text:?}");
        }
    }
}

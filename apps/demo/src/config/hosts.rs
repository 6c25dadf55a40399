//! [`AllowedHosts`]: the names of this server.

use realtime_core::auth::AllowedOrigins;
use serde::{Deserialize, Deserializer, de};

/// Host names and addresses that requests may name in `Host`; empty for any.
///
/// A page whose name a foreign name server resolves to this server's address (DNS rebinding) names its own host there, and so
/// is of the same origin for browser and server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Option<AllowedOrigins>);

impl AllowedHosts {
    fn new(hosts: &[String]) -> Result<Self, String> {
        if hosts.is_empty() {
            return Ok(Self(None));
        }
        let names = hosts.iter().map(|host| {
            let has_port = host_of(host) != host;
            (!has_port && host != "*").then(|| format!("http://{host}"))
        });
        let names = names.zip(hosts).map(|(name, host)| {
            let name = name.filter(|name| AllowedOrigins::new([name]).is_ok());
            name.ok_or_else(|| {
                format!("`{host}` is no host name or address without a port, nor `*.` and a name")
            })
        });
        let names = names.collect::<Result<Vec<_>, _>>()?;
        Ok(Self(Some(AllowedOrigins::new(names).map_err(|error| error.to_string())?)))
    }

    /// Returns whether a request that names this host, with or without a port, is for this server.
    pub fn allow(&self, host: Option<&str>) -> bool {
        let Some(names) = &self.0 else { return true };
        host.is_some_and(|host| names.allow(Some(&format!("http://{}", host_of(host))), None))
    }
}

/// A host without its port. An IPv6 address in brackets has colons of its own.
fn host_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

impl<'de> Deserialize<'de> for AllowedHosts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&Vec::<String>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{load, refused};

    #[test]
    fn only_the_servers_names_are_allowed_with_any_port() {
        let hosts =
            load(Some("server: {allowedHosts: 'push.example.com, *.app.example, 10.0.0.1, [::1]'}"), &[]);
        let hosts = hosts.server.allowed_hosts;
        for (host, allowed) in [
            ("push.example.com", true),
            ("PUSH.example.com:8443", true),
            ("a.b.app.example", true),
            ("10.0.0.1:80", true),
            ("[::1]:80", true),
            ("[0::1]", true),
            ("app.example", false),
            ("push.example.com.", false),
            ("push.example.com.evil.example", false),
            ("evil.example", false),
            ("x@push.example.com", false),
            ("push.example.com/x", false),
            ("127.0.0.1", false),
            ("", false),
        ] {
            assert_eq!(hosts.allow(Some(host)), allowed, "{host}");
        }
        assert!(!hosts.allow(None));
    }

    #[test]
    fn without_names_every_name_is_allowed() {
        let hosts = load(None, &[]).server.allowed_hosts;
        assert!(hosts.allow(Some("evil.example")) && hosts.allow(None));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in ["*", "http://a.com", "a.com:443", "a.com/", "a b.com", "[::1]:80", "*.*.a.com"] {
            assert_eq!(
                refused(None, &[("REALTIME__SERVER__ALLOWEDHOSTS", bad)]),
                format!(
                    "server.allowedHosts (environment variable REALTIME__SERVER__ALLOWEDHOSTS): \
                     `{bad}` is no host name or address without a port, nor `*.` and a name"
                )
            );
        }
    }
}

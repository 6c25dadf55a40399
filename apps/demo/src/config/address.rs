//! [`Address`]: a host and a port to listen on.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A host and a port to listen on, written `host:port`; an IPv6 address stands in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// An IP address or a host name, without brackets.
    pub host: String,
    /// The TCP port; 0 takes any free one.
    pub port: u16,
}

impl Address {
    /// Returns whether the two addresses cannot both be listened on. Host names are not looked up, so two names of one
    /// address are found at the start only.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.port != 0
            && self.port == other.port
            && match (self.ip(), other.ip()) {
                (Some(one), Some(two)) => one == two || contains(one, two) || contains(two, one),
                (Some(ip), None) => other.may_be(ip),
                (None, Some(ip)) => self.may_be(ip),
                (None, None) => self.host.eq_ignore_ascii_case(&other.host),
            }
    }

    fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Returns whether a host name is known to be covered by listening on `ip`.
    fn may_be(&self, ip: IpAddr) -> bool {
        let loopback = ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST;
        ip.is_unspecified() || (loopback && self.host.eq_ignore_ascii_case("localhost"))
    }
}

/// Returns whether listening on `all` covers `ip`; on Linux `::` covers the IPv4 addresses too.
fn contains(all: IpAddr, ip: IpAddr) -> bool {
    all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4())
}

fn is_no_part_of_a_name(c: char) -> bool {
    c.is_whitespace() || c.is_control() || ":/[]@".contains(c)
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("`{text}` is no host:port, such as `127.0.0.1:9081`");
        let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(ip) => ip.parse::<Ipv6Addr>().map_err(|_| malformed())?.to_string(),
            None if host.is_empty() || host.contains(is_no_part_of_a_name) => return Err(malformed()),
            None => host.to_owned(),
        };
        Ok(Self { host, port: port.parse().map_err(|_| malformed())? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{load, refused};

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for (text, host, port) in [
            ("127.0.0.1:9081", "127.0.0.1", 9081),
            ("0.0.0.0:0", "0.0.0.0", 0),
            ("[::1]:9081", "::1", 9081),
            ("localhost:1", "localhost", 1),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "",
            "9081",
            ":9081",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:http",
            "127.0.0.1:70000",
            "::1:9081",
            "[localhost]:1",
            "[::1]",
            "a b:1",
            "http://127.0.0.1:9081",
            "user@host:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_that_cannot_both_be_listened_on_overlap() {
        for (one, two, overlap) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:1", "0.0.0.0:1", true),
            ("[::1]:1", "0.0.0.0:1", false),
            ("127.0.0.1:1", "[::]:1", true),
            ("[::1]:1", "[::]:1", true),
            ("localhost:1", "127.0.0.1:1", true),
            ("LocalHost:1", "[::1]:1", true),
            ("localhost:1", "127.0.0.2:1", false),
            ("node-1:1", "0.0.0.0:1", true),
            ("node-1:1", "NODE-1:1", true),
            ("node-1:1", "10.0.0.1:1", false),
        ] {
            let (one, two): (Address, Address) = (one.parse().unwrap(), two.parse().unwrap());
            assert_eq!((one.overlaps(&two), two.overlaps(&one)), (overlap, overlap), "{one} {two}");
        }
    }

    #[test]
    fn the_internal_address_is_absent_or_another_than_the_public_one() {
        let variable = "REALTIME__SERVER__INTERNAL";
        assert_eq!(load(None, &[]).server.internal, None);
        let address = load(None, &[(variable, "127.0.0.1:9081")]).server.internal;
        assert_eq!(address, Some(Address { host: "127.0.0.1".into(), port: 9081 }));
        for text in ["127.0.0.1:8080", "localhost:8080", "0.0.0.0:8080"] {
            assert_eq!(
                refused(None, &[(variable, text)]),
                format!(
                    "server.internal (environment variable {variable}): `{text}` and the public address \
                     `127.0.0.1:8080` (server.host, server.port) cannot both be listened on"
                )
            );
        }
        for text in ["", "9081"] {
            assert_eq!(
                refused(None, &[(variable, text)]),
                format!(
                    "server.internal (environment variable {variable}): `{text}` is no host:port, such as \
                     `127.0.0.1:9081`"
                )
            );
        }
        load(Some("server: {port: 0, internal: '127.0.0.1:0'}"), &[]);
    }
}

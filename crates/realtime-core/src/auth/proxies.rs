//! [`TrustedProxies`]: the proxies whose `X-Forwarded-For` entries are trusted.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error};

/// Networks of the reverse proxies in front of this server. By default there are none, and a client's address is that
/// of its socket, since any client can send the header `X-Forwarded-For`.
///
/// It deserializes from a list of networks (`10.0.0.0/8`) and addresses (`::1`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

/// Error of a text that is neither a network nor an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an IP address nor a network such as 10.0.0.0/8")]
pub struct TrustedProxiesError(String);

impl TrustedProxies {
    /// Trusts these networks and addresses.
    ///
    /// # Errors
    /// The first entry that is neither.
    pub fn new<T: AsRef<str>>(networks: impl IntoIterator<Item = T>) -> Result<Self, TrustedProxiesError> {
        let parse = |text: &str| {
            let address = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
            address.or_else(|_| text.parse()).map_err(|_| TrustedProxiesError(text.to_owned()))
        };
        networks.into_iter().map(|network| parse(network.as_ref().trim())).collect::<Result<_, _>>().map(Self)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The address of the client behind a peer. Each proxy appends the address that it forwards for to
    /// `X-Forwarded-For`. The headers are read from the end while the writer of an entry is trusted.
    pub(crate) fn client<'a>(&self, peer: IpAddr, forwarded: impl Iterator<Item = &'a str>) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        let entries: Vec<&str> = forwarded.flat_map(|header| header.split(',')).collect();
        for entry in entries.into_iter().rev() {
            // An entry that is not an address ends the trusted part.
            let Some(before) = address(entry.trim()) else { break };
            client = before;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }
}

/// The address of an entry, which may have a port.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    let address = bare.parse().ok().or_else(|| Some(entry.parse::<SocketAddr>().ok()?.ip()))?;
    Some(address.to_canonical())
}

impl<'de> Deserialize<'de> for TrustedProxies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::<String>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let proxies = TrustedProxies::new(["127.0.0.1", "10.0.0.0/8", "::1"]).unwrap();
        proxies.client(peer.parse().unwrap(), forwarded.iter().copied()).to_string()
    }

    #[test]
    fn only_entries_of_trusted_proxies_are_used() {
        assert_eq!(client("192.0.2.1", &["198.51.100.1"]), "192.0.2.1", "the peer is not a trusted proxy");
        assert_eq!(client("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("127.0.0.1", &["203.0.113.9, 198.51.100.1, 10.1.2.3"]), "198.51.100.1");
        assert_eq!(client("127.0.0.1", &["203.0.113.9", "198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("127.0.0.1", &["198.51.100.1, nonsense, 10.1.2.3"]), "10.1.2.3");
        assert_eq!(client("::ffff:127.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(client("::1", &["198.51.100.1:80"]), "198.51.100.1");
    }

    #[test]
    fn an_invalid_entry_is_named_in_the_error() {
        let error = TrustedProxies::new(["10.0.0.0/8", "localhost"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"localhost\" is neither an IP address nor a network such as 10.0.0.0/8"
        );
    }
}

//! [`Endpoint`]: an HTTP address to speak to.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, bail};

use crate::template::Template;

/// An address and the path of the requests there.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// `host:port`, as the URL has it.
    pub(crate) host: String,
    /// Path and query.
    pub(crate) path: Template,
}

/// The hosts that may be put under load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Loopback,
    /// All hosts: the user has confirmed that they are theirs.
    Anywhere,
}

impl Endpoint {
    /// Reads `http://host[:port]/path` (or `ws://`), looks the host up, and checks that it may be put under load.
    pub(crate) fn parse(url: &str, reach: Reach) -> anyhow::Result<Self> {
        let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("ws://")) else {
            bail!("{url:?}: expected http://host:port/path; there is no TLS here")
        };
        let split = rest.find('/').unwrap_or(rest.len());
        let (host, path) = rest.split_at(split);
        let path = if path.is_empty() { "/" } else { path };
        let port = if host.rfind(':') > host.rfind(']') { "" } else { ":80" };
        let mut addresses = format!("{host}{port}")
            .to_socket_addrs()
            .with_context(|| format!("{url:?}: failed to look up {host:?}"))?;
        let address = addresses.next().with_context(|| format!("{url:?}: {host:?} has no address"))?;
        if reach == Reach::Loopback && !address.ip().is_loopback() {
            bail!(
                "{url:?}: {} is not this machine; a load on somebody else's host is an attack. \
                 If the host is yours, pass --i-own-this-host",
                address.ip()
            );
        }
        let path = path.parse().with_context(|| format!("{url:?}"))?;
        Ok(Self { address, host: host.to_owned(), path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let endpoint = Endpoint::parse("http://127.0.0.1:8080/a?b={token}", Reach::Loopback).unwrap();
        assert_eq!(endpoint.address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(endpoint.host, "127.0.0.1:8080");
        for (url, address) in [
            ("ws://[::1]:1/x", "[::1]:1"),
            ("http://[::1]", "[::1]:80"),
            ("http://127.0.0.1/", "127.0.0.1:80"),
        ] {
            assert_eq!(Endpoint::parse(url, Reach::Loopback).unwrap().address, address.parse().unwrap());
        }
    }

    #[test]
    fn only_this_machine_is_put_under_load() {
        let error = Endpoint::parse("http://192.0.2.1:80/", Reach::Loopback).unwrap_err().to_string();
        assert!(error.contains("--i-own-this-host"), "{error}");
        assert!(Endpoint::parse("http://192.0.2.1:80/", Reach::Anywhere).is_ok());
        assert!(Endpoint::parse("https://127.0.0.1/", Reach::Loopback).is_err());
    }
}

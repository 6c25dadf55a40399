//! [`Spec`]: another server, as the user describes it.

use std::str::FromStr;

use anyhow::Context;
use serde::Deserialize;

use crate::{
    endpoint::{Endpoint, Reach},
    target::{Publish, Target},
};

/// Another server to compare with. `{user}`, `{token}`, `{topic}` and `{message}` are replaced in URLs, headers and texts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    /// Its name in the report.
    name: String,
    /// The URL for WebSockets.
    ws: Option<String>,
    /// The URL for event streams.
    sse: Option<String>,
    /// The first text of a WebSocket client.
    hello: Option<String>,
    /// The URL of the publish API.
    publish: String,
    #[serde(default = "post")]
    method: String,
    /// Headers of the publish request, such as `Authorization: apikey secret`.
    #[serde(default)]
    headers: Vec<String>,
    /// The body of the publish request.
    #[serde(default = "message")]
    body: String,
    /// Its processes.
    #[serde(default)]
    pids: Vec<u32>,
}

fn post() -> String {
    "POST".into()
}

fn message() -> String {
    "{message}".into()
}

impl Spec {
    /// Converts the description to a target.
    pub(crate) fn target(&self, reach: Reach) -> anyhow::Result<Target> {
        let Self { name, ws, sse, hello, publish, method, headers, body, pids } = self;
        let endpoint =
            |what: &str, url: &str| Endpoint::parse(url, reach).with_context(|| format!("{name}: {what}"));
        let broken = headers.iter().chain([method]).find(|text| text.contains(['\r', '\n']));
        if let Some(broken) = broken {
            anyhow::bail!("{name}: {broken:?} has a line break");
        }
        Ok(Target {
            name: name.clone(),
            websocket: ws.as_deref().map(|url| endpoint("ws", url)).transpose()?,
            sse: sse.as_deref().map(|url| endpoint("sse", url)).transpose()?,
            hello: hello.as_deref().map(str::parse).transpose().with_context(|| format!("{name}: hello"))?,
            publish: Publish {
                endpoint: endpoint("publish", publish)?,
                method: method.clone(),
                headers: headers.clone(),
                body: body.parse().with_context(|| format!("{name}: body"))?,
            },
            pids: pids.clone(),
        })
    }
}

impl FromStr for Spec {
    type Err = String;

    /// Reads a file of TOML.
    fn from_str(file: &str) -> Result<Self, String> {
        let spec = std::fs::read_to_string(file)
            .context("failed to read the file")
            .and_then(|text| Ok(toml::from_str(&text)?));
        spec.map_err(|error| format!("{error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Spec, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_description_is_a_target() {
        let spec = parse(
            r#"
            name = "other"
            ws = "ws://127.0.0.1:1/ws?u={user}"
            publish = "http://127.0.0.1:1/p"
            headers = ["X-Key: a,b", "Y: z"]
            body = '{"channel":"bench","data":{message}}'
            pids = [1, 2]
            "#,
        );
        let target = spec.unwrap().target(Reach::Loopback).unwrap();
        assert_eq!((target.publish.method.as_str(), target.pids.as_slice()), ("POST", &[1, 2][..]));
        assert_eq!(target.publish.headers, ["X-Key: a,b", "Y: z"]);
        assert!(target.websocket.is_some() && target.sse.is_none());
    }

    #[test]
    fn an_error_names_the_problem() {
        for (text, problem) in [
            ("name = 'x'", "missing field `publish`"),
            ("nam = 'x'", "unknown field `nam`"),
            ("name = 'x'\npublish = 'http://127.0.0.1/'\npids = ['one']", "invalid type"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
        assert!("missing.toml".parse::<Spec>().unwrap_err().contains("failed to read the file"));
        let spec = parse("name = 'x'\npublish = 'http://192.0.2.1/'").unwrap();
        let error = format!("{:#}", spec.target(Reach::Loopback).unwrap_err());
        assert!(error.starts_with("x: publish: "), "{error}");
    }
}

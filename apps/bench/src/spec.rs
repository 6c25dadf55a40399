//! [`Spec`]: another server, as the user describes it.

use std::{path::Path, str::FromStr};

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

/// The keys of the short form. `header` and `pid` may be given several times.
const KEYS: [&str; 9] = ["name", "ws", "sse", "hello", "publish", "method", "header", "body", "pid"];

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

    /// Parses `key=value,key=value`. A comma is a separator only before a key, so values may contain commas.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut table = toml::Table::new();
        let (mut headers, mut pids) = (toml::value::Array::new(), toml::value::Array::new());
        let key =
            |text: &str| text.split_once('=').map(|(key, _)| key).filter(|key| KEYS.contains(key)).is_some();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest
                .match_indices(',')
                .map(|(at, _)| at)
                .find(|&at| key(&rest[at + 1..]))
                .unwrap_or(rest.len());
            let field = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            let (key, value) = field
                .split_once('=')
                .filter(|(key, _)| KEYS.contains(key))
                .with_context(|| format!("{field:?}: expected one of {} and =", KEYS.join(", ")))?;
            match key {
                "header" => headers.push(value.into()),
                "pid" => {
                    let pid: i64 = value.parse().with_context(|| format!("pid {value:?}"))?;
                    pids.push(pid.into());
                }
                _ => drop(table.insert(key.into(), value.into())),
            }
        }
        table.insert("headers".into(), headers.into());
        table.insert("pids".into(), pids.into());
        Ok(table.try_into()?)
    }
}

impl FromStr for Spec {
    type Err = String;

    /// Reads a file if the text ends with `.toml`, or else parses the short form.
    fn from_str(text: &str) -> Result<Self, String> {
        let spec = if Path::new(text).extension().is_some_and(|ending| ending == "toml") {
            std::fs::read_to_string(text)
                .context("failed to read the file")
                .and_then(|text| Ok(toml::from_str(&text)?))
        } else {
            Self::parse(text)
        };
        spec.map_err(|error| format!("{error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_equals_toml() {
        let short = r#"name=other,ws=ws://127.0.0.1:1/ws?u={user},publish=http://127.0.0.1:1/p,header=X-Key: a,b,header=Y: z,body={"channel":"bench","data":{message}},pid=1,pid=2"#;
        let toml = r#"
            name = "other"
            ws = "ws://127.0.0.1:1/ws?u={user}"
            publish = "http://127.0.0.1:1/p"
            headers = ["X-Key: a,b", "Y: z"]
            body = '{"channel":"bench","data":{message}}'
            pids = [1, 2]
        "#;
        let spec: Spec = short.parse().unwrap();
        assert_eq!(spec, toml::from_str(toml).unwrap());
        let target = spec.target(Reach::Loopback).unwrap();
        assert_eq!((target.publish.method.as_str(), target.pids.as_slice()), ("POST", &[1, 2][..]));
        assert!(target.websocket.is_some() && target.sse.is_none());
    }

    #[test]
    fn an_error_names_the_problem() {
        for (text, problem) in [
            ("name=x", "missing field `publish`"),
            ("nam=x", r#""nam=x": expected one of name, ws"#),
            ("name=x,publish=http://127.0.0.1/,pid=one", r#"pid "one""#),
            ("missing.toml", "failed to read the file"),
        ] {
            let error = text.parse::<Spec>().unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
        let spec: Spec = "name=x,publish=http://192.0.2.1/".parse().unwrap();
        let error = format!("{:#}", spec.target(Reach::Loopback).unwrap_err());
        assert!(error.starts_with("x: publish: "), "{error}");
    }
}

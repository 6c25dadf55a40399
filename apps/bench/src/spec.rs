//! [`Spec`]: another server, as the user describes it.

use std::{collections::BTreeMap, path::Path, str::FromStr};

use anyhow::{Context, bail, ensure};
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
    /// Texts of the server that a WebSocket client answers, each with its answer.
    #[serde(default)]
    replies: BTreeMap<String, String>,
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
    /// The program to start and its arguments. `{port}` in them and in the URLs is a free port.
    #[serde(default)]
    start: Vec<String>,
    /// Its processes, if it is running already.
    #[serde(default)]
    pids: Vec<u32>,
}

/// The place of a free port, filled before the other places.
const PORT: &str = "{port}";

fn post() -> String {
    "POST".into()
}

fn message() -> String {
    "{message}".into()
}

impl Spec {
    /// Its name in the report.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The key of a transport that a load needs and that is not described.
    pub(crate) fn lacks(&self, ws: bool, sse: bool) -> Option<&'static str> {
        let lacks = |needed: bool, url: &Option<String>| needed && url.is_none();
        lacks(ws, &self.ws).then_some("ws").or_else(|| lacks(sse, &self.sse).then_some("sse"))
    }

    /// The program to start and its arguments; none for a server that is running already.
    ///
    /// # Errors
    /// If there are processes beside a program, or places of a port without one.
    pub(crate) fn program(&self) -> anyhow::Result<Option<(&Path, &[String])>> {
        let Self { name, ws, sse, publish, start, pids, .. } = self;
        let Some((program, arguments)) = start.split_first() else {
            let urls = [Some(publish), ws.as_ref(), sse.as_ref()];
            if let Some(url) = urls.into_iter().flatten().find(|url| url.contains(PORT)) {
                bail!("{name}: {url:?} has a {PORT}, but there is no `start`");
            }
            return Ok(None);
        };
        ensure!(pids.is_empty(), "{name}: `pids` are those of a running server, and `start` starts one");
        Ok(Some((Path::new(program), arguments)))
    }

    /// The description with this port in each place of one.
    pub(crate) fn at_port(&self, port: u16) -> Self {
        let port = port.to_string();
        let fill = |text: &String| text.replace(PORT, &port);
        let mut filled = self.clone();
        filled.ws = self.ws.as_ref().map(fill);
        filled.sse = self.sse.as_ref().map(fill);
        filled.publish = fill(&self.publish);
        filled.start = self.start.iter().map(fill).collect();
        filled
    }

    /// Converts the description to a target.
    pub(crate) fn target(&self, reach: Reach) -> anyhow::Result<Target> {
        let Self { name, ws, sse, hello, replies, publish, method, headers, body, start: _, pids } = self;
        let endpoint =
            |what: &str, url: &str| Endpoint::parse(url, reach).with_context(|| format!("{name}: {what}"));
        let broken = headers.iter().chain([method]).find(|text| text.contains(['\r', '\n']));
        if let Some(broken) = broken {
            bail!("{name}: {broken:?} has a line break");
        }
        Ok(Target {
            name: name.clone(),
            websocket: ws.as_deref().map(|url| endpoint("ws", url)).transpose()?,
            sse: sse.as_deref().map(|url| endpoint("sse", url)).transpose()?,
            hello: hello.as_deref().map(str::parse).transpose().with_context(|| format!("{name}: hello"))?,
            replies: replies.clone().into_iter().collect(),
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
            ("name = 'x'\npublish = 'http://127.0.0.1/'\nstart = 'one'", "invalid type"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
        assert!("missing.toml".parse::<Spec>().unwrap_err().contains("failed to read the file"));
        let spec = parse("name = 'x'\npublish = 'http://192.0.2.1/'").unwrap();
        let error = format!("{:#}", spec.target(Reach::Loopback).unwrap_err());
        assert!(error.starts_with("x: publish: "), "{error}");
    }

    #[test]
    fn a_free_port_is_put_into_the_program_and_its_urls() {
        let text = "name = 'x'\nws = 'ws://127.0.0.1:{port}/ws'\nsse = 'http://127.0.0.1:{port}/sse'\n\
                    publish = 'http://127.0.0.1:{port}/p'\n";
        let spec = parse(&format!("{text}start = ['serve', '--port={{port}}']")).unwrap().at_port(1234);
        let (program, arguments) = spec.program().unwrap().unwrap();
        assert_eq!((program, arguments), (Path::new("serve"), &["--port=1234".to_owned()][..]));
        let target = spec.target(Reach::Loopback).unwrap();
        for endpoint in [target.websocket, target.sse, Some(target.publish.endpoint)] {
            assert_eq!(endpoint.unwrap().host, "127.0.0.1:1234");
        }
        let refused = |text: &str| parse(text).unwrap().program().unwrap_err().to_string();
        assert!(refused(text).contains("but there is no `start`"));
        assert!(refused(&format!("{text}start = ['serve']\npids = [1]")).starts_with("x: `pids` are those"));
    }
}

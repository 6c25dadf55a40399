//! [`Target`]: a server to put under load.

use anyhow::{Context, ensure};

use crate::{
    endpoint::{Endpoint, Reach},
    template::Template,
};

/// A server: the endpoints of its clients, and the request that publishes a message.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) websocket: Option<Endpoint>,
    pub(crate) sse: Option<Endpoint>,
    /// The first text of a WebSocket client, for servers that require one.
    pub(crate) hello: Option<Template>,
    /// Texts of the server that a WebSocket client answers, each with its answer.
    pub(crate) replies: Vec<(String, String)>,
    pub(crate) publish: Publish,
    /// Its processes on this machine, including their descendants; empty if unknown.
    pub(crate) pids: Vec<u32>,
}

/// The request that publishes a message.
#[derive(Debug, Clone)]
pub(crate) struct Publish {
    pub(crate) endpoint: Endpoint,
    pub(crate) method: String,
    /// Whole lines, such as `X-API-Key: secret`.
    pub(crate) headers: Vec<String>,
    pub(crate) body: Template,
}

/// The transport of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    Sse,
}

/// The paths of a server with realtime's own endpoints.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) websocket: String,
    pub(crate) sse: String,
    pub(crate) publish: String,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            websocket: "/resource/websocket".into(),
            sse: "/resource/sse".into(),
            publish: "/api/publish".into(),
        }
    }
}

impl Target {
    /// Describes a server with realtime's endpoints, at `http://host:port`; its publish API may be at another address.
    pub(crate) fn realtime(
        url: &str,
        api: Option<&str>,
        paths: &Paths,
        key: &str,
        reach: Reach,
    ) -> anyhow::Result<Self> {
        let join = |url: &str, path: &str| format!("{}{path}", url.trim_end_matches('/'));
        let at = |path: &str| Endpoint::parse(&join(url, path), reach);
        ensure!(!key.contains(['\r', '\n']), "the API key has a line break");
        Ok(Self {
            name: "realtime".into(),
            websocket: Some(at(&format!("{}?Authorization={{token:url}}", paths.websocket))?),
            sse: Some(at(&format!("{}?Authorization={{token:url}}", paths.sse))?),
            hello: None,
            replies: Vec::new(),
            publish: Publish {
                endpoint: Endpoint::parse(&join(api.unwrap_or(url), &paths.publish), reach)?,
                method: "POST".into(),
                headers: vec![format!("X-API-Key: {key}"), "Content-Type: application/json".into()],
                body: PUBLISH_BODY.parse()?,
            },
            pids: Vec::new(),
        })
    }

    /// Describes the baseline at `http://host:port`. It has no tokens, so requests name the user and the topic.
    pub(crate) fn baseline(url: &str) -> anyhow::Result<Self> {
        let at =
            |path: &str| Endpoint::parse(&format!("{}{path}", url.trim_end_matches('/')), Reach::Loopback);
        Ok(Self {
            name: "baseline".into(),
            websocket: Some(at("/resource/websocket?user={user}&topic={topic}")?),
            sse: Some(at("/resource/sse?user={user}&topic={topic}")?),
            hello: None,
            replies: Vec::new(),
            publish: Publish {
                endpoint: at("/api/publish")?,
                method: "POST".into(),
                headers: vec!["Content-Type: application/json".into()],
                body: PUBLISH_BODY.parse()?,
            },
            pids: Vec::new(),
        })
    }

    /// Returns the endpoint of a transport.
    pub(crate) fn endpoint(&self, transport: Transport) -> anyhow::Result<&Endpoint> {
        let endpoint = match transport {
            Transport::WebSocket => &self.websocket,
            Transport::Sse => &self.sse,
        };
        endpoint.as_ref().with_context(|| format!("{}: no endpoint for {transport:?} was given", self.name))
    }
}

const PUBLISH_BODY: &str = r#"{{target},"message":"{message:json}"}"#;
